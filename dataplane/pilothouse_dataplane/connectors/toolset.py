"""All tools that a tenant's agent has, behind one call: allow list, approvals, bulkhead, breaker, retries, settling.

::

    call ──▶ place in the bulkhead ──▶ breaker's permit ──▶ the connector
      ▲                                                        │
      │ a read, or a write whose request never left:           ├── answered, or refused ──▶ done
      ├──── wait, with jitter, Retry-After ◀───────────────────┤
      │ proven not to have happened                            └── a write of which nothing is known ──▶ settle
      └───────────────────────────────────────────────────────────────────────────┤
                                                          found ──▶ done          └── not proven ──▶ in doubt

A write is never sent again before it is proven that the earlier request did nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import structlog

from pilothouse_api.workerconfig import ConnectorConfig
from pilothouse_dataplane.connectors.base import CallContext, Connector, ConnectorError, Refused, SystemUnavailable
from pilothouse_dataplane.core.breaker import settings_of
from pilothouse_dataplane.core.guard import Guard, GuardRegistry
from pilothouse_dataplane.core.messages import Approver, By, Effect, Lookup, Outcome, Tool, ToolResult
from pilothouse_dataplane.core.report import plain_result
from pilothouse_dataplane.core.retry import Backoff, wait_before_retry

_SETTLE_WAITS = (0.2, 0.5)
"""Seconds before the first looks for a write whose outcome is unknown."""
_SETTLE_WAIT = 1.0
"""Before each later one."""
_FAILED_PROOFS = 3
"""Looks that may fail once one of them would have been the proof."""
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CallReport:
    """What came of a call, and what an operator wants to know of it."""

    result: ToolResult
    attempts: int
    """Tries that were begun; 0 where the breaker or the bulkhead let none through."""
    breaker_state: str
    """Of the connector, at the end: resilience4j's words in lower case."""
    sent: bool
    """A request may have left."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Settled:
    """What is known about an earlier write. Neither found nor absent: it is in doubt."""

    result: ToolResult | None
    """It happened; this is what came of it."""
    absent: bool
    """It did not happen, and can't any more: it may be sent again under the same key."""


@dataclass(frozen=True, slots=True)
class _Entry:
    system: str
    connector: Connector
    guard: Guard
    backoff: Backoff
    places: asyncio.Semaphore
    timeout: float


def _approver(config: ConnectorConfig, tool: str) -> Approver | None:
    """The first rule that matches the tool (its name without the connector's)."""
    for rule in config.approvals:
        if fnmatchcase(tool, rule.match):
            return Approver(By(rule.by), rule.group)
    return None


class Toolset:
    """The tools of one loaded configuration."""

    def __init__(
        self,
        connectors: Mapping[str, tuple[ConnectorConfig, Connector]],
        guards: GuardRegistry,
        *,
        clock: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self._clock = clock
        self._random = random
        self._connectors = [connector for _, connector in connectors.values()]
        self._entries: dict[str, _Entry] = {}
        tools: list[Tool] = []
        for name, (config, connector) in connectors.items():
            entry = _Entry(
                name[:1].upper() + name[1:],  # it begins sentences
                connector,
                guards.get(f"connector/{name}", settings_of(config.breaker)),
                Backoff(attempts=config.attempts),
                asyncio.Semaphore(config.concurrent_calls),
                config.timeout_seconds,
            )
            for tool in connector.describe_tools():
                short = tool.name.removeprefix(f"{name}.")
                if not any(fnmatchcase(short, pattern) for pattern in config.allow):
                    continue
                if tool.effect is not Effect.READ and not config.writes_allowed:
                    continue
                tools.append(replace(tool, approver=_approver(config, short)))
                self._entries[tool.name] = entry
        self.tools = tuple(tools)

    async def aclose(self) -> None:
        for connector in self._connectors:
            await connector.aclose()

    async def call(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext, deadline: float) -> CallReport:
        """Call a tool; every failure is a result. ``deadline`` is on the toolset's clock. Raises nothing of its own."""
        entry = self._entries.get(tool.name)
        if entry is None:  # the run is older than the configuration
            gone = ToolResult(Outcome.FAILED, f"{tool.name} is not available any more and was not called.")
            return CallReport(gone, 0, "", sent=False, seconds=0.0)
        began = self._clock()
        attempts = 0
        sent = False
        write = tool.effect is not Effect.READ

        def report(result: ToolResult) -> CallReport:
            seconds = self._clock() - began
            return CallReport(plain_result(result), attempts, entry.guard.state.value, sent, seconds)

        def failed(why: str) -> CallReport:
            return report(ToolResult(Outcome.FAILED, why))

        while True:
            error: SystemUnavailable
            try:
                async with _Place(entry, deadline - self._clock()):
                    if self._clock() >= deadline:
                        return failed(f"There was no time left to ask {entry.system}.")
                    permit = entry.guard.try_acquire()
                    if permit is None:
                        asked = "; it failed" if attempts else " and was not asked"
                        return failed(f"{entry.system} is down at the moment{asked}; {entry.guard.when()}.")
                    attempts += 1
                    verdict = False
                    started = self._clock()
                    try:
                        # cancelled in here, nobody knows what left
                        result = await self._once(entry, tool, arguments, context, deadline)
                        verdict = sent = True
                        entry.guard.succeeded(permit, seconds=self._clock() - started)
                        return report(result)
                    except Refused as refusal:
                        if refusal.asked:
                            verdict = sent = True
                            # the system works: it knows how to say no
                            entry.guard.succeeded(permit, seconds=self._clock() - started)
                        return report(ToolResult(Outcome.REFUSED, str(refusal)))
                    except _OutOfTime as failure:
                        error = failure
                    except SystemUnavailable as failure:
                        verdict = True
                        entry.guard.failed(permit, str(failure), seconds=self._clock() - started)
                        error = failure
                    finally:
                        if not verdict:
                            entry.guard.ignored(permit)
            except _NoPlace as busy:
                return failed(str(busy))
            sent = sent or error.may_have_acted
            if write and error.may_have_acted:
                settled = await self.settle(tool, arguments, context, deadline)
                if settled.result is not None:
                    return report(settled.result)
                if not settled.absent:
                    return report(ToolResult(Outcome.UNKNOWN, in_doubt(str(error), tool)))
            wait = self._wait(entry, error, attempts, deadline)
            if wait is None:
                looked = " It was looked up: nothing was changed." if write and error.may_have_acted else ""
                return failed(f"{error}{looked}")
            await asyncio.sleep(wait)

    async def settle(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext, deadline: float) -> Settled:
        """Find out whether an earlier write with this key happened. Raises nothing of its own.

        It looks until the connector's timeout has passed since now, as the earlier request may still be under way: only
        a look after that proves absence.
        """
        entry = self._entries.get(tool.name)
        if entry is None:
            return Settled(None, absent=False)
        began = self._clock()
        number = failed_proofs = 0
        while tool.lookup is not Lookup.NONE:
            wait = _SETTLE_WAITS[number] if number < len(_SETTLE_WAITS) else _SETTLE_WAIT
            until_proof = began + entry.timeout - self._clock()
            wait = min(wait, until_proof) if until_proof > 0 else wait
            if self._clock() + wait >= deadline:
                break
            await asyncio.sleep(wait)
            number += 1
            late = self._clock() - began >= entry.timeout
            try:
                async with _Place(entry, deadline - self._clock()):
                    found = await self._look(entry, tool, arguments, context, deadline)
            except Refused:
                break  # who may not look can't tell
            except (ConnectorError, _NoPlace):
                failed_proofs += late
                if failed_proofs == _FAILED_PROOFS:
                    break
                continue
            if found is not None:
                return Settled(plain_result(replace(found, outcome=Outcome.SUCCEEDED)), absent=False)
            if late:
                return Settled(None, absent=tool.lookup is Lookup.AUTHORITATIVE)
        return Settled(None, absent=False)

    async def _look(
        self, entry: _Entry, tool: Tool, arguments: Mapping[str, Any], context: CallContext, deadline: float
    ) -> ToolResult | None:
        # An open breaker does not forbid it: what is in doubt has been done or not, and few look-ups settle it.
        # A result without a permit isn't counted.
        permit = entry.guard.try_acquire()
        verdict = False
        started = self._clock()
        try:
            async with self._time_left(deadline):
                found = await entry.connector.find_by_key(tool, arguments, context)
            verdict = True
            if permit is not None:
                entry.guard.succeeded(permit, seconds=self._clock() - started)
            return found
        except SystemUnavailable as error:
            verdict = True
            if permit is not None:
                entry.guard.failed(permit, str(error), seconds=self._clock() - started)
            raise
        except Refused:
            verdict = True
            if permit is not None:
                entry.guard.succeeded(permit, seconds=self._clock() - started)
            raise
        except TimeoutError:  # the run's time is over, which says nothing about the system
            raise SystemUnavailable(f"{entry.system} did not tell.", may_have_acted=False) from None
        except Exception as error:
            _log.exception("look-up failed", tool=tool.name)
            raise SystemUnavailable(f"{entry.system} did not tell.", may_have_acted=False) from error
        finally:
            if permit is not None and not verdict:
                entry.guard.ignored(permit)

    async def _once(
        self, entry: _Entry, tool: Tool, arguments: Mapping[str, Any], context: CallContext, deadline: float
    ) -> ToolResult:
        """One call. Raises Refused, SystemUnavailable; a defect of ours counts as an answer that can't be read."""
        try:
            async with self._time_left(deadline):
                return await entry.connector.call(tool, arguments, context)
        except ConnectorError:
            raise
        except TimeoutError as error:
            message = f"{entry.system} did not answer in the time that was left."
            raise _OutOfTime(message, may_have_acted=True, lasting=True) from error
        except Exception as error:
            _log.exception("tool call failed", tool=tool.name)
            message = f"{entry.system} sent an answer that can't be read."
            raise SystemUnavailable(message, may_have_acted=True, lasting=True) from error

    def _time_left(self, deadline: float) -> AbstractAsyncContextManager[object]:
        return asyncio.timeout(max(0.0, deadline - self._clock()))

    def _wait(self, entry: _Entry, error: SystemUnavailable, attempts: int, deadline: float) -> float | None:
        if error.lasting:
            return None
        return wait_before_retry(
            entry.backoff,
            attempt=attempts,
            random=self._random(),
            retry_after=error.retry_after,
            remaining=deadline - self._clock(),
        )


def in_doubt(error: str, tool: Tool) -> str:
    """The sentence for a write of which nobody can say whether it happened."""
    system, _, what = tool.name.partition(".")
    noun, _, verb = what.rpartition(".")
    system = system.capitalize()
    return (
        f"{error} Whether {system} carried out “{verb} {noun.replace('.', ' ')}” is not known. It was not sent again, "
        f"so that it can't happen twice; please check in {system} before you ask again."
    )


class _NoPlace(Exception):
    """The bulkhead stayed full."""


class _OutOfTime(SystemUnavailable):
    """The run's time ended the call, which says nothing about the system's health."""


class _Place:
    """A place among a connector's calls at a time, waited for no longer than the run lasts."""

    __slots__ = ("_entry", "_remaining")

    def __init__(self, entry: _Entry, remaining: float) -> None:
        self._entry = entry
        self._remaining = remaining

    async def __aenter__(self) -> None:
        places = self._entry.places
        if not places.locked():
            await places.acquire()
            return
        try:
            async with asyncio.timeout(max(0.0, self._remaining)):
                await places.acquire()
        except TimeoutError:
            raise _NoPlace(
                f"{self._entry.system} has too many calls under way and was not asked; ask again in a moment."
            ) from None

    async def __aexit__(self, *error: object) -> None:
        self._entry.places.release()
