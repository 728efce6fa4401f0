"""The few calls of the Kubernetes API that a reconcile makes, with their retries.

Errors::

    KubeError              an answer other than 2xx, after the retries
    └── RetryableError     409, 429 or 5xx, or no connection: the reconcile is put off, nobody must act yet
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

import aiohttp
import orjson

from pilothouse_api import names
from pilothouse_operator.core.resources import BY_KIND, Json, Resource
from pilothouse_operator.io.connection import Connection, TokenSource

PAGE = 500
"""Objects in one page of a list: what kubectl asks for."""
ATTEMPTS = 4
REQUEST_TIMEOUT_SECONDS = 30.0
APPLY_PATCH = "application/apply-patch+yaml"


class KubeError(Exception):
    """The API refused a request; ``status`` is the HTTP status, 0 without an answer."""

    def __init__(self, message: str, status: int, reason: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.retry_after: float | None = None
        """Seconds that the server asked to wait."""


class RetryableError(KubeError):
    """The same request may succeed later."""


def _retryable(method: str, status: int) -> bool:
    if status == 409:  # a write over another's; what is to be created and is there will stay there
        return method != "POST"
    return status == 429 or status >= 500


class Kube:
    """A small client; use it as an async context manager."""

    def __init__(self, connection: Connection, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._connection = connection
        self._tokens = TokenSource(connection)
        self._sleep = sleep
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        context = self._connection.ssl_context()
        connector = aiohttp.TCPConnector(limit=32, ssl=True if context is None else context)
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_SECONDS)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def list(self, resource: Resource, *, labels: str = "", fields: str = "") -> list[Json]:
        """All objects of a kind in the cluster that the selectors choose, with ``kind`` and ``apiVersion`` set."""
        found: list[Json] = []
        query = {"limit": str(PAGE)}
        if labels:
            query["labelSelector"] = labels
        if fields:
            query["fieldSelector"] = fields
        while True:
            page = await self._call("GET", resource.path(), query=query)
            for item in page.get("items") or []:
                item["kind"], item["apiVersion"] = resource.kind, resource.api_version
                found.append(item)
            token = (page.get("metadata") or {}).get("continue")
            if not token:
                return found
            query["continue"] = token

    async def get(self, resource: Resource, namespace: str, name: str) -> Json | None:
        """One object, None where it is not there."""
        try:
            return await self._call("GET", resource.path(namespace, name))
        except KubeError as error:
            if error.status == 404:
                return None
            raise

    async def create(self, body: Json) -> Json:
        """Create an object that must not be there yet; gives it as stored. Raises KubeError 409 where it is."""
        meta = body["metadata"]
        query = {"fieldManager": names.FIELD_MANAGER}
        return await self._call("POST", BY_KIND[body["kind"]].path(meta["namespace"]), query=query, body=body)

    async def apply(self, body: Json) -> Json:
        """Server-side apply of one child; gives the object as stored."""
        return await self._apply(body, None)

    async def apply_status(self, body: Json) -> Json:
        """Server-side apply of the status subresource; gives the object as stored."""
        return await self._apply(body, "status")

    async def _apply(self, body: Json, subresource: str | None) -> Json:
        meta = body["metadata"]
        path = BY_KIND[body["kind"]].path(meta["namespace"], meta["name"], subresource)
        return await self._call("PATCH", path, query={"fieldManager": names.FIELD_MANAGER, "force": "true"}, body=body)

    async def _call(
        self, method: str, path: str, *, query: dict[str, str] | None = None, body: Json | None = None
    ) -> Json:
        """One request, tried up to ``ATTEMPTS`` times with jittered back-off or the server's Retry-After."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self._once(method, path, query, body)
            except RetryableError as error:
                if attempt == ATTEMPTS:
                    raise
                await self._sleep(_pause(error, attempt))
        raise AssertionError("unreachable: the loop returns or raises")

    async def _once(self, method: str, path: str, query: dict[str, str] | None, body: Json | None) -> Json:
        if self._session is None:
            raise RuntimeError("Kube is used outside of its context manager")
        headers = self._tokens.headers()
        data = None
        if body is not None:
            headers["Content-Type"] = APPLY_PATCH if method == "PATCH" else "application/json"
            data = orjson.dumps(body)
        try:
            async with self._session.request(
                method, self._connection.server + path, params=query, data=data, headers=headers
            ) as response:
                raw = await response.read()
                status, retry_after = response.status, response.headers.get("Retry-After", "")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            message = f"{method} {path}: no answer ({type(error).__name__}: {error})"
            raise RetryableError(message, 0, "NoAnswer") from error
        if 200 <= status < 300:
            answer: Json = orjson.loads(raw)
            return answer
        if status == 401:
            self._tokens.forget()
        raise _error(method, path, status, raw, retry_after)


def _error(method: str, path: str, status: int, raw: bytes, retry_after: str) -> KubeError:
    try:
        details: Json = orjson.loads(raw)
    except orjson.JSONDecodeError:
        details = {}
    text = str(details.get("message") or raw[:200].decode(errors="replace"))
    reason = str(details.get("reason") or status)
    kind = RetryableError if _retryable(method, status) else KubeError
    error = kind(f"{method} {path}: {status} {text}", status, reason)
    if retry_after.isdigit():
        error.retry_after = float(retry_after)
    return error


def _pause(error: KubeError, attempt: int) -> float:
    """Seconds before the next try: the server's word, else 0.1, 0.2, 0.4 s with jitter."""
    if error.retry_after is not None:
        return min(error.retry_after, 10.0)
    return 0.1 * 2.0 ** (attempt - 1) * random.uniform(0.5, 1.5)  # noqa: S311 - jitter, not a secret
