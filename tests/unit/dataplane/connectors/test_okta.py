"""The Okta connector against requests and answers as Okta's documentation has them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse_dataplane.connectors.base import CredentialRefused, RateLimit, Refused, SystemUnavailable
from pilothouse_dataplane.connectors.http import JsonResponse
from pilothouse_dataplane.connectors.okta import scim
from pilothouse_dataplane.connectors.okta.client import next_query, rate_limit, sentence
from pilothouse_dataplane.connectors.okta.connector import _CALLS, _FINDS
from pilothouse_dataplane.connectors.okta.tools import okta_tools
from pilothouse_dataplane.core.messages import Effect, Lookup
from pilothouse_testing.vendor import Vendor, calling

ERIN = {
    "id": "00uErin0000000000001",
    "status": "ACTIVE",
    "profile": {
        "firstName": "Erin",
        "lastName": "Employee",
        "email": "employee@acme.example",
        "login": "employee@acme.example",
        "managerId": "00uMona0000000000001",
        "manager": "Mona Manager",
    },
}
MONA = {
    "id": "00uMona0000000000001",
    "status": "ACTIVE",
    "profile": {
        "firstName": "Mona",
        "lastName": "Manager",
        "email": "manager@acme.example",
        "login": "manager@acme.example",
        "title": "Head of IT",
    },
}
TOTP = {
    "id": "ostf17zuKEUMYQAQGCOV",
    "factorType": "token:software:totp",
    "provider": "OKTA",
    "status": "ACTIVE",
    "profile": {"credentialId": "employee@acme.example"},
}
PUSH = {"id": "opf3hkfocI4JTLAju0g4", "factorType": "push", "provider": "OKTA", "status": "ACTIVE", "profile": {}}
NOT_FOUND = {"errorCode": "E0000007", "errorSummary": "Not found: Resource not found: x (User)", "errorCauses": []}
FORBIDDEN = {
    "errorCode": "E0000006",
    "errorSummary": "You do not have permission to perform the requested action",
    "errorCauses": [],
}


async def test_the_manager_is_read_through_the_profile_of_the_user_herself() -> None:
    vendor = Vendor().expect("GET /api/v1/users/me", answer=ERIN)
    vendor.expect("GET /api/v1/users/00uMona0000000000001", answer=MONA)
    async with calling(vendor, "okta") as call:
        result = await call("user.manager")
    assert result.summary == "Your manager is Mona Manager (manager@acme.example)."
    assert isinstance(result.data, dict)
    assert result.data["email"] == "manager@acme.example"
    assert result.data["name"] == "Mona Manager"
    assert result.data["of"] == "employee@acme.example"


async def test_an_employee_number_names_the_manager_too() -> None:
    erin = ERIN | {"profile": ERIN["profile"] | {"managerId": "4711"}}  # type: ignore[operator]
    vendor = Vendor().expect("GET /api/v1/users/me", answer=erin)
    vendor.expect("GET /api/v1/users/4711", 404, NOT_FOUND)
    search = {"search": 'profile.employeeNumber eq "4711"', "limit": "2"}
    vendor.expect("GET /api/v1/users", answer=[MONA], query=search)
    async with calling(vendor, "okta") as call:
        result = await call("user.manager")
    assert "Mona Manager" in result.summary


@pytest.mark.parametrize("name", ["Mona Manager", ""])
async def test_a_manager_whom_the_user_may_not_see_is_named_as_far_as_her_own_profile_does(name: str) -> None:
    erin = ERIN | {"profile": ERIN["profile"] | {"manager": name}}  # type: ignore[operator]
    vendor = Vendor().expect("GET /api/v1/users/me", answer=erin)
    vendor.expect("GET /api/v1/users/00uMona0000000000001", 403, FORBIDDEN)
    vendor.expect(
        "GET /api/v1/users",
        403,
        FORBIDDEN,
        query={"search": 'profile.employeeNumber eq "00uMona0000000000001"', "limit": "2"},
    )
    async with calling(vendor, "okta") as call:
        if name:
            result = await call("user.manager")
            assert result.summary == "Your manager is Mona Manager; Okta does not tell you the e-mail."
        else:
            with pytest.raises(Refused, match="You do not have permission"):
                await call("user.manager")


async def test_a_login_is_quoted_and_an_e_mail_that_is_no_login_is_searched_for() -> None:
    vendor = Vendor().expect("GET /api/v1/users/mona@acme.example", 404, NOT_FOUND)
    vendor.expect(
        "GET /api/v1/users", answer=[MONA], query={"search": 'profile.email eq "mona@acme.example"', "limit": "2"}
    )
    async with calling(vendor, "okta") as call:
        result = await call("user.get", user="mona@acme.example")
    assert result.summary == "Mona Manager (manager@acme.example) is ACTIVE in Okta."


async def test_a_search_follows_the_next_link_until_enough_is_there() -> None:
    first = {"search": scim.people("Er"), "limit": "3"}
    following = {"search": scim.people("Er"), "limit": "3", "after": "00uA"}
    vendor = Vendor().expect(
        "GET /api/v1/users",
        answer=[ERIN, MONA],
        query=first,
        links=(
            '<{base}/api/v1/users?limit=3>; rel="self"',
            "<{base}/api/v1/users?after=00uA&limit=3&search="
            + scim.people("Er").replace('"', "%22").replace(" ", "+")
            + '>; rel="next"',
        ),
    )
    vendor.expect("GET /api/v1/users", answer=[ERIN, MONA], query=following)
    async with calling(vendor, "okta") as call:
        result = await call("user.search", text="Er", max_results=3)
    assert result.summary == "Found at least 3 users in Okta."


@pytest.mark.parametrize(
    "link",
    [
        '<https://evil.example/api/v1/users?after=1>; rel="next"',
        '<{base}@evil.example/api/v1/users?after=1>; rel="next"',
        '<{base}/api/v1/apps?after=1>; rel="next"',
        '<{base}/api/v1/users/../logs?after=1>; rel="next"',
        '<//evil.example/api/v1/users?after=1>; rel="next"',
        '</api/v1/users?after=1>; rel="next"',
        '<http://[::1>; rel="next"',
        '<gopher://127.0.0.1/api/v1/users>; rel="next"',
    ],
)
async def test_a_next_page_at_another_address_is_not_asked_for(link: str) -> None:
    vendor = Vendor().expect("GET /api/v1/users", answer=[ERIN], query={"limit": "10"}, links=(link,))
    async with calling(vendor, "okta") as call:
        with pytest.raises(Refused, match="another address") as refusal:
            await call("user.search")
    assert not refusal.value.asked
    assert vendor.asked == ["GET /api/v1/users"]


def test_only_the_relation_next_is_followed() -> None:
    base = "https://acme.okta.com"
    headers = {"Link": f'<{base}/api/v1/users?limit=2>; rel="self", <{base}/api/v1/users?after=x>; rel="next"'}
    assert next_query(headers, base, "/api/v1/users") == {"after": "x"}
    assert next_query({"link": f'<{base}/api/v1/users>; rel="self"'}, base, "/api/v1/users") is None
    assert next_query({}, base, "/api/v1/users") is None
    assert next_query({"Link": "<" * 9000}, base, "/api/v1/users") is None


async def test_pages_that_never_end_are_left() -> None:
    vendor = Vendor()
    for number in range(10):
        query = {"limit": "50"} | ({"after": f"a{number}"} if number else {})
        vendor.expect(
            "GET /api/v1/users",
            answer=[ERIN],
            query=query,
            links=(f'<{{base}}/api/v1/users?limit=50&after=a{number + 1}>; rel="next"',),
        )
    async with calling(vendor, "okta") as call:
        result = await call("user.search", max_results=50)
    assert result.summary == "Found at least 10 users in Okta."


async def test_a_factor_is_reset_by_its_type_through_its_id() -> None:
    vendor = Vendor().expect("GET /api/v1/users/me", answer=ERIN)
    vendor.expect("GET /api/v1/users/00uErin0000000000001/factors", answer=[TOTP, PUSH])
    vendor.expect("DELETE /api/v1/users/00uErin0000000000001/factors/ostf17zuKEUMYQAQGCOV", 204)
    async with calling(vendor, "okta") as call:
        result = await call("factor.reset", type="token:software:totp")
    assert result.summary.startswith("Reset the factor token:software:totp of Erin Employee in Okta")
    assert isinstance(result.data, dict)
    assert result.data["factor_id"] == "ostf17zuKEUMYQAQGCOV"


async def test_a_type_that_two_factors_have_resets_neither() -> None:
    vendor = Vendor().expect("GET /api/v1/users/me", answer=ERIN)
    vendor.expect("GET /api/v1/users/00uErin0000000000001/factors", answer=[PUSH, PUSH | {"id": "opf2"}])
    async with calling(vendor, "okta") as call:
        with pytest.raises(Refused, match="several factors of the type push; nothing was reset"):
            await call("factor.reset", type="push")


@pytest.mark.parametrize("arguments", [{}, {"type": "push", "factor_id": "opf2"}, {"type": "pigeon"}])
async def test_a_reset_must_name_one_factor(arguments: dict[str, Any]) -> None:
    vendor = Vendor()
    async with calling(vendor, "okta") as call:
        with pytest.raises(Refused) as refusal:
            await call("factor.reset", **arguments)
    assert not refusal.value.asked
    assert vendor.asked == []


@pytest.mark.parametrize(("left", "found"), [([PUSH], True), ([PUSH, TOTP], False)])
async def test_an_unknown_reset_is_told_from_the_factors_that_are_left(left: list[Any], found: bool) -> None:
    vendor = Vendor().expect("GET /api/v1/users/me", answer=ERIN)
    vendor.expect("GET /api/v1/users/00uErin0000000000001/factors", answer=left)
    async with calling(vendor, "okta") as call:
        result = await call.find("factor.reset", factor_id="ostf17zuKEUMYQAQGCOV")
    assert (result is not None) == found


@pytest.mark.parametrize(
    ("tool", "path", "query"),
    [
        ("user.unlock", "unlock", {}),
        ("user.suspend", "suspend", {}),
        ("user.unsuspend", "unsuspend", {}),
        ("user.expire_password", "expire_password", {}),
        ("user.reset_password", "reset_password", {"sendEmail": "true"}),
        ("user.deactivate", "deactivate", {"sendEmail": "false"}),
    ],
)
async def test_a_lifecycle_operation_is_posted_to_the_user_by_id(tool: str, path: str, query: dict[str, str]) -> None:
    vendor = Vendor().expect("GET /api/v1/users/employee@acme.example", answer=ERIN)
    vendor.expect(f"POST /api/v1/users/00uErin0000000000001/lifecycle/{path}", answer={}, query=query)
    async with calling(vendor, "okta") as call:
        result = await call(tool, user="employee@acme.example")
    assert "Erin Employee" in result.summary


@pytest.mark.parametrize(
    ("tool", "status", "found"),
    [
        ("user.unlock", "ACTIVE", True),
        ("user.unlock", "LOCKED_OUT", False),
        ("user.suspend", "SUSPENDED", True),
        ("user.suspend", "ACTIVE", False),
        ("user.deactivate", "DEPROVISIONED", True),
        ("user.deactivate", "ACTIVE", False),
        ("user.reset_password", "RECOVERY", True),
        ("user.expire_password", "PASSWORD_EXPIRED", True),
    ],
)
async def test_an_unknown_outcome_is_told_from_the_status(tool: str, status: str, found: bool) -> None:
    vendor = Vendor().expect("GET /api/v1/users/employee@acme.example", answer=ERIN | {"status": status})
    async with calling(vendor, "okta") as call:
        result = await call.find(tool, user="employee@acme.example")
    assert (result is not None) == found


async def test_a_status_that_proves_nothing_leaves_the_outcome_open() -> None:
    vendor = Vendor().expect("GET /api/v1/users/employee@acme.example", answer=ERIN | {"status": "DEPROVISIONED"})
    async with calling(vendor, "okta") as call:
        with pytest.raises(SystemUnavailable, match="does not tell"):
            await call.find("user.unlock", user="employee@acme.example")


async def test_a_deactivation_that_is_under_way_counts_as_done() -> None:
    user = ERIN | {"transitioningToStatus": "DEPROVISIONED"}
    vendor = Vendor().expect("GET /api/v1/users/employee@acme.example", answer=user)
    async with calling(vendor, "okta") as call:
        assert await call.find("user.deactivate", user="employee@acme.example") is not None


async def test_a_group_is_found_by_its_whole_name() -> None:
    group = {"id": "00gVpn00000000000001", "profile": {"name": 'VPN "users"'}}
    vendor = Vendor().expect(
        "GET /api/v1/groups", answer=[group], query={"search": 'profile.name eq "VPN \\"users\\""', "limit": "2"}
    )
    vendor.expect("GET /api/v1/users/employee@acme.example", answer=ERIN)
    vendor.expect("PUT /api/v1/groups/00gVpn00000000000001/users/00uErin0000000000001", 204)
    async with calling(vendor, "okta") as call:
        result = await call("group.add_user", group='VPN "users"', user="employee@acme.example")
    assert result.summary == 'Erin Employee is in the group VPN "users" in Okta.'


async def test_a_name_of_no_group_changes_nothing() -> None:
    query = {"search": 'profile.name eq "VPN"', "limit": "2"}
    vendor = Vendor().expect("GET /api/v1/groups", answer=[], query=query)
    async with calling(vendor, "okta") as call:
        with pytest.raises(Refused, match="nothing was changed"):
            await call("group.remove_user", group="VPN", user="employee@acme.example")


async def test_an_app_is_assigned_to_the_user_by_id() -> None:
    apps = [{"id": "0oaVpn00000000000001", "label": "VPN"}, {"id": "0oaVpn00000000000002", "label": "VPN admin"}]
    vendor = Vendor().expect("GET /api/v1/apps", answer=apps, query={"q": "vpn", "limit": "50"})
    vendor.expect("GET /api/v1/users/employee@acme.example", answer=ERIN)
    body = {"id": "00uErin0000000000001", "scope": "USER"}
    vendor.expect("POST /api/v1/apps/0oaVpn00000000000001/users", answer={"id": "00uErin0000000000001"}, body=body)
    async with calling(vendor, "okta") as call:
        result = await call("app.assign", app="vpn", user="employee@acme.example")
    assert result.summary == "Erin Employee is assigned the app VPN in Okta."


async def test_an_unknown_unassignment_is_told_from_the_assignment() -> None:
    vendor = Vendor().expect("GET /api/v1/apps/0oaVpn00000000000001", answer={"id": "0oaVpn00000000000001"})
    vendor.expect("GET /api/v1/users/employee@acme.example", answer=ERIN)
    vendor.expect("GET /api/v1/apps/0oaVpn00000000000001/users/00uErin0000000000001", 404, NOT_FOUND)
    async with calling(vendor, "okta") as call:
        found = await call.find("app.unassign", app="0oaVpn00000000000001", user="employee@acme.example")
    assert found is not None


async def test_the_log_is_asked_for_a_bounded_time_with_an_escaped_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    event = {
        "published": "2026-11-22T10:00:00.000Z",
        "eventType": "user.session.start",
        "displayMessage": "User login to Okta",
        "outcome": {"result": "FAILURE", "reason": "INVALID_CREDENTIALS"},
        "actor": {"alternateId": "employee@acme.example"},
        "target": [{"alternateId": "VPN"}],
        "client": {"ipAddress": "198.51.100.7", "geographicalContext": {"city": "Lisbon"}},
    }
    vendor = Vendor().expect("GET /api/v1/users/employee@acme.example", answer=ERIN)
    login = 'actor.alternateId eq "employee@acme.example" or target.alternateId eq "employee@acme.example"'
    vendor.expect(
        "GET /api/v1/logs",
        answer=[event],
        query={
            "since": "1969-12-31T22:00:00.500Z",
            "until": "1970-01-01T00:00:00.500Z",
            "sortOrder": "DESCENDING",
            "limit": "20",
            "filter": f'({login}) and outcome.result eq "FAILURE"',
        },
        links=('<{base}/api/v1/logs?after=1>; rel="self"',),
    )
    async with calling(vendor, "okta") as call:
        monkeypatch.setattr(call.connector._client, "clock", lambda: 0.5)  # type: ignore[attr-defined]
        result = await call("log.search", user="employee@acme.example", outcome="FAILURE", hours=2)
    assert isinstance(result.data, dict)
    assert result.data["events"][0]["reason"] == "INVALID_CREDENTIALS"


@pytest.mark.parametrize(
    ("status", "answer", "error", "words"),
    [
        (401, {"errorCode": "E0000011", "errorSummary": "Invalid token provided"}, CredentialRefused, "Invalid token"),
        (403, FORBIDDEN, Refused, "okta.users.lifecycle.suspend”; ask an Okta administrator"),
        (404, NOT_FOUND, Refused, "found nothing that you may see"),
        (
            400,
            {
                "errorCode": "E0000001",
                "errorSummary": "Api validation failed: suspendUser",
                "errorCauses": [{"errorSummary": "Cannot suspend a user that is not active"}],
            },
            Refused,
            "Cannot suspend a user that is not active",
        ),
        (500, {"errorCode": "E0000009", "errorSummary": "Internal Server Error"}, SystemUnavailable, "failed"),
    ],
)
async def test_each_error_says_what_okta_said(status: int, answer: Any, error: type[Exception], words: str) -> None:
    vendor = Vendor().expect("GET /api/v1/users/employee@acme.example", answer=ERIN)
    vendor.expect("POST /api/v1/users/00uErin0000000000001/lifecycle/suspend", status, answer)
    async with calling(vendor, "okta") as call:
        with pytest.raises(error, match=words) as caught:
            await call("user.suspend", user="employee@acme.example")
    assert "token-of-erin" not in str(caught.value)


async def test_too_many_requests_wait_for_the_window_that_okta_names() -> None:
    headers = {
        "X-Rate-Limit-Limit": "600",
        "X-Rate-Limit-Remaining": "0",
        "X-Rate-Limit-Reset": "1609459230",
        "Date": "Fri, 01 Jan 2021 00:00:00 GMT",
    }
    answer = {"errorCode": "E0000047", "errorSummary": "API call exceeded rate limit due to too many requests."}
    vendor = Vendor().expect("GET /api/v1/users/me", 429, answer, headers=headers)
    async with calling(vendor, "okta") as call:
        with pytest.raises(SystemUnavailable) as error:
            await call("user.me")
        assert call.record.limit == RateLimit(0, 30.0)
    assert error.value.retry_after == 30.0
    assert not error.value.may_have_acted


async def test_a_lack_of_scope_is_told_from_a_lack_of_rights() -> None:
    headers = {"WWW-Authenticate": 'Bearer error="insufficient_scope", scope="okta.users.read"'}
    vendor = Vendor().expect("GET /api/v1/users/me", 403, FORBIDDEN, headers=headers)
    async with calling(vendor, "okta") as call:
        with pytest.raises(Refused, match="was not granted the scope"):
            await call("user.me")


async def test_a_read_before_a_write_that_fails_has_changed_nothing() -> None:
    vendor = Vendor().expect("GET /api/v1/users/me", 503, {})
    async with calling(vendor, "okta") as call:
        with pytest.raises(SystemUnavailable) as error:
            await call("factor.reset_all")
    assert not error.value.may_have_acted


def test_the_reset_is_told_by_oktas_own_clock() -> None:
    headers = {"X-Rate-Limit-Remaining": "5", "X-Rate-Limit-Reset": "1609459230"}
    assert rate_limit(headers, 1609459200) == RateLimit(5, 30.0)
    assert rate_limit(headers | {"Date": "Fri, 01 Jan 2021 00:00:20 GMT"}, 1609459200) == RateLimit(5, 10.0)
    assert rate_limit(headers | {"Date": "yesterday"}, 1609459200) == RateLimit(5, 30.0)
    assert rate_limit({"X-Rate-Limit-Remaining": "x", "X-Rate-Limit-Reset": "1"}, 0) is None


HOSTILE = ["../users", "..", ".", "%2e%2e", "a/b", "a\x00b", "a?b", "a#b", "\u2024\u2024/x", "", "x" * 300, "a\nb", " "]


@pytest.mark.parametrize("user", [text for text in HOSTILE if text.strip()])
@pytest.mark.parametrize("tool", ["user.get", "user.suspend", "factor.list", "factor.reset_all"])
async def test_what_is_no_login_is_never_a_part_of_an_address(tool: str, user: str) -> None:
    vendor = Vendor()
    async with calling(vendor, "okta") as call:
        with pytest.raises(Refused) as refusal:
            await call(tool, user=user)
    assert not refusal.value.asked
    assert vendor.asked == []


@pytest.mark.parametrize("factor_id", [text for text in HOSTILE if text.strip()])
async def test_what_is_no_id_is_never_a_part_of_an_address(factor_id: str) -> None:
    vendor = Vendor()
    async with calling(vendor, "okta") as call:
        with pytest.raises(Refused) as refusal:
            await call("factor.reset", factor_id=factor_id)
    assert not refusal.value.asked
    assert vendor.asked == []


@pytest.mark.parametrize("value", [7, None, [], {}, True, 1.5])
async def test_arguments_of_other_types_are_refused(value: Any) -> None:
    async with calling(Vendor(), "okta") as call:
        for tool, name in [("user.get", "user"), ("user.search", "text"), ("group.members", "group")]:
            with pytest.raises(Refused) as refusal:
                await call(tool, **{name: value})
            assert not refusal.value.asked


@given(st.text(max_size=60))
def test_a_quoted_text_ends_where_its_quote_does(text: str) -> None:
    quoted = scim.quote(text)
    inner = quoted[1:-1].replace("\\\\", "").replace('\\"', "")
    assert quoted[0] == quoted[-1] == '"'
    assert '"' not in inner
    assert "\\" not in inner
    assert inner.isprintable() or not inner


async def test_an_id_of_okta_itself_is_checked_before_it_is_used() -> None:
    vendor = Vendor().expect("GET /api/v1/users/me", answer=ERIN | {"id": "../../evil"})
    async with calling(vendor, "okta") as call:
        with pytest.raises(SystemUnavailable, match="can't be read"):
            await call("factor.reset_all")


JUNK: list[Any] = [None, 7, "x", [], {}, True, [[]], [7], [None], {"id": 7}, [{"id": {"x": 1}, "profile": [1]}]]


@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("user.me", {}),
        ("user.search", {"text": "x"}),
        ("group.search", {}),
        ("app.search", {}),
        ("group.members", {"group": "00gVpn00000000000001"}),
    ],
)
async def test_answers_of_any_shape_are_an_error_or_an_empty_field(
    tool: str, arguments: dict[str, Any], junk: Any
) -> None:
    vendor = Vendor()
    async with calling(vendor, "okta") as call:

        async def send(*_: Any, **__: Any) -> Any:
            return JsonResponse(200, junk, None, {})

        call.connector._client._send = send  # type: ignore[attr-defined]
        try:
            result = await call(tool, **arguments)
        except (Refused, SystemUnavailable):
            return
    assert isinstance(result.summary, str)


def test_an_error_of_any_shape_has_a_sentence() -> None:
    for junk in (*JUNK, {"errorSummary": 7, "errorCauses": {"a": 1}}, {"errorCauses": [1, {"errorSummary": []}]}):
        assert isinstance(sentence(junk), str)


def test_each_tool_has_a_handler_and_each_write_a_look_up_that_it_declares() -> None:
    tools = {tool.name.removeprefix("okta."): tool for tool in okta_tools("okta")}
    assert set(tools) == set(_CALLS)
    writes = {name for name, tool in tools.items() if tool.effect is not Effect.READ}
    assert writes == set(_FINDS)
    assert all(tools[name].lookup is not Lookup.NONE for name in writes)


def test_what_takes_access_away_is_destructive() -> None:
    destructive = {t.name.removeprefix("okta.") for t in okta_tools("okta") if t.effect is Effect.DESTRUCTIVE}
    assert destructive == {
        "user.suspend",
        "user.deactivate",
        "user.expire_password",
        "user.reset_password",
        "group.remove_user",
        "app.unassign",
        "factor.reset",
        "factor.reset_all",
    }
