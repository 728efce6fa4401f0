"""The HTTP application: users, their lifecycle and their factors; who asks, how often, and errors.

Source: https://developer.okta.com/docs/api/openapi/okta-management/management/tag/User/ and …/tag/UserFactor/
"""

from __future__ import annotations

import json
import random
import secrets
import time
from collections.abc import Awaitable, Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

from aiohttp import web

from pilothouse_sim.faults import Faults, Handler, Sim
from pilothouse_sim.oauth import OKTA, Caller, OAuth
from pilothouse_sim.okta import scim, views
from pilothouse_sim.okta.access import Access
from pilothouse_sim.okta.errors import OktaError, not_found, render
from pilothouse_sim.okta.request import Asked
from pilothouse_sim.okta.store import READ_USERS, Store, User

API = "/api/v1"
USUAL_LIMIT = 600
"""Requests a minute and user that the rate-limit headers tell where no fault sets another number."""
_NO_SIGN_IN = ("SUSPENDED", "DEPROVISIONED", "STAGED")
_READ = ("okta.users.read", "okta.users.manage")
_READ_SELF = (*_READ, "okta.users.read.self", "okta.users.manage.self")
_MANAGE = ("okta.users.manage",)
_FACTORS_READ = (*_READ, "okta.factors.read", "okta.factors.manage")
_FACTORS = ("okta.users.manage", "okta.factors.manage")


def make_app(
    *,
    faults: Faults | None = None,
    state_dir: Path | None = None,
    seed: dict[str, Any] | None = None,
    clock: Callable[[], float] = time.time,
    rng: random.Random | None = None,
) -> web.Application:
    """The stand-in with ``seed`` (default: seed.json beside this module); ``clock`` gives epoch seconds."""
    content = seed or json.loads(files("pilothouse_sim.okta").joinpath("seed.json").read_text(encoding="utf-8"))
    sim = Sim(faults or Faults(), render, rng or random.Random(), limits=False)  # noqa: S311 - faults, not secrets
    app = web.Application(client_max_size=1 << 20)
    sim.install(app)
    store = Store(content, state_dir)
    oauth = OAuth(
        OKTA,
        people={login: store.find(login).profile["displayName"] for login in store.tokens.values()},  # type: ignore[union-attr]
        static=store.tokens,
        state_dir=state_dir,
        clock=clock,
        userinfo=lambda email: _identity(store, email),
    )
    oauth.install(app)
    Okta(store, oauth, sim, clock).install(app)
    return app


def _identity(store: Store, email: str) -> dict[str, Any]:
    user = store.find(email)
    assert user is not None
    return {"sub": user.id, "email": user.profile["email"], "email_verified": True, "name": user.profile["displayName"],
            "preferred_username": user.login}  # fmt: skip


class Okta:
    """The handlers of users and factors; ``clock`` gives epoch seconds."""

    def __init__(self, store: Store, oauth: OAuth, sim: Sim, clock: Callable[[], float]) -> None:
        self.store = store
        self.oauth = oauth
        self.sim = sim
        self.clock = clock
        self._windows: dict[str, tuple[int, int]] = {}

    def install(self, app: web.Application) -> None:
        """Adds the routes."""
        access = Access(self.delay)
        for method, path, handler in (
            ("GET", "/users", self.list_users),
            ("GET", "/users/{user}", self.get_user),
            ("GET", "/users/{user}/groups", access.groups_of_user),
            ("POST", "/users/{user}/lifecycle/suspend", self.suspend),
            ("POST", "/users/{user}/lifecycle/unsuspend", self.unsuspend),
            ("POST", "/users/{user}/lifecycle/unlock", self.unlock),
            ("POST", "/users/{user}/lifecycle/deactivate", self.deactivate),
            ("POST", "/users/{user}/lifecycle/expire_password", self.expire_password),
            ("POST", "/users/{user}/lifecycle/reset_password", self.reset_password),
            ("POST", "/users/{user}/lifecycle/reset_factors", self.reset_factors),
            ("GET", "/users/{user}/factors", self.list_factors),
            ("GET", "/users/{user}/factors/{factor}", self.get_factor),
            ("DELETE", "/users/{user}/factors/{factor}", self.reset_factor),
            *access.routes(),
        ):
            app.router.add_route(method, API + path, self._asked(handler))
        app.router.add_get("/.well-known/okta-organization", self.organization)
        app.router.add_post("/__sim/reset", self.reset)

    def delay(self) -> float:
        """Seconds until search sees a change."""
        return self.sim.faults.index_delay_seconds

    def _asked(self, handler: Callable[[Asked], Awaitable[web.Response]]) -> Handler:
        """The handler behind a bearer token, with the rate limit and Okta's errors."""

        async def answer(request: web.Request) -> web.StreamResponse:
            headers: dict[str, str] = {}
            try:
                caller = self.oauth.caller(request)
                user = self.store.find(caller.email) if caller else None
                if caller is None or user is None or user.status in _NO_SIGN_IN:
                    said = 'Bearer error="invalid_token", error_description="The access token is invalid."'
                    raise OktaError("E0000011", headers={"WWW-Authenticate": said})
                headers = self._count(caller)
                accepted = request.headers.get("Accept", "*/*")
                if not any(kind in accepted for kind in ("*/*", "application/*", "application/json")):
                    raise OktaError("E0000019")
                response = await handler(Asked(request, self.store, user, caller, self.clock()))
            except OktaError as error:
                response = error.response()
            response.headers.update({"X-Okta-Request-Id": secrets.token_urlsafe(16), **headers})
            return response

        return answer

    def _count(self, caller: Caller) -> dict[str, str]:
        """The rate-limit headers, after one more request in the user's minute. Raises E0000047."""
        now = self.clock()
        limit = int(self.sim.faults.rate_limit_per_minute) or USUAL_LIMIT
        started, count = self._windows.get(caller.email, (0, 0))
        if now >= started + 60:
            started, count = int(now), 0
        self._windows[caller.email] = (started, count + 1)
        headers = {
            "X-Rate-Limit-Limit": str(limit),
            "X-Rate-Limit-Remaining": str(max(0, limit - count - 1)),
            "X-Rate-Limit-Reset": str(started + 60),
        }
        # Only a fault limits: what runs a bench or a demo is not to meet the number that the headers tell.
        if self.sim.faults.rate_limit_per_minute and count >= limit:
            raise OktaError("E0000047", headers=headers)
        return headers

    async def organization(self, request: web.Request) -> web.Response:
        """What the organization is; needs no credential, as in Okta."""
        link = f"{request.scheme}://{request.host}"
        return web.json_response(
            {"id": "00o1acme000000000000", "pipeline": "idx", "_links": {"organization": {"href": link}}}
        )

    async def reset(self, _request: web.Request) -> web.Response:
        """``POST /__sim/reset``: the organization is again as in the seed; tokens stay."""
        self.store.reset()
        return web.Response(status=204)

    # Users.

    async def list_users(self, asked: Asked) -> web.Response:
        """By ``search``, ``filter`` or ``q``; without them all who are not deactivated."""
        asked.needs(*_READ)
        asked.needs_everywhere(READ_USERS)
        query = asked.http.query
        if sum(name in query for name in ("search", "filter", "q")) > 1:
            raise OktaError("E0000033")
        users = self.store.searchable(asked.now)
        limit = asked.whole("limit", 200, 200)
        # What is searched is what the caller may see: else a search would tell what the answer hides.
        seen = {u.id: views.user_view(u, asked.base, everything=self.store.sees_all_of(asked.user, u)) for u in users}
        if "search" in query or "filter" in query:
            rules = scim.USER_SEARCH if "search" in query else scim.USER_FILTER
            test = scim.parse(query.get("search", query.get("filter", "")), rules)
            users = [user for user in users if test(seen[user.id])]
            users = self._sorted(asked, users, seen)
        else:
            text = query.get("q", "").casefold()
            names = ("firstName", "lastName", "email")
            users = [
                user
                for user in users
                if user.status != "DEPROVISIONED"
                and any(str(user.profile[name]).casefold().startswith(text) for name in names)
            ]
            if "q" in query:  # it does not page, and gives ten unless told
                shown = users[: asked.whole("limit", 10, 200)]
                return web.json_response([seen[user.id] for user in shown], headers=asked.links("self"))
        page, headers = asked.page([(user.id, user) for user in users], limit)
        return web.json_response([seen[user.id] for user in page], headers=headers)

    def _sorted(self, asked: Asked, users: list[User], seen: dict[str, dict[str, Any]]) -> list[User]:
        """By ``sortBy`` and ``sortOrder``, which go with ``search`` alone."""
        by, order = asked.http.query.get("sortBy"), asked.http.query.get("sortOrder", "asc")
        if by is None or "search" not in asked.http.query:
            return users
        if order not in ("asc", "desc"):
            raise OktaError("E0000001", "sortOrder", "sortOrder: must be asc or desc")
        group, _, name = by.rpartition(".")
        return sorted(
            users,
            key=lambda user: str((seen[user.id].get(group, {}) if group else seen[user.id]).get(name, "")).casefold(),
            reverse=order == "desc",
        )

    async def get_user(self, asked: Asked) -> web.Response:
        """By id, login, short login or ``me``."""
        asked.needs(*(_READ_SELF if asked.part("user") in ("me", asked.user.id, asked.user.login) else _READ))
        return self._shown(asked, asked.target(READ_USERS))

    def _shown(self, asked: Asked, user: User) -> web.Response:
        everything = self.store.sees_all_of(asked.user, user)
        return web.json_response(views.user_view(user, asked.base, everything=everything))

    # Lifecycle. Each names the statuses that it takes, and how Okta refuses the others.

    def _change(
        self,
        asked: Asked,
        permission: str,
        taken: tuple[str, ...],
        refusal: OktaError,
        status: str,
        event: str,
        said: str,
    ) -> User:
        asked.needs(*_MANAGE)
        user = asked.target(permission)
        if user.status not in taken:
            raise refusal
        if user.status != status:
            user.status, user.status_changed = status, asked.now
        self.store.note(secrets.token_hex(16), asked.now, event, said, asked.user, user)
        self.store.save(asked.now, self.delay(), user)
        return user

    async def suspend(self, asked: Asked) -> web.Response:
        """ACTIVE → SUSPENDED."""
        sentence = "Cannot suspend a user that is not active"
        refusal = OktaError("E0000001", sentence, sentence)
        permission = "okta.users.lifecycle.suspend"
        self._change(
            asked, permission, ("ACTIVE",), refusal, "SUSPENDED", "user.lifecycle.suspend", "Suspend Okta user"
        )
        return web.json_response({})

    async def unsuspend(self, asked: Asked) -> web.Response:
        """SUSPENDED → ACTIVE."""
        sentence = "Cannot unsuspend a user that is not suspended"
        refusal = OktaError("E0000001", sentence, sentence)
        permission, event = "okta.users.lifecycle.unsuspend", "user.lifecycle.unsuspend"
        self._change(asked, permission, ("SUSPENDED",), refusal, "ACTIVE", event, "Unsuspend Okta user")
        return web.json_response({})

    async def unlock(self, asked: Asked) -> web.Response:
        """LOCKED_OUT → ACTIVE."""
        permission, event = "okta.users.lifecycle.unlock", "user.account.unlock"
        self._change(asked, permission, ("LOCKED_OUT",), OktaError("E0000032"), "ACTIVE", event, "Unlock user account")
        return web.json_response({})

    async def deactivate(self, asked: Asked) -> web.Response:
        """Any other status → DEPROVISIONED; apps and groups are lost."""
        asked.flag("sendEmail", False)
        taken = ("ACTIVE", "LOCKED_OUT", "PASSWORD_EXPIRED", "RECOVERY", "PROVISIONED", "STAGED", "SUSPENDED")
        permission, event = "okta.users.lifecycle.deactivate", "user.lifecycle.deactivate"
        said = "Deactivate Okta user"
        user = self._change(asked, permission, taken, OktaError("E0000038"), "DEPROVISIONED", event, said)
        for app in self.store.apps.values():
            app.users.pop(user.id, None)
        for group in self.store.groups.values():
            if user.id in group.members:
                group.members.remove(user.id)
        self.store.save(asked.now, self.delay())
        return web.json_response({})

    async def expire_password(self, asked: Asked) -> web.Response:
        """→ PASSWORD_EXPIRED; the user herself is the answer, or a temporary password where one is asked for."""
        temporary = asked.flag("tempPassword", False)
        taken = ("ACTIVE", "PASSWORD_EXPIRED", "LOCKED_OUT", "RECOVERY")
        permission, event = "okta.users.credentials.expirePassword", "user.account.expire_password"
        said = "Expire password for a user"
        user = self._change(asked, permission, taken, OktaError("E0000038"), "PASSWORD_EXPIRED", event, said)
        if temporary:
            return web.json_response({"tempPassword": secrets.token_urlsafe(6)})
        return self._shown(asked, user)

    async def reset_password(self, asked: Asked) -> web.Response:
        """→ RECOVERY; a link is the answer where no e-mail is sent."""
        mailed = asked.flag("sendEmail", True)
        asked.flag("revokeSessions", False)
        taken = ("ACTIVE", "PASSWORD_EXPIRED", "LOCKED_OUT", "RECOVERY", "PROVISIONED")
        permission, event = "okta.users.credentials.resetPassword", "user.account.reset_password"
        said = "Fired when the user's Okta password is reset"
        self._change(asked, permission, taken, OktaError("E0000038"), "RECOVERY", event, said)
        link = f"{asked.base}/reset_password/{secrets.token_urlsafe(15)}"
        return web.json_response({} if mailed else {"resetPasswordUrl": link})

    # Factors.

    def _reset(self, asked: Asked) -> User:
        asked.needs(*_FACTORS)
        user = asked.target("okta.users.credentials.resetFactors")
        if user.status == "DEPROVISIONED":
            raise OktaError("E0000038")
        return user

    async def reset_factors(self, asked: Asked) -> web.Response:
        """Removes all factors of a user."""
        user = self._reset(asked)
        for factor in self.store.factors_of(user):
            del self.store.factors[factor.id]
        event, said = "user.mfa.factor.reset_all", "Reset all factors for user"
        self.store.note(secrets.token_hex(16), asked.now, event, said, asked.user, user)
        self.store.save(asked.now, self.delay(), user)
        return web.json_response({})

    def _reader(self, asked: Asked) -> User:
        """The user whose factors may be read: her own, or with more than basic access anybody's."""
        asked.needs(*_FACTORS_READ)
        user = asked.target(READ_USERS)
        if not self.store.sees_all_of(asked.user, user):
            raise OktaError("E0000006")
        return user

    async def list_factors(self, asked: Asked) -> web.Response:
        """The enrolled factors, all in one page."""
        user = self._reader(asked)
        return web.json_response([views.factor_view(factor, asked.base) for factor in self.store.factors_of(user)])

    async def get_factor(self, asked: Asked) -> web.Response:
        """One factor."""
        return web.json_response(views.factor_view(self._factor(asked, self._reader(asked)), asked.base))

    def _factor(self, asked: Asked, user: User) -> Any:
        found = self.store.factors.get(asked.part("factor"))
        if found is None or found.user != user.id:
            raise not_found(asked.part("factor"), "UserFactor")
        return found

    async def reset_factor(self, asked: Asked) -> web.Response:
        """Removes one factor: the user enrols a new one when she next signs in."""
        user = self._reset(asked)
        factor = self._factor(asked, user)
        del self.store.factors[factor.id]
        about = {"id": factor.id, "type": "UserFactor", "alternateId": factor.type, "displayName": factor.type}
        event, said = "user.mfa.factor.deactivate", "Reset factor for user"
        self.store.note(secrets.token_hex(16), asked.now, event, said, asked.user, user, **about)
        self.store.save(asked.now, self.delay(), user)
        return web.Response(status=204)
