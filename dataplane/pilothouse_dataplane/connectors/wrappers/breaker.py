"""The connector's circuit breaker, around each try.

Guarantees: while it is open nothing is asked, and the user hears when it may be. A refusal counts as a success, as the
system works: it knows how to say no. What says nothing of the system's health is not counted: the run's own end, a
call that was given up, a refusal before anything left, a credential that could not be had. A defect of ours counts as
an answer that can't be read. Look-ups of a write in doubt pass an open breaker: few of them settle what has been done.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog

from pilothouse_dataplane.connectors.base import (
    CallContext,
    Connector,
    ConnectorError,
    CredentialUnavailable,
    Refused,
    SystemUnavailable,
)
from pilothouse_dataplane.connectors.wrappers.base import Clock, Wrapper, time_left
from pilothouse_dataplane.core.guard import Guard
from pilothouse_dataplane.core.messages import Tool, ToolResult

_log = structlog.get_logger(__name__)


class WithBreaker(Wrapper):
    """Each try needs the guard's permit, and ends in a verdict or in none."""

    def __init__(self, inner: Connector, guard: Guard, system: str, clock: Clock) -> None:
        super().__init__(inner)
        self._guard = guard
        self._system = system
        self._clock = clock

    async def call(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
        guard, record = self._guard, context.record
        if self._clock() >= context.deadline:
            raise self._not_asked(f"There was no time left to ask {self._system}.")
        permit = guard.try_acquire()
        if permit is None:
            asked = "; it failed" if record.attempts else " and was not asked"
            raise self._not_asked(f"{self._system} is down at the moment{asked}; {guard.when()}.")
        record.attempts += 1
        verdict = False
        started = self._clock()
        try:
            # cancelled in here, nobody knows what left
            async with time_left(context, self._clock):
                result = await self._inner.call(tool, arguments, context)
        except Refused as refusal:
            if refusal.asked:
                verdict = record.sent = True
                guard.succeeded(permit, seconds=self._clock() - started)
            raise
        except CredentialUnavailable:
            raise
        except SystemUnavailable as failure:
            verdict = True
            record.sent = record.sent or failure.may_have_acted
            guard.failed(permit, str(failure), seconds=self._clock() - started)
            raise
        except ConnectorError:
            raise
        except TimeoutError as error:  # the run's time is over, which says nothing about the system
            record.sent = True
            message = f"{self._system} did not answer in the time that was left."
            raise SystemUnavailable(message, may_have_acted=True, lasting=True) from error
        except Exception as error:
            _log.exception("tool call failed", tool=tool.name)
            verdict = record.sent = True
            message = f"{self._system} sent an answer that can't be read."
            guard.failed(permit, message, seconds=self._clock() - started)
            raise SystemUnavailable(message, may_have_acted=True, lasting=True) from error
        else:
            verdict = record.sent = True
            guard.succeeded(permit, seconds=self._clock() - started)
            return result
        finally:
            if not verdict:
                guard.ignored(permit)

    async def find_by_key(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext) -> ToolResult | None:
        guard = self._guard
        permit = guard.try_acquire()  # a result without a permit isn't counted
        verdict = False
        started = self._clock()
        try:
            async with time_left(context, self._clock):
                found = await self._inner.find_by_key(tool, arguments, context)
            verdict = True
            if permit is not None:
                guard.succeeded(permit, seconds=self._clock() - started)
            return found
        except CredentialUnavailable:
            raise
        except SystemUnavailable as error:
            verdict = True
            if permit is not None:
                guard.failed(permit, str(error), seconds=self._clock() - started)
            raise
        except Refused as refusal:
            if refusal.asked:
                verdict = True
                if permit is not None:
                    guard.succeeded(permit, seconds=self._clock() - started)
            raise
        except TimeoutError:
            raise SystemUnavailable(f"{self._system} did not tell.", may_have_acted=False) from None
        except ConnectorError:
            raise
        except Exception as error:
            _log.exception("look-up failed", tool=tool.name)
            raise SystemUnavailable(f"{self._system} did not tell.", may_have_acted=False) from error
        finally:
            if permit is not None and not verdict:
                guard.ignored(permit)

    def _not_asked(self, message: str) -> SystemUnavailable:
        return SystemUnavailable(message, may_have_acted=False, lasting=True)
