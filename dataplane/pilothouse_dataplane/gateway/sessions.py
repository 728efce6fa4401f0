"""What the gateway keeps in Redis about a session: its owner, its worker and the lock of its one run.

Keys are ``pilothouse_api.names.session_key(tenant, session, part)`` with the parts ``owner``, ``worker`` and ``run``;
the tenant in the key keeps tenants apart even where an id is known to somebody else.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections import OrderedDict

from redis.asyncio import Redis
from redis.exceptions import RedisError

from pilothouse_api import names
from pilothouse_dataplane.gateway.identity import Identity
from pilothouse_dataplane.gateway.problems import Problem, store_unreachable
from pilothouse_dataplane.gateway.routing import Affinity
from pilothouse_proto.agent.v1 import agent_pb2 as pb

log = logging.getLogger(__name__)

_SESSION_ID = re.compile(r"[A-Za-z0-9_-]{16,64}")
_CACHE = 10_000
"""Sessions whose worker is remembered here for the time that Redis does not answer."""
_RELEASE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0"
_RENEW = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('pexpire', KEYS[1], ARGV[2]) end return 0"
_STORE_ERRORS = (RedisError, OSError, TimeoutError)


class RunLock:
    """The right to run one session; renews itself until :meth:`release`."""

    def __init__(self, redis: Redis, key: str, run_id: str, seconds: int) -> None:
        self._redis, self._key, self._run_id, self._ms = redis, key, run_id, seconds * 1000
        self._renewal = asyncio.create_task(self._renew(), name="renew-run-lock")

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._ms / 3000)
            try:
                await self._redis.eval(_RENEW, 1, self._key, self._run_id, str(self._ms))
            except _STORE_ERRORS as error:
                log.warning("could not renew the lock of a run: %r", error)

    async def release(self) -> None:
        """Let the next question in; an unreachable store lets the lock lapse by itself."""
        self._renewal.cancel()
        try:
            await self._redis.eval(_RELEASE, 1, self._key, self._run_id)
        except _STORE_ERRORS as error:
            log.warning("could not release the lock of a run, it lapses within seconds: %r", error)


class SessionStore:
    """Sessions in Redis. Methods raise :class:`Problem` where the user must be told."""

    def __init__(self, redis: Redis, *, ttl: int, lock_ttl: int) -> None:
        self._redis = redis
        self._ttl = ttl
        self._lock_ttl = lock_ttl
        self._cache: OrderedDict[tuple[str, str], Affinity] = OrderedDict()

    async def open(self, identity: Identity, session_id: str | None) -> str:
        """Begin a session (None) or take up one of this very user's; returns its id.

        Ids are 192 random bits made here. A given id must be one that was made for the same tenant and subject: one
        that is somebody else's and one that has lapsed are refused alike, so that nobody can probe for ids.
        """
        try:
            if session_id is None:
                made = secrets.token_urlsafe(24)
                key = names.session_key(identity.tenant, made, "owner")
                if not await self._redis.set(key, identity.subject, nx=True, ex=self._ttl):
                    raise store_unreachable()  # 192 bits do not collide: something is wrong with the store
                return made
            if _SESSION_ID.fullmatch(session_id):
                key = names.session_key(identity.tenant, session_id, "owner")
                owner = await self._redis.get(key)
                if owner is not None and secrets.compare_digest(_bytes(owner), identity.subject.encode()):
                    await self._redis.expire(key, self._ttl)
                    return session_id
        except _STORE_ERRORS as error:
            raise store_unreachable() from error
        raise Problem(
            pb.ERROR_CODE_PERMISSION_DENIED,
            "This conversation is not yours, or it has ended. Nothing was started.",
            "Start a new conversation: connect without a session_id.",
        )

    async def lock(self, identity: Identity, session_id: str, run_id: str) -> RunLock:
        """Take the session for one run. Raises :class:`Problem` while another run holds it, here or elsewhere."""
        key = names.session_key(identity.tenant, session_id, "run")
        owner = names.session_key(identity.tenant, session_id, "owner")
        try:
            taken = await self._redis.set(key, run_id, nx=True, px=self._lock_ttl * 1000)
            if taken:
                await self._redis.set(owner, identity.subject, ex=self._ttl)
                return RunLock(self._redis, key, run_id, self._lock_ttl)
        except _STORE_ERRORS as error:
            raise store_unreachable() from error
        raise busy()

    async def affinity(self, tenant: str, session_id: str) -> Affinity | None:
        """Where the session was last served; from this gateway's memory while Redis does not answer."""
        try:
            value = await self._redis.get(names.session_key(tenant, session_id, "worker"))
        except _STORE_ERRORS:
            return self._cache.get((tenant, session_id))
        return None if value is None else Affinity.decode(_bytes(value))

    async def remember(self, tenant: str, session_id: str, affinity: Affinity) -> None:
        """Keep the session with this worker for the session's time to live."""
        self._cache[tenant, session_id] = affinity
        self._cache.move_to_end((tenant, session_id))
        if len(self._cache) > _CACHE:
            self._cache.popitem(last=False)
        try:
            await self._redis.set(names.session_key(tenant, session_id, "worker"), affinity.encode(), ex=self._ttl)
        except _STORE_ERRORS as error:
            log.warning("could not store which worker serves a session: %r", error)


def _bytes(value: bytes | str) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


def busy() -> Problem:
    """A second question while one is being answered."""
    return Problem(
        pb.ERROR_CODE_RATE_LIMITED,
        "This conversation is still answering your last question. The new one was not started.",
        "Wait for the answer, or stop it first; then ask again.",
        retryable=True,
    )
