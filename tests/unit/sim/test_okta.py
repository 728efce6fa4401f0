"""The Okta stand-in speaks Okta's dialect: what it answers, to whom, and what it refuses and how."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from aiohttp.test_utils import TestClient, TestServer

from pilothouse_sim.faults import Faults
from pilothouse_sim.oauth.grants import challenge_of
from pilothouse_sim.okta import scim
from pilothouse_sim.okta.app import make_app
from pilothouse_sim.okta.errors import OktaError

API = "/api/v1"
ERIN, MONA, CARL, LOU, SASHA, RITA, DANA, SAM = (
    f"00u1{name}".ljust(20, "0")
    for name in ("employee", "manager", "contractor", "locked", "suspended", "report", "departed", "seller")
)
VPN_TOKEN = "ost1employee00000000"
ENGINEERING, SALES, EVERYONE, DIRECTORY = (
    f"00g1{name}".ljust(20, "0") for name in ("engineering", "sales", "everyone", "directory")
)
VPN_APP, WIKI = "0oa1vpn".ljust(20, "0"), "0oa1wiki".ljust(20, "0")


class Org:
    """A client of one stand-in that asks as a named user."""

    def __init__(self, client: TestClient[Any, Any], clock: list[float]) -> None:
        self.client, self.clock = client, clock
        self.headers: Any = {}

    async def ask(self, method: str, path: str, user: str = "employee", **options: Any) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer okta-token-{user}", **options.pop("headers", {})}
        async with self.client.request(method, API + path, headers=headers, **options) as response:
            self.headers = response.headers
            return response.status, (await response.json() if await response.read() else None)

    async def code(self, method: str, path: str, user: str = "employee", **options: Any) -> tuple[int, str]:
        """The refusal's status and code, after a look at its shape."""
        status, body = await self.ask(method, path, user, **options)
        assert set(body) == {"errorCode", "errorSummary", "errorLink", "errorId", "errorCauses"}
        assert body["errorLink"] == body["errorCode"]
        return status, body["errorCode"]

    async def logins(self, query: str, user: str = "employee") -> list[str]:
        status, body = await self.ask("GET", f"/users?{query}", user)
        assert status == 200, body
        return [found["profile"]["login"].partition("@")[0] for found in body]

    async def linked(self, scope: str, user: str = "manager") -> dict[str, str]:
        """The header of a token that the user got by OAuth."""
        callback, verifier = "http://127.0.0.1/oauth/callback", "v" * 50
        query = {
            "client_id": "pilothouse", "redirect_uri": callback, "response_type": "code", "state": "s", "scope": scope,
            "code_challenge": challenge_of(verifier), "code_challenge_method": "S256",
        }  # fmt: skip
        form = {"username": f"{user}@acme.example", "decision": "allow"}
        path = f"/oauth2/v1/authorize?{urlencode(query)}"
        async with self.client.post(path, data=form, allow_redirects=False) as response:
            code = re.search(r"code=([^&]+)", response.headers["Location"])
        assert code is not None
        form = {
            "grant_type": "authorization_code", "code": code[1], "redirect_uri": callback, "code_verifier": verifier,
            "client_id": "pilothouse", "client_secret": "pilothouse-okta-secret",
        }  # fmt: skip
        async with self.client.post("/oauth2/v1/token", data=form) as response:
            return {"Authorization": f"Bearer {(await response.json())['access_token']}"}


@asynccontextmanager
async def organization(**options: Any) -> AsyncIterator[Org]:
    clock = [1_792_000_000.0]  # 2026-10-14, after the seed's events
    async with TestClient(TestServer(make_app(clock=lambda: clock[0], **options))) as client:
        yield Org(client, clock)


# Users.


async def test_a_user_finds_herself_and_her_manager() -> None:
    async with organization() as okta:
        status, me = await okta.ask("GET", "/users/me")
        assert (status, me["id"], me["status"]) == (200, ERIN, "ACTIVE")
        assert me["profile"]["mobilePhone"]
        _, manager = await okta.ask("GET", f"/users/{me['profile']['managerId']}")
        assert manager["profile"]["displayName"] == me["profile"]["manager"] == "Mona Manager"
        # What the directory shows of others, and no more.
        assert not {"mobilePhone", "secondEmail", "employeeNumber"} & set(manager["profile"])
        assert (await okta.ask("GET", f"/users/{MONA}", "manager"))[1]["profile"]["mobilePhone"]


@pytest.mark.parametrize("wanted", [MONA, "manager@acme.example", "Manager@Acme.example", "manager", quote("me")])
async def test_users_are_found_by_id_login_short_login_and_me(wanted: str) -> None:
    async with organization() as okta:
        assert (await okta.ask("GET", f"/users/{wanted}", "manager"))[1]["id"] == MONA


@pytest.mark.parametrize(
    ("query", "logins"),
    [
        ({"search": 'profile.lastName eq "manager"'}, ["manager"]),
        ({"search": 'profile.firstName sw "s" and profile.department eq "Engineering"'}, ["sasha.suspended"]),
        ({"search": '(status eq "LOCKED_OUT" or status eq "SUSPENDED")'}, ["lou.locked", "sasha.suspended"]),
        ({"search": 'profile.title co "president"'}, ["vera.vice"]),
        ({"search": f'profile.managerId eq "{MONA}" and status gt "LOCKED_OUT"'}, ["sasha.suspended"]),
        ({"search": 'profile.manager pr and profile.title sw "Acc" or id eq "x"'}, ["olivia.owner", "sam.seller"]),
        ({"search": 'status eq "DEPROVISIONED"'}, ["dana.departed"]),
        ({"search": 'profile.lastName eq "Bob\\"smith"'}, []),
        ({"search": 'lastUpdated gt "2026-10-01T00:00:00.000Z"'}, []),
        (
            {"search": 'profile.department eq "Sales"', "sortBy": "profile.firstName", "sortOrder": "desc"},
            ["sam.seller", "olivia.owner"],
        ),
        ({"filter": 'profile.login eq "manager@acme.example"'}, ["manager"]),
        ({"filter": 'status eq "LOCKED_OUT" and lastUpdated lt "2030-01-01T00:00:00.000Z"'}, ["lou.locked"]),
        ({"q": "ri"}, ["rita.report"]),
        ({"q": "dana"}, []),
    ],
)
async def test_lists_by_search_filter_and_q(query: dict[str, str], logins: list[str]) -> None:
    async with organization() as okta:
        assert await okta.logins(urlencode(query)) == logins


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"search": ""}, "E0000031"),
        ({"search": "profile.lastName eq Manager"}, "E0000031"),
        ({"search": 'profile.lastName ne "Manager"'}, "E0000031"),
        ({"search": 'not (profile.lastName eq "Manager")'}, "E0000031"),
        ({"search": 'profile.lastName ew "ger"'}, "E0000031"),
        ({"search": 'profile.lastName eq "Manager'}, "E0000031"),
        ({"search": '(profile.lastName eq "Manager"'}, "E0000031"),
        ({"search": 'profile.lastName eq "a" profile.lastName eq "b"'}, "E0000031"),
        ({"search": 'credentials.password eq "x"'}, "E0000031"),
        ({"search": "(" * 100}, "E0000031"),
        ({"search": 'profile.lastName eq "\\x"'}, "E0000031"),
        ({"filter": 'profile.department eq "Sales"'}, "E0000031"),
        ({"filter": 'profile.login sw "m"'}, "E0000031"),
        ({"search": 'status eq "ACTIVE"', "q": "m"}, "E0000033"),
        ({"limit": "many"}, "E0000037"),
        ({"limit": "0"}, "E0000001"),
        ({"after": "nobody"}, "E0000029"),
        ({"search": 'status eq "ACTIVE"', "sortBy": "profile.login", "sortOrder": "up"}, "E0000001"),
    ],
)
async def test_a_bad_list_request_is_refused(query: dict[str, str], code: str) -> None:
    async with organization() as okta:
        assert await okta.code("GET", f"/users?{urlencode(query)}") == (400, code)


async def test_what_a_role_may_not_see_can_not_be_searched_for() -> None:
    async with organization() as okta:
        query = urlencode({"search": 'profile.secondEmail sw "mona"'})
        assert await okta.logins(query) == []
        assert await okta.logins(query, "manager") == ["manager"]


async def test_lists_page_by_link_headers() -> None:
    async with organization() as okta:
        seen: list[str] = []
        path = "/users?limit=4"
        while True:
            status, body = await okta.ask("GET", path)
            assert status == 200
            seen += [user["id"] for user in body]
            links = {
                relation: url
                for value in okta.headers.getall("Link")
                for url, relation in re.findall(r'<([^>]+)>; rel="(\w+)"', value)
            }
            assert "self" in links
            if "next" not in links:
                break
            assert links["next"].startswith(str(okta.client.make_url(API)))
            path = links["next"].partition(API)[2]
        assert len(seen) == len(set(seen)) == 9  # all but the deactivated one
        assert DANA not in seen


async def test_search_sees_a_change_late_and_the_id_at_once() -> None:
    async with organization(faults=Faults(index_delay_seconds=10)) as okta:
        assert (await okta.ask("POST", f"/users/{RITA}/lifecycle/suspend", "manager"))[0] == 200
        query = urlencode({"search": 'status eq "SUSPENDED"'})
        assert await okta.logins(query) == ["sasha.suspended"]
        assert (await okta.ask("GET", f"/users/{RITA}"))[1]["status"] == "SUSPENDED"
        okta.clock[0] += 11
        assert await okta.logins(query) == ["rita.report", "sasha.suspended"]


# Lifecycle.


@pytest.mark.parametrize(
    ("operation", "user", "status", "code"),
    [
        ("suspend", RITA, "SUSPENDED", ""),
        ("suspend", LOU, "", "E0000001"),
        ("suspend", SASHA, "", "E0000001"),
        ("unsuspend", SASHA, "ACTIVE", ""),
        ("unsuspend", RITA, "", "E0000001"),
        ("unlock", LOU, "ACTIVE", ""),
        ("unlock", RITA, "", "E0000032"),
        ("unlock", SASHA, "", "E0000032"),
        ("deactivate", RITA, "DEPROVISIONED", ""),
        ("deactivate", SASHA, "DEPROVISIONED", ""),
        ("deactivate", DANA, "", "E0000038"),
        ("expire_password", RITA, "PASSWORD_EXPIRED", ""),
        ("expire_password", SASHA, "", "E0000038"),
        ("reset_password", RITA, "RECOVERY", ""),
        ("reset_password", DANA, "", "E0000038"),
        ("reset_factors", RITA, "ACTIVE", ""),
        ("reset_factors", DANA, "", "E0000038"),
    ],
)
async def test_lifecycle(operation: str, user: str, status: str, code: str) -> None:
    async with organization() as okta:
        path = f"/users/{user}/lifecycle/{operation}"
        before = (await okta.ask("GET", f"/users/{user}", "manager"))[1]["status"]
        if code:
            got, refused = await okta.code("POST", path, "manager")
            assert refused == code
            assert got == (400 if code == "E0000001" else 403)
        else:
            assert (await okta.ask("POST", path, "manager"))[0] == 200
        after = (await okta.ask("GET", f"/users/{user}", "manager"))[1]["status"]
        assert after == (status or before)


async def test_password_answers() -> None:
    async with organization() as okta:
        path = f"/users/{RITA}/lifecycle"
        assert (await okta.ask("POST", f"{path}/expire_password", "manager"))[1]["status"] == "PASSWORD_EXPIRED"
        _, body = await okta.ask("POST", f"{path}/expire_password?tempPassword=true", "manager")
        assert list(body) == ["tempPassword"]
        assert (await okta.ask("POST", f"{path}/reset_password?sendEmail=true", "manager"))[1] == {}
        _, body = await okta.ask("POST", f"{path}/reset_password?sendEmail=false", "manager")
        assert list(body) == ["resetPasswordUrl"]
        refused = await okta.code("POST", f"{path}/reset_password?sendEmail=maybe", "manager")
        assert refused == (400, "E0000037")


async def test_a_deactivated_user_loses_groups_and_apps() -> None:
    async with organization() as okta:
        assert (await okta.ask("POST", f"/users/{RITA}/lifecycle/deactivate", "manager"))[0] == 200
        _, members = await okta.ask("GET", f"/groups/{ENGINEERING}/users", "manager")
        assert RITA not in [user["id"] for user in members]


async def test_a_suspended_users_tokens_are_refused() -> None:
    async with organization() as okta:
        assert (await okta.ask("POST", f"/users/{ERIN}/lifecycle/suspend", "manager"))[0] == 200
        assert await okta.code("GET", "/users/me") == (401, "E0000011")
        assert (await okta.ask("POST", f"/users/{ERIN}/lifecycle/unsuspend", "manager"))[0] == 200
        assert (await okta.ask("GET", "/users/me"))[0] == 200


# Who may what.

WRITES = [
    ("POST", "/users/{}/lifecycle/suspend"),
    ("POST", "/users/{}/lifecycle/unsuspend"),
    ("POST", "/users/{}/lifecycle/unlock"),
    ("POST", "/users/{}/lifecycle/deactivate"),
    ("POST", "/users/{}/lifecycle/expire_password"),
    ("POST", "/users/{}/lifecycle/reset_password"),
    ("POST", "/users/{}/lifecycle/reset_factors"),
    ("DELETE", "/users/{}/factors/opf1report0000000000"),
    ("PUT", f"/groups/{SALES}/users/{{}}"),
    ("DELETE", f"/groups/{ENGINEERING}/users/{{}}"),
    ("DELETE", f"/apps/{VPN_APP}/users/{{}}"),
]


@pytest.mark.parametrize(("method", "path"), WRITES)
@pytest.mark.parametrize(("user", "target"), [("employee", RITA), ("contractor", RITA), ("manager", SAM)])
async def test_nobody_changes_those_whom_her_role_does_not_reach(
    method: str, path: str, user: str, target: str
) -> None:
    async with organization() as okta:
        assert await okta.code(method, path.format(target), user) == (403, "E0000006")


async def test_a_user_resets_her_own_factors_and_nobody_elses() -> None:
    async with organization() as okta:
        _, factors = await okta.ask("GET", "/users/me/factors")
        assert {factor["factorType"] for factor in factors} == {"token:software:totp", "push", "sms"}
        assert (await okta.ask("GET", f"/users/me/factors/{VPN_TOKEN}"))[1]["profile"]["name"] == "VPN token"
        assert await okta.ask("DELETE", f"/users/{ERIN}/factors/{VPN_TOKEN}") == (204, None)
        assert await okta.code("DELETE", f"/users/{ERIN}/factors/{VPN_TOKEN}") == (404, "E0000007")
        assert VPN_TOKEN not in [f["id"] for f in (await okta.ask("GET", "/users/me/factors"))[1]]
        assert await okta.code("DELETE", f"/users/{MONA}/factors/opf1manager000000000") == (403, "E0000006")
        assert await okta.code("GET", f"/users/{MONA}/factors") == (403, "E0000006")
        # another's factor under her own name
        assert await okta.code("DELETE", f"/users/{ERIN}/factors/opf1manager000000000") == (404, "E0000007")
        assert (await okta.ask("DELETE", f"/users/{ERIN}/factors/opf1employee00000000", "manager"))[0] == 204
        assert await okta.code("DELETE", f"/users/{CARL}/factors/ost1contractor000000", "contractor") == (
            403,
            "E0000006",
        )


async def test_a_contractor_reads_himself_alone() -> None:
    async with organization() as okta:
        assert (await okta.ask("GET", "/users/me", "contractor"))[0] == 200
        assert (await okta.ask("GET", f"/users/{CARL}", "contractor"))[0] == 200
        assert (await okta.ask("GET", "/users/me/groups", "contractor"))[0] == 200
        for path in (
            "/users",
            f"/users/{ERIN}",
            "/users/nobody",
            "/groups",
            f"/groups/{ENGINEERING}",
            f"/groups/{ENGINEERING}/users",
            "/apps",
            f"/apps/{VPN_APP}",
            "/logs",
            f"/users/{ERIN}/factors",
        ):
            assert await okta.code("GET", path, "contractor") == (403, "E0000006"), path


async def test_an_employee_sees_no_log() -> None:
    async with organization() as okta:
        assert await okta.code("GET", "/logs") == (403, "E0000006")


# Groups, apps, log.


async def test_groups() -> None:
    async with organization() as okta:
        query = urlencode({"search": 'profile.name eq "VPN users"'})
        _, found = await okta.ask("GET", f"/groups?{query}")
        assert [group["profile"]["name"] for group in found] == ["VPN Users"]
        assert [g["id"] for g in (await okta.ask("GET", "/groups?q=eng"))[1]] == [ENGINEERING]
        assert await okta.code("GET", "/groups/00g1nothing") == (404, "E0000007")
        for _ in range(2):  # doing it twice is no error
            assert await okta.ask("PUT", f"/groups/{SALES}/users/{RITA}", "manager") == (204, None)
        names = [g["profile"]["name"] for g in (await okta.ask("GET", f"/users/{RITA}/groups", "manager"))[1]]
        assert names == ["Engineering", "Everyone", "Sales"]
        for _ in range(2):
            assert await okta.ask("DELETE", f"/groups/{SALES}/users/{RITA}", "manager") == (204, None)
        for group in (EVERYONE, DIRECTORY):
            assert await okta.code("PUT", f"/groups/{group}/users/{RITA}", "manager") == (501, "E0000060")
        assert await okta.code("PUT", f"/groups/{SALES}/users/{DANA}", "manager") == (404, "E0000007")
        _, page = await okta.ask("GET", f"/groups/{EVERYONE}/users?limit=3")
        assert len(page) == 3


async def test_apps() -> None:
    async with organization() as okta:
        assert [app["label"] for app in (await okta.ask("GET", "/apps?q=acme"))[1]] == ["Acme VPN"]
        query = urlencode({"filter": f'user.id eq "{CARL}"'})
        assert [app["label"] for app in (await okta.ask("GET", f"/apps?{query}"))[1]] == ["Jira"]
        path = f"/apps/{VPN_APP}/users"
        assert await okta.code("GET", f"{path}/{RITA}") == (404, "E0000007")
        status, body = await okta.ask("POST", path, "manager", json={"id": RITA, "scope": "USER"})
        assert (status, body["credentials"]) == (200, {"userName": "rita.report@acme.example"})
        assert (await okta.ask("GET", f"{path}/{RITA}"))[0] == 200
        assert RITA in [user["id"] for user in (await okta.ask("GET", path))[1]]
        assert await okta.ask("DELETE", f"{path}/{RITA}", "manager") == (204, None)
        assert await okta.code("DELETE", f"{path}/{RITA}", "manager") == (404, "E0000007")
        assert await okta.code("POST", path, "employee", json={"id": ERIN}) == (403, "E0000006")
        for body in ({}, {"id": 3}, {"id": RITA, "scope": "ALL"}, {"id": RITA, "colour": "red"}):
            assert await okta.code("POST", path, "manager", json=body) == (400, "E0000001")
        assert await okta.code("POST", path, "manager", json={"id": "nobody"}) == (404, "E0000007")
        assert await okta.code("POST", f"/apps/{WIKI}/users", "manager", json={"id": RITA}) == (400, "E0000001")
        assert await okta.code("POST", path, "manager", data=b"{", headers={"Content-Type": "application/json"}) == (
            400,
            "E0000003",
        )
        plain = {"Content-Type": "text/plain"}
        assert await okta.code("POST", path, "manager", data=b"{}", headers=plain) == (400, "E0000021")


async def test_the_log_tells_who_did_what_to_whom() -> None:
    async with organization() as okta:
        await okta.ask("DELETE", f"/users/{ERIN}/factors/{VPN_TOKEN}", "manager")
        okta.clock[0] += 1
        await okta.ask("POST", f"/users/{LOU}/lifecycle/unlock", "manager")
        query = {"since": "2026-09-01T00:00:00Z", "filter": 'target.alternateId eq "employee@acme.example"'}
        _, events = await okta.ask("GET", f"/logs?{urlencode(query)}", "manager")
        reset = next(event for event in events if event["eventType"] == "user.mfa.factor.deactivate")
        assert reset["actor"]["alternateId"] == "manager@acme.example"
        assert reset["outcome"]["result"] == "SUCCESS"
        _, newest = await okta.ask("GET", "/logs?sortOrder=DESCENDING&limit=1", "manager")
        assert newest[0]["eventType"] == "user.account.unlock"
        # Without an end there is always a next page, for what may still come.
        assert any('rel="next"' in link for link in okta.headers.getall("Link")) is True
        await okta.ask("GET", "/logs", "manager")
        following = next(link for link in okta.headers.getall("Link") if 'rel="next"' in link)
        path = following.partition(API)[2].partition(">")[0]
        assert (await okta.ask("GET", path, "manager"))[1] == []
        query = {"since": "2026-10-05T00:00:00Z", "until": "2026-10-06T00:00:00Z", "q": "mfa invalid"}
        _, events = await okta.ask("GET", f"/logs?{urlencode(query)}", "manager")
        assert [event["outcome"]["reason"] for event in events] == ["INVALID_CREDENTIALS"]
        assert not any('rel="next"' in link for link in okta.headers.getall("Link"))
        for bad, code in (
            ({"since": "yesterday"}, "E0000030"),
            ({"since": "2026-10-05T00:00:00"}, "E0000030"),
            ({"since": "2026-10-05T00:00:00Z", "until": "2026-10-04T00:00:00Z"}, "E0000001"),
            ({"sortOrder": "UP"}, "E0000001"),
            ({"filter": "nonsense"}, "E0000031"),
        ):
            assert await okta.code("GET", f"/logs?{urlencode(bad)}", "manager") == (400, code)


# Tokens, scopes, limits, errors.


async def test_who_has_no_good_token_is_told_so() -> None:
    async with organization() as okta:
        for header in ({"Authorization": "Bearer wrong"}, {"Authorization": "SSWS okta-token-employee"}):
            assert await okta.code("GET", "/users/me", headers=header) == (401, "E0000011")
            assert 'error="invalid_token"' in okta.headers["WWW-Authenticate"]
        async with okta.client.get(API + "/users/me") as response:
            assert response.status == 401


@pytest.mark.parametrize(
    ("scope", "method", "path", "status"),
    [
        ("openid", "GET", "/users/me", 403),
        ("okta.users.read.self", "GET", "/users/me", 200),
        ("okta.users.read.self", "GET", f"/users/{ERIN}", 403),
        ("okta.users.read", "GET", f"/users/{ERIN}", 200),
        ("okta.users.read", "GET", f"/users/{RITA}/factors", 200),
        ("okta.users.read", "DELETE", f"/users/{RITA}/factors/opf1report0000000000", 403),
        ("okta.factors.manage", "DELETE", f"/users/{RITA}/factors/opf1report0000000000", 204),
        ("okta.users.read", "POST", f"/users/{RITA}/lifecycle/suspend", 403),
        ("okta.users.manage", "POST", f"/users/{RITA}/lifecycle/suspend", 200),
        ("okta.users.manage", "GET", "/groups", 403),
        ("okta.groups.read", "PUT", f"/groups/{SALES}/users/{RITA}", 403),
        ("okta.groups.manage", "PUT", f"/groups/{SALES}/users/{RITA}", 204),
        ("okta.apps.read", "DELETE", f"/apps/{VPN_APP}/users/{ERIN}", 403),
        ("okta.apps.manage", "DELETE", f"/apps/{VPN_APP}/users/{ERIN}", 204),
        ("okta.users.read", "GET", "/logs", 403),
        ("okta.logs.read", "GET", "/logs", 200),
    ],
)
async def test_scopes_bound_what_the_users_role_allows(scope: str, method: str, path: str, status: int) -> None:
    async with organization() as okta:
        headers = await okta.linked(scope)
        got, body = await okta.ask(method, path, headers=headers)
        assert got == status
        if status == 403:
            assert body["errorCode"] == "E0000006"
            assert 'error="insufficient_scope"' in okta.headers["WWW-Authenticate"]


async def test_a_scope_gives_no_role() -> None:
    async with organization() as okta:
        headers = await okta.linked("okta.users.manage", "employee")
        path = f"/users/{RITA}/lifecycle/suspend"
        assert await okta.code("POST", path, headers=headers) == (403, "E0000006")
        assert "WWW-Authenticate" not in okta.headers


async def test_rate_limits_are_told_and_kept_per_user() -> None:
    async with organization(faults=Faults(rate_limit_per_minute=2)) as okta:
        for left in ("1", "0"):
            assert (await okta.ask("GET", "/users/me"))[0] == 200
            assert okta.headers["X-Rate-Limit-Remaining"] == left
        assert await okta.code("GET", "/users/me") == (429, "E0000047")
        assert (okta.headers["X-Rate-Limit-Limit"], okta.headers["X-Rate-Limit-Remaining"]) == ("2", "0")
        assert int(okta.headers["X-Rate-Limit-Reset"]) == int(okta.clock[0]) + 60
        assert "Retry-After" not in okta.headers
        assert (await okta.ask("GET", "/users/me", "manager"))[0] == 200
        okta.clock[0] += 60
        assert (await okta.ask("GET", "/users/me"))[0] == 200


async def test_unknown_paths_methods_and_media_types() -> None:
    async with organization() as okta:
        assert await okta.code("GET", "/nowhere") == (404, "E0000008")
        assert await okta.code("PATCH", "/users/me") == (405, "E0000022")
        assert await okta.code("GET", "/users/me", headers={"Accept": "text/html"}) == (400, "E0000019")
        assert await okta.code("GET", "/users/nobody@acme.example") == (404, "E0000007")
        async with okta.client.get("/.well-known/okta-organization") as response:
            assert (response.status, (await response.json())["pipeline"]) == (200, "idx")
        async with okta.client.post("/__sim/faults", json={"error_rate": 1, "status": 503}) as response:
            assert response.status == 200
        assert (await okta.code("GET", "/users/me"))[0] == 503


async def test_the_log_of_requests_names_the_user(tmp_path: Path) -> None:
    async with organization(state_dir=tmp_path) as okta:
        headers = await okta.linked("okta.users.manage", "employee")
        assert (await okta.ask("DELETE", f"/users/{ERIN}/factors/{VPN_TOKEN}", headers=headers))[0] == 204
        async with okta.client.get("/__sim/log?method=DELETE") as response:
            entry = (await response.json())["requests"][0]
        assert (entry["user"], entry["credential"]) == ("employee@acme.example", "authorization_code")
        _, told = await okta.ask("GET", "/users/me")
    # State and links survive a restart; a reset brings the seed back.
    async with organization(state_dir=tmp_path) as okta:
        assert (await okta.ask("GET", "/users/me", headers=headers))[1]["lastUpdated"] == told["lastUpdated"]
        assert len((await okta.ask("GET", "/users/me/factors"))[1]) == 2
        async with okta.client.post("/__sim/reset") as response:
            assert response.status == 204
        assert len((await okta.ask("GET", "/users/me/factors"))[1]) == 3


def test_expressions_bind_and_compare_as_written() -> None:
    item = {"status": "ACTIVE", "profile": {"a": "x", "n": 3}, "target": [{"alternateId": "m"}, {"alternateId": "e"}]}
    for source, expected in [
        ('status eq "x" and status eq "y" or status eq "active"', True),
        ('status eq "x" and (status eq "y" or status eq "active")', False),
        ('STATUS eq "ACTIVE"', False),
        ("target.alternateId PR", True),
        ('target.alternateId eq "e"', True),
        ('target.alternateId ne "e"', False),
        ('status gt "ACTIUE"', True),
    ]:
        assert scim.parse(source, scim.LOG_FILTER)(item) is expected, source
    with pytest.raises(OktaError):
        scim.parse('actor.alternateId eq "x"; drop', scim.LOG_FILTER)
