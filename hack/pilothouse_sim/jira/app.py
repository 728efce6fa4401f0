"""The HTTP application: who asks, search, and the routes of Jira Cloud's REST v3, each thin over ``store``."""

from __future__ import annotations

import base64
import json
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from aiohttp import web

from pilothouse_sim.faults import Faults, Handler, Sim
from pilothouse_sim.jira import fields, jql
from pilothouse_sim.jira.directory import Directory
from pilothouse_sim.jira.errors import INVALID_PAYLOAD, JiraError, render
from pilothouse_sim.jira.issues import Issues
from pilothouse_sim.jira.links import Links
from pilothouse_sim.jira.site import API, MAX_PAGE, READ, base_of, query_number, read_body, typed
from pilothouse_sim.jira.store import Store, User
from pilothouse_sim.oauth import JIRA, OAuth

MAX_RECONCILE = 50
GATEWAY = "/ex/jira"
"""Where api.atlassian.com serves OAuth tokens, by the site's cloud id; the site's own paths take them here as well."""
CLOUD_ID = "11223344-a1b2-4c3d-8e9f-0123456789ab"


def make_app(
    *,
    faults: Faults | None = None,
    state_dir: Path | None = None,
    seed: dict[str, Any] | None = None,
    clock: Callable[[], float] = time.time,
    rng: random.Random | None = None,
) -> web.Application:
    """The stand-in with ``seed`` (default: seed.json beside this module); ``clock`` gives epoch seconds."""
    content = seed or json.loads(files("pilothouse_sim.jira").joinpath("seed.json").read_text(encoding="utf-8"))
    sim = Sim(
        faults or Faults(),
        render,
        rng or random.Random(),  # noqa: S311 - faults, not secrets
        limit_headers=lambda per_minute, wait: _limit_headers(per_minute, wait, clock()),
    )
    app = web.Application(client_max_size=1 << 20)
    sim.install(app)
    app.middlewares.append(_errors)
    store = Store(content, state_dir)
    oauth = OAuth(
        JIRA,
        people={user.email: user.name for user in store.users.values()},
        static={user.token: user.email for user in store.users.values()},
        state_dir=state_dir,
        clock=clock,
        userinfo=lambda email: _identity(store.users[email]),
    )
    oauth.install(app)
    Jira(store, oauth, sim, clock).install(app)
    return app


def _limit_headers(per_minute: float, wait: float, now: float) -> Mapping[str, str]:
    """What Jira Cloud's 429 says: https://developer.atlassian.com/cloud/jira/platform/rate-limiting/"""
    reset = datetime.fromtimestamp(now + wait, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "Retry-After": str(max(1, round(wait + 0.5))),
        "X-RateLimit-Limit": str(round(per_minute)),
        "X-RateLimit-Remaining": "0",
        "X-RateLimit-Reset": reset,
        "X-RateLimit-NearLimit": "true",
        "RateLimit-Reason": "jira-burst-based",
    }


def _identity(user: User) -> dict[str, Any]:
    """Atlassian's User Identity API, ``/me``."""
    return {
        "account_type": "atlassian",
        "account_id": user.account_id,
        "email": user.email,
        "name": user.name,
        "account_status": "active",
    }


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except JiraError as error:
        return error.response()


class Jira:
    """The handlers; ``clock`` gives epoch seconds."""

    def __init__(self, store: Store, oauth: OAuth, sim: Sim, clock: Callable[[], float]) -> None:
        self.store = store
        self.oauth = oauth
        self.sim = sim
        self.clock = clock

    def install(self, app: web.Application) -> None:
        """Adds the routes."""
        add = app.router.add_route
        parts = (Issues, Links, Directory)
        routes = [route for part in parts for route in part(self.store, self.sim, self.clock).routes()]
        routes += [("GET", "/search/jql", READ, self.search), ("POST", "/search/jql", READ, self.search)]
        for method, path, scope, handler in routes:
            for prefix in (API, f"{GATEWAY}/{{cloud}}{API}"):
                add(method, prefix + path, self._authenticated(handler, scope))
        add("GET", f"{API}/serverInfo", self.server_info)
        add("GET", f"{GATEWAY}/{{cloud}}{API}/serverInfo", self.server_info)
        add("GET", "/oauth/token/accessible-resources", self.accessible_resources)

    def _authenticated(self, handler: Callable[[web.Request, User], Awaitable[web.Response]], scope: str) -> Handler:
        """The handler behind a bearer token that carries ``scope``. What lacks it is answered with 401, as Atlassian's
        gateway does, and not with 403."""

        async def authenticated(request: web.Request) -> web.StreamResponse:
            caller = self.oauth.caller(request)
            if caller is None:
                message = "Client must be authenticated to access this resource."
                response = web.json_response({"message": message, "status-code": 401}, status=401)
                response.headers["WWW-Authenticate"] = 'OAuth realm="jira"'
                return response
            if not caller.has(scope):
                return web.json_response({"code": 401, "message": "Unauthorized; scope does not match"}, status=401)
            if request.match_info.get("cloud", CLOUD_ID) != CLOUD_ID:
                return web.json_response(
                    {"code": 404, "message": "No site of that cloud id is accessible."}, status=404
                )
            return await handler(request, self.store.users[caller.email])

        return authenticated

    async def accessible_resources(self, request: web.Request) -> web.Response:
        """The sites that an OAuth token reaches: this one, through ``/ex/jira/<cloud id>``."""
        caller = self.oauth.caller(request)
        if caller is None:
            return web.json_response({"code": 401, "message": "Unauthorized"}, status=401)
        scopes = sorted(caller.scopes) if caller.scopes is not None else list(JIRA.scopes)
        site = {"id": CLOUD_ID, "url": base_of(request), "name": "acme", "avatarUrl": f"{base_of(request)}/avatar.png"}
        return web.json_response([{**site, "scopes": [scope for scope in scopes if scope.endswith(":jira-work")]}])

    async def server_info(self, request: web.Request) -> web.Response:
        """What the site is; needs no credential, as in Jira."""
        info = {"baseUrl": base_of(request), "deploymentType": "Cloud", "version": "1001.0.0-SNAPSHOT"}
        return web.json_response({**info, "versionNumbers": [1001, 0, 0], "serverTitle": "Jira stand-in"})

    async def search(self, request: web.Request, user: User) -> web.Response:
        """Pages by ``nextPageToken``, gives no total, and shows only ``id`` where ``fields`` is not given."""
        names = {"jql", "nextPageToken", "maxResults", "fields", "expand", "properties", "fieldsByKeys", "failFast",
                 "reconcileIssues"}  # fmt: skip
        if request.method == "POST":
            body = await read_body(request, names)
        else:
            if not set(request.query) <= names:
                raise JiraError(400, INVALID_PAYLOAD)
            body = {name: request.query[name] for name in ("jql", "nextPageToken") if name in request.query}
            body["maxResults"] = query_number(request, "maxResults", 50)
            for name in ("fields", "properties"):
                if name in request.query:
                    body[name] = [part.strip() for value in request.query.getall(name) for part in value.split(",")]
            ids = [part for value in request.query.getall("reconcileIssues", []) for part in value.split(",")]
            if not all(part.strip().isdigit() for part in ids):
                raise JiraError(400, INVALID_PAYLOAD)
            body["reconcileIssues"] = [int(part) for part in ids]
        source = typed(body, "jql", str, "")
        size = typed(body, "maxResults", int, 50)
        reconcile = typed(body, "reconcileIssues", list, [])
        shown = typed(body, "fields", list, ["id"])
        properties = typed(body, "properties", list, [])
        if not all(isinstance(i, int) for i in reconcile) or not all(isinstance(i, str) for i in shown + properties):
            raise JiraError(400, INVALID_PAYLOAD)
        if len(reconcile) > MAX_RECONCILE:
            raise JiraError(400, f"reconcileIssues holds at most {MAX_RECONCILE} issue ids.")
        if size < 1:
            raise JiraError(400, "maxResults must be 1 or more.")
        now = self.clock()
        found = jql.search(jql.parse(source), self.store.searchable(user, now, reconcile), self.store, user, now)
        start = self._page_start(body.get("nextPageToken"), source)
        end = start + min(size, MAX_PAGE)
        base = base_of(request)
        answer: dict[str, Any] = {
            "issues": [fields.issue_view(i, self.store, base, shown, properties, user=user) for i in found[start:end]],
            "isLast": end >= len(found),
        }
        if end < len(found):
            answer["nextPageToken"] = base64.urlsafe_b64encode(json.dumps([end, source]).encode()).decode()
        return web.json_response(answer)

    def _page_start(self, token: object, source: str) -> int:
        if token in (None, ""):
            return 0
        try:
            start, query = json.loads(base64.urlsafe_b64decode(str(token)))
        except ValueError:
            start, query = -1, None
        if query != source or not isinstance(start, int):
            raise JiraError(400, "The provided next page token is invalid or expired.")
        return start
