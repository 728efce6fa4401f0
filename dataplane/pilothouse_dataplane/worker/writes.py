"""One write, from intent to outcome, and what becomes of it when it fails for good.

::

    send:    intend (durable, fenced) ──▶ the call leaves ──▶ outcome ──▶ succeeded, refused
                 │                             │                └──────▶ failed for good, in doubt ──▶ dead letter
                 └─ not recorded: not sent     └─ cut by a stop or the deadline ─────────────────────▶ dead letter

    settle:  (another worker intended it and is gone)  look its key up ──▶ found: outcome
                                                            ├─ proven absent ──▶ send
                                                            └─ neither: in doubt ──▶ dead letter

The intent stands in the ledger before anything leaves, so that whoever takes the run over knows that it may have been
sent. A dead letter's id follows from the write's key: the same write is kept once, however often it is buried.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime

import structlog

from pilothouse_dataplane.connectors.base import CallContext, SecretText
from pilothouse_dataplane.connectors.toolset import Toolset
from pilothouse_dataplane.core.messages import Outcome, ToolResult
from pilothouse_dataplane.core.report import step_title
from pilothouse_dataplane.core.state import Step
from pilothouse_dataplane.ledger.base import (
    DeadLetterRecord,
    Ledger,
    LedgerUnavailable,
    NewRun,
    RunKey,
    WriteIntent,
    WriteRecord,
    WriteRefused,
)

_BURY_WAITS = (0.2, 0.5, 1.0, 2.0, 4.0)
"""Seconds between tries to keep a dead letter."""
_LETTERS = uuid.UUID("6f1c2f0e-6a53-4a3e-9c0e-6d1f4b7a5c11")
_log = structlog.get_logger()


def letter_id(write_key: str) -> str:
    """Id of the dead letter of a write."""
    return str(uuid.uuid5(_LETTERS, write_key))


class Writes:
    """The writes of one run under one claim."""

    def __init__(
        self,
        ledger: Ledger,
        key: RunKey,
        run: NewRun,
        toolset: Toolset,
        deadline: float,
        on_buried: Callable[[DeadLetterRecord], None],
        user_token: SecretText | None = None,
    ) -> None:
        """``deadline`` is on ``time.monotonic``. ``user_token``: what the user signed in with."""
        self._ledger = ledger
        self._key = key
        self._run = run
        self._toolset = toolset
        self._deadline = deadline
        self._on_buried = on_buried
        self._user_token = user_token
        self._away: dict[str, str] = {}
        """Key by step id, of writes that have left (or may have) and have no outcome."""
        self._burials: list[asyncio.Task[bool]] = []

    async def send(self, step: Step, write_key: str, started: Callable[[], None]) -> ToolResult:
        """Intend, call, record. ``started`` is called as the call leaves. Raises Fenced: nothing was sent."""
        assert step.tool is not None  # only steps with a tool are started
        intent = WriteIntent(
            key=write_key,
            step_id=step.id,
            tool=step.name,
            arguments=step.arguments,
            arguments_hash=step.fingerprint,
            user_email=self._run.asker.email,
            approval_id=step.approval_id or None,
        )
        try:
            await self._ledger.intend(self._key, intent)
        except LedgerUnavailable as error:
            _log.warning("write not sent: its intent could not be recorded", step=step.id, error=str(error))
            why = f"{step.title} was not sent: it could not be recorded beforehand. Ask again in a minute."
            return self._ended(write_key, ToolResult(Outcome.FAILED, why))
        except WriteRefused as error:
            _log.warning("write refused by the ledger", step=step.id, error=str(error))
            return ToolResult(Outcome.REFUSED, f"{step.title} was not sent: {error}.")
        except asyncio.CancelledError:
            self._ended(write_key, ToolResult(Outcome.FAILED, f"{step.title} was not sent."))
            raise
        started()
        self._away[step.id] = write_key
        attempts, breaker = 0, ""
        try:
            report = await self._toolset.call(step.tool, step.arguments, self._context(write_key))
            result, attempts, breaker = report.result, report.attempts, report.breaker_state
        except Exception:
            _log.exception("tool call failed", tool=step.name)
            result = ToolResult(Outcome.UNKNOWN, f"{step.title} failed; whether it took effect is not known.")
        return self._judge(step, write_key, result, attempts, breaker)

    async def settle(self, step: Step, write_key: str, started: Callable[[], None]) -> ToolResult:
        """Find out what came of a write whose worker is gone; send it only where it is proven that it did not happen.
        Raises Fenced."""
        assert step.tool is not None
        self._away[step.id] = write_key
        try:
            settled = await self._toolset.settle(step.tool, step.arguments, self._context(write_key))
        except Exception:
            _log.exception("a write could not be looked up", tool=step.name)
            settled = None
        if settled is not None and settled.result is not None:
            return self._judge(step, write_key, settled.result, 1, "")
        if settled is not None and settled.absent:
            del self._away[step.id]
            return await self.send(step, write_key, started)
        why = f"{step.title} was sent before this agent was interrupted; whether it took effect is not known. Check it."
        return self._judge(step, write_key, ToolResult(Outcome.UNKNOWN, why), 1, "")

    def cut(self, step: Step, result: ToolResult) -> str:
        """The run ended while the write was under way. Returns a sentence for the user, "" where it had not left."""
        write_key = self._away.pop(step.id, None)
        if write_key is None:
            return ""
        doubtful = self._bury(step, write_key, result, 1, "")
        self._ended(write_key, doubtful)
        return doubtful.summary

    def take_over(self, writes: Iterable[WriteRecord], steps: Iterable[Step], pending: Iterable[str]) -> None:
        """Bury again what an earlier worker may not have had the time to bury; ``pending`` are steps that are settled
        now. A write that the replay knows nothing of (its tool is gone, say) is in doubt."""
        by_id = {step.id: step for step in steps}
        for write in writes:
            step = by_id.get(write.intent.step_id)
            if step is None or step.id in pending:
                continue
            result = write.result
            if result is None:
                known = step.result
                if known is not None and known.outcome in (Outcome.SUCCEEDED, Outcome.FAILED, Outcome.UNKNOWN):
                    result = known
                else:
                    result = ToolResult(
                        Outcome.UNKNOWN, f"{step_title(write.intent.tool)}: whether it took effect is not known."
                    )
            if result.outcome in (Outcome.FAILED, Outcome.UNKNOWN):
                told = replace(step, arguments=write.intent.arguments)
                self._bury(told, write.intent.key, result, 1, "", name=write.intent.tool)

    @property
    def burying(self) -> bool:
        """Dead letters are being kept, or were in this run."""
        return bool(self._burials)

    async def buried(self) -> bool:
        """Wait until every dead letter is kept; False where one could not be."""
        if not self._burials:
            return True
        return all(await asyncio.gather(*self._burials))

    def _context(self, write_key: str) -> CallContext:
        return CallContext(self._run.asker.email, write_key, self._deadline, user_token=self._user_token)

    def _judge(self, step: Step, write_key: str, result: ToolResult, attempts: int, breaker: str) -> ToolResult:
        self._away.pop(step.id, None)
        if result.outcome in (Outcome.FAILED, Outcome.UNKNOWN):
            result = self._bury(step, write_key, result, attempts, breaker)
        return self._ended(write_key, result)

    def _ended(self, write_key: str, result: ToolResult) -> ToolResult:
        self._ledger.outcome(self._key, write_key, result)
        return result

    def _bury(
        self, step: Step, write_key: str, result: ToolResult, attempts: int, breaker: str, *, name: str = ""
    ) -> ToolResult:
        """Keep it, off the answer's path; the result says so."""
        letter = DeadLetterRecord(
            id=letter_id(write_key),
            run_id=self._run.run_id,
            session_id=self._run.session_id,
            step_id=step.id,
            asker=self._run.asker,
            tool=name or step.name,
            arguments=step.arguments,
            key=write_key,
            error=result.summary,
            attempts=attempts,
            breaker_state=breaker,
            in_doubt=result.outcome is Outcome.UNKNOWN,
            created=datetime.now(UTC),
        )
        self._burials.append(asyncio.create_task(self._keep(letter)))
        # a person who asks again asks for another change, with another key: both would be made
        way = (
            "An administrator can find out"
            if letter.in_doubt
            else "Or let an administrator send it later, but not both"
        )
        kept = f"{result.summary.rstrip()} {way} (reference {letter.id[:8]})."
        return replace(result, summary=kept)

    async def _keep(self, letter: DeadLetterRecord) -> bool:
        for wait in (*_BURY_WAITS, None):
            try:
                await self._ledger.bury(letter)
            except LedgerUnavailable as error:
                if wait is None:
                    _log.error("dead letter not kept", id=letter.id, tool=letter.tool, error=str(error))
                    return False
                await asyncio.sleep(wait)
            else:
                self._on_buried(letter)
                return True
        return False
