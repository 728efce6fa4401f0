"""How a run begins on a worker: anew, taken over from a worker that is gone, or resumed after it was parked.

::

    claim ──▶ fresh ──▶ remember the question, record the opening ──▶ start
      │  └──▶ known ──▶ replay the journal ───────────────────────▶ resume
      ├─────▶ finished: its end is told again
      ├─────▶ held by a worker that lives: wait a little, then say so
      └─────▶ the ledger is away: nothing was done
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog

from pilothouse_dataplane.connectors.base import CallContext, SecretText
from pilothouse_dataplane.core import journal, run
from pilothouse_dataplane.core.journal import JournalError, Opening
from pilothouse_dataplane.core.messages import Message, ToolResult
from pilothouse_dataplane.core.state import Action, Asking, Limits, RunState, SettleTool
from pilothouse_dataplane.ledger.base import Claim, Finished, Held, LedgerUnavailable, NewRun
from pilothouse_dataplane.memory.short_term import MemoryUnavailable
from pilothouse_dataplane.worker import problems
from pilothouse_dataplane.worker.prompt import opening
from pilothouse_dataplane.worker.runtime import Runtime
from pilothouse_proto.agent.v1 import agent_pb2 as agent

HELD_SECONDS = 2.0
"""How long a run that another worker holds is asked for again."""
_HELD_WAIT = 0.2
RESUMED_SECONDS = 10.0
"""A run that goes on has at least this long, so that writes in doubt are settled even after its deadline."""
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Wanted:
    """A run that this worker is asked to drive."""

    run_id: str
    new: NewRun | None = None
    """None: the ledger knows it (``Resume``, or a run that nobody drives)."""
    lost_worker: str = ""
    trace: Mapping[str, str] | None = None
    """The caller's W3C trace headers."""
    user_token: SecretText | None = None
    """What the user signed in with; it is kept nowhere, so that a run which goes on without her has none."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A run that is this worker's now."""

    claim: Claim
    state: RunState
    actions: tuple[Action, ...]
    claimed_at: float
    """``time.monotonic`` at which ``claim.elapsed`` held."""
    settling: frozenset[str] = field(default_factory=frozenset)
    """Steps whose writes are looked up now."""

    @property
    def resumed(self) -> bool:
        """An earlier worker had it, or it was parked."""
        return not self.claim.fresh or self.claim.key.fence > 1


@dataclass(frozen=True, slots=True)
class NotBegun:
    """The run is not driven here; ``error`` is what the user reads. With a ``claim`` it is ours and must be ended."""

    error: agent.Error
    claim: Claim | None = None


async def begin(runtime: Runtime, wanted: Wanted) -> Begun | Finished | NotBegun:
    """Claim the run and bring it to where it can go on."""
    new = wanted.new
    remembered: asyncio.Task[tuple[Message, ...]] | None = None
    if new is not None:  # both stores are asked at once: neither needs the other's answer
        remembered = asyncio.create_task(runtime.memory.begin(new.session_id, new.run_id, new.text))
    try:
        claimed = await _claim(runtime, wanted)
        at = time.monotonic()
        if claimed is None:
            return NotBegun(problems.unknown_run())
        if isinstance(claimed, Held):
            return NotBegun(problems.held())
        if isinstance(claimed, Finished):
            return claimed
        if not runtime.toolset.prepared:
            asker = claimed.run.asker.email
            await runtime.toolset.prepare(CallContext(asker, wanted.run_id, user_token=wanted.user_token))
        if not claimed.fresh:
            return _go_on(runtime, claimed, at)
        try:
            ask = claimed.run
            if remembered is None:
                remembered = asyncio.create_task(runtime.memory.begin(ask.session_id, ask.run_id, ask.text))
            earlier = await remembered
        except MemoryUnavailable as error:
            _log.warning("message not saved", error=str(error))
            return NotBegun(problems.not_saved(), claimed)
        return _start(runtime, claimed, earlier, at)
    except LedgerUnavailable as error:
        _log.warning("run not claimed", error=str(error))
        first = new is not None and not wanted.lost_worker
        return NotBegun(problems.not_saved() if first else problems.not_resumed())
    finally:
        if remembered is not None and not remembered.done():
            remembered.cancel()
        elif remembered is not None and not remembered.cancelled():
            remembered.exception()  # not needed, so not missed


async def _claim(runtime: Runtime, wanted: Wanted) -> Claim | Held | Finished | None:
    until = time.monotonic() + HELD_SECONDS
    while True:
        if wanted.new is not None:
            claimed: Claim | Held | Finished | None = await runtime.ledger.claim(
                wanted.new, lost_worker=wanted.lost_worker
            )
        else:
            claimed = await runtime.ledger.claim_known(wanted.run_id, lost_worker=wanted.lost_worker)
        if not isinstance(claimed, Held) or time.monotonic() >= until:
            return claimed
        await asyncio.sleep(_HELD_WAIT)


def _limits(runtime: Runtime) -> Limits:
    config = runtime.config.agent
    return Limits(
        max_steps=config.max_steps,
        parallel_calls=config.parallel_calls,
        budget_micros=config.run_budget_micros,
        approval_seconds=config.approval_seconds,
    )


def _asking(claim: Claim) -> Asking:
    return Asking(claim.run.asker.email, claim.run.asker.manager_email)


def _start(runtime: Runtime, claim: Claim, earlier: tuple[Message, ...], at: float) -> Begun:
    config, asker = runtime.config, claim.run.asker
    user = asker.display_name or asker.email
    messages = opening(config.agent.instructions, config.display_name, user, earlier, claim.run.text)
    runtime.ledger.open(claim.key, journal.encode_opening(Opening(messages)))
    deadline = config.agent.deadline_seconds
    if claim.key.fence > 1:
        deadline = max(deadline, claim.elapsed + RESUMED_SECONDS)
    state, actions = run.start(
        claim.run.run_id, messages, runtime.toolset.catalog, _limits(runtime), _asking(claim), deadline
    )
    return Begun(claim, state, actions, at)


def _go_on(runtime: Runtime, claim: Claim, at: float) -> Begun | NotBegun:
    deadline = max(runtime.config.agent.deadline_seconds, claim.elapsed + RESUMED_SECONDS)
    try:
        state = journal.replay(
            claim.run.run_id,
            journal.decode_opening(claim.opening),
            claim.journal,
            runtime.toolset.catalog,
            _limits(runtime),
            _asking(claim),
            deadline,
        )
    except JournalError as error:
        _log.error("journal not readable", run=claim.run.run_id, error=str(error))
        return NotBegun(problems.unreadable(), claim)
    intended: dict[str, ToolResult | None] = {write.intent.step_id: write.result for write in claim.writes}
    state, actions = run.resume(state, intended)
    settling = frozenset(action.step.id for action in actions if isinstance(action, SettleTool))
    return Begun(claim, state, actions, at, settling)
