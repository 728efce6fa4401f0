"""A client of workers over gRPC: one run, and when each of its events came."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc.aio

from engine_parts.processes import USER
from pilothouse_proto.agent.v1 import agent_pb2 as pb
from pilothouse_proto.agent.v1 import agent_pb2_grpc

ENDS = frozenset({"final", "error", "parked"})
STEPS = frozenset({"plan", "step_started"})


@dataclass
class Seen:
    """What a client saw of one run; seconds since it asked."""

    run_id: str
    began: float
    """``time.monotonic``."""
    events: list[tuple[float, str]] = field(default_factory=list)
    last: pb.ConverseEvent | None = None
    problem: str = ""
    """Why there is no whole ``final``; empty where there is."""
    steps: dict[str, pb.StepFinished] = field(default_factory=dict)
    """How each step ended, by its id."""

    @property
    def ended(self) -> bool:
        return self.last is not None and self.last.WhichOneof("event") in ENDS

    def first(self, kinds: frozenset[str]) -> float | None:
        return next((at for at, kind in self.events if kind in kinds), None)

    @property
    def seconds(self) -> float:
        return self.events[-1][0] if self.events else 0.0


def ask(tenant: str, text: str, run_id: str = "", attempt: int = 1, lost_worker: str = "") -> pb.ConverseRequest:
    """An Ask of the stand-ins' user in a session of its own."""
    run_id = run_id or f"run-{uuid.uuid4().hex}"
    return pb.ConverseRequest(
        ask=pb.Ask(
            tenant=tenant,
            session_id=f"s-{run_id}",
            run_id=run_id,
            user=pb.User(subject="1", email=USER, display_name="Erin Employee"),
            text=text,
            attempt=attempt,
            lost_worker=lost_worker,
        )
    )


async def converse(
    stub: Any, request: pb.ConverseRequest, seen: Seen | None = None, on_event: Callable[[str], None] | None = None
) -> Seen:
    """Asks and reads to the end. A cut stream leaves ``last`` without an end; it does not raise."""
    seen = seen or Seen(request.ask.run_id, time.monotonic())
    call = stub.Converse()
    try:
        await call.write(request)
        while True:
            event = await call.read()
            if event is grpc.aio.EOF:
                break
            kind = str(event.WhichOneof("event"))
            seen.events.append((time.monotonic() - seen.began, kind))
            seen.last = event
            steps = [event.step_finished] if kind == "step_finished" else event.resumed.steps
            seen.steps.update({step.step_id: step for step in steps if step.step_id})
            if on_event is not None:
                on_event(kind)
            if kind in ENDS:
                break
    except grpc.aio.AioRpcError as error:
        seen.problem = f"{error.code().name}: {error.details()}"
        return seen
    finally:
        call.cancel()
    if seen.last is None or not seen.ended:
        seen.problem = "the stream ended without an outcome"
    elif seen.last.WhichOneof("event") != "final":
        seen.problem = str(seen.last).replace("\n", " ")[:300]
    elif seen.last.final.partial:
        seen.problem = f"partial: {seen.last.final.text[:200]}"
    else:
        seen.problem = ""
    return seen


def stub_of(channel: grpc.aio.Channel) -> Any:
    return agent_pb2_grpc.AgentStub(channel)
