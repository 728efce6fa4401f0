"""The model gateway: which target answers a call, what it costs, and what happens when a provider is down.

Order: the default tier's targets, then the fallback tiers' in their order, each target once. A target whose
provider's breaker is open is passed over. When all have failed, a second pass follows after a wait with jitter, as
long as the run has time. Nothing is tried again once text was shown: the user would read it twice. Where only calls
were handed out, ModelRestarted comes before the other target's first event, so that the run drops them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing

from pilothouse_api.workerconfig import RouteConfig, TargetConfig, Tier
from pilothouse_dataplane.core.breaker import BreakerSettings
from pilothouse_dataplane.core.guard import GuardRegistry
from pilothouse_dataplane.core.messages import ModelRequest
from pilothouse_dataplane.core.retry import Backoff, wait_before_retry
from pilothouse_dataplane.models.base import (
    ModelDone,
    ModelError,
    ModelEvent,
    ModelInterrupted,
    ModelNonsense,
    ModelProvider,
    ModelRateLimited,
    ModelRejected,
    ModelRestarted,
    ModelText,
    ModelToolCall,
    ModelUnavailable,
)
from pilothouse_dataplane.models.cost import ModelCallRecord, usage_of

_PROVIDER_BREAKER = BreakerSettings(window=20, minimum_calls=5, failure_rate_percent=50, open_seconds=15)
_BACKOFF = Backoff(attempts=2, base_seconds=0.2, retry_after_cap_seconds=2.0)


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
    ) -> None:
        self._providers = providers
        self._guards = guards
        self._clock = clock
        self._random = random
        order: list[Tier] = [route.default_tier, *(tier for tier in route.fallback if tier != route.default_tier)]
        self._targets: list[tuple[Tier, TargetConfig]] = []
        seen: set[tuple[str, str]] = set()
        for tier in order:
            for target in route.tiers.get(tier, ()):
                if (target.provider, target.model) not in seen:
                    seen.add((target.provider, target.model))
                    self._targets.append((tier, target))

    async def aclose(self) -> None:
        for provider in self._providers.values():
            await provider.aclose()

    async def stream(
        self, request: ModelRequest, *, deadline: float, on_call: Callable[[ModelCallRecord], None]
    ) -> AsyncGenerator[ModelEvent, None]:
        """Stream one answer. ``deadline`` is on the gateway's clock; ``on_call`` hears of the call that succeeded.

        Raises ModelError where no target answered: its message names the last reason.
        """
        attempt = 0
        void = False
        while True:
            attempt += 1
            failures: list[ModelError] = []
            for tier, target in self._targets:
                shown = handed = False
                try:
                    async with aclosing(self._call(tier, target, request, on_call)) as events:
                        async for event in events:
                            if isinstance(event, ModelText):
                                shown = True
                            elif isinstance(event, ModelToolCall):
                                handed = True
                            if void:
                                void = False
                                yield ModelRestarted()
                            yield event
                    return
                except ModelError as error:
                    if shown:
                        raise ModelInterrupted(str(error)) from error
                    void = void or handed
                    failures.append(error)
                if self._clock() >= deadline:
                    raise failures[-1]
            waits = [error.retry_after for error in failures if isinstance(error, ModelRateLimited)]
            wait = None
            if any(isinstance(error, ModelUnavailable) for error in failures):
                wait = wait_before_retry(
                    _BACKOFF,
                    attempt=attempt,
                    random=self._random(),
                    retry_after=min((w for w in waits if w is not None), default=None),
                    remaining=deadline - self._clock(),
                )
            if wait is None:
                raise failures[-1] if failures else ModelUnavailable("No model is configured")
            await asyncio.sleep(wait)

    async def _call(
        self,
        tier: Tier,
        target: TargetConfig,
        request: ModelRequest,
        on_call: Callable[[ModelCallRecord], None],
    ) -> AsyncGenerator[ModelEvent, None]:
        guard = self._guards.get(f"provider/{target.provider}", _PROVIDER_BREAKER)
        permit = guard.try_acquire()
        if permit is None:
            raise ModelUnavailable(
                f"The model provider {target.provider} is down; it is tried again in {guard.retry_in():.0f} s"
            )
        began = self._clock()
        first: float | None = None
        verdict = False

        def seconds() -> float:
            """To the first token: what a long answer takes after it says nothing about the provider's health."""
            return first if first is not None else self._clock() - began

        try:
            async with aclosing(self._providers[target.provider].stream(target, request)) as events:
                async for event in events:
                    if first is None:
                        first = self._clock() - began
                    if isinstance(event, ModelDone):
                        verdict = True
                        guard.succeeded(permit, seconds=seconds())
                        usage = usage_of(target, event.input_tokens, event.output_tokens, event.cached_input_tokens)
                        on_call(ModelCallRecord(target.provider, target.model, tier, usage, self._clock() - began))
                    yield event
        except ModelRejected:
            raise  # says nothing about the provider's health
        except ModelNonsense:
            verdict = True
            guard.succeeded(permit, seconds=seconds())
            raise
        except ModelError as error:
            verdict = True
            guard.failed(permit, str(error), seconds=seconds())
            raise
        finally:
            if not verdict:
                guard.ignored(permit)
