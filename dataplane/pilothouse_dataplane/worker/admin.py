"""What an SRE asks of a worker: dead letters, breakers, pending approvals. The front door has checked who may.

A replay sends a failed write again under its own idempotency key, as the user who asked for it. Where it may have been
sent before, its key is looked up first. A lock among the tenant's workers keeps two replays of one letter apart.
"""

from __future__ import annotations

from datetime import UTC, date, datetime

import structlog

from pilothouse_dataplane.connectors.base import CallContext
from pilothouse_dataplane.core.messages import Outcome, Tool, ToolResult
from pilothouse_dataplane.ledger.base import DeadLetterRecord, LedgerUnavailable
from pilothouse_dataplane.worker import messages as wire
from pilothouse_dataplane.worker.runtime import Runtime
from pilothouse_proto.agent.v1 import agent_pb2 as agent

_DEFAULT_LETTERS = 100
_MAX_LETTERS = 1000
_REPLAY_SECONDS = 30.0
_LOCK_SECONDS = 90.0
"""Longer than a replay with its look-ups can take."""
_log = structlog.get_logger()


class Refusal(Exception):
    """What was asked can't be done; the message is a sentence for the SRE."""

    def __init__(self, message: str, *, missing: bool = False) -> None:
        super().__init__(message)
        self.missing = missing
        """There is no such thing."""


async def list_approvals(runtime: Runtime, request: agent.ListApprovalsRequest) -> agent.ListApprovalsResponse:
    """What waits for a decision. Raises LedgerUnavailable."""
    someone = request.decider.email or request.decider.groups
    records = await runtime.ledger.pending(wire.asker(request.decider) if someone else None)
    tenant = runtime.config.tenant
    return agent.ListApprovalsResponse(approvals=[wire.pending_approval(tenant, record) for record in records])


async def list_dead_letters(runtime: Runtime, request: agent.ListDeadLettersRequest) -> agent.ListDeadLettersResponse:
    """Newest first. Raises LedgerUnavailable."""
    limit = min(request.limit or _DEFAULT_LETTERS, _MAX_LETTERS)
    letters = await runtime.ledger.dead_letters(all_states=request.all, limit=limit, id=request.id)
    tenant = runtime.config.tenant
    return agent.ListDeadLettersResponse(dead_letters=[wire.dead_letter(tenant, letter) for letter in letters])


async def list_costs(runtime: Runtime, request: agent.ListCostsRequest, now: datetime) -> agent.ListCostsResponse:
    """Sums of one day's model calls, the dearest first. Raises Refusal, LedgerUnavailable."""
    try:
        day = date.fromisoformat(request.day) if request.day else now.astimezone(UTC).date()
    except ValueError:
        raise Refusal(f"{request.day[:20]!r} is not a day. Write one such as {now:%Y-%m-%d}.") from None
    by = [wire.COST_BY[each] for each in request.by if each in wire.COST_BY]
    if len(by) != len(request.by):
        raise Refusal("This worker does not know all that the sums should be taken by; nothing was summed.")
    until = request.until.ToDatetime(UTC) if request.HasField("until") else None
    sums = await runtime.ledger.costs(day, by, until=until, limit=request.limit)
    return agent.ListCostsResponse(day=day.isoformat(), sums=[wire.cost_sum(each) for each in sums])


async def discard(runtime: Runtime, request: agent.DiscardDeadLetterRequest) -> agent.DiscardDeadLetterResponse:
    """Close a letter that nobody wants. Raises Refusal, LedgerUnavailable."""
    await _open_letter(runtime, request.id)
    closed = await runtime.ledger.resolve(
        request.id, state="discarded", by=request.requested_by, resolution="Discarded; nothing was sent."
    )
    if closed is None:
        raise Refusal("Somebody has closed this dead letter before you; nothing changed.")
    _log.info("dead letter discarded", id=request.id, by=request.requested_by)
    return agent.DiscardDeadLetterResponse(dead_letter=wire.dead_letter(runtime.config.tenant, closed))


async def replay(
    runtime: Runtime, request: agent.ReplayDeadLetterRequest, now: float
) -> agent.ReplayDeadLetterResponse:
    """Send a failed write again. ``now`` is ``time.monotonic``. Raises Refusal, LedgerUnavailable."""
    lock = f"letter:{request.id}"
    mine = await runtime.locks.take(lock, _LOCK_SECONDS)
    if mine is None:
        raise Refusal("The store that keeps replays apart can't be asked; nothing was sent. Try again in a minute.")
    if not mine:
        raise Refusal("This dead letter is being replayed at the moment; nothing was sent. Look again in a minute.")
    try:
        return await _replay(runtime, request, now)
    finally:
        await runtime.locks.give(lock)


async def _replay(
    runtime: Runtime, request: agent.ReplayDeadLetterRequest, now: float
) -> agent.ReplayDeadLetterResponse:
    letter = await _open_letter(runtime, request.id)
    tool = next((tool for tool in runtime.toolset.tools if tool.name == letter.tool), None)
    if tool is None:
        raise Refusal(f"This agent has no tool {letter.tool} (any more); nothing was sent.")
    if not request.force and (later := await runtime.ledger.later_success(letter)):
        message = f"The same change was made by the later run {later}; nothing was sent. Force it, or discard this."
        return _told(runtime, letter, ToolResult(Outcome.REFUSED, message))
    result = await _send(runtime, letter, tool, now + _REPLAY_SECONDS, force=request.force)
    _log.info("dead letter replayed", id=letter.id, by=request.requested_by, outcome=result.outcome.value)
    if result.outcome is not Outcome.SUCCEEDED:
        return _told(runtime, letter, result)
    try:
        closed = await runtime.ledger.resolve(
            letter.id, state="replayed", by=request.requested_by, resolution=result.summary
        )
    except LedgerUnavailable:
        note = f"{result.summary} It could not be noted: replay it again later, which sends nothing twice."
        return _told(runtime, letter, ToolResult(Outcome.SUCCEEDED, note))
    return _told(runtime, closed or letter, result)


async def _send(runtime: Runtime, letter: DeadLetterRecord, tool: Tool, deadline: float, *, force: bool) -> ToolResult:
    context = CallContext(letter.asker.email, letter.key, deadline)
    if letter.in_doubt or letter.attempts:
        settled = await runtime.toolset.settle(tool, letter.arguments, context)
        if settled.result is not None:
            return settled.result
        if not settled.absent and letter.in_doubt and not force:
            message = (
                "Whether the write took effect can't be found out, so nothing was sent. Look in the system itself; "
                "then force the replay, or discard it."
            )
            return ToolResult(Outcome.UNKNOWN, message)
    return (await runtime.toolset.call(tool, letter.arguments, context)).result


async def _open_letter(runtime: Runtime, id: str) -> DeadLetterRecord:
    letters = await runtime.ledger.dead_letters(all_states=True, limit=1, id=id) if id else ()
    if not letters:
        raise Refusal("There is no dead letter with this id.", missing=True)
    if letters[0].state != "open":
        raise Refusal(f"This dead letter is {letters[0].state} already; nothing changed.")
    return letters[0]


def _told(runtime: Runtime, letter: DeadLetterRecord, result: ToolResult) -> agent.ReplayDeadLetterResponse:
    return agent.ReplayDeadLetterResponse(
        dead_letter=wire.dead_letter(runtime.config.tenant, letter),
        outcome=wire.OUTCOMES[result.outcome],
        message=result.summary,
    )


async def set_breaker(runtime: Runtime, request: agent.SetBreakerRequest) -> None:
    """Force a breaker open, disable it, or give it back to its own judgement. Raises Refusal."""
    mode = wire.BREAKER_MODES.get(request.mode)
    if mode is None:
        raise Refusal("Say what the breaker should do: automatic, forced open or disabled.")
    kind, _, name = request.name.partition("/")
    config = runtime.config
    known = {
        "connector": {connector.name for connector in config.connectors},
        "provider": {provider.name for provider in config.route.providers},
    }
    if name not in known.get(kind, ()):
        raise Refusal(f"There is no breaker {request.name[:100]!r}.", missing=True)
    if not await runtime.breakers.set_mode(request.name, mode, request.requested_by or "an operator"):
        _log.warning("breaker set here alone: the store is away", name=request.name)
