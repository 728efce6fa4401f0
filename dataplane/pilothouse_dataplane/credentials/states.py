"""What is remembered between a link's beginning and the authorization server's call-back: ten minutes in Redis, taken
out by whoever comes first. The key is a hash of the state, so that who reads keys can't finish another's link.
"""

from __future__ import annotations

import hashlib
from typing import Any, Protocol

from redis.exceptions import RedisError

from pilothouse_dataplane.credentials.base import StoreUnavailable

LINK_SECONDS = 600


class LinkStates(Protocol):
    """Values that can be taken once. Each method raises StoreUnavailable."""

    async def keep(self, state: str, value: bytes) -> None: ...

    async def take(self, state: str) -> bytes | None:
        """None where there is none, or it was taken before."""
        ...


class RedisLinkStates:
    """Of one tenant."""

    def __init__(self, client: Any, tenant: str) -> None:
        self._client = client
        self._tenant = tenant

    def _key(self, state: str) -> str:
        return f"{{{self._tenant}}}:link:{hashlib.sha256(state.encode()).hexdigest()}"

    async def keep(self, state: str, value: bytes) -> None:
        try:
            await self._client.set(self._key(state), value, ex=LINK_SECONDS)
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreUnavailable(f"Redis did not answer ({type(error).__name__})") from None

    async def take(self, state: str) -> bytes | None:
        try:
            value = await self._client.getdel(self._key(state))
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreUnavailable(f"Redis did not answer ({type(error).__name__})") from None
        return value if value is None or isinstance(value, bytes) else str(value).encode()
