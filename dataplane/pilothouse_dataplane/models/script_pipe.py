"""A connection to Redis for scripts, many calls at a time: without the pool, the parser and the checks of each call of
redis-py, which cost several times what the script does, before every answer that a user waits for.

redis-py opens it (address, TLS, authentication, database); then its transport is ours. Answers come in the order of
the calls (RESP2, so that nothing else comes unasked). A script that the server doesn't know is sent whole. Whatever
else comes closes the connection, which fails all who wait; the next call opens a new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections import deque
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from pilothouse_dataplane.models.redis_transport import take_over

Reply = bytes | int | None
_MAX_REPLY = 8 << 20
_MAX_LINE = 4096


class Script:
    """A Lua script that takes ``keys`` keys."""

    def __init__(self, text: str, keys: int) -> None:
        sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        self._by_sha = (b"EVALSHA", sha.encode(), b"%d" % keys)
        self._by_text = (b"EVAL", text.encode(), b"%d" % keys)

    def call(self, arguments: tuple[bytes, ...], *, whole: bool = False) -> bytes:
        """The command's bytes; ``whole``: with the script's text."""
        parts = (*(self._by_text if whole else self._by_sha), *arguments)
        return b"*%d\r\n" % len(parts) + b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in parts])


@dataclass(slots=True)
class _Call:
    script: Script
    arguments: tuple[bytes, ...]
    answer: asyncio.Future[Reply]
    whole: bool = False


class ScriptPipe(asyncio.Protocol):
    """The connection. It is opened by the first call."""

    def __init__(self, client: Redis) -> None:
        """Connects to nothing yet; the address is ``client``'s."""
        self._pool: Any = client.connection_pool
        self._opening = asyncio.Lock()
        self._connection: Any = None
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[_Call] = deque()
        self._buffer = b""

    async def call(self, script: Script, *arguments: bytes) -> Reply:
        """The script's answer: a string, a whole number, or nothing. Raises RedisError, OSError.

        Cancelling it, as a time-out does, leaves the call to the server: it may have been carried out.
        """
        if self._transport is None or self._transport.is_closing():
            await self._open()
            assert self._transport is not None
        call = _Call(script, arguments, asyncio.get_running_loop().create_future())
        self._waiting.append(call)
        self._transport.write(script.call(arguments))
        return await call.answer

    def drop(self, error: Exception | None = None) -> None:
        """Close it; all who wait fail."""
        transport, self._transport = self._transport, None
        self._connection = None
        self._buffer = b""
        waiting, self._waiting = self._waiting, deque()
        for call in waiting:
            if not call.answer.done():
                call.answer.set_exception(error or RedisConnectionError("the connection was closed"))
        if transport is not None:
            with contextlib.suppress(OSError, RuntimeError):
                transport.abort()

    async def _open(self) -> None:
        async with self._opening:
            if self._transport is not None and not self._transport.is_closing():
                return
            self.drop()
            self._connection, self._transport = await take_over(self._pool, self)

    # --- what the transport says --------------------------------------------------------------------------------------
    def data_received(self, data: bytes) -> None:
        if self._transport is None:
            return
        buffer = self._buffer + data if self._buffer else data
        at = 0
        while at < len(buffer):
            end = buffer.find(b"\r\n", at)
            if end < 0:
                if len(buffer) - at > _MAX_LINE:
                    self.drop(RedisError("an answer without end"))
                    return
                break
            kind, head = buffer[at : at + 1], buffer[at + 1 : end]
            at, start = end + 2, at
            if kind == b"$" and head != b"-1":
                if not head.isdigit() or len(head) > 8 or int(head) > _MAX_REPLY:
                    self.drop(RedisError("no answer of a script"))
                    return
                whole = at + int(head) + 2
                if len(buffer) < whole:
                    at = start
                    break
                value: Reply = buffer[at : whole - 2]
                at = whole
            elif kind == b"-":
                self._refused(head)
                continue
            elif kind == b":" and head.removeprefix(b"-").isdigit():
                value = int(head)
            elif kind == b"$":
                value = None
            else:
                self.drop(RedisError("no answer of a script"))
                return
            if not self._waiting:
                self.drop(RedisError("an answer that nobody asked for"))
                return
            answer = self._waiting.popleft().answer
            if not answer.done():  # who waited may have gone
                answer.set_result(value)
        self._buffer = buffer[at:]

    def _refused(self, head: bytes) -> None:
        """The oldest call failed, or is made again with the script's text."""
        if not self._waiting:
            return
        call = self._waiting.popleft()
        if head.startswith(b"NOSCRIPT") and not call.whole and self._transport is not None:
            call.whole = True
            self._waiting.append(call)
            self._transport.write(call.script.call(call.arguments, whole=True))
        elif not call.answer.done():
            call.answer.set_exception(ResponseError(head.decode("utf-8", "replace")[:200]))

    def connection_lost(self, error: Exception | None) -> None:
        if self._transport is not None:
            self.drop()

    def eof_received(self) -> None:
        """Close."""
