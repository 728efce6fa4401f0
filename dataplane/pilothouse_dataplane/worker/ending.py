"""How a run's end is told and kept: once in the ledger, once to the client, once in the events."""

from __future__ import annotations

import structlog
from google.protobuf.message import DecodeError

from pilothouse_dataplane.core.messages import Usage
from pilothouse_dataplane.core.state import Answer
from pilothouse_dataplane.ledger.base import Claim
from pilothouse_dataplane.memory.short_term import MemoryUnavailable
from pilothouse_dataplane.worker import messages as wire
from pilothouse_dataplane.worker import problems
from pilothouse_dataplane.worker.clock import RunClock
from pilothouse_dataplane.worker.publish import RunEvents
from pilothouse_dataplane.worker.runtime import Runtime
from pilothouse_dataplane.worker.stream import Outlet
from pilothouse_dataplane.worker.writes import Writes
from pilothouse_proto.agent.v1 import agent_pb2 as agent
from pilothouse_proto.events.v1 import events_pb2 as events

_NOT_SAVED = "\n\n(This answer could not be saved to our conversation; a follow-up may not know of it.)"
_OUTCOMES = {
    "answered": events.RUN_OUTCOME_ANSWERED,
    "partial": events.RUN_OUTCOME_PARTIAL,
    "stopped": events.RUN_OUTCOME_STOPPED,
    "failed": events.RUN_OUTCOME_FAILED,
}
_log = structlog.get_logger()


class Ending:
    """Ends one run."""

    def __init__(
        self, runtime: Runtime, claim: Claim, clock: RunClock, writes: Writes, outlet: Outlet, sink: RunEvents
    ) -> None:
        self._runtime = runtime
        self._claim = claim
        self._clock = clock
        self._writes = writes
        self._outlet = outlet
        self._sink = sink
        self.notes: list[str] = []
        """Sentences that the answer must end with: what was cut off and is kept."""

    async def answer(self, answer: Answer) -> None:
        """Remember the answer, then send it. Where it can't be remembered it is sent all the same: writes may stand
        behind it."""
        run = self._claim.run
        text = "\n\n".join([answer.text, *self.notes])
        try:
            await self._runtime.memory.finish(run.session_id, run.run_id, text)
        except MemoryUnavailable as error:
            _log.warning("answer not saved", error=str(error))
            text += _NOT_SAVED
        outcome = "answered"
        if answer.partial:
            outcome = "stopped" if answer.stopped else "partial"
        await self.end(agent.ConverseEvent(final=wire.final(answer, text, self._clock.split())), answer.usage, outcome)

    async def end(self, last: agent.ConverseEvent, usage: Usage, outcome: str) -> None:
        """The run's last event. The ledger waits for dead letters that are still being kept, the client does not."""
        last.run_id = self._claim.run.run_id
        wire.stamp(last)
        kept = last.SerializeToString()
        ledger, key = self._runtime.ledger, self._claim.key
        burying = self._writes.burying
        if not burying:
            ledger.finish(key, outcome, kept)
        self._outlet.send(last)
        self._outlet.close()
        split = self._clock.split()
        if burying and await self._writes.buried():
            # where one could not be kept, the run stays open: whoever takes it over tries again
            ledger.finish(key, outcome, kept)
        error = last.error.message if last.WhichOneof("event") == "error" else ""
        self._sink.publish(
            run_finished=events.RunFinished(
                outcome=_OUTCOMES[outcome],
                usage=wire.usage(usage),
                duration_ms=round(split.total * 1000),
                error=error,
                time=wire.time_split(split),
            )
        )
        _log.info("run finished", outcome=outcome, seconds=round(split.total, 3), error=error)


def told_again(final: bytes) -> agent.ConverseEvent:
    """The last event of a run that has ended before."""
    try:
        last = agent.ConverseEvent.FromString(final)
    except DecodeError:
        last = agent.ConverseEvent()
    return last if last.WhichOneof("event") else agent.ConverseEvent(error=problems.unreadable())
