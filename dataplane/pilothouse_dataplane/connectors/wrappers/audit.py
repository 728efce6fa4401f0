"""One record of each call: who, as whom, what, and how it ended.

Guarantees: every call and every settling that reaches a connector's wrappers leaves one record, also where it is
refused, fails, or is given up. A record names arguments by their hash and holds neither them nor a token; the hash is
that of the ledger's intent, so that the two can be laid side by side.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

import structlog

from pilothouse_dataplane.connectors.base import CallContext, Connector, InDoubt, Refused
from pilothouse_dataplane.connectors.wrappers.base import Clock, Wrapper
from pilothouse_dataplane.core.approvals import arguments_hash
from pilothouse_dataplane.core.messages import Outcome, Tool, ToolResult

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One call, or one settling of an earlier write."""

    tenant: str
    key: str
    """``<run>/<step>``."""
    user: str
    account: str
    """As whom the system was asked; "" where it was not."""
    tool: str
    effect: str
    action: Literal["call", "settle"]
    arguments_hash: str
    outcome: str
    """``succeeded``, ``refused``, ``failed``, ``unknown``, ``cancelled``; of a settling also ``absent``."""
    attempts: int
    sent: bool
    cached: bool
    seconds: float


class AuditSink(Protocol):
    """Where records go. It must neither wait nor raise."""

    def record(self, entry: AuditRecord) -> None: ...


class LogAudit:
    """Into the worker's structured log."""

    def record(self, entry: AuditRecord) -> None:
        _log.info("tool called", **asdict(entry))


class WithAudit(Wrapper):
    """Tells a sink of every call."""

    def __init__(self, inner: Connector, tenant: str, sink: AuditSink, clock: Clock) -> None:
        super().__init__(inner)
        self._tenant = tenant
        self._sink = sink
        self._clock = clock

    async def call(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
        began = self._clock()
        outcome = Outcome.FAILED.value
        try:
            result = await self._inner.call(tool, arguments, context)
            outcome = result.outcome.value
            return result
        except BaseException as error:
            outcome = _outcome(error)
            raise
        finally:
            self._tell(tool, arguments, context, "call", outcome, began)

    async def find_by_key(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext) -> ToolResult | None:
        began = self._clock()
        outcome = Outcome.FAILED.value
        try:
            found = await self._inner.find_by_key(tool, arguments, context)
            outcome = "absent" if found is None else Outcome.SUCCEEDED.value
            return found
        except BaseException as error:
            outcome = _outcome(error)
            raise
        finally:
            self._tell(tool, arguments, context, "settle", outcome, began)

    def _tell(
        self,
        tool: Tool,
        arguments: Mapping[str, Any],
        context: CallContext,
        action: Literal["call", "settle"],
        outcome: str,
        began: float,
    ) -> None:
        record = context.record
        self._sink.record(
            AuditRecord(
                tenant=self._tenant,
                key=context.key,
                user=context.user_email,
                account=record.account,
                tool=tool.name,
                effect=tool.effect.value,
                action=action,
                arguments_hash=arguments_hash(tool.name, arguments),
                outcome=outcome,
                attempts=record.attempts,
                sent=record.sent,
                cached=record.cached,
                seconds=self._clock() - began,
            )
        )


def _outcome(error: BaseException) -> str:
    if isinstance(error, asyncio.CancelledError):
        return "cancelled"
    if isinstance(error, Refused):
        return Outcome.REFUSED.value
    return Outcome.UNKNOWN.value if isinstance(error, InDoubt) else Outcome.FAILED.value
