"""JSON over HTTP to a system that is not trusted: bounded in size and time, no redirects, no cookies.

Cookies are off because one session serves many users: a cookie of one would travel with the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from time import time
from typing import Any

import aiohttp
import orjson

from pilothouse_dataplane.connectors.base import SystemUnavailable
from pilothouse_dataplane.core.retry import parse_retry_after

_MAX_BODY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class JsonResponse:
    """A response whose body is JSON, or empty (``body`` None)."""

    status: int
    body: Any
    retry_after: float | None


class JsonClient:
    """Requests to one base address."""

    def __init__(self, system: str, base_url: str, timeout_seconds: float) -> None:
        self._system = system
        self._base = base_url.rstrip("/")
        self._timeout = timeout_seconds
        self._session: aiohttp.ClientSession | None = None

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        token: str | None,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> JsonResponse:
        """One request. Raises SystemUnavailable; a status that is not 2xx is returned for the caller to read.

        ``path`` must be made of checked parts only: it is not quoted again.
        """
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=128, keepalive_timeout=30, ttl_dns_cache=10),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        headers = {"Accept": "application/json"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            async with asyncio.timeout(self._timeout):
                async with self._session.request(
                    method,
                    self._base + path,
                    data=orjson.dumps(body) if body is not None else None,
                    params=query,
                    headers=headers,
                    allow_redirects=False,
                ) as response:
                    return await self._read(response)
        except aiohttp.ClientConnectorError as error:
            raise SystemUnavailable(f"{self._system} can't be reached.", may_have_acted=False) from error
        except TimeoutError as error:
            message = f"{self._system} did not answer within {self._timeout:g} s."
            raise SystemUnavailable(message, may_have_acted=True) from error
        except aiohttp.ClientError as error:
            raise SystemUnavailable(f"{self._system} broke off the connection.", may_have_acted=True) from error

    async def _read(self, response: aiohttp.ClientResponse) -> JsonResponse:
        after = parse_retry_after(response.headers.get("Retry-After"), time())
        raw = bytearray()
        async for chunk in response.content.iter_any():
            raw += chunk
            if len(raw) > _MAX_BODY_BYTES:
                raise SystemUnavailable(f"{self._system} sent more than 1 MB.", may_have_acted=True)
        if 300 <= response.status < 400:
            message = f"{self._system} redirects to another address, which is not followed: its URL needs correcting."
            raise SystemUnavailable(message, may_have_acted=False)
        if not raw:
            return JsonResponse(response.status, None, after)
        if response.content_type != "application/json":
            if response.status >= 400:  # a proxy's page: the status says enough
                return JsonResponse(response.status, None, after)
            raise SystemUnavailable(f"{self._system} did not answer with JSON.", may_have_acted=True)
        try:
            return JsonResponse(response.status, orjson.loads(bytes(raw)), after)
        except orjson.JSONDecodeError as error:
            raise SystemUnavailable(f"{self._system} sent broken JSON.", may_have_acted=True) from error
