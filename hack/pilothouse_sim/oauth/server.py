"""The HTTP side: authorization endpoint with its page, token, revocation and userinfo endpoints, and ``/__sim/oauth``.

Sources: RFC 6749 (code, refresh), RFC 7636 (PKCE), RFC 7009 (revocation), RFC 7523 (JWT bearer), RFC 8693 (exchange),
RFC 9700 (current best practice). The vendors' differences are in ``profiles``.

Every stand-in also takes a user's sign-in token for one of its own, as an identity provider that it trusts would:
``/idp/oauth2/token`` (RFC 8693) and ``/idp/oauth2/v2.0/token`` (Entra's on-behalf-of). The signature of such a token is
looked at only where ``PILOTHOUSE_SIM_SUBJECT_KEY`` holds the key (a PEM, or the shared secret of development tokens):
without it the stand-in believes any token that names one of its people, which is for local use alone.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus, urlencode, urlsplit

from aiohttp import web

from pilothouse_sim.faults import caller as logged_caller
from pilothouse_sim.faults import credential as logged_credential
from pilothouse_sim.oauth import assertions, page
from pilothouse_sim.oauth.grants import Caller, Denied, Grant, Grants, Issued, Settings
from pilothouse_sim.oauth.identity import Signer
from pilothouse_sim.oauth.profiles import App, Profile, Words

SUBJECT_KEY_ENV = "PILOTHOUSE_SIM_SUBJECT_KEY"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
TOKEN_TYPE = "urn:ietf:params:oauth:token-type:"  # noqa: S105 - a name
MAX_ASSERTION_SECONDS = 300
"""JWT bearer: how far ``exp`` may lie ahead (Salesforce: five minutes)."""
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")
_ENTRA = {"assertion": 50013, "assertion_signature": 50013, "assertion_audience": 500131, "assertion_expired": 500133,
          "assertion_user": 50034, "client": 7000215, "scope": 70011, "grant_type": 70003}  # fmt: skip


class _Refused(Exception):
    def __init__(self, words: Words, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(words[2])
        self.words = words
        self.headers = dict(headers or {})


def _invalid(sentence: str) -> _Refused:
    return _Refused((400, "invalid_request", sentence))


def redirect_allowed(uri: str) -> bool:
    """Whether the apps' rule takes this address: loopback or https, and exactly the call-back's path."""
    try:
        parts = urlsplit(uri)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return False
    if parts.username is not None or parts.fragment or parts.query or "#" in uri or "?" in uri:
        return False
    # RFC 6761, 6.3: names under localhost are loopback, too.
    loopback = (
        host == "localhost" or host.endswith(".localhost") or re.fullmatch(r"127(\.\d{1,3}){3}", host) is not None
    )
    secure = (parts.scheme == "https" and bool(host)) or (parts.scheme == "http" and loopback)
    return secure and parts.path.endswith("/oauth/callback")


class OAuth:
    """One system's authorization server, and what its API asks of a token."""

    def __init__(
        self,
        profile: Profile,
        *,
        people: Mapping[str, str],
        static: Mapping[str, str] | None = None,
        apps: tuple[App, ...] = (),
        state_dir: Path | None = None,
        clock: Callable[[], float] = time.time,
        secret: Callable[[], str] = lambda: secrets.token_urlsafe(32),
        subject_key: str | None = None,
        token_extra: Callable[[Grant, str], Mapping[str, Any]] | None = None,
        userinfo: Callable[[str], Mapping[str, Any]] | None = None,
    ) -> None:
        """``people``: e-mail → name of those who can sign in; ``static``: the seed's token → e-mail; ``apps``: beside
        or instead of ``pilothouse``; ``subject_key``: see the module; ``token_extra(grant, base)``: further fields of a
        token response (Salesforce: ``instance_url``, ``id``, …); ``userinfo(email)``: what userinfo shows."""
        self.profile = profile
        self.people = {email.lower(): name for email, name in people.items()}
        self._static = {_digest(token): email.lower() for token, email in (static or {}).items()}
        own = App("pilothouse", f"pilothouse-{profile.system}-secret")
        self._apps = {app.client_id: app for app in (own, *apps)}
        self._clock = clock
        self._subject_key = subject_key or os.environ.get(SUBJECT_KEY_ENV) or None
        self._token_extra = token_extra or (lambda _grant, _base: {})
        self._signer = Signer()
        self._userinfo = userinfo or (lambda email: {"email": email, "name": self.people[email]})
        self.grants = Grants(
            Settings(
                access_token_seconds=profile.access_token_seconds, refresh_grace_seconds=profile.refresh_grace_seconds
            ),
            rotates=profile.rotates,
            prefix=profile.token_prefix,
            state_dir=state_dir,
            clock=clock,
            secret=secret,
        )

    # What the API asks.

    def user_of(self, token: str) -> Caller | None:
        """Whose token this is; None for an unknown, expired or revoked one."""
        email = self._static.get(_digest(token))
        caller = Caller(email) if email is not None else self.grants.caller(token)
        return caller if caller is not None and caller.email in self.people else None

    def caller(self, request: web.Request) -> Caller | None:
        """Whose bearer token the request carries, noted for ``/__sim/log``; None where it carries no valid one."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        caller = self.user_of(token.strip()) if scheme.lower() == "bearer" else None
        if caller is not None:
            logged_caller.set(caller.email)
            logged_credential.set(caller.how)
        return caller

    # The server.

    def install(self, app: web.Application) -> None:
        """Adds the routes; they answer in OAuth's dialect whatever the application's own middlewares do."""
        profile, add = self.profile, app.router.add_route
        add("GET", profile.authorize, self._authorize)
        add("POST", profile.authorize, self._decide)
        add("POST", profile.token, self._endpoint(self._token))
        if profile.revoke:
            add("POST", profile.revoke, self._endpoint(self._revoke))
        if profile.userinfo:
            add("GET", profile.userinfo, self._show_userinfo)
        if profile.keys:
            add("GET", profile.keys, self._keys)
        add("POST", "/idp/oauth2/token", self._endpoint(self._exchange))
        add("POST", "/idp/oauth2/v2.0/token", self._endpoint(self._on_behalf_of, entra=True))
        add("GET", "/__sim/oauth", self._get_state)
        add("POST", "/__sim/oauth", self._post_state)

    # Authorization endpoint.

    def _checked(self, request: web.Request) -> tuple[App, str, tuple[str, ...]] | web.Response:
        """The app, the redirect URI and the scopes of an authorization request; or the answer that refuses it."""
        query, profile = request.query, self.profile
        app = self._apps.get(query.get("client_id", ""))
        if app is None or len(query.getall("client_id")) > 1:
            return page.refusal(profile.title, "No app is registered under this client_id.")
        uri = query.get("redirect_uri", "")
        if not redirect_allowed(uri) or len(query.getall("redirect_uri")) > 1:
            return page.refusal(profile.title, "The redirect_uri is not one of those registered for the app.")

        def back(error: str, sentence: str) -> web.Response:
            return _redirect(uri, {"error": error, "error_description": sentence, "state": query.get("state", "")})

        if repeated := sorted({name for name in query if len(query.getall(name)) > 1}):
            return back("invalid_request", f"Repeated parameter: {repeated[0]}.")
        if query.get("response_type") != "code":
            return back("unsupported_response_type", "The response_type must be code.")
        if not query.get("state"):
            return back("invalid_request", "The request has no state.")
        if query.get("code_challenge_method") != "S256" or not _CHALLENGE.fullmatch(query.get("code_challenge", "")):
            return back("invalid_request", "PKCE is required: a code_challenge with code_challenge_method S256.")
        for name, value in profile.authorize_needs.items():
            if query.get(name) != value:
                return back("invalid_request", f"The parameter {name} must be {value}.")
        scopes = tuple(dict.fromkeys(query.get("scope", "").split()))
        if not scopes and profile.scope_required:
            return back("invalid_scope", "The request names no scope.")
        if unknown := [scope for scope in scopes if scope not in profile.scopes]:
            return back("invalid_scope", f"Unknown scope: {unknown[0]}.")
        return app, uri, scopes or tuple(profile.scopes)

    async def _authorize(self, request: web.Request) -> web.StreamResponse:
        checked = self._checked(request)
        if isinstance(checked, web.Response):
            return checked
        return self._page(request, checked[0], checked[2], request.query.get("login_hint", ""), "")

    def _page(
        self, request: web.Request, app: App, scopes: tuple[str, ...], chosen: str, complaint: str
    ) -> web.Response:
        return page.consent(
            system=self.profile.title,
            app=app.name,
            scopes=dict.fromkeys(self.profile.scopes[scope] for scope in scopes),
            people=self.people,
            action=str(request.rel_url),
            chosen=chosen.lower(),
            complaint=complaint,
        )

    async def _decide(self, request: web.Request) -> web.StreamResponse:
        """The form came back: to the app with a code, or with ``access_denied``."""
        checked = self._checked(request)
        if isinstance(checked, web.Response):
            return checked
        app, uri, scopes = checked
        form = await request.post()
        email, decision, state = str(form.get("username", "")).lower(), form.get("decision"), request.query["state"]
        if decision == "deny":
            sentence = "The user denied the request."
            return _redirect(uri, {"error": "access_denied", "error_description": sentence, "state": state})
        if email not in self.people or decision != "allow":
            return self._page(request, app, scopes, "", "Say who you are, then allow or deny.")
        logged_caller.set(email)
        nonce = request.query.get("nonce", "")
        code = self.grants.new_code(app.client_id, uri, request.query["code_challenge"], email, scopes, nonce)
        return _redirect(uri, {"code": code, "state": state})

    # Token and revocation endpoint.

    def _endpoint(
        self, handler: Callable[[web.Request, App | None, dict[str, str]], Awaitable[web.Response]], entra: bool = False
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """Parameters, the client's authentication and errors, the same for each endpoint that an app calls."""

        async def endpoint(request: web.Request) -> web.StreamResponse:
            try:
                if self.grants.settings.token_endpoint_status:
                    down = (self.grants.settings.token_endpoint_status, "temporarily_unavailable", "Try again later.")
                    raise _Refused(down)
                parameters = await self._parameters(request)
                response = await handler(request, self._client(request, parameters), parameters)
            except _Refused as refused:
                response = _error(refused.words, refused.headers)
            except Denied as denied:
                response = self._denied(denied.reason, entra)
            response.headers["Cache-Control"] = "no-store"
            return response

        return endpoint

    def _denied(self, reason: str, entra: bool) -> web.Response:
        status, error, description = self.profile.say(reason)
        if not entra:
            headers = {"WWW-Authenticate": 'Basic realm="oauth"'} if status == 401 else {}
            return _error((status, error, description), headers)
        number = _ENTRA.get(reason, 50000)
        error = {"client": "invalid_client", "scope": "invalid_scope", "grant_type": "unsupported_grant_type"}.get(
            reason, "invalid_grant"
        )
        stamp = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(self._clock()))
        body = {
            "error": error,
            "error_description": f"AADSTS{number}: {description} Timestamp: {stamp}",
            "error_codes": [number],
            "timestamp": stamp,
            "trace_id": secrets.token_hex(16),
            "correlation_id": secrets.token_hex(16),
        }
        return web.json_response(body, status=401 if reason == "client" else 400)

    async def _parameters(self, request: web.Request) -> dict[str, str]:
        """The body's parameters. Credentials in the URL are refused (RFC 6749, 2.3.1). Raises _Refused."""
        if request.query:
            raise _invalid("Parameters belong into the body.")
        if request.content_type == "application/json" and self.profile.json_body:
            try:
                body = json.loads(await request.text())
            except ValueError:
                raise _invalid("The body is not JSON.") from None
            if not isinstance(body, dict) or not all(isinstance(value, str) for value in body.values()):
                raise _invalid("The body must be an object of strings.")
            return body
        if request.content_type != "application/x-www-form-urlencoded":
            raise _invalid("Send Content-Type: application/x-www-form-urlencoded.")
        form = await request.post()
        if repeated := [name for name in form if len(form.getall(name)) > 1]:
            raise _invalid(f"Repeated parameter: {repeated[0]}.")
        return {name: str(value) for name, value in form.items() if value != ""}

    def _client(self, request: web.Request, parameters: Mapping[str, str]) -> App | None:
        """The app that proves itself by Basic or by the body; None: it did not try. Raises Denied, _Refused."""
        header = request.headers.get("Authorization", "")
        if header:
            if "client_secret" in parameters:
                raise _invalid("Authenticate in one way: by Authorization or in the body, not both.")
            scheme, _, encoded = header.partition(" ")
            try:
                text = base64.b64decode(encoded, validate=True).decode() if scheme.lower() == "basic" else ""
            except ValueError:
                text = ""
            name, colon, password = text.partition(":")
            if not colon:
                raise Denied("client")
            # RFC 6749, 2.3.1: both are form-encoded before they are joined.
            client_id, secret = unquote_plus(name), unquote_plus(password)
            if parameters.get("client_id", client_id) != client_id:
                raise Denied("client")
        elif "client_secret" in parameters:
            client_id, secret = parameters.get("client_id", ""), parameters["client_secret"]
        else:
            return None
        app = self._apps.get(client_id)
        if app is None or not secrets.compare_digest(app.client_secret.encode(), secret.encode()):
            raise Denied("client")
        return app

    async def _token(self, request: web.Request, app: App | None, parameters: dict[str, str]) -> web.Response:
        kind = parameters.get("grant_type", "")
        if kind == JWT_BEARER and self.profile.jwt_bearer:
            return self._jwt_bearer(request, parameters)
        if app is None:
            raise Denied("client")
        if kind == "authorization_code":
            for name in ("code", "redirect_uri", "code_verifier"):
                if name not in parameters:
                    raise _invalid(f"The parameter {name} is missing.")
            if not _VERIFIER.fullmatch(parameters["code_verifier"]):
                raise Denied("verifier")
            grant = self.grants.redeem(
                parameters["code"], app.client_id, parameters["redirect_uri"], parameters["code_verifier"]
            )
            wanted = self.profile.refresh_scopes
            return self._issued(
                request, self.grants.issue(grant, refreshable=not wanted or bool(wanted & {*grant.scopes}))
            )
        if kind == "refresh_token":
            if "refresh_token" not in parameters:
                raise _invalid("The parameter refresh_token is missing.")
            scopes = frozenset(parameters["scope"].split()) if "scope" in parameters else None
            return self._issued(request, self.grants.refresh(parameters["refresh_token"], app.client_id, scopes))
        if not kind:
            raise _invalid("The parameter grant_type is missing.")
        raise Denied("grant_type")

    def _issued(self, request: web.Request, issued: Issued, **more: object) -> web.Response:
        grant = issued.grant
        logged_caller.set(grant.email)
        logged_credential.set(grant.how)
        body: dict[str, object] = {
            "access_token": issued.access,
            "token_type": "Bearer",
            "scope": " ".join(grant.scopes),
            **({"expires_in": issued.expires_in} if self.profile.tells_expiry else {}),
            **({"refresh_token": issued.refresh} if issued.refresh else {}),
            **self._id_token(grant, f"{request.scheme}://{request.host}"),
            **self._token_extra(grant, f"{request.scheme}://{request.host}"),
            **more,
        }
        return web.json_response(body)

    def _id_token(self, grant: Grant, issuer: str) -> dict[str, str]:
        """The ID token of a grant with the scope ``openid``."""
        if not self.profile.keys or "openid" not in grant.scopes or grant.how != "authorization_code":
            return {}
        now = int(self._clock())
        claims = {
            "iss": issuer,
            "sub": grant.email,
            **self._userinfo(grant.email),
            "aud": grant.client_id,
            "iat": now,
            "exp": now + 3600,
            "auth_time": int(grant.created),
            **({"nonce": grant.nonce} if grant.nonce else {}),
        }
        return {"id_token": self._signer.sign(claims)}

    async def _keys(self, _request: web.Request) -> web.Response:
        return web.json_response(self._signer.jwks())

    def _jwt_bearer(self, request: web.Request, parameters: Mapping[str, str]) -> web.Response:
        """RFC 7523 as Salesforce has it: the app signs, the user must have approved the app."""
        now = self._clock()
        claims = assertions.read(parameters.get("assertion", ""), key=None, now=now)
        app = self._apps.get(str(claims.get("iss", "")))
        if app is None or not app.public_key:
            raise _Refused((400, "invalid_client_id", "client identifier invalid"))
        claims = assertions.read(parameters["assertion"], key=app.public_key, now=now)
        own = f"{request.scheme}://{request.host}"
        audience = claims.get("aud")
        given = audience if isinstance(audience, list) else [audience]
        if not any(isinstance(a, str) and a.rstrip("/") in {own, *self.profile.jwt_audiences} for a in given):
            raise Denied("assertion_audience")
        if claims["exp"] > now + MAX_ASSERTION_SECONDS + assertions.LEEWAY_SECONDS:
            raise Denied("assertion_expired")
        email = str(claims.get("sub", "")).lower()
        if email not in self.people:
            raise Denied("assertion_user")
        if email not in app.approved and not self.grants.approved(app.client_id, email):
            raise Denied("assertion_user")
        grant = self.grants.grant_directly(app.client_id, email, self.profile.scopes, "jwt_bearer")
        return self._issued(request, self.grants.issue(grant, refreshable=False))

    async def _revoke(self, _request: web.Request, app: App | None, parameters: dict[str, str]) -> web.Response:
        """RFC 7009: 200 for an unknown token too."""
        if app is None:
            raise Denied("client")
        if "token" not in parameters:
            raise _invalid("The parameter token is missing.")
        if parameters.get("token_type_hint", "access_token") not in ("access_token", "refresh_token"):
            raise _Refused((400, "unsupported_token_type", "The token_type_hint is not supported."))
        self.grants.revoke(parameters["token"], app.client_id)
        return web.Response()

    # The identity provider's side: a sign-in token for a token of this system.

    def _subject(self, token: str) -> tuple[str, Mapping[str, Any]]:
        claims = assertions.read(token, key=self._subject_key, now=self._clock())
        email = assertions.email_of(claims)
        if email not in self.people:
            raise Denied("assertion_user")
        return email, claims

    async def _exchange(self, request: web.Request, app: App | None, parameters: dict[str, str]) -> web.Response:
        """RFC 8693. ``audience`` is ``<system>``, ``api://<system>`` or this server's address."""
        if app is None:
            raise Denied("client")
        if parameters.get("grant_type") != EXCHANGE:
            raise Denied("grant_type")
        if not parameters.get("subject_token"):
            raise _invalid("The parameter subject_token is missing.")
        kinds = {TOKEN_TYPE + kind for kind in ("jwt", "access_token", "id_token")}
        if parameters.get("subject_token_type") not in kinds:
            raise _invalid("The subject_token_type is missing or not supported.")
        access = TOKEN_TYPE + "access_token"
        if parameters.get("requested_token_type", access) != access:
            raise _invalid("Only an access token can be had.")
        for name in ("audience", "resource"):
            if name in parameters and not self._is_me(request, parameters[name]):
                raise _Refused((400, "invalid_target", f"The {name} is unknown."))
        scopes = tuple(parameters.get("scope", "").split()) or tuple(self.profile.scopes)
        if not set(scopes) <= set(self.profile.scopes):
            raise Denied("scope")
        email, _ = self._subject(parameters["subject_token"])
        grant = self.grants.grant_directly(app.client_id, email, scopes, "token_exchange")
        issued = self.grants.issue(grant, refreshable=False)
        return self._issued(request, issued, issued_token_type=access, expires_in=issued.expires_in)

    async def _on_behalf_of(self, request: web.Request, app: App | None, parameters: dict[str, str]) -> web.Response:
        """Entra's on-behalf-of. The assertion's audience must be the app that exchanges it; the scope is
        ``api://<system>/.default`` or single ones."""
        if app is None:
            raise Denied("client")
        if parameters.get("grant_type") != JWT_BEARER:
            raise Denied("grant_type")
        if parameters.get("requested_token_use") != "on_behalf_of":
            raise _invalid("AADSTS900144: The request body must contain requested_token_use=on_behalf_of.")
        for name in ("assertion", "scope"):
            if not parameters.get(name):
                raise _invalid(f"AADSTS900144: The request body must contain the following parameter: '{name}'.")
        email, claims = self._subject(parameters["assertion"])
        audience = claims.get("aud")
        given = audience if isinstance(audience, list) else [audience]
        if not {app.client_id, f"api://{app.client_id}"} & {a for a in given if isinstance(a, str)}:
            raise Denied("assertion_audience")
        scopes: list[str] = []
        for scope in parameters["scope"].split():
            target, _, name = scope.rpartition("/")
            if scope in ("openid", "profile", "email", "offline_access"):
                continue
            if not self._is_me(request, target) or (name != ".default" and name not in self.profile.scopes):
                raise Denied("scope")
            scopes += self.profile.scopes if name == ".default" else [name]
        if not scopes:
            raise Denied("scope")
        grant = self.grants.grant_directly(app.client_id, email, dict.fromkeys(scopes), "token_exchange")
        issued = self.grants.issue(grant, refreshable=False)
        return self._issued(request, issued, expires_in=issued.expires_in, ext_expires_in=issued.expires_in)

    def _is_me(self, request: web.Request, target: str) -> bool:
        system = self.profile.system
        return target.rstrip("/") in (system, f"api://{system}", f"{request.scheme}://{request.host}")

    # The rest.

    async def _show_userinfo(self, request: web.Request) -> web.StreamResponse:
        caller = self.caller(request)
        wanted = self.profile.userinfo_scope
        if caller is None:
            headers = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
            return _error((401, "invalid_token", "The access token is invalid."), headers)
        if wanted and not caller.has(wanted):
            headers = {"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{wanted}"'}
            sentence = "The access token must provide access to the scope " + wanted
            return _error((403, "insufficient_scope", sentence), headers)
        return web.json_response(dict(self._userinfo(caller.email)))

    async def _get_state(self, _request: web.Request) -> web.Response:
        """Settings and grants in force; never a token."""
        return web.json_response({**dataclasses.asdict(self.grants.settings), "grants": self.grants.listed()})

    async def _post_state(self, request: web.Request) -> web.Response:
        """Changes ``Settings``' fields; ``expire_all``: true ends all access tokens; ``end_grants``: true or an e-mail
        ends all grants, or that user's, as when she revokes the app at the vendor's page."""
        try:
            body = json.loads(await request.text())
        except ValueError:
            body = None
        known = {field.name for field in dataclasses.fields(Settings)}
        if not isinstance(body, dict) or not set(body) <= {*known, "expire_all", "end_grants"}:
            sentence = f"an object of {', '.join(sorted(known))}, expire_all, end_grants"
            return web.json_response({"error": sentence}, status=400)
        numbers = {name: value for name, value in body.items() if name in known}
        if not all(isinstance(v, int | float) and not isinstance(v, bool) and v >= 0 for v in numbers.values()):
            return web.json_response({"error": "settings are numbers of 0 or more"}, status=400)
        ended = body.get("end_grants")
        if not isinstance(ended, str | bool | None) or not isinstance(body.get("expire_all"), bool | None):
            return web.json_response({"error": "expire_all is true; end_grants is true or an e-mail"}, status=400)
        self.grants.settings = replace(self.grants.settings, **numbers)
        if body.get("expire_all"):
            self.grants.expire_all()
        if ended:
            self.grants.end_all(ended.lower() if isinstance(ended, str) else None)
        return await self._get_state(request)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def _error(words: Words, headers: Mapping[str, str]) -> web.Response:
    status, error, description = words
    return web.json_response({"error": error, "error_description": description}, status=status, headers=headers)


def _redirect(uri: str, parameters: Mapping[str, str]) -> web.Response:
    given = {name: value for name, value in parameters.items() if value}
    headers = {"Location": f"{uri}?{urlencode(given)}", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    return web.Response(status=302, headers=headers)
