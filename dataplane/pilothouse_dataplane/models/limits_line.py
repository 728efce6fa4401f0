"""A connection to Redis for one script, without a task, a future or a parser for each call: half of a decision's time.

redis-py opens it (address, TLS, authentication, database); then its transport is ours. One call at a time, and each
answer is one bulk string (RESP2, so that nothing else comes unasked). A script that the server doesn't know is sent
whole. Whatever else comes, or a line that breaks, fails the call and closes the line; the next call needs ``connect``.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Callable
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from pilothouse_dataplane.models.redis_transport import take_over

Answered = Callable[[bytes | Exception], None]
_MAX_ANSWER = 4 * 1024 * 1024


class ScriptLine(asyncio.Protocol):
    """Calls ``script`` with one key and one argument."""

    def __init__(self, client: Redis, script: str, key: str) -> None:
        """Connects to nothing yet."""
        self._pool: Any = client.connection_pool
        sha = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
        self._by_sha = _packed(b"EVALSHA", sha.encode(), b"1", key.encode())
        self._by_text = _packed(b"EVAL", script.encode(), b"1", key.encode())
        self._connection: Any = None
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._payload = b""
        self._answered: Answered | None = None

    @property
    def connected(self) -> bool:
        """A call may be made."""
        return self._transport is not None and not self._transport.is_closing()

    async def connect(self) -> None:
        """Raises RedisError, OSError."""
        self.drop()
        self._connection, self._transport = await take_over(self._pool, self)

    def call(self, payload: bytes, answered: Answered) -> None:
        """``answered`` hears the answer, or why there is none, exactly once, and never before this returns. One call at
        a time; ``connected`` must hold."""
        assert self._answered is None
        assert self._transport is not None
        self._payload, self._answered = payload, answered
        self._transport.write(self._by_sha + b"$%d\r\n%b\r\n" % (len(payload), payload))

    def fail(self, error: Exception) -> None:
        """Give the call up, and the line: a late answer would belong to nobody."""
        self.drop()
        answered, self._answered = self._answered, None
        if answered is not None:
            answered(error)

    def drop(self) -> None:
        """Close it without a word to whoever waits."""
        transport, self._transport = self._transport, None
        self._connection = None
        self._buffer = b""
        if transport is not None:
            with contextlib.suppress(OSError, RuntimeError):
                transport.abort()

    # --- what the transport says --------------------------------------------------------------------------------------
    def data_received(self, data: bytes) -> None:
        if self._transport is None:
            return
        self._buffer = buffer = self._buffer + data if self._buffer else data
        end = buffer.find(b"\r\n")
        if end < 0:
            if len(buffer) > _MAX_ANSWER:
                self.fail(RedisError("an answer without end"))
            return
        kind, head = buffer[:1], buffer[1:end]
        if kind == b"-":
            self._buffer = buffer[end + 2 :]
            self._refused(head)
            return
        if kind != b"$" or not head.isdigit() or int(head) > _MAX_ANSWER or self._answered is None:
            self.fail(RedisError("no answer of the script"))
            return
        whole = end + 2 + int(head)
        if len(buffer) < whole + 2:
            return
        self._buffer = buffer[whole + 2 :]
        answered, self._answered = self._answered, None
        answered(buffer[end + 2 : whole])

    def _refused(self, head: bytes) -> None:
        if head.startswith(b"NOSCRIPT") and self._transport is not None and self._answered is not None:
            self._transport.write(self._by_text + b"$%d\r\n%b\r\n" % (len(self._payload), self._payload))
            return
        self.fail(ResponseError(head.decode("utf-8", "replace")[:200]))

    def connection_lost(self, error: Exception | None) -> None:
        if self._transport is not None:
            self.fail(RedisConnectionError("the connection was closed"))

    def eof_received(self) -> None:
        """Close."""


def _packed(*parts: bytes) -> bytes:
    """A command to which one more argument comes."""
    return b"*%d\r\n" % (len(parts) + 1) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)
