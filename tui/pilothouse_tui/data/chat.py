"""Chat with the gateway over WebSocket ``/v1/chat``.

``converse`` is one question and its events; ``ChatConnection`` is a conversation with stop and approvals. An event is
the gateway's JSON object as a dict: ``type`` is ``ready``, ``accepted``, ``plan``, ``step_started``, ``step_finished``,
``approval_required``, ``text_delta``, ``final`` or ``error``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

from pilothouse_tui.data.retry import Backoff
from pilothouse_tui.errors import AccessError, ConfigurationError, UnreachableError

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
        """Ask, and yield the run's events up to ``final`` or ``error``.

        Raises UnreachableError when the connection breaks; what the agent has done by then stays done.
        """
        try:
            await self._send({"type": "ask", "text": text})
            while True:
                event = await self._receive()
                yield event
                if event.get("type") in _LAST:
                    return
        except ConnectionClosed as error:
            raise self._lost(error) from error

    async def stop(self) -> None:
        """Ask the agent to stop the run; its ``final`` or ``error`` still comes."""
        if self.connected:
            await self._send({"type": "stop"})

    async def decide(self, approval_id: str, approved: bool) -> None:
        """Approve or refuse a write that waits for the user."""
        await self._send({"type": "decision", "approval_id": approval_id, "approved": approved})

    async def _send(self, message: Event) -> None:
        if self._socket is None:
            raise RuntimeError("ChatConnection is used before connect()")
        await self._socket.send(orjson.dumps(message).decode())

    async def _receive(self) -> Event:
        if self._socket is None:
            raise RuntimeError("ChatConnection is used before connect()")
        event: Event = orjson.loads(await self._socket.recv())
        return event

    def _lost(self, error: ConnectionClosed) -> UnreachableError:
        reason = error.rcvd.reason if error.rcvd is not None else ""
        return UnreachableError(
            f"The connection to the gateway was lost{f' ({reason})' if reason else ''}.",
            "The rest of the answer did not come; steps that are shown as done stay done.",
            "Ask again: the session goes on.",
        )


async def converse(url: str, token: str, text: str, session_id: str | None = None) -> AsyncGenerator[Event, None]:
    """Ask one question: yields ``ready``, then the run's events up to ``final`` or ``error``.

    ``token`` is an employee's token; ``session_id`` goes on with an earlier conversation. Raises a ToolError where
    the gateway can't be reached, refuses, or goes away before the answer is complete.
    """

    async def given() -> str:
        return token

    async with ChatConnection(url, given, session_id) as connection:
        yield await connection.connect()
        async for event in connection.ask(text):
            yield event
