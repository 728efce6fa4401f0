"""One ``Converse`` call to one worker: what goes up, what comes down, and how the end of the call is to be read.

final, error, parked        the run has ended, or waits: nothing to do
the worker says no          :func:`refusal` gives the user's error
anything else               :class:`Lost`: the run is to be taken over
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import grpc
import grpc.aio

from pilothouse_dataplane.gateway.channels import WorkerLink
from pilothouse_dataplane.gateway.problems import Problem
from pilothouse_proto.agent.v1 import agent_pb2 as pb
from pilothouse_proto.agent.v1 import agent_pb2_grpc

log = logging.getLogger(__name__)

HANDING_OVER = "handing over"
"""What a draining worker says (status UNAVAILABLE) of a run that another one is to go on with."""
_WRITE = 2.0
"""Seconds that a message may wait for the worker's buffer."""
_LEAVE = 0.2
"""Seconds that a worker has to take notice of a stop before the stream is cut: a cut may overtake what is unread."""


class Lost(Exception):
    """The worker is gone, or gives the run away. ``cause``, which is a label of a metric:

    ``lost``; ``drained``; ``full``: it has no room for a run that was begun; ``held``: another worker has the run.
    """

    def __init__(self, why: str, cause: str = "lost") -> None:
        super().__init__(why)
        self.cause = cause


class Stream:
    """The call; use once, and :meth:`cut` it at the end."""

    def __init__(self, link: WorkerLink, run_id: str) -> None:
        self.link = link
        self._run_id = run_id
        self._writing = asyncio.Lock()
        # Fail fast instead of waiting for a reconnection: what was sent may already have been acted upon.
        self._call: grpc.aio.StreamStreamCall[pb.ConverseRequest, pb.ConverseEvent] = agent_pb2_grpc.AgentStub(
            link.channel
        ).Converse(wait_for_ready=False)

    async def write(self, request: pb.ConverseRequest) -> None:
        """Send. A failure is left to the reading side, which finds out why and tells the user."""
        async with self._writing:
            try:
                async with asyncio.timeout(_WRITE):
                    await self._call.write(request)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError, TimeoutError) as error:
                log.debug("run %s: could not write: %s", self._run_id, brief(error))
            except asyncio.CancelledError:
                # gRPC raises it too, where the channel was closed under the call.
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise

    async def read(self) -> pb.ConverseEvent:
        """The next event. Raises :class:`Lost`, or AioRpcError as the worker gave it."""
        event: Any = await self._call.read()
        if not isinstance(event, pb.ConverseEvent):
            raise Lost("the stream ended without a last event")
        self.link.alive()
        return event

    async def leave(self, reason: str) -> None:
        """Stop a run that nobody wants any more. A cut alone would not: the worker finishes such a run by itself."""
        await self.write(pb.ConverseRequest(stop=pb.Stop(reason=reason)))
        await asyncio.sleep(_LEAVE)

    def cut(self) -> None:
        """End the call. A run that has not ended goes on in the worker, unless it was stopped."""
        self._call.cancel()


def lost(error: grpc.aio.AioRpcError) -> Lost:
    """What a failed call means for its run, where it is no :func:`refusal`."""
    drained = error.code() == grpc.StatusCode.UNAVAILABLE and HANDING_OVER in (error.details() or "")
    return Lost(brief(error), "drained" if drained else "lost")


def refusal(error: grpc.aio.AioRpcError) -> Problem | None:
    """A worker that lives and says no; None where the status means that it is gone."""
    detail = f"The worker refused: {error.details() or error.code().name}. The question was not answered."
    if error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED:
        return Problem(pb.ERROR_CODE_RATE_LIMITED, detail, "Wait a moment and ask again.", retryable=True)
    if error.code() in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.NOT_FOUND}:
        return Problem(pb.ERROR_CODE_INVALID_REQUEST, detail, "Change the question and ask again.")
    if error.code() in {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED}:
        return Problem(pb.ERROR_CODE_PERMISSION_DENIED, detail, "Ask your administrator for access.")
    if error.code() in {grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.FAILED_PRECONDITION}:
        return Problem(pb.ERROR_CODE_INTERNAL, detail, "Tell your platform operator; ask again once it is repaired.")
    return None


def brief(error: BaseException) -> str:
    """One line for the log."""
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return str(error) or type(error).__name__
