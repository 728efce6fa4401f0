"""The HTTP application: versions, who asks, the daily limit, and the authorization server beside them.

``/services/oauth2/…`` is ``pilothouse_sim.oauth``'s; a token response names the instance and the user's identity.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from aiohttp import web

from pilothouse_sim.faults import Faults, Sim
from pilothouse_sim.oauth import SALESFORCE, App, OAuth
from pilothouse_sim.oauth.grants import Grant
from pilothouse_sim.salesforce import composite
from pilothouse_sim.salesforce.api import MAX_BATCH, NEWEST, OLDEST, Answer, Api, Call
from pilothouse_sim.salesforce.errors import SalesforceError, invalid_session, not_found, render, request_limit
from pilothouse_sim.salesforce.store import Store, User

DATA = "/services/data"


def make_app(
    *,
    faults: Faults | None = None,
    state_dir: Path | None = None,
    seed: dict[str, Any] | None = None,
    clock: Callable[[], float] = time.time,
    rng: random.Random | None = None,
    batch: int = MAX_BATCH,
) -> web.Application:
    """The stand-in with ``seed`` (default: seed.json beside this module); ``clock`` gives epoch seconds, ``batch`` is
    how many records a page of a query has where the caller does not say."""
    folder = files("pilothouse_sim.salesforce")
    content = seed or json.loads(folder.joinpath("seed.json").read_text(encoding="utf-8"))
    sim = Sim(faults or Faults(), render, rng or random.Random())  # noqa: S311 - faults, not secrets
    app = web.Application(client_max_size=1 << 20)
    sim.install(app)
    store = Store(content, state_dir)
    oauth = OAuth(
        SALESFORCE,
        people={user.email: user.name for user in store.users.values()},
        static={user.token: user.email for user in store.users.values()},
        apps=(
            App(
                "pilothouse",
                "pilothouse-salesforce-secret",
                public_key=content["connectedApp"]["certificate"],
                approved=frozenset(content["connectedApp"]["approved"]),
            ),
        ),
        state_dir=state_dir,
        clock=clock,
        token_extra=lambda grant, base: _token_extra(store, clock, grant, base),
        userinfo=lambda email: _identity(store, email),
    )
    oauth.install(app)
    Salesforce(Api(store, clock, batch), oauth).install(app)
    return app


def _identity(store: Store, email: str) -> dict[str, Any]:
    user = store.users[email]
    return {
        "sub": user.id,
        "user_id": user.id,
        "organization_id": store.org_id,
        "preferred_username": email,
        "email": email,
        "name": user.name,
    }


def _token_extra(store: Store, clock: Callable[[], float], grant: Grant, base: str) -> Mapping[str, Any]:
    user_id = store.users[grant.email].id
    extra = {"instance_url": base, "id": f"{base}/id/{store.org_id}/{user_id}"}
    if grant.how == "authorization_code":
        extra["issued_at"] = str(int(clock() * 1000))
    return extra


class Salesforce:
    """Routes and who asks."""

    def __init__(self, api: Api, oauth: OAuth) -> None:
        self.api = api
        self.oauth = oauth

    def install(self, app: web.Application) -> None:
        """Adds the routes."""
        add = app.router.add_route
        add("GET", DATA, self.versions)
        add("GET", f"{DATA}/", self.versions)
        add("*", f"{DATA}/v{{version}}{{path:(?:/.*)?}}", self.resource)
        add("GET", "/id/{organization}/{user}", self.identity)

    async def versions(self, _request: web.Request) -> web.Response:
        """The versions of the API; anybody may ask."""
        listed = [
            {"label": f"Release {number}", "url": f"{DATA}/v{number}.0", "version": f"{number}.0"}
            for number in range(OLDEST, NEWEST + 1)
        ]
        return web.json_response(listed)

    def _user(self, request: web.Request) -> User:
        caller = self.oauth.caller(request)
        user = self.api.store.user_by_email(caller.email) if caller else None
        if caller is None or user is None:
            raise invalid_session()
        if not caller.has("api", "full"):
            raise SalesforceError(401, "INVALID_SESSION_ID", "This session is not valid for use with the REST API")
        return user

    async def identity(self, request: web.Request) -> web.Response:
        """Who the token's user is; only about herself."""
        try:
            user = self._user(request)
        except SalesforceError:
            return web.Response(status=403, text="Bad_OAuth_Token")
        if request.match_info["user"] != user.id or request.match_info["organization"] != self.api.store.org_id:
            return web.Response(status=403, text="Wrong_Org")
        return web.json_response({**_identity(self.api.store, user.email), "username": user.email, "active": True})

    async def resource(self, request: web.Request) -> web.Response:
        """Everything under a version."""
        try:
            user = self._user(request)
            if self.api.used >= self.api.store.daily_requests:
                raise request_limit()
            self.api.used += 1
            answer = await self._answer(request, user)
        except RecursionError:
            deep = SalesforceError(400, "JSON_PARSER_ERROR", "The request is nested too deeply.")
            answer = Answer(deep.status, deep.body())
        except SalesforceError as error:
            answer = Answer(error.status, error.body())
            if error.status == 401:
                answer.headers["WWW-Authenticate"] = "Token"
        headers = dict(answer.headers)
        if answer.status != 401:
            headers["Sforce-Limit-Info"] = f"api-usage={self.api.used}/{self.api.store.daily_requests}"
        if answer.body is None:
            return web.Response(status=answer.status, headers=headers)
        return web.json_response(answer.body, status=answer.status, headers=headers)

    async def _answer(self, request: web.Request, user: User) -> Answer:
        number, dot, zero = request.match_info["version"].partition(".")
        if not (number.isascii() and number.isdigit()) or not dot or zero != "0" or not OLDEST <= int(number) <= NEWEST:
            raise not_found()
        session = self.api.session(user, int(number))
        # The raw path: a slash within an external id is percent-encoded.
        path = request.rel_url.raw_path.removeprefix(f"{DATA}/v{number}.0")
        body = await _body(request) if request.method in ("POST", "PATCH", "PUT") else None
        if path.rstrip("/") == "/composite" and request.method == "POST":
            return composite.run(self.api, session, body)
        call = Call(request.method, path, request.query, body, request.headers, int(number))
        return self.api.handle(session, call)


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


async def _body(request: web.Request) -> Any:
    """The JSON body. Raises SalesforceError."""
    text = await request.text()
    if not text.strip():
        return None
    if request.content_type != "application/json":
        sentence = f"Content-Type not supported: {request.content_type}"
        raise SalesforceError(415, "UNSUPPORTED_MEDIA_TYPE", sentence)
    try:
        return json.loads(text, parse_constant=_no_number)
    except ValueError as error:
        place = f"[line:{error.lineno}, column:{error.colno}]" if isinstance(error, json.JSONDecodeError) else ""
        raise SalesforceError(400, "JSON_PARSER_ERROR", f"Unexpected character at {place}") from None
