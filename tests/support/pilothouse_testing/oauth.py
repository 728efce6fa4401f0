"""An authorization server in the test's own process: code with PKCE, rotating refresh tokens with reuse detection,
revocation, token exchange, JWT bearer, and faults. Strict: what an RFC forbids is refused."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import itertools
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote_plus, urlsplit

import orjson
from aiohttp import web

from pilothouse_api.egress import EgressRule
from pilothouse_dataplane.connectors.base import SecretText
from pilothouse_dataplane.credentials.base import LinkedAccount, StoreUnavailable

LOOPBACK = EgressRule(allow_hosts=("127.0.0.1",))
"""Lets connectors reach servers of a test."""


@dataclass
class Family:
    """All tokens that one consent has led to."""

    user: str
    refresh: str = ""
    spent: set[str] = field(default_factory=set)
    access: dict[str, float] = field(default_factory=dict)
    """Token → Unix seconds of its end."""
    ended: bool = False


@dataclass
class Grants:
    """The server's mind, without HTTP: what it has given to whom, and what of it is good."""

    clock: Callable[[], float] = time.time
    lifetime: float = 3600.0
    rotates: bool = True
    ends_on_reuse: bool = True
    """A second use of a refresh token ends all of its family (RFC 9700, 4.14.2)."""
    families: list[Family] = field(default_factory=list)
    numbers: Any = field(default_factory=itertools.count)

    def begin(self, user: str) -> Family:
        family = Family(user)
        self.families.append(family)
        self._issue(family)
        return family

    def _issue(self, family: Family) -> None:
        number = next(self.numbers)
        family.access[f"access-{number}-of-{family.user}"] = self.clock() + self.lifetime
        if self.rotates or not family.refresh:
            if family.refresh:
                family.spent.add(family.refresh)
            family.refresh = f"refresh-{number}-of-{family.user}"

    def refresh(self, token: str) -> Family | None:
        """None: invalid_grant."""
        for family in self.families:
            if token == family.refresh and not family.ended:
                self._issue(family)
                return family
            if token in family.spent and self.ends_on_reuse:
                family.ended = True
        return None

    def revoke(self, token: str) -> None:
        for family in self.families:
            family.access.pop(token, None)
            if token == family.refresh or token in family.spent:
                family.ended = True

    def user_of(self, access: str) -> str | None:
        """Whose access token it is, if it is good."""
        for family in self.families:
            if family.access.get(access, 0.0) > self.clock() and not family.ended:
                return family.user
        return None

    def owner(self, access: str) -> str | None:
        """Whose it is or was."""
        return next((family.user for family in self.families if access in family.access), None)


class AuthServer:
    """``grants`` over HTTP. ``fault``: answers that are given instead, one a request."""

    def __init__(self) -> None:
        self.url = ""
        self.grants = Grants()
        self.codes: dict[str, dict[str, str]] = {}
        self.requests: list[dict[str, str]] = []
        """Forms that came, with ``_path``, ``_basic``, newest last."""
        self.faults: list[tuple[int, dict[str, Any]]] = []
        self.more: dict[str, Any] = {}
        """Added to each token response."""
        self.asked = asyncio.Event()
        """A request has come."""
        self.userinfo: tuple[int, dict[str, Any]] = (404, {})
        """What ``/me`` answers."""
        self.only_basic = False
        self.client = ("client", "client-secret-of-a-test")

    def consent(self, authorization_url: str, user: str) -> dict[str, str]:
        """What a browser would bring back to the call-back after ``user`` has agreed."""
        query = {key: values[0] for key, values in parse_qs(urlsplit(authorization_url).query).items()}
        assert query["response_type"] == "code"
        assert query["client_id"] == self.client[0]
        assert query["code_challenge_method"] == "S256"
        code = f"code-{len(self.codes)}"
        self.codes[code] = {**query, "user": user}
        return {"state": query["state"], "code": code, "redirect_uri": query["redirect_uri"]}

    async def token(self, request: web.Request) -> web.Response:
        form = await self._form(request)
        if self.faults:
            status, body = self.faults.pop(0)
            return web.json_response(body, status=status)
        grant = form.get("grant_type", "")
        signed = grant == "urn:ietf:params:oauth:grant-type:jwt-bearer" and "client_id" not in form
        if not signed and (refusal := self._client(form)) is not None:
            return refusal
        if grant == "authorization_code":
            kept = self.codes.pop(form.get("code", ""), None)
            digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
            challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
            if kept is None or kept["code_challenge"] != challenge or kept["redirect_uri"] != form.get("redirect_uri"):
                return _error(400, "invalid_grant", "The code is not valid.")
            return self._given(self.grants.begin(kept["user"]))
        if grant == "refresh_token":
            family = self.grants.refresh(form.get("refresh_token", ""))
            if family is None:
                return _error(400, "invalid_grant", f"Unknown refresh token {form.get('refresh_token')}.")
            return self._given(family)
        if grant.endswith("token-exchange"):
            user = form.get("subject_token", "").removeprefix("sign-in-of-")
            return self._given(self.grants.begin(user), refresh=False)
        if grant.endswith("jwt-bearer"):
            return self._given(self.grants.begin(_subject(form.get("assertion", ""))), refresh=False)
        return _error(400, "unsupported_grant_type", "")

    async def revoke(self, request: web.Request) -> web.Response:
        form = await self._form(request)
        if self.faults:
            status, body = self.faults.pop(0)
            return web.json_response(body, status=status)
        if (refusal := self._client(form)) is not None:
            return refusal
        self.grants.revoke(form["token"])
        return web.Response()

    async def me(self, request: web.Request) -> web.Response:
        status, body = self.userinfo
        assert self.grants.user_of(request.headers["Authorization"].removeprefix("Bearer "))
        return web.json_response(body, status=status)

    async def _form(self, request: web.Request) -> dict[str, str]:
        assert request.content_type == "application/x-www-form-urlencoded"
        form = {key: str(value) for key, value in (await request.post()).items()}
        form["_path"], form["_basic"] = request.path, request.headers.get("Authorization", "")
        self.requests.append(form)
        self.asked.set()
        return form

    def _client(self, form: dict[str, str]) -> web.Response | None:
        given = (form.get("client_id", ""), form.get("client_secret", ""))
        if form["_basic"].startswith("Basic "):
            id, _, secret = base64.b64decode(form["_basic"][6:]).decode().partition(":")
            given = (unquote_plus(id), unquote_plus(secret))
        elif self.only_basic:
            given = ("", "")
        if given != self.client:
            return _error(401, "invalid_client", f"Bad secret {given[1]}")
        return None

    def _given(self, family: Family, *, refresh: bool = True) -> web.Response:
        access = list(family.access)[-1]
        body = {"access_token": access, "token_type": "Bearer", "expires_in": self.grants.lifetime}
        if refresh:
            body["refresh_token"] = family.refresh
        return web.json_response({**body, **self.more})


def _error(status: int, error: str, description: str) -> web.Response:
    return web.json_response({"error": error, "error_description": description}, status=status)


def _subject(assertion: str) -> str:
    part = assertion.split(".")[1]
    return str(orjson.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))["sub"])


def id_token(email: str) -> str:
    """An ID token with that e-mail; nobody has signed it."""
    parts = (b'{"alg":"none"}', orjson.dumps({"email": email}), b"signature")
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


@contextlib.asynccontextmanager
async def auth_server() -> AsyncIterator[AuthServer]:
    """One on 127.0.0.1, with ``/authorize``, ``/token`` and ``/revoke``."""
    server = AuthServer()
    app = web.Application()
    app.router.add_post("/token", server.token)
    app.router.add_post("/revoke", server.revoke)
    app.router.add_get("/me", server.me)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()


class MemoryAccounts:
    """The contract of ``AccountStore``, in memory. ``down``: it does not answer."""

    def __init__(self) -> None:
        self.entries: dict[tuple[str, str], LinkedAccount] = {}
        self.down = False
        self._versions = itertools.count(1_000)

    def _ask(self) -> None:
        if self.down:
            raise StoreUnavailable("the store is away")

    async def get(self, user: str, connector: str) -> LinkedAccount | None:
        self._ask()
        return self.entries.get((user, connector))

    async def put(self, user: str, connector: str, account: LinkedAccount) -> bool:
        from dataclasses import replace

        self._ask()
        there = self.entries.get((user, connector))
        if (there.version if there is not None else 0) != account.version:
            return False
        version = account.version + 1 if account.version else next(self._versions)
        self.entries[user, connector] = replace(account, version=version)
        return True

    async def delete(self, user: str, connector: str) -> bool:
        self._ask()
        return self.entries.pop((user, connector), None) is not None

    async def of_user(self, user: str) -> dict[str, LinkedAccount]:
        self._ask()
        return {connector: account for (of, connector), account in self.entries.items() if of == user}


class MemorySecrets:
    """The contract of ``SecretStore``: ``texts`` by "secret/key"."""

    def __init__(self, texts: dict[str, str]) -> None:
        self.texts = texts

    def get(self, secret: str, key: str) -> SecretText:
        return SecretText(self.texts[f"{secret}/{key}"])


class MemoryStates:
    """The contract of ``LinkStates``."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.down = False

    async def keep(self, state: str, value: bytes) -> None:
        if self.down:
            raise StoreUnavailable("the store is away")
        self.values[state] = value

    async def take(self, state: str) -> bytes | None:
        if self.down:
            raise StoreUnavailable("the store is away")
        return self.values.pop(state, None)
