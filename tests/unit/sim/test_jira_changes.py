"""The Jira stand-in's writes beyond create and comment: edit, assign, link, delete; people, scopes, limits."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from aiohttp.test_utils import TestClient, TestServer

from pilothouse_sim.faults import Faults
from pilothouse_sim.jira import adf
from pilothouse_sim.jira.app import CLOUD_ID, make_app
from pilothouse_sim.oauth.grants import challenge_of

API = "/rest/api/3"
ERIN, MONA, CARL = "712020:employee", "712020:manager", "712020:contractor"


class Site:
    """A client of one stand-in that asks as a named user."""

    def __init__(self, client: TestClient[Any, Any], clock: list[float]) -> None:
        self.client, self.clock = client, clock
        self.headers: Any = {}

    async def ask(self, method: str, path: str, user: str = "employee", **options: Any) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer jira-token-{user}", **options.pop("headers", {})}
        path = path if path.startswith("/ex/") else API + path
        async with self.client.request(method, path, headers=headers, **options) as response:
            self.headers = response.headers
            return response.status, (await response.json() if await response.read() else None)

    async def fields(self, key: str, user: str = "manager") -> dict[str, Any]:
        status, body = await self.ask("GET", f"/issue/{key}", user)
        assert status == 200
        return dict(body["fields"])

    async def link(self, first: str, second: str, user: str = "employee", **more: Any) -> tuple[int, Any]:
        body = {"type": {"name": "Blocks"}, "inwardIssue": {"key": first}, "outwardIssue": {"key": second}, **more}
        return await self.ask("POST", "/issueLink", user, json=body)

    async def keys(self, jql: str, user: str = "manager", **more: Any) -> list[str]:
        _, body = await self.ask("POST", "/search/jql", user, json={"jql": jql, "fields": ["summary"], **more})
        return [issue["key"] for issue in body["issues"]]

    async def linked(self, scope: str) -> dict[str, str]:
        """The header of Erin's token with that scope."""
        callback, verifier = "http://127.0.0.1/oauth/callback", "v" * 50
        query = {
            "client_id": "pilothouse", "redirect_uri": callback, "response_type": "code", "state": "s", "scope": scope,
            "audience": "api.atlassian.com", "prompt": "consent", "code_challenge": challenge_of(verifier),
            "code_challenge_method": "S256",
        }  # fmt: skip
        form = {"username": "employee@acme.example", "decision": "allow"}
        async with self.client.post(f"/authorize?{urlencode(query)}", data=form, allow_redirects=False) as response:
            code = parse_qs(urlsplit(response.headers["Location"]).query)["code"][0]
        form = {
            "grant_type": "authorization_code", "code": code, "redirect_uri": callback, "code_verifier": verifier,
            "client_id": "pilothouse", "client_secret": "pilothouse-jira-secret",
        }  # fmt: skip
        async with self.client.post("/oauth/token", json=form) as response:
            return {"Authorization": f"Bearer {(await response.json())['access_token']}"}


@asynccontextmanager
async def site(**options: Any) -> AsyncIterator[Site]:
    clock = [1_790_000_000.0]
    async with TestClient(TestServer(make_app(clock=lambda: clock[0], **options))) as client:
        yield Site(client, clock)


# Edit and assign.


async def test_edit_sets_fields_properties_and_labels_by_operations() -> None:
    async with site() as jira:
        body: dict[str, Any] = {
            "fields": {"summary": "Edited", "description": adf.paragraph("New"), "priority": {"name": "Lowest"}},
            "update": {"labels": [{"add": "vpn"}, {"remove": "network"}]},
            "properties": [{"key": "pilothouse", "value": {"k": 1}}],
        }
        assert await jira.ask("PUT", "/issue/IT-1", json=body) == (204, None)
        _, issue = await jira.ask("GET", "/issue/IT-1?properties=*all")
        assert (issue["fields"]["summary"], issue["fields"]["labels"]) == ("Edited", ["vpn"])
        assert issue["fields"]["priority"]["name"] == "Lowest"
        assert issue["properties"] == {"pilothouse": {"k": 1}}
        status, issue = await jira.ask("PUT", "/issue/IT-1?returnIssue=true", json={"fields": {"labels": []}})
        assert (status, issue["fields"]["labels"]) == (200, [])
        assert (await jira.ask("DELETE", "/issue/IT-1/properties/pilothouse"))[0] == 204
        assert (await jira.ask("DELETE", "/issue/IT-1/properties/pilothouse"))[0] == 404


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"fields": {"colour": "red"}}, "colour"),
        ({"fields": {"summary": ""}}, "summary"),
        ({"fields": {"priority": {"name": "Urgent"}}}, "priority"),
        ({"fields": {"status": {"name": "Done"}}}, "status"),
        ({"fields": {"description": {"type": "doc"}}}, "description"),
        ({"fields": {"assignee": {"accountId": MONA}}}, "assignee"),
        ({"fields": {"labels": ["a"]}, "update": {"labels": [{"add": "b"}]}}, "labels"),
        ({"update": {"summary": [{"add": "x"}]}}, "summary"),
        ({"update": {"labels": [{"add": "two words"}]}}, "labels"),
        ({"update": {"labels": "x"}}, ""),
        ({"update": []}, ""),
        ({"colour": 1}, ""),
    ],
)
async def test_a_bad_edit_changes_nothing(body: dict[str, Any], field: str) -> None:
    async with site() as jira:
        before = await jira.fields("IT-1")
        status, refusal = await jira.ask("PUT", "/issue/IT-1", json=body)
        assert status == 400
        assert list(refusal["errors"]) == ([field] if field else [])
        assert await jira.fields("IT-1") == before


@pytest.mark.parametrize(
    ("user", "account", "status"),
    [
        ("manager", ERIN, 204),
        ("manager", None, 204),
        ("manager", "-1", 204),
        ("manager", CARL, 400),
        ("manager", "712020:nobody", 400),
        ("manager", 3, 400),
        ("employee", ERIN, 403),
        ("contractor", CARL, 403),
    ],
)
async def test_assign(user: str, account: object, status: int) -> None:
    async with site() as jira:
        got, body = await jira.ask("PUT", "/issue/IT-2/assignee", user, json={"accountId": account})
        assert got == status
        assignee = (await jira.fields("IT-2"))["assignee"]
        if status == 204:
            assert (assignee or {}).get("accountId") == (account if account == ERIN else None)
        else:
            assert assignee["accountId"] == MONA
        if status == 403:
            assert body["errorMessages"] == ["You do not have permission to assign issues in this project."]


async def test_assign_to_nobody_named_is_refused() -> None:
    async with site() as jira:
        assert (await jira.ask("PUT", "/issue/IT-2/assignee", "manager", json={}))[0] == 400


# Links.


async def test_a_link_reads_from_both_ends() -> None:
    async with site() as jira:
        _, types = await jira.ask("GET", "/issueLinkType")
        assert ("Blocks", "blocks", "is blocked by") in [
            (t["name"], t["outward"], t["inward"]) for t in types["issueLinkTypes"]
        ]
        comment = {"body": adf.paragraph("Waiting for this")}
        assert await jira.link("IT-1", "IT-2", comment=comment) == (201, None)
        assert (await jira.link("IT-1", "IT-2"))[0] == 201  # there already: as if it were made
        first, second = await jira.fields("IT-1"), await jira.fields("IT-2")
        assert len(first["issuelinks"]) == 1
        assert first["issuelinks"][0]["outwardIssue"]["key"] == "IT-2"
        assert "inwardIssue" not in first["issuelinks"][0]
        assert second["issuelinks"][0]["inwardIssue"]["key"] == "IT-1"
        assert adf.plain(first["comment"]["comments"][-1]["body"]) == "Waiting for this"
        link = first["issuelinks"][0]["id"]
        _, shown = await jira.ask("GET", f"/issueLink/{link}")
        assert (shown["inwardIssue"]["key"], shown["outwardIssue"]["key"]) == ("IT-1", "IT-2")
        assert (await jira.ask("DELETE", f"/issueLink/{link}", "contractor"))[0] == 404
        assert (await jira.ask("DELETE", f"/issueLink/{link}"))[0] == 204
        assert (await jira.ask("GET", f"/issueLink/{link}"))[0] == 404
        assert (await jira.fields("IT-1"))["issuelinks"] == []


@pytest.mark.parametrize(
    ("user", "first", "second", "more", "status", "words"),
    [
        ("contractor", "IT-1", "IT-2", {}, 404, "No Link Issue Permission"),
        ("employee", "IT-1", "HR-1", {}, 404, "do not have permission to see it"),
        ("employee", "IT-1", "IT-99", {}, 404, "do not have permission to see it"),
        ("employee", "IT-1", "IT-1", {}, 400, "itself"),
        ("employee", "IT-1", "IT-2", {"type": {"name": "Hates"}}, 404, "No issue link type with name 'Hates' found."),
        ("employee", "IT-1", "IT-2", {"type": "Blocks"}, 400, "payload"),
        ("employee", "IT-1", "IT-2", {"inwardIssue": "IT-1"}, 400, "payload"),
        ("employee", "IT-1", "IT-2", {"colour": 1}, 400, "payload"),
    ],
)
async def test_a_bad_link_is_refused(
    user: str, first: str, second: str, more: dict[str, Any], status: int, words: str
) -> None:
    async with site() as jira:
        got, body = await jira.link(first, second, user, **more)
        assert (got, words in body["errorMessages"][0]) == (status, True)
        assert (await jira.fields("IT-1"))["issuelinks"] == []


async def test_a_link_to_what_one_may_not_see_is_not_shown() -> None:
    async with site() as jira:
        assert (await jira.link("IT-2", "HR-1", "manager"))[0] == 201
        assert len((await jira.fields("IT-2"))["issuelinks"]) == 1
        assert (await jira.fields("IT-2", "employee"))["issuelinks"] == []


# Delete.


async def test_delete_takes_links_along_and_never_gives_a_key_twice(tmp_path: Path) -> None:
    new = {"fields": {"project": {"key": "IT"}, "issuetype": {"name": "Task"}, "summary": "New"}}
    async with site(state_dir=tmp_path) as jira:
        await jira.link("IT-1", "IT-7")
        await jira.link("IT-1", "IT-2")
        for user, status in (("contractor", 403), ("employee", 403), ("manager", 204)):
            assert (await jira.ask("DELETE", "/issue/IT-7", user))[0] == status
        assert (await jira.ask("GET", "/issue/IT-7", "manager"))[0] == 404
        assert len((await jira.fields("IT-1"))["issuelinks"]) == 1
        assert (await jira.ask("POST", "/issue", json=new))[1]["key"] == "IT-8"
        assert (await jira.ask("DELETE", "/issue/IT-8", "manager"))[0] == 204
    for _ in range(2):  # the journal as written, and as compacted
        async with site(state_dir=tmp_path) as jira:
            assert (await jira.ask("GET", "/issue/IT-7", "manager"))[0] == 404
            assert "IT-7" not in await jira.keys("project = IT")
            assert len((await jira.fields("IT-1"))["issuelinks"]) == 1
    async with site(state_dir=tmp_path) as jira:
        _, made = await jira.ask("POST", "/issue", json=new)
        assert made["key"] == "IT-9"
        await jira.link("IT-9", "IT-2")
        links = [link["id"] for link in (await jira.fields("IT-2"))["issuelinks"]]
        assert len(set(links)) == 2


async def test_search_forgets_a_deleted_issue_late_unless_it_is_reconciled() -> None:
    async with site(faults=Faults(index_delay_seconds=30)) as jira:
        _, issue = await jira.ask("GET", "/issue/IT-7")
        await jira.ask("DELETE", "/issue/IT-7", "manager")
        assert "IT-7" in await jira.keys("project = IT")
        assert "IT-7" not in await jira.keys("project = IT", reconcileIssues=[int(issue["id"])])
        jira.clock[0] += 31
        assert "IT-7" not in await jira.keys("project = IT")


# Comments, people, projects, attachments.


async def test_comments_page_and_carry_properties() -> None:
    async with site() as jira:
        for number in range(5):
            await jira.ask("POST", "/issue/IT-3/comment", json={"body": adf.paragraph(f"c{number}")})
        _, page = await jira.ask("GET", "/issue/IT-3/comment?startAt=3&maxResults=3")
        assert (page["total"], [adf.plain(c["body"]) for c in page["comments"]]) == (5, ["c3", "c4"])
        number = page["comments"][0]["id"]
        path = f"/comment/{number}/properties"
        assert (await jira.ask("PUT", f"{path}/pilothouse", json={"k": 1}))[0] == 201
        assert (await jira.ask("PUT", f"{path}/pilothouse", json={"k": 2}))[0] == 200
        assert (await jira.ask("GET", f"{path}/pilothouse", "contractor"))[1]["value"] == {"k": 2}
        assert (await jira.ask("PUT", f"{path}/pilothouse", "contractor", json=1))[0] == 403
        assert [k["key"] for k in (await jira.ask("GET", path))[1]["keys"]] == ["pilothouse"]
        _, comment = await jira.ask("GET", f"/issue/IT-3/comment/{number}?expand=properties")
        assert comment["properties"] == [{"key": "pilothouse", "value": {"k": 2}}]
        assert (await jira.ask("GET", f"/issue/IT-1/comment/{number}"))[0] == 404
        assert (await jira.ask("DELETE", f"{path}/pilothouse"))[0] == 204
        assert (await jira.ask("GET", f"{path}/pilothouse"))[0] == 404
        _, hidden = await jira.ask("POST", "/issue/HR-1/comment", "manager", json={"body": adf.paragraph("x")})
        assert (await jira.ask("GET", f"/comment/{hidden['id']}/properties"))[0] == 404


@pytest.mark.parametrize(
    ("path", "user", "found"),
    [
        ("/user/search?query=mona", "employee", [MONA]),
        ("/user/search?query=employee@acme", "employee", [ERIN]),
        (f"/user/search?accountId={CARL}", "employee", [CARL]),
        ("/user/search?query=mona", "contractor", []),
        ("/user/assignable/search?project=IT", "employee", [ERIN, MONA]),
        ("/user/assignable/search?issueKey=IT-1&query=mona%20man", "employee", [MONA]),
        ("/user/assignable/search?project=HR", "manager", [MONA]),
        ("/user/assignable/search?project=IT", "contractor", []),
        ("/user/assignable/search?project=HR", "employee", 404),
        ("/user/assignable/search?issueKey=HR-1", "employee", 404),
        ("/user/assignable/search", "employee", 400),
        ("/user/search", "employee", 400),
        (f"/user?accountId={MONA}", "contractor", 404),
        ("/user", "employee", 400),
    ],
)
async def test_people_are_shown_to_whom_may_browse_them(path: str, user: str, found: object) -> None:
    async with site() as jira:
        status, body = await jira.ask("GET", path, user)
        assert (status if isinstance(found, int) else [person["accountId"] for person in body]) == found


async def test_projects_types_fields_and_attachments() -> None:
    async with site() as jira:
        assert (await jira.ask("GET", "/project/IT"))[1]["issueTypes"][0]["name"] == "Task"
        assert (await jira.ask("GET", "/project/HR"))[0] == 404
        _, page = await jira.ask("GET", "/issue/createmeta/IT/issuetypes?startAt=1&maxResults=2")
        assert (page["total"], [t["name"] for t in page["issueTypes"]]) == (4, ["Bug", "Incident"])
        path = f"/issue/createmeta/IT/issuetypes/{page['issueTypes'][0]['id']}"
        assert "summary" in [f["fieldId"] for f in (await jira.ask("GET", path))[1]["fields"]]
        assert (await jira.ask("GET", path, "contractor"))[0] == 404
        attachment = (await jira.fields("IT-1"))["attachment"][0]
        assert (attachment["filename"], attachment["author"]["accountId"]) == ("vpn-log.txt", ERIN)
        assert (await jira.ask("GET", f"/attachment/{attachment['id']}"))[1]["size"] == 2048
        assert (await jira.ask("GET", "/attachment/1"))[0] == 404


# Tokens.


async def test_an_oauth_token_reaches_the_site_directly_and_through_the_gateway() -> None:
    async with site() as jira:
        headers = await jira.linked("read:jira-work read:me offline_access")
        async with jira.client.get("/oauth/token/accessible-resources", headers=headers) as response:
            resource = (await response.json())[0]
        assert (resource["id"], resource["scopes"]) == (CLOUD_ID, ["read:jira-work"])
        for prefix in ("", f"/ex/jira/{CLOUD_ID}{API}"):
            assert (await jira.ask("GET", f"{prefix}/issue/IT-1", headers=headers))[0] == 200
        assert (await jira.ask("GET", f"/ex/jira/another{API}/issue/IT-1", headers=headers))[0] == 404
        async with jira.client.get("/me", headers=headers) as response:
            assert (await response.json())["account_id"] == ERIN
        async with jira.client.get("/oauth/token/accessible-resources") as response:
            assert response.status == 401
        async with jira.client.get("/__sim/log?path=/ex/jira/" + CLOUD_ID + API + "/issue/IT-1") as response:
            entry = (await response.json())["requests"][0]
        assert (entry["user"], entry["credential"]) == ("employee@acme.example", "authorization_code")


@pytest.mark.parametrize(
    ("method", "path", "needed"),
    [
        ("GET", "/issue/IT-1", "read:jira-work"),
        ("POST", "/search/jql", "read:jira-work"),
        ("PUT", "/issue/IT-1", "write:jira-work"),
        ("PUT", "/issue/IT-1/assignee", "write:jira-work"),
        ("DELETE", "/issue/IT-1", "write:jira-work"),
        ("POST", "/issueLink", "write:jira-work"),
        ("GET", "/myself", "read:jira-user"),
        ("GET", "/user/search", "read:jira-user"),
    ],
)
async def test_scopes_are_checked(method: str, path: str, needed: str) -> None:
    async with site() as jira:
        for scope in ("read:jira-work", "write:jira-work", "read:jira-user"):
            status, body = await jira.ask(method, path, headers=await jira.linked(scope))
            refused = status == 401 and body == {"code": 401, "message": "Unauthorized; scope does not match"}
            assert refused is (scope != needed)


async def test_a_429_says_all_that_jiras_says() -> None:
    async with site(faults=Faults(rate_limit_per_minute=4)) as jira:
        assert [(await jira.ask("GET", "/myself"))[0] for _ in range(2)] == [200, 429]
        assert int(jira.headers["Retry-After"]) >= 1
        assert jira.headers["X-RateLimit-Limit"] == "4"
        assert jira.headers["X-RateLimit-Remaining"] == "0"
        reset = datetime.fromisoformat(jira.headers["X-RateLimit-Reset"]).timestamp()
        assert jira.clock[0] - 1 < reset <= jira.clock[0] + 20
        assert jira.headers["RateLimit-Reason"] == "jira-burst-based"


# ADF.


def block(kind: str, *content: Any, **attributes: Any) -> dict[str, Any]:
    return {"type": kind, "content": list(content), **({"attrs": attributes} if attributes else {})}


def words(text: str = "x", *marks: dict[str, Any]) -> dict[str, Any]:
    return {"type": "text", "text": text, **({"marks": list(marks)} if marks else {})}


LINK = {"type": "link", "attrs": {"href": "https://example.com"}}
PARAGRAPH = block("paragraph", words())


@pytest.mark.parametrize(
    ("node", "accepted"),
    [
        (block("heading", words(), level=2), True),
        (block("heading", words()), False),
        (block("heading", words(), level=7), False),
        (block("heading", words(), level=True), False),
        (block("codeBlock", words("x = 1"), language="python"), True),
        (block("codeBlock", words("x", {"type": "strong"})), False),
        (block("codeBlock", words(), language=3), False),
        (block("bulletList", block("listItem", PARAGRAPH, block("orderedList", block("listItem", PARAGRAPH)))), True),
        (block("bulletList"), False),
        (block("bulletList", PARAGRAPH), False),
        (block("orderedList", block("listItem", PARAGRAPH), order=3), True),
        (block("panel", PARAGRAPH, panelType="info"), True),
        (block("panel", PARAGRAPH), False),
        (block("panel", PARAGRAPH, panelType="loud"), False),
        (block("blockquote", PARAGRAPH), True),
        ({"type": "rule"}, True),
        (block("table", block("tableRow", block("tableHeader", PARAGRAPH), block("tableCell", PARAGRAPH))), True),
        (block("table", PARAGRAPH), False),
        (block("expand", PARAGRAPH, title="More"), True),
        (block("paragraph", words("x", LINK, {"type": "code"})), True),
        (block("paragraph", words("x", {"type": "code"}, {"type": "strong"})), False),
        (block("paragraph", words("x", {"type": "link"})), False),
        (block("paragraph", words("x", {"type": "blink"})), False),
        (block("paragraph", words("x", {"type": "strong"}, {"type": "strong"})), False),
        (block("paragraph", words("")), False),
        (block("paragraph", {"type": "mention", "attrs": {"id": ERIN, "text": "@Erin"}}), True),
        (block("paragraph", {"type": "mention", "attrs": {"text": "@Erin"}}), False),
        (block("paragraph", {"type": "inlineCard", "attrs": {"url": "https://example.com"}}), True),
        (block("paragraph", {"type": "inlineCard", "attrs": {}}), False),
        (block("paragraph", {"type": "hardBreak"}), True),
        (block("paragraph", {"type": "date", "attrs": {"timestamp": 3}}), False),
        (block("paragraph", {"type": "status", "attrs": {"text": "OK", "color": "green"}}), True),
        (block("paragraph", PARAGRAPH), False),
        ({"type": "paragraph", "content": [words()], "colour": 1}, False),
        ({"type": ["paragraph"]}, False),
    ],
)
def test_adf_needs_the_right_nodes_attributes_and_marks(node: dict[str, Any], accepted: bool) -> None:
    assert adf.valid({"type": "doc", "version": 1, "content": [node]}) is accepted
