"""One call of one target: its provider's breaker, what it costs, and the record of it.

::

    permit? ──no──▶ ModelPassedOver (nothing was asked, no record)
      │ yes
      ▼
    stream ──▶ ModelDone: the provider is well; record
      ├──▶ quota used up: the breaker opens at once
      ├──▶ 5xx, time-out, 429, a broken stream, a bug of ours in reading it: counts as a failure
      ├──▶ this request refused, nonsense written: the provider is well
      └──▶ cut off by whoever reads it: no verdict

Every call that reached its provider gives one record, at the latest when the generator is closed. What was cut off is
charged for what was received; an answer that was no more than an error costs nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field

import structlog

from pilothouse_api.workerconfig import ProviderConfig
from pilothouse_dataplane.core.breaker import settings_of
from pilothouse_dataplane.core.guard import Guard, GuardRegistry
from pilothouse_dataplane.core.messages import ModelRequest, Usage
from pilothouse_dataplane.models.base import (
    ModelDenied,
    ModelDone,
    ModelError,
    ModelEvent,
    ModelExhausted,
    ModelNonsense,
    ModelOverBudget,
    ModelProvider,
    ModelRejected,
    ModelUnavailable,
    ModelUnreachable,
)
from pilothouse_dataplane.models.cost import Meter, ModelCallRecord, cost_micros
from pilothouse_dataplane.models.providers import MisconfiguredProvider
from pilothouse_dataplane.models.targets import Candidate

_NOTHING = {
    "length": "The model {model} of {provider} thought until its bound of tokens was reached, and wrote nothing",
    "refusal": "The model {model} of {provider} declined to answer",
    "filter": "The filter of {provider} let no answer of {model} through",
}
_log = structlog.get_logger()


class ModelPassedOver(ModelUnavailable):
    """The provider's breaker is open: nothing was asked."""


@dataclass(slots=True)
class Asked:
    """One call of the gateway, over all targets that it asks."""

    request: ModelRequest
    on_call: Callable[[ModelCallRecord], None]
    tokens: int
    """Of the request, counted here."""
    budget_micros: int | None = None
    """What the run may still spend; None: no bound."""
    reason: str = ""
    escalated: bool = False
    needed: bool = False
    """No cheaper tier will do: one has failed."""
    fallback: str = ""
    """Why the target before the present one did not answer."""
    spent: Usage = field(default_factory=Usage)
    asked: set[tuple[str, str]] = field(default_factory=set)
    """Targets that were asked in the present pass."""

    answered: ModelCallRecord | None = None
    """The call that came to its end."""

    def record(self, record: ModelCallRecord) -> None:
        if not record.aborted:
            self.answered = record
        self.spent += record.usage
        self.on_call(record)


class Caller:
    """Calls the targets of one route's providers."""

    def __init__(
        self,
        configs: tuple[ProviderConfig, ...],
        providers: Mapping[str, ModelProvider],
        guards: GuardRegistry,
        clock: Callable[[], float],
    ) -> None:
        self._providers = providers
        self._guards = guards
        self._settings = {config.name: settings_of(config.breaker) for config in configs}
        self._clock = clock

    async def aclose(self) -> None:
        for provider in self._providers.values():
            await provider.aclose()

    def open(self, candidate: Candidate) -> bool:
        """Whether its provider can be asked, as far as is known without asking."""
        name = candidate.target.provider
        provider = self._providers.get(name)
        if provider is None or isinstance(provider, MisconfiguredProvider):
            return False
        return self._guard(name).retry_in() == 0

    def _guard(self, provider: str) -> Guard:
        return self._guards.get(f"provider/{provider}", self._settings[provider])

    async def call(self, candidate: Candidate, asked: Asked) -> AsyncGenerator[ModelEvent, None]:
        """Stream one target's answer, with ModelDone at its end. Raises ModelError."""
        target = candidate.target
        name = target.provider
        asked.asked.add(candidate.key)
        provider = self._providers.get(name)
        if provider is None or name not in self._settings:
            raise ModelDenied(f"The model provider {name} is not declared")
        if isinstance(provider, MisconfiguredProvider):  # no breaker: it would hide the reason
            raise ModelDenied(provider.problem)
        _within_budget(candidate, asked)
        guard = self._guard(name)
        permit = guard.try_acquire()
        if permit is None:
            raise ModelPassedOver(f"The model provider {name} is down; {guard.when()}", guard.retry_in())
        meter = Meter(target, asked.request)
        fallback = asked.fallback  # a hedged call may change it while this one goes on
        began = self._clock()
        first: float | None = None
        verdict = recorded = handed = False

        def seconds() -> float:
            """To the first token: what a long answer takes after it says nothing about the provider's health."""
            return first if first is not None else self._clock() - began

        def record(usage: Usage, *, aborted: bool) -> None:
            asked.record(
                ModelCallRecord(
                    name,
                    target.model,
                    candidate.tier,
                    usage,
                    self._clock() - began,
                    reason=asked.reason,
                    fallback=fallback,
                    aborted=aborted,
                    escalated=asked.escalated,
                    first_token_seconds=first or 0.0,
                    estimated=meter.estimated,
                )
            )

        try:
            async with aclosing(provider.stream(target, asked.request)) as events:
                async for event in events:
                    if first is None:
                        first = self._clock() - began
                    meter.saw(event)
                    if isinstance(event, ModelDone):
                        verdict = recorded = True
                        guard.succeeded(permit, seconds=seconds())
                        usage = meter.usage()
                        if meter.problem:
                            _log.warning("usage not believed", provider=name, model=target.model, why=meter.problem)
                        record(usage, aborted=False)
                        if event.stop and not handed:
                            raise ModelNonsense(_NOTHING[event.stop].format(model=target.model, provider=name))
                    else:
                        handed = True
                    yield event
            if not recorded:
                raise ModelUnavailable(f"The model provider {name} broke off its answer")
        except ModelError as error:
            if not verdict:
                verdict = True
                if isinstance(error, ModelRejected):
                    guard.ignored(permit)  # says nothing about the provider's health
                elif isinstance(error, ModelNonsense):
                    guard.succeeded(permit, seconds=seconds())
                elif isinstance(error, ModelExhausted):
                    guard.exhausted(permit, str(error))
                else:
                    guard.failed(permit, str(error), seconds=seconds())
            if not recorded:
                recorded = True
                if error.spent is not None:
                    meter.saw(error.spent)
                if first is not None or error.spent is not None:
                    record(meter.usage(), aborted=True)
                elif not isinstance(error, ModelUnreachable):
                    record(Usage(), aborted=True)
            raise
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except Exception as error:
            # what a foreign server sends must not end the run, even where reading it is our fault
            _log.exception("a model's answer could not be read", provider=name, model=target.model)
            if not verdict:
                verdict = True
                guard.failed(permit, "its answer could not be read", seconds=seconds())
            raise ModelUnavailable(f"The answer of the model provider {name} could not be read") from error
        finally:
            if not verdict:
                guard.ignored(permit)
            if not recorded:  # cut off: the provider has read the request by now, and goes by what it has written
                record(meter.usage(), aborted=True)


def _within_budget(candidate: Candidate, asked: Asked) -> None:
    """Raises ModelOverBudget where reading the request alone would cost more than is left."""
    budget = asked.budget_micros
    if budget is None:
        return
    spent = asked.spent.cost_micros
    if spent and spent >= budget:
        raise ModelOverBudget("What one request may cost is spent, so no other model was asked")
    if spent + cost_micros(candidate.target, asked.tokens, 0) > budget:
        raise ModelOverBudget(
            f"The model {candidate.target.model} of {candidate.target.provider} was not asked: it would cost more than "
            "what is left of this request's budget"
        )
