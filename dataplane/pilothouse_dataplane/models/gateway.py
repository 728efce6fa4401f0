"""The model gateway: which target answers a call, and what happens when a provider is down.

::

    router ──▶ response cache ──▶ limits: reserve ──▶ targets, in order ──▶ limits: settle
                 │ known                                │
                 ▼                                      ├─ breaker open, time-out, 429, 5xx, nonsense: the next one
               its events                               ├─ too long: those with larger windows
                                                        ├─ slow, and hedging is on: the next one beside it
                                                        └─ all failed: once more after a wait with jitter

``targets.py`` says the order, ``calling.py`` makes one call. The run's budget is looked at before each target.

A target that fails after it has handed out calls or text is void: ModelRestarted comes before the next target's first
event, and says whether the user has read a part, who must then be told. Where nobody else can answer, what she has read
stands: ModelInterrupted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Protocol

from pilothouse_api.workerconfig import RouteConfig, Tier
from pilothouse_dataplane.core.guard import GuardRegistry
from pilothouse_dataplane.core.messages import ModelRequest, Situation, Usage
from pilothouse_dataplane.core.retry import Backoff, wait_before_retry
from pilothouse_dataplane.models.base import (
    ModelError,
    ModelEvent,
    ModelInterrupted,
    ModelOverflow,
    ModelProvider,
    ModelRateLimited,
    ModelRestarted,
    ModelText,
    ModelToolCall,
    ModelUnavailable,
)
from pilothouse_dataplane.models.calling import Asked, Caller, ModelPassedOver
from pilothouse_dataplane.models.cost import ModelCallRecord, cost_micros, request_tokens
from pilothouse_dataplane.models.hedging import HedgeBudget, hedged
from pilothouse_dataplane.models.limits import Limits, Reservation
from pilothouse_dataplane.models.response_cache import Cached, ResponseCache
from pilothouse_dataplane.models.targets import TIERS, Candidate, Targets, at_least, fitting, larger

_BACKOFF = Backoff(attempts=2, base_seconds=0.2, retry_after_cap_seconds=2.0)
_BROKEN_ANSWERS = 2
"""How often one answer may break off before the user's eyes and begin anew."""
_MAX_COOL_SECONDS = 30.0
"""For how long a target that wants fewer requests is asked last, at most; it is asked where nobody else answers."""
_MAX_FALLBACK = 200
_FOLLOW_SECONDS = 10.0
"""For how long the answer to an equal call that is under way is waited for, at most."""


class Decision(Protocol):
    """What a router says of one call."""

    @property
    def tier(self) -> Tier: ...

    @property
    def reason(self) -> str:
        """A few words."""
        ...

    @property
    def escalated(self) -> bool:
        """Of a cheaper tier's plan that could not be carried out."""
        ...


class Router(Protocol):
    """Says which tier a call needs; pure, and well under a millisecond."""

    @property
    def wants_vector(self) -> bool:
        """Whether it makes use of the question's embedding."""
        ...

    def decide(
        self, situation: Situation | None, failed: Tier | None = None, vector: Sequence[float] | None = None
    ) -> Decision:
        """``failed``: the tier whose plan could not be carried out; ``vector``: the question's embedding."""
        ...


Embed = Callable[[str], Awaitable[Sequence[float] | None]]
"""A text's embedding, of length 1; None where it can't be had now. Bounded in time, and raises nothing."""


class ModelGateway:
    """Calls the models of one route."""

    def __init__(
        self,
        route: RouteConfig,
        providers: Mapping[str, ModelProvider],
        guards: GuardRegistry,
        *,
        clock: Callable[[], float],
        random: Callable[[], float],
        router: Router | None = None,
        limits: Limits | None = None,
        cache: ResponseCache | None = None,
        embed: Embed | None = None,
    ) -> None:
        """``clock``: monotonic seconds; ``random``: uniform in 0..1. ``router`` None: always the default tier.
        ``limits`` None: only the run's own budget bounds it."""
        self._caller = Caller(route.providers, providers, guards, clock)
        self._targets = Targets(route)
        self._router = router
        self._limits = limits
        self._cache = cache
        self._embed = embed
        self._default = route.default_tier
        self._clock = clock
        self._random = random
        self._hedge = HedgeBudget(route.hedge) if route.hedge is not None else None
        self._cool: dict[tuple[str, str], float] = {}
        """When a target that asked for fewer requests may be asked first again, on the clock."""

    async def aclose(self) -> None:
        await self._caller.aclose()
        if self._cache is not None:
            await self._cache.aclose()

    async def stream(
        self,
        request: ModelRequest,
        *,
        deadline: float,
        on_call: Callable[[ModelCallRecord], None],
        budget_micros: int | None = None,
    ) -> AsyncGenerator[ModelEvent, None]:
        """Stream one answer. ``deadline`` is on the gateway's clock; ``on_call`` hears of each call that reached a
        provider; ``budget_micros`` is what the run may still spend, None: no bound.

        Raises ModelError where no target answered: its message names the last reason.
        """
        asked = Asked(request, on_call, request_tokens(request), budget_micros)
        tier = await self._decide(request.situation, asked)
        if self._limits is not None and self._limits.cheap_only:
            tier = self._sparing(tier, asked)
        order = self._order(tier, asked)
        # the wrappers stand here one by one, so that a call without them doesn't pass through empty ones
        if self._cache is not None:
            stream = self._cached(self._cache, tier, order, asked, deadline)
        elif self._limits is not None:
            stream = self._limited(self._limits, tier, order, asked, deadline)
        else:
            stream = self._answer(order, asked, deadline)
        async with aclosing(stream) as events:
            async for event in events:
                yield event

    def _order(self, tier: Tier, asked: Asked) -> Sequence[Candidate]:
        return fitting(self._targets.order(tier, self._random), asked.tokens)

    async def _cached(
        self, cache: ResponseCache, tier: Tier, order: Sequence[Candidate], asked: Asked, deadline: float
    ) -> AsyncGenerator[ModelEvent, None]:
        """An earlier answer to the same call where there is one."""
        began = self._clock()
        key = cache.key((each.target for each in order if each.tier == tier), asked.request)
        # most calls find nothing: what they may take is reserved at the same time, not after another round trip
        reserving = None
        if self._limits is not None and key is not None and not cache.under_way(key):
            reserving = asyncio.ensure_future(self._limits.reserve(_user(asked.request), *_at_most(order, asked)))
        try:
            found = await cache.enter(key, wait_seconds=min(_FOLLOW_SECONDS, max(0.0, deadline - began) / 2))
        except BaseException:
            self._give_back(reserving)
            raise
        if isinstance(found, Cached):
            self._give_back(reserving)
            provider, model = found.by
            asked.record(
                ModelCallRecord(
                    provider,
                    model,
                    tier,
                    Usage(),
                    self._clock() - began,
                    reason=asked.reason,
                    cached=True,
                    escalated=asked.escalated,
                    saved_micros=found.usage.cost_micros,
                )
            )
            for event in found.events:
                yield event
            return
        with found:
            if self._limits is not None:
                stream = self._limited(self._limits, tier, order, asked, deadline, reserving)
            else:
                stream = self._answer(order, asked, deadline)
            async with aclosing(stream) as events:
                async for event in events:
                    found.add(event)
                    yield event
            if (answer := asked.answered) is not None:
                found.finish((answer.provider, answer.model), answer.usage)

    def _give_back(self, reserving: asyncio.Future[Reservation] | None) -> None:
        """What was reserved, or is about to be, is not needed."""

        def settle(made: asyncio.Future[Reservation]) -> None:
            if self._limits is not None and not made.cancelled() and made.exception() is None:
                self._limits.settle(made.result(), 0, 0)

        if reserving is not None:
            reserving.add_done_callback(settle)

    async def _limited(
        self,
        limits: Limits,
        tier: Tier,
        order: Sequence[Candidate],
        asked: Asked,
        deadline: float,
        reserving: asyncio.Future[Reservation] | None = None,
    ) -> AsyncGenerator[ModelEvent, None]:
        """Within the tenant's and the user's limits. ``reserving``: that has begun."""
        reservation = await (reserving or limits.reserve(_user(asked.request), *_at_most(order, asked)))
        try:
            if reservation.cheap_only:  # it has just been heard of
                order = self._order(self._sparing(tier, asked), asked)
            async with aclosing(self._answer(order, asked, deadline)) as events:
                async for event in events:
                    yield event
        finally:
            spent = asked.spent
            limits.settle(reservation, spent.input_tokens + spent.output_tokens, spent.cost_micros)

    async def _decide(self, situation: Situation | None, asked: Asked) -> Tier:
        """The tier; why goes into ``asked``."""
        if self._router is None:
            return self._targets.serving(self._default)
        failed = least = None
        if situation is not None:
            least = situation.least
            if situation.failed_calls and least is None:  # once a run
                failed = situation.planned_by
        vector = None
        if self._embed is not None and self._router.wants_vector and situation is not None and failed is None:
            vector = await self._embed(situation.text)
        decision = self._router.decide(situation, failed, vector)
        asked.reason, asked.escalated = decision.reason, decision.escalated
        tier = at_least(decision.tier, least)
        if tier != decision.tier:
            asked.reason = f"{asked.reason}; stays on {tier}, to which this run's plan was escalated"
        asked.needed = least is not None or decision.escalated
        return self._targets.serving(tier)

    def _sparing(self, tier: Tier, asked: Asked) -> Tier:
        """The cheapest tier, where the day's soft budget is used up and that tier has not failed in this run."""
        cheapest = self._targets.serving(TIERS[0])
        if asked.needed or tier == cheapest:
            return tier
        why = "the day's soft budget is used up"
        asked.reason = f"{why}; else {tier}: {asked.reason}" if asked.reason else why
        return cheapest

    async def _answer(
        self, order: Sequence[Candidate], asked: Asked, deadline: float
    ) -> AsyncGenerator[ModelEvent, None]:
        """The first target's answer that comes to its end."""
        if self._hedge is not None:
            self._hedge.called()
        failures: list[ModelError] = []
        attempt = broken = 0
        void = read = False  # what was handed out so far belongs to a target that failed; the user has read some of it
        while order:
            attempt += 1
            waits: list[float] = []
            asked.asked.clear()
            queue = self._cool_last(order)
            while queue:
                candidate = queue.pop(0)
                if candidate.key in asked.asked:  # as a hedge
                    continue
                handed = shown = False
                try:
                    async with aclosing(self._ask(candidate, queue, asked)) as events:
                        async for event in events:
                            if void:
                                yield ModelRestarted(after_text=read)
                                void = read = False
                            if isinstance(event, ModelText):
                                handed = shown = True
                            elif isinstance(event, ModelToolCall):
                                handed = True
                            yield event
                    return
                except ModelError as error:
                    void, read, broken = void or handed, read or shown, broken + shown
                    failures.append(error)
                    asked.fallback = f"{candidate.target.provider}/{candidate.target.model}: {error}"[:_MAX_FALLBACK]
                    if isinstance(error, ModelOverflow):
                        queue, order = larger(queue, candidate.target), larger(order, candidate.target)
                    elif _may_answer_later(error):
                        waits.append(self._wait_of(candidate, error))
                    else:
                        order = [each for each in order if each.key != candidate.key]
                if broken > _BROKEN_ANSWERS or self._clock() >= deadline:
                    raise _last(failures, read=read)
            wait = None
            if waits:
                wait = wait_before_retry(
                    _BACKOFF,
                    attempt=attempt,
                    random=self._random(),
                    retry_after=min(waits),
                    remaining=deadline - self._clock(),
                )
            if wait is None:
                break
            await asyncio.sleep(wait)
        raise _last(failures, read=read)

    def _ask(self, candidate: Candidate, others: Sequence[Candidate], asked: Asked) -> AsyncGenerator[ModelEvent, None]:
        """One target's answer; where hedging is on, another one's beside it that may be faster."""
        hedge = self._hedge
        if hedge is None or not others:
            return self._caller.call(candidate, asked)

        def second() -> AsyncGenerator[ModelEvent, None] | None:
            spare = next((each for each in others if self._caller.open(each)), None)
            if spare is None or not hedge.take():
                return None
            slow = f"{candidate.target.provider}/{candidate.target.model}"
            asked.fallback = f"{slow}: no first token within {hedge.after_seconds:g} s"
            return self._caller.call(spare, asked)

        return hedged(self._caller.call(candidate, asked), second, hedge.after_seconds)

    def _wait_of(self, candidate: Candidate, error: ModelError) -> float:
        """Seconds until it is worth asking this target again; one that wants fewer requests comes last until then."""
        wait = (error.retry_after if isinstance(error, ModelUnavailable) else None) or 0.0
        if wait and isinstance(error, ModelRateLimited):
            self._cool[candidate.key] = self._clock() + min(wait, _MAX_COOL_SECONDS)
        return wait

    def _cool_last(self, order: Sequence[Candidate]) -> list[Candidate]:
        if not self._cool:
            return list(order)
        now = self._clock()
        self._cool = {key: until for key, until in self._cool.items() if until > now}
        return sorted(order, key=lambda candidate: self._cool.get(candidate.key, 0.0))


def _user(request: ModelRequest) -> str:
    return request.situation.user_email if request.situation is not None else ""


def _at_most(order: Sequence[Candidate], asked: Asked) -> tuple[int, int]:
    """Tokens and micro-dollars that the first target may take; what others take instead is settled afterwards."""
    if not order:
        return asked.tokens, 0
    target = order[0].target
    answer = target.max_output_tokens
    return asked.tokens + answer, cost_micros(target, asked.tokens, answer)


def _may_answer_later(error: ModelError) -> bool:
    """Whether the same target may take the same request in a moment."""
    return isinstance(error, ModelUnavailable) and error.again


def _last(failures: Sequence[ModelError], *, read: bool) -> ModelError:
    """What is told where nobody answered; ``read``: a part of an answer stands before the user."""
    if not failures:
        return ModelUnavailable("No model is configured")
    # that a breaker is open, or that a key is wrong, says less than what the last one that was asked has said
    telling = [error for error in failures if _may_answer_later(error) and not isinstance(error, ModelPassedOver)]
    error = (telling or failures)[-1]
    if not read:
        return error
    interrupted = ModelInterrupted(str(error))
    interrupted.__cause__ = error
    return interrupted
