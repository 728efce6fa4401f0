"""What ServiceNow's tools do for somebody who may, and how they are refused to somebody who may not.

The employee is a self-service user, the manager works on tasks (``itil``) and decides about the employee's orders, the
contractor is an external user.
"""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from pilothouse_testing.contract import Cases, World

CASES = Cases("servicenow")
_NO_TOKEN = "a-token-that-was-never-given-out"
_REFUSED = "ServiceNow refused this"


async def _incident(world: World, who: str = "employee", **more: Any) -> str:
    made = await world.call("incident.create", who, short_description="Contract test: cancel me", **more)
    assert isinstance(made["number"], str)
    return made["number"]


async def _read(world: World, number: str, who: str = "employee") -> Any:
    return await world.call("incident.get", who, number=number)


@CASES.allowed("incident.create", "incident.get")
async def create_and_get(world: World) -> None:
    number = await _incident(
        world,
        "manager",
        description="Two\nlines",
        urgency="1",
        impact="2",
        category="network",
        assignment_group=world.place.facts["group"],
        watch_list=[world.place.emails["employee"], "somebody@elsewhere.example"],
    )
    incident = await _read(world, number, "manager")
    assert incident["number"] == number
    assert incident["description"].split() == ["Two", "lines"]
    assert incident["assignment_group"] == world.place.facts["group"]
    assert incident["urgency"].startswith("1")
    assert incident["caller"]
    assert (await _read(world, incident["sys_id"], "manager"))["number"] == number


@CASES.allowed("incident.create")
async def a_created_incident_is_found_by_its_key(world: World) -> None:
    run = f"contract/{uuid4().hex}"
    arguments = {"short_description": "Contract test: find me"}
    made = await world.call("incident.create", run=run, **arguments)
    found = await world.found("incident.create", run, **arguments)
    assert found is not None
    assert found.data == made
    assert await world.found("incident.create", f"{run}-other", **arguments) is None


@CASES.allowed("incident.search")
async def search(world: World) -> None:
    word = f"contract{uuid4().hex[:8]}"
    number = await _incident(world, description=f"It says {word}.")
    found = await world.call("incident.search", text=f"says {word}", mine=True, open=True)
    assert [row["number"] for row in found["incidents"]] == [number]
    assert (await world.call("incident.search", text=f"{word} nowhere"))["incidents"] == []
    assert len((await world.call("incident.search", "manager", max_results=2))["incidents"]) == 2


@CASES.allowed("incident.update")
async def update(world: World) -> None:
    number = await _incident(world)
    changes = {"short_description": "Contract test: changed", "urgency": "1", "description": "New\ntext"}
    assert await world.found("incident.update", "k", number=number, **changes) is None
    await world.call("incident.update", number=number, **changes)
    incident = await _read(world, number)
    assert incident["short_description"] == "Contract test: changed"
    assert await world.found("incident.update", "k", number=number, **changes) is not None


@CASES.allowed("incident.comment", "incident.work_note")
async def journal(world: World) -> None:
    number = await _incident(world)
    for tool, who in (("incident.comment", "employee"), ("incident.work_note", "manager")):
        run = f"contract/{uuid4().hex}"
        result = await world.result(tool, who, run=run, number=number, text="Hello\nthere")
        assert "not shown to you" not in result.summary
        assert await world.found(tool, run, who, number=number, text="Hello\nthere") is not None
        assert await world.found(tool, f"{run}-other", who, number=number, text="Hello\nthere") is None
    read = await _read(world, number, "manager")
    assert {(e["kind"], " ".join(e["text"].split())) for e in read["journal"]} == {
        ("comments", "Hello there"),
        ("work_notes", "Hello there"),
    }
    assert "Hello" in str((await _read(world, number))["journal"])


@CASES.allowed("incident.resolve")
async def resolve(world: World) -> None:
    number = await _incident(world)
    notes = {"number": number, "close_notes": "It was the cable."}
    assert await world.found("incident.resolve", "k", "manager", **notes) is None
    await world.call("incident.resolve", "manager", **notes)
    assert (await _read(world, number, "manager"))["state"] == "Resolved"
    assert await world.found("incident.resolve", "k", "manager", **notes) is not None


async def _order(world: World) -> Any:
    found = await world.call("catalog.search", text=world.place.facts["item"])
    item = next(row for row in found["items"] if row["name"] == world.place.facts["item"])
    form = await world.call("catalog.get", sys_id=item["sys_id"])
    assert form["name"] == item["name"]
    variables = {v["name"]: (v["choices"] or ["contract test"])[0] for v in form["variables"] if v["mandatory"]}
    assert variables
    return await world.call("catalog.order", sys_id=item["sys_id"], variables=variables)


@CASES.allowed("catalog.search", "catalog.get", "catalog.order", "request.get", "request.search")
async def order(world: World) -> None:
    ordered = await _order(world)
    request = await world.call("request.get", number=ordered["number"])
    assert request["sys_id"] == ordered["sys_id"]
    assert [row["item"] for row in request["items"]] == [world.place.facts["item"]]
    (item,) = request["items"]
    assert (await world.call("request.get", number=item["number"]))["number"] == ordered["number"]
    found = await world.call("request.search", open=True)
    assert ordered["number"] in [row["number"] for row in found["requests"]]


@CASES.allowed("approval.list", "approval.decide")
async def decide(world: World) -> None:
    for decision, more in (("approved", {}), ("rejected", {"comments": "Not this year"})):
        ordered = await _order(world)
        listed = (await world.call("approval.list", "manager", max_results=50))["approvals"]
        approval = next(row for row in listed if row["of"] == ordered["number"])
        arguments = {"sys_id": approval["sys_id"], "decision": decision, **more}
        assert await world.found("approval.decide", "k", "manager", **arguments) is None
        assert (await world.call("approval.decide", "manager", **arguments))["state"] == decision
        assert await world.found("approval.decide", "k", "manager", **arguments) is not None
        await world.call("approval.decide", "manager", **arguments)  # it says so already
        left = (await world.call("approval.list", "manager", max_results=50))["approvals"]
        assert approval["sys_id"] not in [row["sys_id"] for row in left]
        other = {"approved": "rejected", "rejected": "approved"}[decision]
        refusal = await world.refusal(
            "approval.decide", "manager", sys_id=approval["sys_id"], decision=other, comments="again"
        )
        assert "waits no more" in refusal


@CASES.allowed("change.create", "change.get", "change.search")
async def changes(world: World) -> None:
    run, word = f"contract/{uuid4().hex}", f"contract{uuid4().hex[:8]}"
    arguments = {"short_description": f"Contract test {word}", "type": "normal", "justification": "A test"}
    made = await world.call("change.create", "manager", run=run, **arguments)
    found = await world.found("change.create", run, "manager", **arguments)
    assert found is not None
    assert found.data == made
    change = await world.call("change.get", "manager", number=made["number"])
    assert change["justification"] == "A test"
    listed = await world.call("change.search", "manager", text=word, open=True)
    assert [row["number"] for row in listed["changes"]] == [made["number"]]


@CASES.allowed("ci.search", "ci.get")
async def configuration_items(world: World) -> None:
    name = world.place.facts["ci"]
    found = (await world.call("ci.search", text=name))["cis"]
    ci = next(row for row in found if row["name"] == name)
    assert (await world.call("ci.get", sys_id=ci["sys_id"]))["name"] == name


@CASES.allowed("knowledge.search", "knowledge.get")
async def knowledge(world: World) -> None:
    found = (await world.call("knowledge.search", text=world.place.facts["article"]))["articles"]
    assert found
    article = await world.call("knowledge.get", number=found[0]["number"])
    assert article["sys_id"] == found[0]["sys_id"]
    assert article["text"]
    assert "<" not in article["text"]


@CASES.allowed("attachment.add", "attachment.list")
async def attachments(world: World) -> None:
    number = await _incident(world)
    file = {"number": number, "file_name": "log (1).txt", "content": "first line\nzweite Zeile: äöü\n"}
    assert await world.found("attachment.add", "k", **file) is None
    await world.call("attachment.add", **file)
    assert await world.found("attachment.add", "k", **file) is not None
    assert await world.found("attachment.add", "k", **{**file, "content": "other"}) is None
    listed = (await world.call("attachment.list", number=number))["attachments"]
    assert [(row["file_name"], row["size_bytes"]) for row in listed] == [
        ("log (1).txt", str(len(file["content"].encode())))
    ]


@CASES.allowed("user.search")
async def users(world: World) -> None:
    email = world.place.emails["manager"]
    (found,) = (await world.call("user.search", text=email))["users"]
    assert found["email"].casefold() == email.casefold()
    named = await world.call("user.search", text=found["name"])
    assert found["sys_id"] in [row["sys_id"] for row in named["users"]]


@CASES.denied("incident.create")
async def create_denied(world: World) -> None:
    refusal = await world.refusal("incident.create", short_description="no")
    assert refusal.startswith(_REFUSED), refusal
    assert "It takes the permission “create on incident”; ask a ServiceNow administrator." in refusal


@CASES.denied("change.create")
async def change_denied(world: World) -> None:
    for who in ("employee", "contractor"):
        refusal = await world.refusal("change.create", who, short_description="no")
        assert "ACL Exception Insert Failed due to security constraints" in refusal or _REFUSED in refusal, refusal
        assert "create on change_request" in refusal


@CASES.denied("incident.get", "incident.search", "attachment.list")
async def what_one_may_not_see_is_not_there(world: World) -> None:
    number = await _incident(world)
    sys_id = (await _read(world, number))["sys_id"]
    for arguments in ({"number": number}, {"number": sys_id}):
        refusal = await world.refusal("incident.get", **arguments)
        assert "read on incident" in refusal, refusal
    assert "read on incident" in await world.refusal("attachment.list", number=number)
    await _nothing_or_refused(world, "incident.search", "incidents", "read on incident")


async def _nothing_or_refused(world: World, tool: str, name: str, needs: str, **arguments: Any) -> None:
    """An instance refuses the table, or leaves every record of it out."""
    context = world.context("contractor")
    try:
        result = await world.connector.call(world.tool(tool), arguments, context)
    except Exception as error:
        if needs not in str(error):
            raise
    else:
        assert isinstance(result.data, dict)
        assert result.data[name] == []


@CASES.denied("incident.update", "incident.comment", "incident.work_note", "incident.resolve", "attachment.add")
async def changes_denied(world: World) -> None:
    number = await _incident(world, "manager")
    before = await _read(world, number, "manager")
    for tool, arguments in (
        ("incident.update", {"urgency": "1"}),
        ("incident.comment", {"text": "no"}),
        ("incident.work_note", {"text": "no"}),
        ("incident.resolve", {"close_notes": "no"}),
        ("attachment.add", {"file_name": "no.txt", "content": "no"}),
    ):
        for who in ("employee", "contractor"):
            refusal = await world.refusal(tool, who, number=number, **arguments)
            assert "on incident" in refusal, refusal
    assert await _read(world, number, "manager") == before


@CASES.denied("incident.work_note", "incident.update")
async def a_field_that_is_dropped_is_told(world: World) -> None:
    """The caller may comment, not write work notes or choose the group: ServiceNow says 200 and drops the field."""
    number = await _incident(world)
    await world.call("incident.comment", number=number, text="so that there is a journal")
    refusal = await world.refusal(
        "incident.update", "employee", number=number, assignment_group=world.place.facts["group"]
    )
    assert "write on incident.assignment_group" in refusal
    part = await world.result(
        "incident.update", number=number, urgency="1", assignment_group=world.place.facts["group"]
    )
    assert "did not take assignment_group" in part.summary
    try:
        told = (await world.result("incident.work_note", number=number, text="secret")).summary
    except Exception as refused:
        told = str(refused)
    assert "write on incident.work_notes" in told or "not shown to you" in told
    assert "secret" not in str(await _read(world, number, "manager"))


@CASES.denied("request.get", "request.search", "catalog.search", "catalog.get", "catalog.order")
async def orders_denied(world: World) -> None:
    ordered = await _order(world)
    assert "read on sc_request" in await world.refusal("request.get", number=ordered["number"])
    await _nothing_or_refused(world, "request.search", "requests", "read on sc_request", mine=False)
    item = world.place.facts["item"]
    found = (await world.call("catalog.search", text=item))["items"]
    sys_id = next(row["sys_id"] for row in found if row["name"] == item)
    await _nothing_or_refused(world, "catalog.search", "items", "user criteria", text=item)
    for tool in ("catalog.get", "catalog.order"):
        refusal = await world.refusal(tool, sys_id=sys_id)
        assert "user criteria" in refusal or "does not have access" in refusal or "Security constraints" in refusal


@CASES.denied("change.get", "change.search")
async def change_not_seen(world: World) -> None:
    made = await world.call("change.create", "manager", short_description="Contract test: not for all")
    assert "read on change_request" in await world.refusal("change.get", number=made["number"])
    await _nothing_or_refused(world, "change.search", "changes", "read on change_request")


@CASES.denied("approval.list", "approval.decide")
async def approvals_denied(world: World) -> None:
    ordered = await _order(world)
    listed = (await world.call("approval.list", "manager", max_results=50))["approvals"]
    approval = next(row for row in listed if row["of"] == ordered["number"])
    for who in ("employee", "contractor"):
        refusal = await world.refusal("approval.decide", who, sys_id=approval["sys_id"], decision="approved")
        assert "sysapproval_approver" in refusal
    await _nothing_or_refused(world, "approval.list", "approvals", "read on sysapproval_approver")
    listed = (await world.call("approval.list", "manager", max_results=50))["approvals"]
    assert approval["sys_id"] in [row["sys_id"] for row in listed]


@CASES.denied("ci.search", "ci.get", "knowledge.search", "knowledge.get")
async def reading_denied(world: World) -> None:
    name = world.place.facts["ci"]
    sys_id = (await world.call("ci.search", text=name))["cis"][0]["sys_id"]
    assert "read on cmdb_ci" in await world.refusal("ci.get", sys_id=sys_id)
    await _nothing_or_refused(world, "ci.search", "cis", "read on cmdb_ci", text=name)
    words = world.place.facts["article"]
    number = (await world.call("knowledge.search", text=words))["articles"][0]["number"]
    refusal = await world.refusal("knowledge.get", number=number)
    assert "user criteria" in refusal or "access" in refusal
    await _nothing_or_refused(world, "knowledge.search", "articles", "user criteria", text=words)


@CASES.denied("user.search")
async def users_denied(world: World) -> None:
    await _nothing_or_refused(world, "user.search", "users", "read on sys_user", text=world.place.emails["manager"])
    refusal = await world.refusal("user.search", token=_NO_TOKEN, text="a")
    assert "no longer accepts your linked account" in refusal
    assert "User Not Authenticated" in refusal
    assert _NO_TOKEN not in refusal
