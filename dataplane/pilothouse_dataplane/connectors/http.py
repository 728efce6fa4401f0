"""JSON over HTTP to a system that is not trusted: bounded in size and time, no redirects, no cookies.

Cookies are off because one session serves many users: a cookie of one would travel with the next. Every address that a
host name resolves to is held against the cluster's egress rule before a connection to it is made.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import time
from typing import Any
from urllib.parse import quote

import aiohttp
import orjson
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import DefaultResolver

from pilothouse_api.egress import EgressRule, refused_address, refused_url
from pilothouse_dataplane.connectors.base import SecretText, SystemUnavailable
from pilothouse_dataplane.core.retry import parse_retry_after

_MAX_BODY_BYTES = 1 << 20
"""After decompression, which aiohttp does in steps of 256 KB: a small body that unpacks to gigabytes ends here."""
_CONNECT_SHARE = 0.9
"""Of the timeout: a connection that isn't made by then is told from a request that isn't answered."""
_SECRET_BYTES = 12
"""No token is shorter; a shorter one would be found in words that are none."""
_HIDDEN = "…".encode()
_JUDGED = 64
"""Base addresses whose verdict is remembered."""
_REDIRECT_AFTER_ACTING = 303
"""“See Other” may follow a request that was carried out (RFC 9110, 15.4.4); the others say that it was not."""


@dataclass(frozen=True, slots=True)
class JsonResponse:
    """A response whose body is JSON, or empty (``body`` None)."""

    status: int
    body: Any
    retry_after: float | None
    headers: Mapping[str, str] = field(default_factory=dict)
    """By any case of the name: rate limits and links to the next page are read from them."""


class EgressRefused(OSError):
    """The cluster's egress rule forbids an address; the message says which and why."""


class _GuardedResolver(AbstractResolver):
    """Resolves names, and gives out only addresses that the rule allows."""

    def __init__(self, rule: EgressRule) -> None:
        self._rule = rule
        self._resolver = DefaultResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        why = ""
        allowed = []
        for result in found:
            refused = refused_address(host, result["host"], self._rule)
            if refused is None:
                allowed.append(result)
            why = refused or why
        if not allowed:
            raise EgressRefused(why or f"{host} has no address")
        return allowed

    async def close(self) -> None:
        await self._resolver.close()


class JsonClient:
    """Requests to one base address."""

    def __init__(self, system: str, base_url: str, timeout_seconds: float, egress: EgressRule | None = None) -> None:
        """``system`` begins sentences for users, such as Jira."""
        self.system = system
        self.base_url = base_url.rstrip("/")
        self._timeout = timeout_seconds
        self.egress = egress or EgressRule()
        self._session: aiohttp.ClientSession | None = None
        self._judged: dict[str, str | None] = {}
        """By base address: why it is refused."""

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        token: SecretText | None,
        body: Mapping[str, Any] | list[Any] | None = None,
        form: Mapping[str, str] | None = None,
        content: tuple[bytes, str] | None = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        base_url: str = "",
        scheme: str = "Bearer",
        max_body_bytes: int = _MAX_BODY_BYTES,
        raw: bool = False,
    ) -> JsonResponse:
        """One request. Raises SystemUnavailable; a status that is not 2xx is returned for the caller to read.

        ``path`` must be made of checked parts only (``quote(part, safe="")``): it is not quoted again. ``body`` is sent
        as JSON, ``form`` URL-encoded, ``content`` as it is, with its media type. ``base_url`` replaces the client's
        own, for systems that say with the token where it is good; it is held against the egress rule.
        ``max_body_bytes`` is the most that is read of the answer, for calls whose answers are known to be large;
        ``raw``: it is given as bytes, of whatever media type.
        """
        base = base_url.rstrip("/") or self.base_url
        sent = {"Accept": "application/json", **(headers or {})}
        if token is not None:
            sent["Authorization"] = f"{scheme} {token.reveal()}"
        data: bytes | aiohttp.FormData | None = None
        if body is not None:
            sent["Content-Type"] = "application/json"
            data = orjson.dumps(body)
        elif form is not None:
            data = aiohttp.FormData(dict(form))
        elif content is not None:
            data, sent["Content-Type"] = content
        session = self.session(base)
        try:
            async with asyncio.timeout(self._timeout):
                response = await session.request(
                    method,
                    base + path,
                    data=data,
                    params=query,
                    headers=sent,
                    allow_redirects=False,  # the token goes to the configured address only
                )
                try:
                    return await self._read(response, token, max_body_bytes, raw)
                finally:
                    # closes the connection at once, except where the body was read to its end
                    response.close()
        except aiohttp.ClientSSLError as error:
            raise SystemUnavailable(
                f"{self.system} can't be reached safely: its certificate is not valid ({_why(error)}), so nothing was "
                "sent. Trying again won't help; a platform operator must correct the certificate.",
                may_have_acted=False,
                lasting=True,
            ) from error
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, EgressRefused):
                cause = getattr(cause, "os_error", None) or cause.__cause__
            if cause is not None:
                raise self._forbidden(str(cause)) from error
            raise SystemUnavailable(f"{self.system} can't be reached.", may_have_acted=False) from error
        except TimeoutError as error:
            message = f"{self.system} did not answer within {self._timeout:g} s."
            raise SystemUnavailable(message, may_have_acted=True) from error
        except (aiohttp.ClientResponseError, aiohttp.ClientPayloadError) as error:
            raise self._unreadable("an answer that is broken or too large") from error
        except aiohttp.ClientError as error:
            raise SystemUnavailable(f"{self.system} broke off the connection.", may_have_acted=True) from error

    def _refused(self, base: str) -> str | None:
        """``refused_url``, remembered: it costs more than the rest of a request's preparation."""
        if base not in self._judged:
            if len(self._judged) >= _JUDGED:  # a system gives out a few addresses; one that gives out more is odd
                self._judged.clear()
            self._judged[base] = refused_url(base, self.egress)
        return self._judged[base]

    def session(self, base_url: str) -> aiohttp.ClientSession:
        """The guarded session, for protocols that stream. Raises SystemUnavailable where the rule forbids the
        address."""
        if (why := self._refused(base_url)) is not None:
            raise self._forbidden(why)
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # how many calls there are at a time is the toolset's to say
                connector=aiohttp.TCPConnector(
                    limit=0, keepalive_timeout=30, ttl_dns_cache=10, resolver=_GuardedResolver(self.egress)
                ),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._timeout * _CONNECT_SHARE),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
            # aiohttp would repeat a PUT or DELETE whose connection broke; what is sent again is the toolset's to decide
            self._session._retry_connection = False
        return self._session

    def _forbidden(self, why: str) -> SystemUnavailable:
        return SystemUnavailable(
            f"{self.system} was not asked: {why}, which the cluster's egress rule does not allow. Trying again won't "
            "help; a platform operator must correct the connector's URL, or allow it.",
            may_have_acted=False,
            lasting=True,
        )

    def _unreadable(self, what: str) -> SystemUnavailable:
        return SystemUnavailable(f"{self.system} sent {what}, which can't be used.", may_have_acted=True)

    async def _read(
        self, response: aiohttp.ClientResponse, token: SecretText | None, max_body_bytes: int, as_bytes: bool
    ) -> JsonResponse:
        # 300 may be an answer of its own, "several match" (RFC 9110, 15.4.1), which the caller reads
        if 300 < response.status < 400:
            raise SystemUnavailable(
                f"{self.system} redirects to another address, which is not followed. Trying again won't help; a "
                "platform operator must correct its URL.",
                may_have_acted=response.status == _REDIRECT_AFTER_ACTING,
                lasting=True,
            )
        after = parse_retry_after(response.headers.get("Retry-After"), time())
        if (response.content_length or 0) > max_body_bytes:
            raise self._too_much(response, max_body_bytes)
        raw = bytearray()
        async for chunk in response.content.iter_any():
            raw += chunk
            if len(raw) > max_body_bytes:
                raise self._too_much(response, max_body_bytes)
        raw = _without(raw, token)
        if as_bytes:
            return JsonResponse(response.status, bytes(raw), after, response.headers)
        if not raw:
            return JsonResponse(response.status, None, after, response.headers)
        if response.content_type != "application/json" and not response.content_type.endswith("+json"):
            if response.status >= 400:  # a proxy's page: the status says enough
                return JsonResponse(response.status, None, after, response.headers)
            raise self._unreadable(f"{response.content_type[:60]} instead of JSON")
        try:
            body = orjson.loads(raw)
            if b"\\" in raw:  # a character may be written as an escape, which only reading undoes
                body = hidden(body, token)
            return JsonResponse(response.status, body, after, response.headers)
        except orjson.JSONDecodeError as error:  # not JSON, not UTF-8, or nested too deep
            if response.status >= 400:
                return JsonResponse(response.status, None, after, response.headers)
            raise self._unreadable("broken JSON") from error

    def _too_much(self, response: aiohttp.ClientResponse, max_body_bytes: int) -> SystemUnavailable:
        return SystemUnavailable(
            f"{self.system} sent more than {max_body_bytes >> 20} MB, which is not read.",
            may_have_acted=not 400 <= response.status < 500,
        )


def _without(raw: bytearray, token: SecretText | None) -> bytearray:
    """The answer without the token: a system that repeats what it was sent would bring it before a model."""
    for secret in _forms(token):
        if secret in raw:
            raw = raw.replace(secret, _HIDDEN)
    return raw


def hidden(value: Any, token: SecretText | None) -> Any:
    """What was read of an answer, without the token."""
    secrets = [secret.decode() for secret in _forms(token)]
    if not secrets:
        return value
    try:  # writing it anew takes a tenth of the time of walking through it
        written = orjson.dumps(value)
    except TypeError:  # numbers over 64 bits, very deep nesting
        written = b""
    if written and not any(orjson.dumps(secret)[1:-1] in written for secret in secrets):
        return value
    try:
        return _replaced(value, secrets)
    except RecursionError:
        return _HIDDEN.decode()


def _replaced(value: Any, secrets: list[str]) -> Any:
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, _HIDDEN.decode())
        return value
    if isinstance(value, list):
        return [_replaced(item, secrets) for item in value]
    if isinstance(value, dict):
        return {_replaced(key, secrets): _replaced(item, secrets) for key, item in value.items()}
    return value


def _forms(token: SecretText | None) -> tuple[bytes, ...]:
    """The token as it is, and as it is quoted in a URL."""
    secret = token.reveal() if token is not None else ""
    if len(secret) < _SECRET_BYTES:
        return ()
    return tuple({text.encode() for text in (secret, quote(secret, safe=""))})


def _why(error: aiohttp.ClientSSLError) -> str:
    """The verifier's own words, for the operator."""
    cause = getattr(error, "certificate_error", None) or error.__cause__
    return str(getattr(cause, "verify_message", "") or "TLS failed")[:120]
