"""One run's voice: what its client is sent, in order, however slow the client is and whether or not there is one.

A run speaks through its ``Outlet``. A ``ClientStream`` is one client's connection: it may come later than the run, go
before it, and be replaced by another. Without one, what the run says is dropped: its end is kept elsewhere.

Text is sent in pieces of about 30 ms, for each message costs as much as a short piece of text; what a slow client has
not fetched grows together into one piece. So a stream holds no more than the run's bounds allow: a few events a step,
and the text.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from pilothouse_dataplane.worker.messages import stamp
from pilothouse_proto.agent.v1 import agent_pb2 as agent

TEXT_BATCH_SECONDS = 0.03
STEP_SECONDS = 0.01
"""How long news of steps may wait for one another: what they tell of, a call or its result, goes first."""
_PATIENT = frozenset({"plan", "step_started", "step_finished"})


class ClientStream:
    """What one client still has to be sent. Iterate over it; ``lost`` then says how it ended."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._events: list[agent.ConverseEvent] = []  # short, and an empty deque takes 0.8 KB
        self._text: list[str] = []
        self._text_sent = float("-inf")
        self._waiter: asyncio.Future[None] | None = None
        self._closed = self._soon = False
        self.lost = ""
        """Why the stream ended although the run did not; "" where it ended with the run, or was parked."""
        self.sequence = 0

    def push(self, event: agent.ConverseEvent) -> None:
        """Queue an event behind the text that came before it."""
        self._seal_text()
        event.run_id = self._run_id
        stamp(event)
        self._events.append(event)
        if event.WhichOneof("event") not in _PATIENT:
            self._wake()
        elif self._waiter is not None and not self._soon:
            self._soon = True
            asyncio.get_running_loop().call_later(STEP_SECONDS, self._wake)

    def text(self, piece: str) -> None:
        """Queue text."""
        self._text.append(piece)
        if len(self._text) == 1:
            self._wake()

    def close(self, lost: str = "") -> None:
        """Nothing follows. What is queued is sent still."""
        if not self._closed:
            self._closed, self.lost = True, lost
            self._seal_text()
            self._wake()

    async def __aiter__(self) -> AsyncIterator[agent.ConverseEvent]:
        while True:
            while self._events:
                yield self._next()
            if self._closed and not self._text:
                return
            if self._text:
                left = self._text_sent + TEXT_BATCH_SECONDS - asyncio.get_running_loop().time()
                if left <= 0:
                    self._seal_text()
                    continue
                await self._sleep(left)
            else:
                await self._sleep(None)

    def _next(self) -> agent.ConverseEvent:
        event = self._events.pop(0)
        self.sequence += 1
        event.sequence = self.sequence
        return event

    def _seal_text(self) -> None:
        if self._text:
            event = agent.ConverseEvent(text_delta=agent.TextDelta(text="".join(self._text)))
            event.run_id = self._run_id
            stamp(event)
            self._text.clear()
            self._text_sent = asyncio.get_running_loop().time()
            self._events.append(event)

    async def _sleep(self, seconds: float | None) -> None:
        loop = asyncio.get_running_loop()
        waiter = self._waiter = loop.create_future()
        timer = loop.call_later(seconds, _resolve, waiter) if seconds is not None else None
        try:
            await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    def _wake(self) -> None:
        self._soon = False
        if self._waiter is not None:
            _resolve(self._waiter)


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class Outlet:
    """Where a run's events for its client go."""

    def __init__(self, stream: ClientStream | None) -> None:
        self._stream = stream

    @property
    def attached(self) -> bool:
        """Somebody listens."""
        return self._stream is not None

    def attach(self, stream: ClientStream) -> None:
        """Speak to this client from now on. One that listened before is told that the run went elsewhere."""
        if self._stream is not None:
            stream.sequence = self._stream.sequence
            self._stream.close("another connection took the run over")
        self._stream = stream

    def detach(self, stream: ClientStream) -> None:
        """The client has gone; the run goes on."""
        if self._stream is stream:
            self._stream = None

    def emit(self, **event: Any) -> None:
        """One event, by its field's name in ``ConverseEvent``."""
        if self._stream is not None:
            self.send(agent.ConverseEvent(**event))

    def send(self, event: agent.ConverseEvent) -> None:
        """One event that is made already."""
        if self._stream is not None:
            self._stream.push(event)

    def text(self, piece: str) -> None:
        """A piece of the answer."""
        if self._stream is not None:
            self._stream.text(piece)

    def close(self, lost: str = "") -> None:
        """The stream's end; ``lost`` where the run goes on elsewhere."""
        if self._stream is not None:
            self._stream.close(lost)
            self._stream = None
