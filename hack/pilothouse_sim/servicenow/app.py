"""The HTTP application: routes, who asks, rate-limit headers, and the authorization server beside them.

An instance's ``/oauth_auth.do`` and ``/oauth_token.do`` are ``pilothouse_sim.oauth``'s.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Awaitable, Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

from aiohttp import web

from pilothouse_sim.faults import Faults, Handler, Sim
from pilothouse_sim.oauth import SERVICENOW, OAuth
from pilothouse_sim.servicenow.attachments import MAX_BYTES, AttachmentApi
from pilothouse_sim.servicenow.catalog import CatalogApi
from pilothouse_sim.servicenow.errors import ServiceNowError, render
from pilothouse_sim.servicenow.http import check_accept
from pilothouse_sim.servicenow.knowledge import KnowledgeApi
from pilothouse_sim.servicenow.store import Store, User
from pilothouse_sim.servicenow.table import TableApi

UserHandler = Callable[[web.Request, User], Awaitable[web.Response]]
RATE_RULE = "8f1c0d5be7a12010a9c3d0f5d2f6a1b0"
"""Sys_id of the instance's rate-limit rule, as ``X-RateLimit-Rule`` gives it."""


def make_app(
    *,
    faults: Faults | None = None,
    state_dir: Path | None = None,
    seed: dict[str, Any] | None = None,
    clock: Callable[[], float] = time.time,
    rng: random.Random | None = None,
) -> web.Application:
    """The stand-in with ``seed`` (default: seed.json beside this module); ``clock`` gives epoch seconds."""
    content = seed or json.loads(files("pilothouse_sim.servicenow").joinpath("seed.json").read_text(encoding="utf-8"))
    random_source = rng or random.Random()  # noqa: S311 - faults and ids, not secrets
    sim = Sim(faults or Faults(), render, random_source)
    # Room for what is a little over the limit of attachments, so that it is refused in the vendor's words.
    app = web.Application(client_max_size=2 * MAX_BYTES)
    sim.install(app)
    store = Store(content, state_dir, random_source)
    oauth = OAuth(
        SERVICENOW,
        people={user.email: user.name for user in store.users()},
        static={user.token: user.email for user in store.users()},
        state_dir=state_dir,
        clock=clock,
    )
    oauth.install(app)
    app.on_response_prepare.append(_rate_headers(sim, clock))
    ServiceNow(store, oauth, clock).install(app)
    return app


def _rate_headers(sim: Sim, clock: Callable[[], float]) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """A refusal for too many requests says which rule it was, its limit, and when it ends (epoch seconds)."""

    async def prepare(_request: web.Request, response: web.StreamResponse) -> None:
        if response.status != 429:
            return
        wait = int(response.headers.setdefault("Retry-After", "60"))
        response.headers["X-RateLimit-Limit"] = str(int(sim.faults.rate_limit_per_minute) or 1)
        response.headers["X-RateLimit-Reset"] = str(int(clock()) + wait)
        response.headers["X-RateLimit-Rule"] = RATE_RULE

    return prepare


class ServiceNow:
    """Routes and who asks."""

    def __init__(self, store: Store, oauth: OAuth, clock: Callable[[], float]) -> None:
        self.store = store
        self.oauth = oauth
        self.table = TableApi(store, clock)
        self.catalog = CatalogApi(store, clock)
        self.knowledge = KnowledgeApi(store)
        self.attachments = AttachmentApi(store, clock)

    def install(self, app: web.Application) -> None:
        """Adds the routes."""
        add = app.router.add_route
        version = "{version:(?:v[12]/)?}"
        routes: tuple[tuple[str, str, UserHandler], ...] = (
            ("GET", f"/api/now/{version}table/{{table}}", self.table.list),
            ("POST", f"/api/now/{version}table/{{table}}", self.table.create),
            ("GET", f"/api/now/{version}table/{{table}}/{{sys_id}}", self.table.get),
            ("PATCH", f"/api/now/{version}table/{{table}}/{{sys_id}}", self.table.update),
            ("PUT", f"/api/now/{version}table/{{table}}/{{sys_id}}", self.table.update),
            ("DELETE", f"/api/now/{version}table/{{table}}/{{sys_id}}", self.table.delete),
            ("GET", f"/api/now/{version}attachment", self.attachments.list),
            ("POST", f"/api/now/{version}attachment/file", self.attachments.upload),
            ("GET", f"/api/now/{version}attachment/{{sys_id}}", self.attachments.get),
            ("GET", f"/api/now/{version}attachment/{{sys_id}}/file", self.attachments.file),
            ("DELETE", f"/api/now/{version}attachment/{{sys_id}}", self.attachments.delete),
            ("GET", f"/api/sn_sc/{version}servicecatalog/items", self.catalog.items),
            ("GET", f"/api/sn_sc/{version}servicecatalog/items/{{sys_id}}", self.catalog.get),
            ("POST", f"/api/sn_sc/{version}servicecatalog/items/{{sys_id}}/order_now", self.catalog.order_now),
            ("GET", f"/api/sn_km_api/{version}knowledge/articles", self.knowledge.search),
            ("GET", f"/api/sn_km_api/{version}knowledge/articles/{{article}}", self.knowledge.get),
        )
        for method, path, handler in routes:
            add(method, path, self._authenticated(handler))

    def _authenticated(self, handler: UserHandler) -> Handler:
        """As the token's user; refusals in the platform's shape. An OAuth token needs the scope ``useraccount``."""

        async def authenticated(request: web.Request) -> web.StreamResponse:
            try:
                caller = self.oauth.caller(request)
                user = self.store.user_by_email(caller.email) if caller else None
                if caller is None or user is None:
                    raise ServiceNowError(401, "User Not Authenticated", "Required to provide Auth information")
                if not caller.has("useraccount"):
                    raise ServiceNowError(403, "User Not Authorized", "Access to unscoped api is not allowed")
                check_accept(request)
                return await handler(request, user)
            except ServiceNowError as error:
                response = error.response()
                if error.status == 401:
                    response.headers["WWW-Authenticate"] = 'BASIC realm="Service-now"'
                return response

        return authenticated
