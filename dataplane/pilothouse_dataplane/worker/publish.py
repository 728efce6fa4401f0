"""A run's events to the tenant's Redis stream (``events.py``): for the terminal UI, audit and evaluation."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Protocol

from pilothouse_api.workerconfig import WorkerConfig
from pilothouse_dataplane.ledger.base import NewRun
from pilothouse_dataplane.worker.messages import stamp
from pilothouse_proto.events.v1 import events_pb2 as events


class EventSink(Protocol):
    """Where run events go; never in an answer's way."""

    def publish(self, event: bytes) -> None: ...

    async def aclose(self) -> None: ...


class RunEvents:
    """Publishes what happens in one run."""

    def __init__(self, sink: EventSink, config: WorkerConfig, worker: str, run: NewRun) -> None:
        self._sink = sink
        # Protobuf messages that are written one after the other are read as one: what is the same in every event of a
        # run is serialized once.
        self._common = events.RunEvent(
            tenant=config.tenant,
            session_id=run.session_id,
            run_id=run.run_id,
            revision=config.revision,
            worker=worker,
            user=run.asker.email,
        ).SerializeToString()

    def publish(self, at: datetime | None = None, **event: Any) -> None:
        """One event, by its field's name in ``RunEvent``; ``at``: when it was. Never waits and never raises."""
        message = events.RunEvent(**event)
        if at is None:
            stamp(message)
        else:
            message.time.FromDatetime(at)
        self._sink.publish(self._common + message.SerializeToString())
