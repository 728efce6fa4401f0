"""Linking accounts: the page ``/accounts``, its three calls, and the authorization servers' call-back.

::

    page ──POST link──▶ BeginLink (worker: state, PKCE) ──▶ authorization URL, and a cookie for this browser
      browser ──▶ authorization server: the user signs in and consents ──▶ /oauth/callback?state&code
                                            FinishLink (worker: state is spent, code is exchanged, tokens are stored)

The gateway holds no token of any system: the tenant's own worker does. ``state`` is bound to tenant, user and connector
by the worker, and to the browser by a cookie that this module sets: a call-back in another browser, to which somebody
has sent a link, is refused. The page's calls carry the user's own token in a header, so that no other site can make
them.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import time
from collections import OrderedDict
from html import escape
from importlib import resources
from typing import Any, TypeVar

import grpc.aio
import orjson
from fastapi import FastAPI, Request, Response
from google.protobuf.message import Message

from pilothouse_dataplane.gateway.calls import WorkerCalls
from pilothouse_dataplane.gateway.identity import Identity, IdentityVerifier
from pilothouse_dataplane.gateway.pages import Page, load_page
from pilothouse_dataplane.gateway.problems import Problem, invalid
from pilothouse_dataplane.gateway.settings import Settings
from pilothouse_dataplane.gateway.stream import brief
from pilothouse_dataplane.gateway.wire import to_json
from pilothouse_dataplane.gateway.workers import Directory
from pilothouse_proto.agent.v1 import agent_pb2 as pb

log = logging.getLogger(__name__)

CALLBACK = "/oauth/callback"
_LINK_SECONDS = 600
"""How long a user may take at the authorization server; the worker forgets the state as soon."""
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_STATE = re.compile(r"(?P<namespace>[a-z0-9-]{1,63})\.(?P<tenant>[a-z0-9.-]{1,253})\.(?P<secret>[A-Za-z0-9_-]{32,128})")
_MAX_CODE = 8_192
_PER_MINUTE = 20
"""Links and unlinks that one user may begin a minute: each asks another company's server."""
_USERS = 10_000
_STATUS = {
    pb.ERROR_CODE_UNAUTHENTICATED: 401,
    pb.ERROR_CODE_PERMISSION_DENIED: 403,
    pb.ERROR_CODE_INVALID_REQUEST: 400,
    pb.ERROR_CODE_RATE_LIMITED: 429,
    pb.ERROR_CODE_NO_WORKER: 503,
    pb.ERROR_CODE_INTERNAL: 502,
}
M = TypeVar("M", bound=Message)


class Accounts:
    """The routes. One for the whole gateway."""

    def __init__(
        self, *, settings: Settings, verifier: IdentityVerifier, calls: WorkerCalls, directory: Directory
    ) -> None:
        self._settings = settings
        self._verifier = verifier
        self._calls = calls
        self._directory = directory
        self._page = load_page("accounts.html")
        self._result = resources.files("pilothouse_dataplane.gateway").joinpath("page/linked.html").read_text("utf-8")
        self._result_policy = Page.of(self._result).policy
        self._begun: OrderedDict[tuple[str, str], list[float]] = OrderedDict()

    def add_to(self, app: FastAPI) -> None:
        """Serve them."""
        app.add_api_route("/accounts", self._show, methods=["GET"], include_in_schema=False)
        app.add_api_route("/v1/accounts", self._list, methods=["GET"], include_in_schema=False)
        app.add_api_route("/v1/accounts/{connector}/link", self._link, methods=["POST"], include_in_schema=False)
        app.add_api_route("/v1/accounts/{connector}/unlink", self._unlink, methods=["POST"], include_in_schema=False)
        app.add_api_route(CALLBACK, self._finish, methods=["GET"], include_in_schema=False)

    # --- the page's calls ---------------------------------------------------------------------------------------------
    async def _show(self) -> Response:
        return Response(self._page.html, media_type="text/html", headers={"content-security-policy": self._page.policy})

    async def _list(self, request: Request) -> Response:
        try:
            user = self._who(request)
            asked = pb.ListAccountsRequest(tenant=user.tenant, user=user.user())
            found = await self._ask(user.tenant, "ListAccounts", asked, pb.ListAccountsResponse, changes=False)
        except Problem as problem:
            return _refusal(problem)
        return _json({"user": user.email, "tenant": user.tenant, **to_json(found)})

    async def _link(self, connector: str, request: Request) -> Response:
        try:
            user = self._who(request)
            self._named(connector)
            self._count(user)
            browser = secrets.token_urlsafe(32)
            asked = pb.BeginLinkRequest(
                tenant=user.tenant,
                user=user.user(),
                connector=connector,
                redirect_uri=self._callback(),
                browser=_digest(browser),
            )
            begun = await self._ask(user.tenant, "BeginLink", asked, pb.BeginLinkResponse, changes=True)
            _raise(begun)
            if not begun.authorization_url.startswith(("https://", "http://")):
                raise _internal("The system's sign-in address is not a web address. Nothing was linked.")
        except Problem as problem:
            return _refusal(problem)
        response = _json({"authorization_url": begun.authorization_url})
        self._set_cookie(response, browser, _LINK_SECONDS)
        return response

    async def _unlink(self, connector: str, request: Request) -> Response:
        try:
            user = self._who(request)
            self._named(connector)
            self._count(user)
            asked = pb.UnlinkRequest(tenant=user.tenant, user=user.user(), connector=connector)
            done = await self._ask(user.tenant, "Unlink", asked, pb.UnlinkResponse, changes=True)
            _raise(done)
        except Problem as problem:
            return _refusal(problem)
        return _json({"message": done.message})

    # --- the authorization server's call-back -------------------------------------------------------------------------
    async def _finish(self, request: Request) -> Response:
        query = request.query_params
        try:
            tenant, state = self._tenant_of(query.get("state", ""))
            browser = request.cookies.get(self._cookie, "")
            if not browser:
                raise invalid(
                    "This link was begun in another browser, or more than ten minutes ago. Nothing was linked.",
                    "Open the accounts page in this browser and begin again.",
                )
            code = query.get("code", "")
            if len(code) > _MAX_CODE or not (code or query.get("error")):
                raise invalid("The system sent no usable answer. Nothing was linked.", "Begin again.")
            asked = pb.FinishLinkRequest(
                tenant=tenant,
                state=state,
                code=code,
                browser=_digest(browser),
                redirect_uri=self._callback(),
                error=query.get("error", "")[:100],
                error_description=query.get("error_description", "")[:500],
            )
            done = await self._ask(tenant, "FinishLink", asked, pb.FinishLinkResponse, changes=True)
            _raise(done)
        except Problem as problem:
            return self._told(_STATUS.get(problem.code, 500), "Not linked", problem.message, problem.user_action)
        account = done.account
        what = f"Your {account.system or account.connector} account is linked"
        as_whom = f"{what}: the agent acts there as {account.account}." if account.account else f"{what}."
        response = self._told(200, "Linked", as_whom, "You can close this page, or go back to your conversation.")
        self._set_cookie(response, "", 0)
        return response

    def _tenant_of(self, state: str) -> tuple[str, str]:
        """The tenant that a state names; whether the state is good, its worker says."""
        match = _STATE.fullmatch(state)
        known = self._directory.table.namespace_of(match["tenant"]) if match else None
        if match is None or known is None or not hmac.compare_digest(known, match["namespace"]):
            raise invalid("This call-back belongs to no link that was begun here. Nothing was linked.", "Begin again.")
        return match["tenant"], state

    def _told(self, status: int, title: str, message: str, action: str) -> Response:
        """A page without a script. What an authorization server wrote is shown as text."""
        values = {"title": title, "message": message, "action": action, "state": "good" if status == 200 else "bad"}
        page = self._result
        for name, value in values.items():
            page = page.replace(f"[[{name}]]", escape(value))
        headers = {"content-security-policy": self._result_policy}
        return Response(page, status, media_type="text/html", headers=headers)

    # --- who asks, and a worker that answers --------------------------------------------------------------------------
    def _who(self, request: Request) -> Identity:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        identity = self._verifier.verify(token.strip() if scheme.lower() == "bearer" else "")
        if identity.expires <= time.time():
            raise Problem(pb.ERROR_CODE_UNAUTHENTICATED, "The token has expired. Nothing was done.", "Sign in again.")
        return identity

    @staticmethod
    def _named(connector: str) -> None:
        if not _NAME.fullmatch(connector):
            raise invalid("That is not the name of a connector. Nothing was done.", "Choose one from the list.")

    def _count(self, user: Identity) -> None:
        key, now = (user.tenant, user.email), time.monotonic()
        recent = [at for at in self._begun.pop(key, []) if now - at < 60]
        self._begun[key] = recent
        while len(self._begun) > _USERS:
            self._begun.popitem(last=False)
        if len(recent) >= _PER_MINUTE:
            raise Problem(
                pb.ERROR_CODE_RATE_LIMITED,
                f"You have begun {_PER_MINUTE} changes of links within a minute. Nothing was done.",
                "Try again in a minute.",
                retryable=True,
            )
        recent.append(now)

    def _callback(self) -> str:
        if not self._settings.public_url:
            raise _internal(
                "This gateway does not know its own public address, so no account can be linked.",
                "Ask your platform operator to set gateway.publicURL (PILOTHOUSE_PUBLIC_URL).",
            )
        return self._settings.public_url + CALLBACK

    @property
    def _cookie(self) -> str:
        """``__Host-``: only this very host could have set it (RFC 6265bis); browsers take it over TLS alone."""
        return "__Host-pilothouse-link" if self._secure else "pilothouse-link"

    @property
    def _secure(self) -> bool:
        return self._settings.public_url.startswith("https://")

    def _set_cookie(self, response: Response, value: str, seconds: int) -> None:
        # Lax: it must come along when the authorization server sends the browser back.
        response.set_cookie(
            self._cookie, value, max_age=seconds, path="/", secure=self._secure, httponly=True, samesite="lax"
        )

    async def _ask(self, tenant: str, method: str, request: Message, answer: type[M], *, changes: bool) -> M:
        settings = self._settings
        try:
            return await self._calls.call(
                tenant,
                method,
                request,
                answer,
                wait=settings.no_worker_wait,
                timeout=settings.link_timeout,
                again=not changes,
            )
        except grpc.aio.AioRpcError as error:
            log.warning("%s of %s failed: %s", method, tenant, brief(error))
            done = "Whether it was done is not known." if changes else "Nothing was read."
            raise _internal(f"The agent's worker did not answer. {done}", "Look at your accounts again.") from error


def _digest(browser: str) -> str:
    return hashlib.sha256(browser.encode()).hexdigest()


def _internal(message: str, action: str = "Tell your platform operator.") -> Problem:
    return Problem(pb.ERROR_CODE_INTERNAL, message, action, retryable=True)


def _raise(answer: pb.BeginLinkResponse | pb.FinishLinkResponse | pb.UnlinkResponse) -> None:
    if answer.HasField("error"):
        error = answer.error
        raise Problem(error.code, error.message, error.user_action, retryable=error.retryable)


def _json(body: dict[str, Any], status: int = 200) -> Response:
    return Response(orjson.dumps(body), status, media_type="application/json")


def _refusal(problem: Problem) -> Response:
    return _json(problem.event(), _STATUS.get(problem.code, 500))
