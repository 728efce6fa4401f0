"""HTTP for the SDK of MCP over the connectors' own guarded session: the egress rule, no cookies, bounded answers.

It also notes what the SDK keeps to itself and a call's outcome depends on: the status of a refusal, and whether the
call itself had left.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from time import time

import aiohttp
import httpx2
import orjson

from pilothouse_dataplane.connectors.base import SecretText
from pilothouse_dataplane.connectors.http import JsonClient
from pilothouse_dataplane.core.retry import parse_retry_after

MAX_BYTES = 8 << 20
"""Of one answer, after decompression."""
_OURS = frozenset(("host", "content-length", "authorization", "connection", "accept-encoding", "user-agent", "cookie"))


class TooLarge(httpx2.ReadError):
    """The server sent more than is read."""


class GuardedTransport(httpx2.AsyncBaseTransport):
    """One call's requests, all with the asking user's own token."""

    def __init__(self, http: JsonClient, token: SecretText | None) -> None:
        self._http = http
        self._token = token
        self.refused = 0
        """The last status of 400 or more."""
        self.retry_after: float | None = None
        self.sent = False
        """A ``tools/call`` may have reached the server."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """See httpx."""
        body = await request.aread()
        url = str(request.url)
        session = self._http.session(f"{request.url.scheme}://{request.url.netloc.decode()}")
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _OURS}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token.reveal()}"
        calls = _method(body) == "tools/call"
        try:
            self.sent = self.sent or calls
            response = await session.request(
                request.method, url, data=body or None, headers=headers, allow_redirects=False
            )
        except aiohttp.ClientConnectorError as error:
            self.sent = self.sent and not calls
            raise httpx2.ConnectError("the server can't be reached") from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise httpx2.ReadError("the connection broke") from error
        if response.status >= 400:
            self.refused = response.status
            self.retry_after = parse_retry_after(response.headers.get("Retry-After"), time())
        kept = [(k, v) for k, v in response.headers.items() if k.lower() not in ("content-encoding", "set-cookie")]
        return httpx2.Response(response.status, headers=kept, stream=_Body(response), request=request)


class _Body(httpx2.AsyncByteStream):
    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        taken = 0
        try:
            async for chunk in self._response.content.iter_any():
                taken += len(chunk)
                if taken > MAX_BYTES:
                    raise TooLarge("the answer is too large")
                yield chunk
        except aiohttp.ClientError as error:
            raise httpx2.ReadError("the connection broke") from error

    async def aclose(self) -> None:
        self._response.close()


def _method(body: bytes) -> str:
    try:
        message = orjson.loads(body) if body else None
    except orjson.JSONDecodeError:
        return ""
    return str(message.get("method", "")) if isinstance(message, dict) else ""
