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
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from pilothouse_api import names
from pilothouse_dataplane.core.messages import Message

_KEPT_MESSAGES = 40
_CONTEXT_CHARS = 24_000
"""Of earlier messages that a model gets, newest first."""


class MemoryUnavailable(Exception):
    """The store did not answer in time. Retry; the operator must act if it lasts."""


def connect(url: str) -> Redis:
    """A client with short time-outs that reconnects by itself. Raises ValueError for a bad address."""
    client: Redis = Redis.from_url(
        url,
        socket_connect_timeout=1.0,
        socket_timeout=1.5,
        health_check_interval=15,
        max_connections=64,
        # one more try covers a connection that the store closed while it idled
        retry=Retry(ExponentialBackoff(cap=0.2, base=0.05), 1),
        retry_on_error=[RedisConnectionError],
    )
    return client


class ShortTermMemory:
    """Messages of a tenant's sessions."""

    def __init__(self, client: Redis, tenant: str, ttl_seconds: int) -> None:
        self._client: Any = client  # redis-py's stubs give sync and async results in one union
        self._tenant = tenant
        self._ttl = ttl_seconds

    def _key(self, session: str) -> str:
        return names.session_key(self._tenant, session, "short")

    async def begin(self, session: str, run: str, text: str) -> tuple[Message, ...]:
        """Store the user's message of a run and return the messages before it. Raises MemoryUnavailable.

        A run that is asked again (same id) is stored once.
        """
        key = self._key(session)
        try:
            async with asyncio.timeout(3.0):
                raw = await self._client.lrange(key, -_KEPT_MESSAGES, -1)
                entries = [orjson.loads(item) for item in raw]
                if not any(entry.get("run") == run and entry.get("role") == "user" for entry in entries):
                    await self._append(key, run, "user", text)
        except (RedisError, OSError, TimeoutError) as error:
            raise MemoryUnavailable(str(type(error).__name__)) from error
        return _context([entry for entry in entries if entry.get("run") != run])

    async def finish(self, session: str, run: str, text: str) -> None:
        """Store a run's answer. Raises MemoryUnavailable."""
        try:
            async with asyncio.timeout(3.0):
                await self._append(self._key(session), run, "assistant", text)
        except (RedisError, OSError, TimeoutError) as error:
            raise MemoryUnavailable(str(type(error).__name__)) from error

    async def _append(self, key: str, run: str, role: Literal["user", "assistant"], text: str) -> None:
        pipeline = self._client.pipeline(transaction=True)
        pipeline.rpush(key, orjson.dumps({"role": role, "run": run, "text": text}))
        pipeline.ltrim(key, -_KEPT_MESSAGES, -1)
        pipeline.expire(key, self._ttl)
        await pipeline.execute()


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
