"""What Jira's tools do for somebody who may, and how they are refused to somebody who may not."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

from pilothouse_testing.contract import Cases, World

CASES = Cases("jira")
_NO_TOKEN = "a-token-that-was-never-given-out"


async def _issue(world: World, who: str = "employee", **more: Any) -> str:
    made = await world.call(
        "issue.create", who, project=world.place.facts["project"], summary="Contract test: delete me", **more
    )
    assert isinstance(made["key"], str)
    return made["key"]


async def _read(world: World, key: str, who: str = "employee") -> Any:
    return await world.call("issue.get", who, key=key)


@CASES.allowed("issue.create", "issue.get")
async def create_and_get(world: World) -> None:
    key = await _issue(world, description="First **line**\n\n- one\n- `two`\n\n```\nx = 1\n```", labels=["contract"])
    issue = await _read(world, key)
    assert issue["description"] == "First line\n- one\n- two\nx = 1"
    assert issue["labels"] == ["contract"]
    assert issue["summary"] == "Contract test: delete me"
    assert issue["url"].endswith(f"/browse/{key}")


@CASES.allowed("issue.create")
async def a_created_issue_is_found_by_its_key(world: World) -> None:
    run = f"contract/{uuid4().hex}"
    project = world.place.facts["project"]
    made = await world.call("issue.create", run=run, project=project, summary="Contract test: find me")
    found = await world.found("issue.create", run, project=project, summary="Contract test: find me")
    assert found is not None
    assert found.data == made
    assert await world.found("issue.create", f"{run}-other", project=project, summary="x") is None


@CASES.allowed("issue.search")
async def search_sees_what_was_just_made(world: World) -> None:
    word = f"contract{uuid4().hex[:8]}"
    key = await _issue(world, description=word)
    for _ in range(20 if world.place.real else 1):
        found = await world.call("issue.search", project=world.place.facts["project"], mine=True, open=True)
        if any(row["key"] == key for row in found["issues"]):
            break
        await asyncio.sleep(1)
    assert key in [row["key"] for row in found["issues"]]
    assert (await world.call("issue.search", reporter="me", max_results=1))["issues"]


@CASES.allowed("issue.edit")
async def edit(world: World) -> None:
    key = await _issue(world)
    changes = {"summary": "Contract test: edited", "description": "New text", "labels": ["a", "b"]}
    assert await world.found("issue.edit", "k", key=key, **changes) is None
    await world.call("issue.edit", key=key, **changes)
    issue = await _read(world, key)
    assert (issue["summary"], issue["description"], sorted(issue["labels"])) == (
        "Contract test: edited",
        "New text",
        ["a", "b"],
    )
    assert await world.found("issue.edit", "k", key=key, **changes) is not None


@CASES.allowed("issue.assign")
async def assign(world: World) -> None:
    key = await _issue(world, "manager")
    email = world.place.emails["employee"]
    await world.call("issue.assign", "manager", key=key, assignee=email)
    assert (await _read(world, key))["assignee"]
    assert await world.found("issue.assign", "k", "manager", key=key, assignee=email) is not None
    assert await world.found("issue.assign", "k", "manager", key=key, assignee="nobody") is None
    await world.call("issue.assign", "manager", key=key, assignee="nobody")
    assert (await _read(world, key))["assignee"] == ""


@CASES.allowed("issue.comment")
async def comment(world: World) -> None:
    key, run = await _issue(world), f"contract/{uuid4().hex}"
    assert await world.found("issue.comment", run, key=key, body="Hello") is None
    await world.call("issue.comment", key=key, body="Hello, see https://example.com/x")
    assert await world.found("issue.comment", run, key=key, body="Hello") is None
    await world.call("issue.comment", run=run, key=key, body="Hello")
    assert await world.found("issue.comment", run, key=key, body="Hello") is not None
    bodies = [c["body"] for c in (await _read(world, key))["comments"]]
    assert bodies == ["Hello, see https://example.com/x", "Hello"]


@CASES.allowed("issue.transition")
async def transition(world: World) -> None:
    key = await _issue(world)
    await world.call("issue.transition", key=key, status="Done")
    assert (await _read(world, key))["status"] == "Done"
    assert await world.found("issue.transition", "k", key=key, status="Done") is not None


@CASES.allowed("issue.link")
async def link(world: World) -> None:
    first, second = await _issue(world, "manager"), await _issue(world, "manager")
    relation = {"key": first, "relation": "blocks", "other": second}
    assert await world.found("issue.link", "k", "manager", **relation) is None
    await world.call("issue.link", "manager", **relation)
    await world.call("issue.link", "manager", key=second, relation="is blocked by", other=first)  # the same link
    assert await world.found("issue.link", "k", "manager", **relation) is not None
    shown = (await _read(world, first, "manager"))["links"]
    assert [(row["relation"], row["key"]) for row in shown] == [("blocks", second)]
    shown = (await _read(world, second, "manager"))["links"]
    assert [(row["relation"], row["key"]) for row in shown] == [("is blocked by", first)]


@CASES.allowed("issue.delete")
async def delete(world: World) -> None:
    key = await _issue(world, "manager")
    assert await world.found("issue.delete", "k", "manager", key=key) is None
    await world.call("issue.delete", "manager", key=key)
    assert await world.found("issue.delete", "k", "manager", key=key) is not None
    assert "found nothing that you may see" in await world.refusal("issue.get", "manager", key=key)


@CASES.allowed("project.search", "project.issue_types")
async def projects(world: World) -> None:
    project = world.place.facts["project"]
    found = await world.call("project.search", text=project)
    assert project in [row["key"] for row in found["projects"]]
    types = await world.call("project.issue_types", project=project)
    assert "Task" in [row["name"] for row in types["issue_types"]]
    fields = (await world.call("project.issue_types", project=project, issue_type="task"))["fields"]
    assert {"id": "summary", "name": "Summary", "type": "string", "required": True} in fields


@CASES.allowed("field.search")
async def fields(world: World) -> None:
    found = await world.call("field.search", text="summary")
    assert {"id": "summary", "name": "Summary", "type": "string", "custom": False} in found["fields"]


@CASES.allowed("user.search", "user.me")
async def people(world: World) -> None:
    me = await world.call("user.me")
    found = await world.call("user.search", text=me["name"].split()[0])
    assert me["account_id"] in [row["account_id"] for row in found["users"]]
    assert (await world.call("user.me", "manager"))["account_id"] != me["account_id"]


@CASES.denied("issue.get", "issue.search")
async def what_one_may_not_see_is_not_there(world: World) -> None:
    hidden = world.place.facts["hidden"]
    assert (await _read(world, hidden, "manager"))["key"] == hidden
    refusal = await world.refusal("issue.get", key=hidden)
    assert "Issue does not exist or you do not have permission to see it" in refusal
    assert "Browse Projects" in refusal
    project = hidden.partition("-")[0]
    seen = await world.call("issue.search", "manager", project=project)
    assert hidden in [row["key"] for row in seen["issues"]]
    unseen = await world.call("issue.search", "contractor", updated_days=3650, max_results=50)
    assert hidden not in [row["key"] for row in unseen["issues"]]


@CASES.denied("issue.create")
async def create_denied(world: World) -> None:
    refusal = await world.refusal("issue.create", project=world.place.facts["project"], summary="no")
    assert "Create Issues" in refusal or "cannot be set" in refusal
    assert "ermission" in refusal


@CASES.denied("issue.edit", "issue.assign", "issue.comment", "issue.transition", "issue.delete")
async def changes_denied(world: World) -> None:
    key = await _issue(world)
    before = await _read(world, key)
    for tool, needs, arguments in (
        ("issue.edit", "edit issues", {"summary": "no"}),
        ("issue.assign", "assign", {"assignee": "me"}),
        ("issue.comment", "comment", {"body": "no"}),
        ("issue.transition", "Transition Issues", {"status": "Done"}),
        ("issue.delete", "delete", {}),
    ):
        refusal = await world.refusal(tool, key=key, **arguments)
        assert needs.casefold() in refusal.casefold(), refusal
        assert "permission" in refusal, refusal
    after = await _read(world, key)
    assert {**after, "updated": ""} == {**before, "updated": ""}


@CASES.denied("issue.link")
async def link_denied(world: World) -> None:
    first, second = await _issue(world), await _issue(world)
    refusal = await world.refusal("issue.link", key=first, relation="blocks", other=second)
    assert "link" in refusal.casefold()
    assert "permission" in refusal
    assert (await _read(world, first))["links"] == []


@CASES.denied("project.search", "project.issue_types")
async def projects_denied(world: World) -> None:
    hidden = world.place.facts["hidden"].partition("-")[0]
    assert hidden in [row["key"] for row in (await world.call("project.search", "manager"))["projects"]]
    assert hidden not in [row["key"] for row in (await world.call("project.search", "contractor"))["projects"]]
    assert "Create Issues" in await world.refusal("project.issue_types", project=world.place.facts["project"])


@CASES.denied("field.search", "user.search", "user.me")
async def everybody_may_with_a_good_token(world: World) -> None:
    for tool, arguments in (("field.search", {}), ("user.search", {"text": "a"}), ("user.me", {})):
        refusal = await world.refusal(tool, token=_NO_TOKEN, **arguments)
        assert "no longer accepts your linked account" in refusal
        assert _NO_TOKEN not in refusal
