"""Chat with the gateway over WebSocket ``/v1/chat``.

``converse`` is one question and its events; ``ChatConnection`` is a conversation with stop and approvals. An event is
the gateway's JSON object as a dict: ``type`` is ``ready``, ``accepted``, ``plan``, ``step_started``, ``step_finished``,
``approval_required``, ``approval_decided``, ``parked``, ``resumed``, ``text_delta``, ``final``, ``error``, and, as
answers to this side's frames, ``approvals`` and ``decision_result``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

from pilothouse_tui.data import convert
from pilothouse_tui.data.retry import Backoff
from pilothouse_tui.errors import AccessError, ConfigurationError, UnreachableError
from pilothouse_tui.model import Approval, Decision

Event = Mapping[str, Any]
TokenProvider = Callable[[], Awaitable[str]]
_LAST = ("final", "error")


class ChatConnection:
    """One conversation. It survives a gateway's restart: ``connect`` again says hello with the same session.

    ``url`` is ``ws://host:port/v1/chat``; ``token`` is asked for on each connection, so that it never expires unseen.
    """

    def __init__(self, url: str, token: TokenProvider, session_id: str | None = None, *, timeout: float = 10.0) -> None:
        self.url = url
        self.session_id = session_id
        self._token = token
        self._timeout = timeout
        self._socket: ClientConnection | None = None
        self._parked: set[str] = set()
        """Runs that wait for an approval: their events may come between those of a later question."""

    async def __aenter__(self) -> ChatConnection:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def connected(self) -> bool:
        """Whether the socket is open, as far as this side knows."""
        return self._socket is not None and self._socket.close_code is None

    async def close(self) -> None:
        """Leave; the session stays at the gateway."""
        if self._socket is not None:
            await self._socket.close()
            self._socket = None

    async def connect(self) -> Event:
        """Open the socket, say hello, return the ``ready`` event.

        Raises UnreachableError (retry), AccessError (a refused token: the caller must act), ConfigurationError.
        """
        await self.close()
        token = await self._token()
        try:
            self._socket = await connect(self.url, open_timeout=self._timeout, max_size=4 * 1024 * 1024)
            await self._send({"type": "hello", "token": token, "session_id": self.session_id})
            event = await asyncio.wait_for(self._receive(), self._timeout)
        except InvalidURI as error:
            raise ConfigurationError(
                f"{self.url!r} is not a WebSocket address.", "Nothing was asked.", "Write --url ws://HOST:PORT/v1/chat."
            ) from error
        except (OSError, TimeoutError, InvalidHandshake) as error:
            raise UnreachableError(
                f"The gateway at {self.url} does not answer ({str(error) or 'timed out'}).",
                "Nothing was asked.",
                "Check that Pilothouse runs (`pilothouse status`), or name the gateway with --url.",
            ) from error
        except ConnectionClosed as error:
            raise self._lost(error) from error
        if event.get("type") != "ready":
            await self.close()
            raise AccessError(
                str(event.get("message") or "The gateway refused the hello."),
                "Nothing was asked.",
                str(event.get("user_action") or "Use another token or session."),
            )
        self.session_id = str(event["session_id"])
        return event

    async def connect_patiently(self, on_wait: Callable[[UnreachableError, float], None], attempts: int = 30) -> Event:
        """``connect`` with growing waits, for a gateway that restarts. ``on_wait`` gets the error and seconds."""
        backoff = Backoff(first=0.25, limit=5.0)
        for _ in range(attempts - 1):
            try:
                return await self.connect()
            except UnreachableError as error:
                wait = backoff.failed()
                on_wait(error, wait)
                await asyncio.sleep(wait)
        return await self.connect()

    async def ask(self, text: str) -> AsyncGenerator[Event, None]:
        """Ask, and yield the events that come up to the run's ``final`` or ``error``.

        ``parked`` does not end it: where the caller decides what is asked, the run goes on; else the caller leaves,
        and reads the rest with ``receive`` or among a later question's events. Raises UnreachableError when the
        connection breaks; what the agent has done by then stays done.
        """
        try:
            await self._send({"type": "ask", "text": text})
            own = ""
            while True:
                event = await self._receive()
                run_id = event.get("run_id")
                if event.get("type") == "accepted" and not own and run_id not in self._parked:
                    own = str(run_id or "")
                # A problem of another frame (a decision that came too late) has an empty run_id and ends nothing.
                ours = run_id in (None, own) if own else run_id not in self._parked
                self._note_parked(event)
                yield event
                if ours and event.get("type") in _LAST:
                    return
        except ConnectionClosed as error:
            raise self._lost(error) from error

    async def receive(self) -> Event:
        """The next event that comes without a question: of a run that was parked. Safe to cancel.

        Raises UnreachableError when the connection breaks.
        """
        try:
            event = await self._receive()
        except ConnectionClosed as error:
            raise self._lost(error) from error
        self._note_parked(event)
        return event

    async def stop(self) -> None:
        """Ask the agent to stop the run; its ``final`` or ``error`` still comes."""
        if self.connected:
            await self._send({"type": "stop"})

    async def decide(self, approval_id: str, approved: bool) -> None:
        """Approve or refuse a write; a ``decision_result`` comes among the events. Raises UnreachableError."""
        try:
            await self._send({"type": "decision", "approval_id": approval_id, "approved": approved})
        except ConnectionClosed as error:
            raise self._lost(error, "The approval was not answered.", "Answer it again.") from error

    async def approvals(self) -> list[Approval]:
        """What waits for this employee's decision. Raises a ToolError."""
        event = await self._answered({"type": "approvals"}, "approvals", "No approval was read.")
        return [convert.approval(raw) for raw in event.get("approvals") or ()]

    async def decide_and_wait(self, approval_id: str, approved: bool) -> Decision:
        """As ``decide``, and what became of it. Raises a ToolError."""
        frame = {"type": "decision", "approval_id": approval_id, "approved": approved}
        return convert.decision(await self._answered(frame, "decision_result", "The approval was not answered."))

    async def _answered(self, frame: Event, kind: str, not_done: str) -> Event:
        """Send a frame and wait for its answer, past whatever else comes."""
        try:
            async with asyncio.timeout(self._timeout):
                await self._send(frame)
                while True:
                    event = await self._receive()
                    if event.get("type") == kind:
                        return event
                    if event.get("type") == "error" and not event.get("run_id"):
                        raise AccessError(
                            str(event.get("message") or "The gateway refused."),
                            not_done,
                            str(event.get("user_action") or "Try again."),
                        )
        except ConnectionClosed as error:
            raise self._lost(error, not_done, "Try again.") from error
        except TimeoutError as error:
            raise UnreachableError(
                f"The gateway at {self.url} did not answer within {self._timeout:.0f} s.",
                "Whether it was done is not known.",
                "Look with `pilothouse approvals list` before you try again.",
            ) from error

    def _note_parked(self, event: Event) -> None:
        run_id = str(event.get("run_id") or "")
        if event.get("type") == "parked" and run_id:
            self._parked.add(run_id)
        elif event.get("type") in _LAST:
            self._parked.discard(run_id)

    async def _send(self, message: Event) -> None:
        if self._socket is None:
            raise RuntimeError("ChatConnection is used before connect()")
        await self._socket.send(orjson.dumps(message).decode())

    async def _receive(self) -> Event:
        if self._socket is None:
            raise RuntimeError("ChatConnection is used before connect()")
        event: Event = orjson.loads(await self._socket.recv())
        return event

    def _lost(
        self,
        error: ConnectionClosed,
        not_done: str = "The rest of the answer did not come; steps that are shown as done stay done.",
        to_do: str = "Ask again: the session goes on.",
    ) -> UnreachableError:
        reason = error.rcvd.reason if error.rcvd is not None else ""
        return UnreachableError(
            f"The connection to the gateway was lost{f' ({reason})' if reason else ''}.",
            not_done,
            to_do,
        )


async def converse(url: str, token: str, text: str, session_id: str | None = None) -> AsyncGenerator[Event, None]:
    """Ask one question: yields ``ready``, then the run's events up to ``final``, ``error`` or ``parked``.

    ``token`` is an employee's token; ``session_id`` goes on with an earlier conversation. Raises a ToolError where
    the gateway can't be reached, refuses, or goes away before the answer is complete.
    """

    async def given() -> str:
        return token

    async with ChatConnection(url, given, session_id) as connection:
        yield await connection.connect()
        async for event in connection.ask(text):
            yield event
            if event.get("type") == "parked":
                return
