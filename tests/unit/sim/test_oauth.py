"""The stand-ins' authorization server: what it grants, to whom, and all that it must refuse."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import random
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from aiohttp import encode_basic_auth, web
from aiohttp.test_utils import TestClient, TestServer
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pilothouse_sim.faults import Faults, Sim
from pilothouse_sim.jira.errors import render
from pilothouse_sim.oauth import JIRA, OKTA, SALESFORCE, SERVICENOW, App, OAuth, Profile
from pilothouse_sim.oauth.grants import challenge_of
from pilothouse_sim.oauth.server import redirect_allowed

PEOPLE = {"employee@acme.example": "Erin Employee", "manager@acme.example": "Mona Manager"}
ERIN = "employee@acme.example"
CALLBACK = "http://127.0.0.1:8443/oauth/callback"
VERIFIER = "verifier-" * 6
NOW = 1_790_000_000.0
SCOPES = {
    "jira": "read:jira-work offline_access read:me",
    "okta": "openid okta.users.read offline_access",
    "servicenow": "useraccount",
    "salesforce": "api refresh_token",
}
ALL = [JIRA, OKTA, SERVICENOW, SALESFORCE]


class Server:
    """A client of one authorization server, with its clock."""

    def __init__(self, client: TestClient[Any, Any], profile: Profile, oauth: OAuth, clock: list[float]) -> None:
        self.client, self.profile, self.oauth, self.clock = client, profile, oauth, clock

    def request(self, **changed: str | None) -> dict[str, str]:
        """The parameters of a sound authorization request, with some changed or (None) left out."""
        sound: dict[str, str | None] = {
            "client_id": "pilothouse",
            "redirect_uri": CALLBACK,
            "response_type": "code",
            "state": "state-1",
            "scope": SCOPES[self.profile.system],
            "code_challenge": challenge_of(VERIFIER),
            "code_challenge_method": "S256",
            **self.profile.authorize_needs,
        }
        return {name: value for name, value in {**sound, **changed}.items() if value is not None}

    async def consent(self, username: str = ERIN, allow: bool = True, **changed: str | None) -> dict[str, str]:
        """What comes back to the app when the user decides."""
        url = f"{self.profile.authorize}?{urlencode(self.request(**changed))}"
        form = {"username": username, "decision": "allow" if allow else "deny"}
        async with self.client.post(url, data=form, allow_redirects=False) as response:
            assert response.status == 302, await response.text()
            location = urlsplit(response.headers["Location"])
            assert f"{location.scheme}://{location.netloc}{location.path}" == CALLBACK
            return {name: values[0] for name, values in parse_qs(location.query).items()}

    async def post(self, path: str, form: dict[str, str], **options: Any) -> tuple[int, Any]:
        async with self.client.post(path, data=form, **options) as response:
            assert response.headers["Cache-Control"] == "no-store"
            return response.status, (await response.json() if await response.read() else None)

    async def token(self, **form: str) -> tuple[int, Any]:
        app = {"client_id": "pilothouse", "client_secret": f"pilothouse-{self.profile.system}-secret"}
        return await self.post(self.profile.token, {**app, **form})

    async def redeem(self, code: str, **changed: str) -> tuple[int, Any]:
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK, "code_verifier": VERIFIER}
        return await self.token(**{**form, **changed})

    async def linked(self, username: str = ERIN, **changed: str | None) -> dict[str, Any]:
        status, body = await self.redeem((await self.consent(username, **changed))["code"])
        assert status == 200, body
        return dict(body)

    async def refresh(self, token: str, **more: str) -> tuple[int, Any]:
        return await self.token(grant_type="refresh_token", refresh_token=token, **more)

    async def revoke(self, token: str) -> int:
        app = {"client_id": "pilothouse", "client_secret": f"pilothouse-{self.profile.system}-secret"}
        return (await self.post(self.profile.revoke, {**app, "token": token}))[0]

    async def settings(self, **values: Any) -> dict[str, Any]:
        async with self.client.post("/__sim/oauth", json=values) as response:
            assert response.status == 200, await response.text()
            return dict(await response.json())

    def works(self, access: str) -> bool:
        return self.oauth.user_of(access) is not None


@asynccontextmanager
async def running(profile: Profile, **options: Any) -> AsyncIterator[Server]:
    clock = [NOW]
    app = web.Application()
    Sim(Faults(), render, random.Random(1)).install(app)
    oauth = OAuth(profile, people=PEOPLE, static={"seed-token": ERIN}, clock=lambda: clock[0], **options)
    oauth.install(app)

    async def who(request: web.Request) -> web.Response:
        caller = oauth.caller(request)
        return web.json_response({"email": caller and caller.email}, status=200 if caller else 401)

    app.router.add_get("/who", who)
    async with TestClient(TestServer(app)) as client:
        yield Server(client, profile, oauth, clock)


@pytest.mark.parametrize("profile", ALL, ids=lambda p: p.system)
async def test_a_user_links_and_refreshes(profile: Profile) -> None:
    async with running(profile) as server:
        back = await server.consent()
        assert back["state"] == "state-1"
        status, body = await server.redeem(back["code"])
        assert status == 200
        assert body["token_type"] == "Bearer"
        assert ("expires_in" in body) == profile.tells_expiry
        caller = server.oauth.user_of(body["access_token"])
        assert caller is not None
        assert (caller.email, caller.how) == (ERIN, "authorization_code")
        assert caller.scopes == frozenset(SCOPES[profile.system].split())
        status, fresh = await server.refresh(body["refresh_token"])
        assert status == 200
        assert server.works(fresh["access_token"])
        assert ("refresh_token" in fresh) == profile.rotates
        # A refresh token is none for the API, and an access token refreshes nothing.
        assert not server.works(body["refresh_token"])
        assert (await server.refresh(body["access_token"]))[0] >= 400


@pytest.mark.parametrize("profile", ALL, ids=lambda p: p.system)
async def test_the_page_shows_who_asks_for_what(profile: Profile) -> None:
    async with running(profile) as server:
        hint = {"login_hint": "Manager@acme.example"}
        async with server.client.get(f"{profile.authorize}?{urlencode({**server.request(), **hint})}") as response:
            text = await response.text()
            assert response.status == 200
            assert response.headers["X-Frame-Options"] == "DENY"
            assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        assert "Pilothouse" in text
        assert re.findall(r'value="([^"@]+@[^"]+)" required( checked)?', text) == [
            ("employee@acme.example", ""),
            ("manager@acme.example", " checked"),
        ]
        for scope in SCOPES[profile.system].split():
            assert profile.scopes[scope] in text
        assert not re.search(r'(src|href)="', text)


async def test_the_page_escapes_what_it_is_given() -> None:
    async with running(SERVICENOW) as server:
        query = urlencode(server.request(state='"><script>alert(1)</script>'))
        async with server.client.get(f"{SERVICENOW.authorize}?{query}") as response:
            assert "<script" not in await response.text()


async def test_a_form_without_a_person_or_a_decision_grants_nothing() -> None:
    async with running(SERVICENOW) as server:
        url = f"{SERVICENOW.authorize}?{urlencode(server.request())}"
        for form in ({}, {"username": ERIN}, {"username": "nobody@acme.example", "decision": "allow"}):
            async with server.client.post(url, data=form, allow_redirects=False) as response:
                assert response.status == 400
                assert 'role="alert"' in await response.text()
        assert await server.consent(allow=False) == {
            "error": "access_denied",
            "error_description": "The user denied the request.",
            "state": "state-1",
        }


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "changed",
    [
        {"client_id": "other"},
        {"client_id": None},
        {"redirect_uri": None},
        {"redirect_uri": "http://evil.example/oauth/callback"},
        {"redirect_uri": "https://app.example/elsewhere"},
    ],
)
async def test_an_untrusted_address_is_never_gone_back_to(method: str, changed: dict[str, str | None]) -> None:
    async with running(JIRA) as server:
        url = f"{JIRA.authorize}?{urlencode(server.request(**changed))}"
        form = {"username": ERIN, "decision": "allow"} if method == "POST" else None
        async with server.client.request(method, url, data=form, allow_redirects=False) as response:
            assert response.status == 400
            assert "Location" not in response.headers


@pytest.mark.parametrize(
    ("uri", "allowed"),
    [
        ("http://127.0.0.1/oauth/callback", True),
        ("http://127.77.0.9:8080/oauth/callback", True),
        ("http://localhost:3000/oauth/callback", True),
        ("http://gateway.localhost:3000/oauth/callback", True),
        ("http://evillocalhost/oauth/callback", False),
        ("https://pilothouse.acme.example/base/oauth/callback", True),
        ("http://127.0.0.1.evil.example/oauth/callback", False),
        ("http://localhost.evil.example/oauth/callback", False),
        ("http://127.0.0.1@evil.example/oauth/callback", False),
        ("http://acme.example/oauth/callback", False),
        ("https://acme.example/oauth/callback?next=x", False),
        ("https://acme.example/oauth/callback#x", False),
        ("https:///oauth/callback", False),
        ("https://acme.example:x/oauth/callback", False),
        ("javascript://x/oauth/callback", False),
        ("", False),
    ],
)
def test_the_rule_of_redirect_addresses(uri: str, allowed: bool) -> None:
    assert redirect_allowed(uri) is allowed


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"state": None}, "invalid_request"),
        ({"scope": "read:jira-work everything"}, "invalid_scope"),
        ({"scope": None}, "invalid_scope"),
        ({"audience": None}, "invalid_request"),
        ({"prompt": "none"}, "invalid_request"),
    ],
)
async def test_a_bad_request_goes_back_as_an_error(changed: dict[str, str | None], error: str) -> None:
    async with running(JIRA) as server:
        back = await server.consent(**changed)
        assert back["error"] == error
        assert "code" not in back


async def test_repeated_parameters_are_refused() -> None:
    async with running(OKTA) as server:
        url = f"{OKTA.authorize}?{urlencode(server.request())}&scope=openid"
        async with server.client.get(url, allow_redirects=False) as response:
            assert parse_qs(urlsplit(response.headers["Location"]).query)["error"] == ["invalid_request"]
        encoded = {"Content-Type": "application/x-www-form-urlencoded"}
        body = "grant_type=refresh_token&grant_type=authorization_code"
        async with server.client.post(OKTA.token, data=body, headers=encoded) as response:
            assert (await response.json())["error"] == "invalid_request"


@pytest.mark.parametrize("profile", ALL, ids=lambda p: p.system)
async def test_a_code_is_bound_and_used_once(profile: Profile) -> None:
    async with running(profile) as server:
        for changed in ({"code_verifier": "other-" * 10}, {"redirect_uri": CALLBACK.replace("8443", "1")}):
            code = (await server.consent())["code"]
            assert (await server.redeem(code, **changed))[0] >= 400
            assert (await server.redeem(code))[0] >= 400  # the wrong attempt has spent it
        code = (await server.consent())["code"]
        server.clock[0] += 61
        status, body = await server.redeem(code)
        assert (status, body["error"], body["error_description"]) == profile.say("code")
        code = (await server.consent())["code"]
        _, body = await server.redeem(code)
        other = await server.linked()
        assert (await server.redeem(code))[0] >= 400
        # RFC 6749, 4.1.2: a code that comes twice takes with it what it gave, and nothing else.
        assert not server.works(body["access_token"])
        assert (await server.refresh(body["refresh_token"]))[0] >= 400
        assert server.works(other["access_token"])


async def test_a_code_of_one_app_is_nothing_to_another() -> None:
    async with running(OKTA, apps=(App("other", "other-secret"),)) as server:
        code = (await server.consent())["code"]
        assert (await server.redeem(code, client_id="other", client_secret="other-secret"))[0] == 400
        assert (await server.redeem(code))[0] == 200
        tokens = await server.linked()
        _, body = await server.refresh(tokens["refresh_token"], client_id="other", client_secret="other-secret")
        assert body["error"] == "invalid_grant"


@pytest.mark.parametrize("profile", ALL, ids=lambda p: p.system)
async def test_apps_authenticate_by_body_or_basic(profile: Profile) -> None:
    secret = f"pilothouse-{profile.system}-secret"
    async with running(profile) as server:
        code = (await server.consent())["code"]
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK, "code_verifier": VERIFIER}
        for bad in ({"client_id": "pilothouse", "client_secret": "wrong"}, {"client_id": "pilothouse"}, {}):
            status, body = await server.post(profile.token, {**form, **bad})
            assert (status, body["error"], body["error_description"]) == profile.say("client")
        assert (
            await server.post(profile.token, form, headers={"Authorization": encode_basic_auth("pilothouse", "wrong")})
        )[0] >= 400
        both = {**form, "client_secret": secret}
        status, body = await server.post(
            profile.token, both, headers={"Authorization": encode_basic_auth("pilothouse", secret)}
        )
        assert (status, body["error"]) == (400, "invalid_request")
        assert (
            await server.post(profile.token, form, headers={"Authorization": encode_basic_auth("pilothouse", secret)})
        )[0] == 200


async def test_only_atlassian_takes_json_and_none_takes_a_query() -> None:
    for profile, expected in ((JIRA, 200), (OKTA, 400)):
        async with running(profile) as server:
            code = (await server.consent())["code"]
            form = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK,
                    "code_verifier": VERIFIER, "client_id": "pilothouse",
                    "client_secret": f"pilothouse-{profile.system}-secret"}  # fmt: skip
            async with server.client.post(f"{profile.token}?{urlencode(form)}") as response:
                assert response.status == 400
            async with server.client.post(profile.token, json={**form, "code": 3}) as response:
                assert response.status == 400
            async with server.client.post(profile.token, json=form) as response:
                assert response.status == expected


@pytest.mark.parametrize("profile", [JIRA, OKTA], ids=lambda p: p.system)
async def test_an_old_refresh_token_serves_for_the_grace_time_and_then_ends_the_link(profile: Profile) -> None:
    async with running(profile) as server:
        first = (await server.linked())["refresh_token"]
        _, second = await server.refresh(first)
        server.clock[0] += profile.refresh_grace_seconds - 1
        status, third = await server.refresh(first)
        assert status == 200
        server.clock[0] += 2
        status, body = await server.refresh(first)
        assert (status, body["error"], body["error_description"]) == profile.say("refresh")
        for tokens in (second, third):
            assert not server.works(tokens["access_token"])
            assert (await server.refresh(tokens["refresh_token"]))[0] >= 400


@pytest.mark.parametrize("profile", [SERVICENOW, SALESFORCE], ids=lambda p: p.system)
async def test_a_fixed_refresh_token_goes_on(profile: Profile) -> None:
    async with running(profile) as server:
        token = (await server.linked())["refresh_token"]
        for _ in range(3):
            server.clock[0] += 10_000
            status, body = await server.refresh(token)
            assert status == 200
            assert server.works(body["access_token"])


async def test_no_refresh_token_without_the_scope_for_it() -> None:
    async with running(JIRA) as server:
        assert "refresh_token" not in await server.linked(scope="read:jira-work")


async def test_a_refresh_may_narrow_and_never_widen() -> None:
    async with running(OKTA) as server:
        tokens = await server.linked()
        _, body = await server.refresh(tokens["refresh_token"], scope="okta.users.manage")
        assert body["error"] == "invalid_scope"
        _, body = await server.refresh(tokens["refresh_token"], scope="okta.users.read")
        caller = server.oauth.user_of(body["access_token"])
        assert caller is not None
        assert caller.scopes == frozenset({"okta.users.read"})


async def test_access_tokens_expire_by_the_clock_and_on_request() -> None:
    async with running(SERVICENOW) as server:
        await server.settings(access_token_seconds=3)
        tokens = await server.linked()
        assert tokens["expires_in"] == 3
        server.clock[0] += 2.9
        assert server.works(tokens["access_token"])
        server.clock[0] += 0.2
        assert not server.works(tokens["access_token"])
        _, fresh = await server.refresh(tokens["refresh_token"])
        shown = await server.settings(expire_all=True)
        assert not server.works(fresh["access_token"])
        assert (await server.refresh(tokens["refresh_token"]))[0] == 200
        assert shown["grants"][0]["email"] == ERIN
        assert tokens["refresh_token"] not in json.dumps(shown)
        await server.settings(end_grants=ERIN)
        assert (await server.refresh(tokens["refresh_token"]))[0] == 401
        assert server.works("seed-token")
        for bad in ({"colour": 1}, {"code_seconds": -1}, {"code_seconds": True}, {"end_grants": 3}, [], "x"):
            async with server.client.post("/__sim/oauth", json=bad) as response:
                assert response.status == 400


async def test_a_token_endpoint_that_is_down_leaves_tokens_in_force() -> None:
    async with running(OKTA) as server:
        tokens = await server.linked()
        await server.settings(token_endpoint_status=503)
        assert (await server.refresh(tokens["refresh_token"]))[0] == 503
        assert await server.revoke(tokens["refresh_token"]) == 503
        assert server.works(tokens["access_token"])
        await server.settings(token_endpoint_status=0)
        assert (await server.refresh(tokens["refresh_token"]))[0] == 200


@pytest.mark.parametrize("profile", [OKTA, SERVICENOW, SALESFORCE], ids=lambda p: p.system)
async def test_revocation(profile: Profile) -> None:
    async with running(profile) as server:
        tokens = await server.linked()
        assert await server.revoke("unknown") == 200
        assert (await server.post(profile.revoke, {"token": tokens["refresh_token"]}))[0] >= 400
        assert await server.revoke(tokens["access_token"]) == 200
        assert not server.works(tokens["access_token"])
        status, fresh = await server.refresh(tokens["refresh_token"])
        assert status == 200
        assert await server.revoke(fresh.get("refresh_token", tokens["refresh_token"])) == 200
        assert not server.works(fresh["access_token"])
        assert (await server.refresh(tokens["refresh_token"]))[0] >= 400


async def test_atlassian_has_no_revocation_endpoint() -> None:
    async with running(JIRA) as server, server.client.post("/oauth/revoke", data={"token": "x"}) as response:
        assert response.status == 404


async def test_links_survive_a_restart_and_the_file_holds_no_token(tmp_path: Path) -> None:
    async with running(OKTA, state_dir=tmp_path) as server:
        tokens = await server.linked()
        ended = await server.linked("manager@acme.example")
        await server.revoke(ended["refresh_token"])
    kept = (tmp_path / "oauth.json").read_text()
    assert not any(token in kept for token in (tokens["access_token"], tokens["refresh_token"]))
    async with running(OKTA, state_dir=tmp_path) as server:
        assert server.works(tokens["access_token"])
        assert not server.works(ended["access_token"])
        assert (await server.refresh(tokens["refresh_token"]))[0] == 200


async def test_the_log_names_the_user_and_never_shows_a_token() -> None:
    async with running(OKTA) as server:
        tokens = await server.linked()
        for token in (tokens["access_token"], "seed-token", "wrong"):
            async with server.client.get("/who", headers={"Authorization": f"Bearer {token}"}):
                pass
        async with server.client.get(f"/who?access_token={tokens['access_token']}&limit=3"):
            pass
        async with server.client.get("/__sim/log") as response:
            text = await response.text()
        entries = [e for e in json.loads(text)["requests"] if e["path"] == "/who"]
        assert [(e["user"], e["credential"], e["status"]) for e in entries] == [
            (ERIN, "authorization_code", 200),
            (ERIN, "static", 200),
            (None, None, 401),
            (None, None, 401),
        ]
        assert entries[-1]["query"] == "access_token=…&limit=3"
        assert not any(t in text for t in (tokens["access_token"], tokens["refresh_token"], "seed-token"))


async def test_userinfo_tells_who_it_is_with_the_scope_alone() -> None:
    async with running(JIRA) as server:
        for scope, expected in (("read:me", 200), ("read:jira-work", 403)):
            headers = {"Authorization": f"Bearer {(await server.linked(scope=scope))['access_token']}"}
            async with server.client.get(JIRA.userinfo, headers=headers) as response:
                assert response.status == expected
                assert (await response.json()).get("email") == (ERIN if expected == 200 else None)
        async with server.client.get(JIRA.userinfo) as response:
            assert response.status == 401


async def test_an_id_token_says_who_signed_in_to_whom_asked_for_openid() -> None:
    async with running(OKTA) as server:
        tokens = await server.linked(nonce="n-1")
        parts = tokens["id_token"].split(".")
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=="))
        assert (claims["email"], claims["aud"], claims["nonce"]) == (ERIN, "pilothouse", "n-1")
        async with server.client.get(OKTA.keys) as response:
            key = (await response.json())["keys"][0]
        n, e = (int.from_bytes(base64.urlsafe_b64decode(key[name] + "==="), "big") for name in ("n", "e"))
        signature = base64.urlsafe_b64decode(parts[2] + "==")
        content = f"{parts[0]}.{parts[1]}".encode()
        rsa.RSAPublicNumbers(e, n).public_key().verify(signature, content, padding.PKCS1v15(), SHA256())
        assert "id_token" not in await server.linked(scope="okta.users.read")
    async with running(JIRA) as server:
        assert "id_token" not in await server.linked()


# Assertions: JWT bearer, token exchange, on-behalf-of.


def encoded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


@cache
def key_pair() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def public_pem(key: rsa.RSAPrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def rs256(key: rsa.RSAPrivateKey, **claims: Any) -> str:
    head = json.dumps({"alg": "RS256"}).encode()
    content = f"{encoded(head)}.{encoded(json.dumps(claims).encode())}"
    return f"{content}.{encoded(key.sign(content.encode(), padding.PKCS1v15(), SHA256()))}"


def hs256(key: str, claims: dict[str, Any], algorithm: str = "HS256") -> str:
    head = json.dumps({"alg": algorithm}).encode()
    content = f"{encoded(head)}.{encoded(json.dumps(claims).encode())}"
    return f"{content}.{encoded(hmac.new(key.encode(), content.encode(), hashlib.sha256).digest())}"


SOUND = {"iss": "signer", "sub": ERIN, "aud": "https://login.salesforce.com", "exp": NOW + 180}
USER = {"email": ERIN, "sub": "abc", "aud": "pilothouse", "exp": NOW + 600}


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({}, "", ""),
        ({"aud": "http://salesforce.pilothouse-sim.svc:8080"}, "", ""),
        ({"aud": "https://evil.example"}, "invalid_grant", "audience is invalid"),
        ({"aud": None}, "invalid_grant", "audience is invalid"),
        ({"exp": NOW - 60}, "invalid_grant", "expired"),
        ({"exp": NOW + 3600}, "invalid_grant", "expired"),
        ({"exp": "soon"}, "invalid_grant", "invalid assertion"),
        ({"sub": "nobody@acme.example"}, "invalid_grant", "user hasn't approved this consumer"),
        ({"sub": "manager@acme.example"}, "invalid_grant", "user hasn't approved this consumer"),
        ({"iss": "pilothouse"}, "invalid_client_id", "client identifier invalid"),
    ],
)
async def test_jwt_bearer(changed: dict[str, Any], error: str, words: str) -> None:
    app = App("signer", "unused", public_key=public_pem(key_pair()), approved=frozenset({ERIN}))
    async with running(SALESFORCE, apps=(app,)) as server:
        grant = "urn:ietf:params:oauth:grant-type:jwt-bearer"
        form = {"grant_type": grant, "assertion": rs256(key_pair(), **{**SOUND, **changed})}
        status, body = await server.post(SALESFORCE.token, form)
        if error:
            assert (status, body["error"]) == (400, error)
            assert words in body["error_description"]
        else:
            caller = server.oauth.user_of(body["access_token"])
            assert caller is not None
            assert (caller.email, caller.how) == (ERIN, "jwt_bearer")
            assert "refresh_token" not in body


async def test_jwt_bearer_takes_only_the_registered_keys_signature() -> None:
    app = App("signer", "unused", public_key=public_pem(key_pair()), approved=frozenset({ERIN}))
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    good = rs256(key_pair(), **SOUND)
    forged = [
        rs256(other, **SOUND),
        hs256(app.public_key, SOUND),  # the public key as an HMAC secret
        hs256("x", SOUND, "none"),
        good.rpartition(".")[0] + ".",
        good[:-4] + "AAAA",
        good + ".x",
        "",
        "a.b.c",
        "é.é.é",
        "x" * 20_000,
    ]
    async with running(SALESFORCE, apps=(app,)) as server:
        for assertion in forged:
            grant = "urn:ietf:params:oauth:grant-type:jwt-bearer"
            status, body = await server.post(SALESFORCE.token, {"grant_type": grant, "assertion": assertion})
            assert (status, body["error"]) == (400, "invalid_grant"), assertion


async def test_a_user_who_has_consented_has_approved_jwt_bearer() -> None:
    app = App("pilothouse", "pilothouse-salesforce-secret", public_key=public_pem(key_pair()))
    async with running(SALESFORCE, apps=(app,)) as server:
        grant = "urn:ietf:params:oauth:grant-type:jwt-bearer"

        async def ask() -> int:
            assertion = rs256(key_pair(), **{**SOUND, "iss": "pilothouse"})
            return (await server.post(SALESFORCE.token, {"grant_type": grant, "assertion": assertion}))[0]

        assert await ask() == 400
        await server.linked()
        assert await ask() == 200


async def test_jwt_bearer_is_salesforces_alone() -> None:
    async with running(OKTA) as server:
        grant = "urn:ietf:params:oauth:grant-type:jwt-bearer"
        status, body = await server.token(grant_type=grant, assertion=rs256(key_pair(), **SOUND))
        assert (status, body["error"]) == (400, "unsupported_grant_type")


EXCHANGE = {
    "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
    "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
    "audience": "api://okta",
    "client_id": "pilothouse",
    "client_secret": "pilothouse-okta-secret",
}


async def test_token_exchange() -> None:
    async with running(OKTA, subject_key="development") as server:

        async def ask(claims: dict[str, Any], key: str = "development", **changed: str) -> tuple[int, Any]:
            form = {**EXCHANGE, "subject_token": hs256(key, claims), **changed}
            return await server.post("/idp/oauth2/token", {name: value for name, value in form.items() if value})

        status, body = await ask(USER, scope="okta.users.read")
        assert (status, body["issued_token_type"]) == (200, "urn:ietf:params:oauth:token-type:access_token")
        caller = server.oauth.user_of(body["access_token"])
        assert caller is not None
        assert (caller.email, caller.scopes, caller.how) == (ERIN, frozenset({"okta.users.read"}), "token_exchange")
        for error, answer in [
            ("invalid_grant", await ask(USER, key="guessed")),
            ("invalid_grant", await ask({**USER, "exp": NOW - 60})),
            ("invalid_grant", await ask({**USER, "email": "nobody@acme.example"})),
            ("invalid_grant", await ask({"exp": NOW + 60})),
            ("invalid_grant", await ask(USER, subject_token="x")),
            ("invalid_request", await ask(USER, subject_token="")),
            ("invalid_request", await ask(USER, subject_token_type="")),
            ("invalid_request", await ask(USER, requested_token_type="urn:ietf:params:oauth:token-type:saml2")),
            ("invalid_target", await ask(USER, audience="api://jira")),
            ("invalid_scope", await ask(USER, scope="everything")),
            ("invalid_client", await ask(USER, client_secret="wrong")),
            ("unsupported_grant_type", await ask(USER, grant_type="refresh_token")),
        ]:
            assert answer[1]["error"] == error


async def test_without_a_key_any_token_that_names_a_person_is_believed() -> None:
    async with running(OKTA) as server:
        form = {**EXCHANGE, "subject_token": hs256("anything", USER)}
        assert (await server.post("/idp/oauth2/token", form))[0] == 200
        unsigned = {**EXCHANGE, "subject_token": hs256("anything", USER, "none")}
        assert (await server.post("/idp/oauth2/token", unsigned))[0] == 400


async def test_on_behalf_of_speaks_entras_dialect() -> None:
    async with running(SERVICENOW) as server:
        sound = {
            "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
            "requested_token_use": "on_behalf_of",
            "scope": "api://servicenow/.default",
            "client_id": "pilothouse",
            "client_secret": "pilothouse-servicenow-secret",
        }

        async def ask(claims: dict[str, Any], **changed: str) -> tuple[int, Any]:
            return await server.post("/idp/oauth2/v2.0/token", {**sound, "assertion": hs256("k", claims), **changed})

        status, body = await ask(USER)
        assert status == 200
        assert {"access_token", "expires_in", "ext_expires_in", "scope"} <= set(body)
        caller = server.oauth.user_of(body["access_token"])
        assert caller is not None
        assert caller.email == ERIN
        status, body = await ask({**USER, "aud": "another-app"})
        assert (status, body["error"], body["error_codes"]) == (400, "invalid_grant", [500131])
        assert body["error_description"].startswith("AADSTS500131: ")
        assert (await ask(USER, scope="api://jira/.default"))[1]["error"] == "invalid_scope"
        assert (await ask(USER, client_secret="wrong"))[0] == 401
        assert (await ask(USER, requested_token_use="other"))[1]["error"] == "invalid_request"
        assert (await ask({**USER, "exp": NOW - 60}))[1]["error_codes"] == [500133]
