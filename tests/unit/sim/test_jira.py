"""The Jira stand-in speaks Jira Cloud's dialect: what it answers, and what it refuses and how."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, ClientTimeout, web
from aiohttp.test_utils import TestClient, TestServer

from pilothouse_sim.faults import Faults
from pilothouse_sim.jira import adf
from pilothouse_sim.jira.app import make_app

API = "/rest/api/3"


class Site:
    """A client of one stand-in that asks as a named user."""

    def __init__(self, client: TestClient[Any, Any], clock: list[float]) -> None:
        self.client = client
        self.clock = clock

    async def ask(self, method: str, path: str, user: str = "employee", **options: Any) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer jira-token-{user}"}
        async with self.client.request(method, API + path, headers=headers, **options) as response:
            return response.status, (await response.json() if await response.read() else None)

    async def search(self, jql: str, user: str = "employee", **more: Any) -> list[str]:
        status, body = await self.ask("POST", "/search/jql", user, json={"jql": jql, **more})
        assert status == 200, body
        return [issue["key"] for issue in body["issues"]]

    async def create(self, summary: str = "New", user: str = "employee", **more: Any) -> tuple[int, Any]:
        fields = {"project": {"key": "IT"}, "issuetype": {"name": "Task"}, "summary": summary}
        return await self.ask("POST", "/issue", user, json={"fields": fields, **more})


@asynccontextmanager
async def site(**options: Any) -> AsyncIterator[Site]:
    clock = [1_790_000_000.0]
    async with TestClient(TestServer(make_app(clock=lambda: clock[0], **options))) as client:
        yield Site(client, clock)


@pytest.mark.parametrize(
    ("jql", "keys"),
    [
        ("assignee = currentUser() AND statusCategory != Done AND text ~ VPN", ["IT-3", "IT-1"]),
        ('project = "IT" AND text ~ "vpn certificates" ORDER BY created', ["IT-4"]),
        (
            "project in (IT) and resolution = Unresolved and NOT (labels = network OR summary ~ printer)",
            ["IT-7", "IT-5"],
        ),
        ("assignee is EMPTY", ["IT-7"]),
        ("key = IT-2 or key = it-3 ORDER BY key ASC", ["IT-2", "IT-3"]),
        ("created < '2026-10-01'", ["IT-4"]),
        ("priority >= High ORDER BY key", ["IT-1", "IT-6"]),
        ('summary ~ "\\"VPN access\\""', ["IT-3"]),
        ("summary ~ 'prin*'", ["IT-2"]),
    ],
)
async def test_search_finds(jql: str, keys: list[str]) -> None:
    async with site() as jira:
        assert await jira.search(jql) == keys


@pytest.mark.parametrize(
    ("jql", "sentence"),
    [
        ("", "Unbounded JQL"),
        ("ORDER BY created", "Unbounded JQL"),
        ("colour = red", "Field 'colour' does not exist"),
        ("project = NOPE", "The value 'NOPE' does not exist for the field 'project'."),
        ("project = HR", "The value 'HR' does not exist"),
        ("status = Sleeping", "does not exist for the field 'status'"),
        ("project =", "before the end of the query"),
        ("project = IT AND", "before the end of the query"),
        ("project ~ IT", "not supported by the 'project' field"),
        ("summary = x", "not supported by the 'summary' field"),
        ("(project = IT", "Expecting ')'"),
        ("project = IT status = Done", "Expecting either 'OR' or 'AND'"),
        ('issue.property["pilothouse"].idempotencyKey = "k"', "does not exist"),
        ("assignee = membersOf()", "Unable to find JQL function"),
        ('project = "IT', "is not expected"),
    ],
)
async def test_search_refuses_in_jiras_words(jql: str, sentence: str) -> None:
    async with site() as jira:
        status, body = await jira.ask("POST", "/search/jql", json={"jql": jql})
        assert status == 400
        assert sentence in body["errorMessages"][0]


async def test_search_pages_by_token_without_a_total_and_gives_ids_only_by_default() -> None:
    async with site() as jira:
        seen, body = [], {"jql": "project = IT ORDER BY key", "maxResults": 3}
        while True:
            _, page = await jira.ask("POST", "/search/jql", json=body)
            assert "total" not in page
            assert "fields" not in page["issues"][0]
            seen += [issue["key"] for issue in page["issues"]]
            if page["isLast"]:
                break
            body["nextPageToken"] = page["nextPageToken"]
        assert seen == [f"IT-{n}" for n in range(1, 8)]
        _, other = await jira.ask("POST", "/search/jql", json={**body, "jql": "project = IT"})
        assert "token" in other["errorMessages"][0]


async def test_search_sees_a_new_issue_late_unless_it_is_reconciled() -> None:
    async with site(faults=Faults(index_delay_seconds=30)) as jira:
        _, created = await jira.create("Kettle broken")
        query = "summary ~ kettle"
        assert await jira.search(query) == []
        assert await jira.search(query, reconcileIssues=[int(created["id"])]) == [created["key"]]
        assert (await jira.ask("GET", f"/issue/{created['key']}"))[0] == 200
        jira.clock[0] += 31
        assert await jira.search(query) == [created["key"]]
        status, _ = await jira.ask("POST", "/search/jql", json={"jql": query, "reconcileIssues": list(range(51))})
        assert status == 400


async def test_create_sets_reporter_and_properties_in_one_step() -> None:
    async with site() as jira:
        status, created = await jira.create(properties=[{"key": "pilothouse", "value": {"idempotencyKey": "k1"}}])
        assert (status, created["key"]) == (201, "IT-8")
        _, issue = await jira.ask("GET", "/issue/IT-8")
        assert issue["fields"]["reporter"]["emailAddress"] == "employee@acme.example"
        _, found = await jira.ask("GET", "/issue/IT-8/properties/pilothouse")
        assert found["value"] == {"idempotencyKey": "k1"}
        assert (await jira.ask("PUT", "/issue/IT-8/properties/other", json=[1]))[0] == 201
        assert (await jira.ask("PUT", "/issue/IT-8/properties/other", json=[2]))[0] == 200


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"summary": 3}, "summary"),
        ({"summary": " "}, "summary"),
        ({"summary": "two\nlines"}, "summary"),
        ({"summary": "x" * 256}, "summary"),
        ({"description": "not ADF"}, "description"),
        ({"labels": ["a b"]}, "labels"),
        ({"issuetype": {"name": "Epic"}}, "issuetype"),
        ({"colour": "red"}, "colour"),
        ({"project": {"key": "HR"}}, "project"),
        ({"reporter": {"accountId": "712020:manager"}}, "reporter"),
    ],
)
async def test_create_names_the_bad_field(change: dict[str, Any], field: str) -> None:
    async with site() as jira:
        fields = {"project": {"key": "IT"}, "issuetype": {"name": "Task"}, "summary": "x", **change}
        status, body = await jira.ask("POST", "/issue", json={"fields": fields})
        assert status == 400
        assert list(body["errors"]) == [field]


async def test_each_permission_is_enforced_by_user_and_project() -> None:
    async with site() as jira:
        status, body = await jira.create(user="contractor")
        assert (status, body["errorMessages"]) == (
            403,
            ["You do not have permission to create issues in this project."],
        )
        comment = {"json": {"body": adf.paragraph("hello")}}
        status, body = await jira.ask("POST", "/issue/IT-1/comment", "contractor", **comment)
        assert (status, list(body["errors"])) == (400, ["comment"])
        assert (await jira.ask("GET", "/issue/IT-1/transitions", "contractor"))[1]["transitions"] == []
        status, _ = await jira.ask("PUT", "/issue/IT-1", "contractor", json={"fields": {"summary": "mine"}})
        assert status == 403
        assert (await jira.ask("GET", "/issue/HR-1"))[0] == 404
        assert (await jira.ask("GET", "/issue/HR-1", "manager"))[0] == 200
        _, granted = await jira.ask(
            "GET", "/mypermissions?permissions=CREATE_ISSUES,BROWSE_PROJECTS&projectKey=IT", "contractor"
        )
        assert {k: v["havePermission"] for k, v in granted["permissions"].items()} == {
            "CREATE_ISSUES": False,
            "BROWSE_PROJECTS": True,
        }


async def test_comment_and_transition_change_the_issue() -> None:
    async with site() as jira:
        body = {"body": adf.paragraph("On it"), "properties": [{"key": "pilothouse", "value": 1}]}
        assert (await jira.ask("POST", "/issue/IT-3/comment", json=body))[0] == 201
        _, page = await jira.ask("GET", "/issue/IT-3/comment?expand=properties&orderBy=-created")
        assert page["comments"][0]["properties"] == [{"key": "pilothouse", "value": 1}]
        status, _ = await jira.ask("POST", "/issue/IT-3/comment", json={"body": "text"})
        assert status == 400
        _, listed = await jira.ask("GET", "/issue/IT-3/transitions")
        done = next(t["id"] for t in listed["transitions"] if t["to"]["name"] == "Done")
        assert (await jira.ask("POST", "/issue/IT-3/transitions", json={"transition": {"id": done}}))[0] == 204
        _, issue = await jira.ask("GET", "/issue/IT-3?fields=status,resolution")
        assert issue["fields"]["status"]["statusCategory"]["key"] == "done"
        assert issue["fields"]["resolution"]["name"] == "Done"
        assert (await jira.ask("POST", "/issue/IT-3/transitions", json={"transition": {"id": "99"}}))[0] == 400


async def test_headers_and_bodies_are_checked() -> None:
    async with site() as jira:
        async with jira.client.get(API + "/myself") as response:
            assert response.status == 401
        assert (await jira.ask("GET", "/myself", "nobody"))[0] == 401
        headers = {"Authorization": "Bearer jira-token-employee", "Content-Type": "text/plain"}
        async with jira.client.post(API + "/issue", data="{}", headers=headers) as response:
            assert response.status == 415
        for body in ({"fields": {}, "colour": 1}, [1], {"fields": "x"}):
            assert (await jira.ask("POST", "/issue", json=body))[0] == 400
        status, body = await jira.ask("GET", "/nowhere")
        assert (status, list(body)) == (404, ["errorMessages", "errors"])


async def test_state_survives_a_restart_and_a_torn_last_line(tmp_path: Path) -> None:
    async with site(state_dir=tmp_path) as jira:
        await jira.create("Kept")
    journal = tmp_path / "journal.jsonl"
    journal.write_text(journal.read_text() + '{"id": "1', encoding="utf-8")
    async with site(state_dir=tmp_path) as jira:
        assert await jira.search("summary ~ kept") == ["IT-8"]
        assert (await jira.create("Next"))[1]["key"] == "IT-9"


async def test_faults_limits_and_log() -> None:
    async with site() as jira:

        async def faults(**values: Any) -> int:
            async with jira.client.post("/__sim/faults", json=values) as response:
                return response.status

        assert await faults(error_rate=1, status=503) == 200
        assert (await jira.ask("GET", "/myself"))[0] == 503
        assert await faults(error_rate=0, rate_limit_per_minute=4) == 200
        assert [(await jira.ask("GET", "/myself"))[0] for _ in range(2)] == [200, 429]
        headers = {"Authorization": "Bearer jira-token-employee"}
        async with jira.client.get(API + "/myself", headers=headers) as response:
            assert int(response.headers["Retry-After"]) >= 1
        for bad in ({"colour": 1}, {"error_rate": 2}, {"status": 200}, {"latency_ms": 3}, {"latency_ms": [1, "x"]}):
            assert await faults(**bad) == 400
        async with jira.client.get("/__sim/log?user=employee@acme.example") as response:
            logged = (await response.json())["requests"]
        assert [(entry["path"], entry["status"]) for entry in logged] == [(API + "/myself", 200)]
        async with jira.client.get("/healthz") as response:
            assert response.status == 200


def test_adf_accepts_documents_and_nothing_else() -> None:
    mark: Callable[..., dict[str, Any]] = lambda **node: {"type": "doc", "version": 1, "content": [node]}  # noqa: E731
    assert adf.valid(adf.paragraph("one\ntwo"))
    for bad in (
        "x",
        None,
        {"type": "doc"},
        mark(type="blink"),
        mark(type="text", text="x"),
        mark(type="paragraph", x=1),
    ):
        assert not adf.valid(bad)
    assert adf.plain(adf.paragraph("one\ntwo")) == "one\ntwo"


async def test_a_write_whose_sender_dies_meanwhile_still_happens() -> None:
    # as serve.py runs it: the test server would cancel the handler with its client
    runner = web.AppRunner(make_app(faults=Faults(latency_ms=(100, 100))))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        base = f"http://127.0.0.1:{runner.addresses[0][1]}{API}"
        async with ClientSession(headers={"Authorization": "Bearer jira-token-employee"}) as client:
            body = {"fields": {"project": {"key": "IT"}, "issuetype": {"name": "Task"}, "summary": "Late"}}
            with pytest.raises(TimeoutError):
                async with client.post(f"{base}/issue", json=body, timeout=ClientTimeout(total=0.05)):
                    pass
            await asyncio.sleep(0.15)
            async with client.get(f"{base}/issue/IT-8") as answer:
                assert answer.status == 200
    finally:
        await runner.cleanup()
