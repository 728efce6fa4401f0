"""Short-term memory: a session's messages in a Redis list, kept for ``ttl_seconds`` after the last one.

What was acknowledged is kept. The user's message is stored before ``accepted`` is sent: where that fails, the ask is
answered with an error that may be tried again, and nothing else has happened. The answer is stored before ``final`` is
sent; where that fails, the answer still goes out (writes may stand behind it), with a sentence that it was not saved.

How safe a stored message is against the loss of the store itself is the store's setting (``appendfsync``, replicas).
"""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import orjson
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from pilothouse_api import names
from pilothouse_dataplane.core.messages import Message

_KEPT_MESSAGES = 40
_CONTEXT_CHARS = 24_000
"""Of earlier messages that a model gets, newest first."""


_APPEND = """
local earlier = redis.call('LRANGE', KEYS[1], -tonumber(ARGV[1]), -1)
for _, entry in ipairs(earlier) do
  if string.sub(entry, 1, #ARGV[3]) == ARGV[3] then return earlier end
end
redis.call('RPUSH', KEYS[1], ARGV[2])
redis.call('LTRIM', KEYS[1], -tonumber(ARGV[1]), -1)
redis.call('EXPIRE', KEYS[1], ARGV[4])
return earlier
"""
"""Appends an entry unless one with the same beginning is there, and returns those before it. One round trip."""


class MemoryUnavailable(Exception):
    """The store did not answer in time. Retry; the operator must act if it lasts."""


def connect(url: str) -> Redis:
    """A client with short time-outs that reconnects by itself. Raises ValueError for a bad address."""
    pool = BlockingConnectionPool.from_url(
        url,
        # a burst of asks waits for its turn: 64 connections carry thousands of commands a second
        max_connections=64,
        timeout=1.5,
        socket_connect_timeout=1.0,
        socket_timeout=1.5,
        health_check_interval=15,
        # one more try covers a connection that the store closed while it idled
        retry=Retry(ExponentialBackoff(cap=0.2, base=0.05), 1),
        retry_on_error=[RedisConnectionError],
    )
    client: Redis = Redis.from_pool(pool)
    return client


class ShortTermMemory:
    """Messages of a tenant's sessions."""

    def __init__(self, client: Redis, tenant: str, ttl_seconds: int) -> None:
        self._script: Any = client.register_script(_APPEND)
        self._tenant = tenant
        self._ttl = ttl_seconds

    def _key(self, session: str) -> str:
        return names.session_key(self._tenant, session, "short")

    async def begin(self, session: str, run: str, text: str) -> tuple[Message, ...]:
        """Store the user's message of a run and return the messages before it. Raises MemoryUnavailable.

        A run that is asked again (same id) is stored once.
        """
        entries = [orjson.loads(item) for item in await self._append(session, run, "user", text)]
        return _context([entry for entry in entries if entry.get("run") != run])

    async def finish(self, session: str, run: str, text: str) -> None:
        """Store a run's answer; of two, the newer counts. Raises MemoryUnavailable."""
        await self._append(session, run, "assistant", text)

    async def _append(self, session: str, run: str, role: Literal["user", "assistant"], text: str) -> list[bytes]:
        """Store one message of a run, a user's once; returns what was there."""
        entry = orjson.dumps({"role": role, "run": run, "text": text})
        same = orjson.dumps({"role": role, "run": run})[:-1] + b"," if role == "user" else b"-"
        try:
            async with asyncio.timeout(3.0):
                earlier: list[bytes] = await self._script(
                    keys=(self._key(session),), args=(_KEPT_MESSAGES, entry, same, self._ttl)
                )
        except (RedisError, OSError, TimeoutError) as error:
            raise MemoryUnavailable(type(error).__name__) from error
        return earlier


def _context(entries: list[dict[str, Any]]) -> tuple[Message, ...]:
    """The newest messages that fit, oldest first."""
    kept: list[Message] = []
    seen: set[tuple[object, object]] = set()
    size = 0
    for entry in reversed(entries):
        # an append whose acknowledgement was lost is sent again, so that a message may stand here twice
        turn = (entry.get("run"), entry.get("role"))
        if turn in seen:
            continue
        seen.add(turn)
        text = str(entry.get("text", ""))
        size += len(text)
        if size > _CONTEXT_CHARS:
            break
        kept.append(Message("assistant" if entry.get("role") == "assistant" else "user", text))
    return tuple(reversed(kept))
