"""What Salesforce's tools do for somebody who may, and how they are refused to somebody who may not."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from pilothouse_testing.contract import Cases, World

CASES = Cases("salesforce")
_NO_TOKEN = "a-token-that-was-never-given-out"


async def _case(world: World, who: str = "employee", **more: Any) -> str:
    made = await world.call("case.create", who, subject="Contract test: delete me", **more)
    assert made["object"] == "Case"
    assert made["number"]
    assert isinstance(made["id"], str)
    return made["id"]


async def _account(world: World) -> Any:
    return await world.call("account.get", "manager", account=world.place.facts["account"])


async def _read(world: World, record_id: str, *fields: str, who: str = "employee") -> Any:
    found = await world.call("record.get", who, object="Case", id=record_id, fields=list(fields))
    return found["record"]


@CASES.allowed("account.search", "account.get")
async def the_owner_of_an_account(world: World) -> None:
    name = world.place.facts["account"]
    found = await world.call("account.search", name=name)
    assert found["name"] == name
    assert found["owner_email"] == world.place.facts["owner_email"]
    assert found["owner"]
    account = await world.call("account.get", account=name)
    assert (account["owner"], account["id"]) == (found["owner"], found["id"])
    assert (await world.call("account.get", account=found["id"]))["name"] == name
    whole = await _account(world)
    assert isinstance(whole["open_cases"], int)
    assert isinstance(whole["open_opportunities"], int)
    for nothing in ("' OR Name LIKE '%", "%", "_" * len(name), "\\"):
        assert (await world.call("account.search", name=nothing))["accounts"] == []
    assert (await world.call("account.search"))["accounts"]


@CASES.allowed("query.run")
async def queries(world: World) -> None:
    query = "SELECT Id, Name, Owner.Name, (SELECT Id FROM Contacts) FROM Account ORDER BY Name"
    whole = await world.call("query.run", query=query)
    assert len(whole["records"]) > 1
    assert whole["records"][0]["Owner"]["Name"]
    assert "attributes" not in str(whole)
    one = await world.call("query.run", query=query, max_results=1)
    assert one["records"] == whole["records"][:1]
    assert one["more"] is True
    count = await world.call("query.run", query="SELECT COUNT() FROM Account")
    assert count["total"] == len(whole["records"])
    most = await world.call("query.run", query="SELECT MAX(Name) m FROM Account")
    assert most["records"][0]["m"] == whole["records"][-1]["Name"]
    refusal = await world.refusal("query.run", "employee", query="SELECT Nonsense__c FROM Account")
    assert "INVALID_FIELD" in refusal
    refusal = await world.refusal("query.run", "employee", query="SELECT Id FROM Account WHERE")
    assert "MALFORMED_QUERY" in refusal


@CASES.allowed("search.run")
async def searches(world: World) -> None:
    name = world.place.facts["account"]
    found = await world.call("search.run", text=f"{name}{{}}()", objects=["Account"])
    assert name in [record["Name"] for record in found["records"]]
    assert {record["object"] for record in found["records"]} == {"Account"}
    assert (await world.call("search.run", text=f"{name} {uuid4().hex}"))["records"] == []


@CASES.allowed("knowledge.search")
async def knowledge(world: World) -> None:
    found = await world.call("knowledge.search", text=world.place.facts["article"])
    assert found["articles"][0]["title"]
    assert found["articles"][0]["number"]
    assert (await world.call("knowledge.search", text=uuid4().hex))["articles"] == []


@CASES.allowed("object.list", "object.describe")
async def descriptions(world: World) -> None:
    names = [row["name"] for row in (await world.call("object.list", text="case"))["objects"]]
    assert "Case" in names
    fields = {row["name"]: row for row in (await world.call("object.describe", object="Case"))["fields"]}
    assert "High" in fields["Priority"]["choices"]
    assert fields["AccountId"]["refers_to"] == ["Account"]
    some = await world.call("object.describe", object="Case", text="priority")
    assert [row["name"] for row in some["fields"]] == ["Priority"]


@CASES.allowed("case.create", "record.get")
async def a_case(world: World) -> None:
    account = await world.call("account.get", account=world.place.facts["account"])
    text = 'It\'s "broken"\n\nsince 9:00 – 100 %'
    record_id = await _case(world, description=text, priority="High", origin="Web", account=account["id"])
    record = await _read(world, record_id, "Subject", "Description", "Priority", "AccountId", "Status")
    assert record["Subject"] == "Contract test: delete me"
    assert record["Description"] == text
    assert (record["Priority"], record["AccountId"]) == ("High", account["id"])
    whole = await world.call("record.get", object="Case", id=record_id)
    assert whole["record"]["Id"] == record_id
    assert whole["url"].endswith(record_id)


@CASES.allowed("case.create")
async def a_created_case_is_found_by_its_key(world: World) -> None:
    run = f"contract/{uuid4().hex}"
    assert await world.found("case.create", run, subject="Contract test: once") is None
    first = await world.call("case.create", run=run, subject="Contract test: once")
    found = await world.found("case.create", run, subject="Contract test: once")
    assert found is not None
    assert found.data == first
    again = await world.call("case.create", run=run, subject="Contract test: once")
    assert again["id"] == first["id"]
    assert await world.found("case.create", f"{run}-other", subject="x") is None


@CASES.allowed("record.create", "record.update", "record.delete")
async def a_record_from_its_beginning_to_its_end(world: World) -> None:
    fields = {"Subject": "Contract test: delete me", "Priority": "Low"}
    made = await world.call("record.create", "manager", object="Case", fields=fields)
    target = {"object": "Case", "id": made["id"]}
    changes = {"Priority": "High", "Description": "  more \n"}
    assert await world.found("record.update", "k", "manager", **target, fields=changes) is None
    for _ in range(2):
        await world.call("record.update", "manager", **target, fields=changes)
    assert await world.found("record.update", "k", "manager", **target, fields=changes) is not None
    assert (await _read(world, made["id"], "Priority", who="manager"))["Priority"] == "High"
    await world.call("record.update", "manager", **target, fields={"Description": None})
    assert (await _read(world, made["id"], "Description", who="manager"))["Description"] is None
    assert await world.found("record.delete", "k", "manager", **target) is None
    await world.call("record.delete", "manager", **target)
    assert await world.found("record.delete", "k", "manager", **target) is not None
    refusal = await world.refusal("record.delete", "manager", **target)
    assert "ENTITY_IS_DELETED" in refusal


@CASES.allowed("record.create")
async def what_salesforce_does_not_take(world: World) -> None:
    create = "record.create"
    refusal = await world.refusal(create, "manager", object="Case", fields={"Nonsense__c": "x"})
    assert "Nonsense__c" in refusal
    refusal = await world.refusal(create, "manager", object="Contact", fields={"FirstName": "x"})
    assert "REQUIRED_FIELD_MISSING" in refusal
    assert "LastName" in refusal
    refusal = await world.refusal(create, "manager", object="Case", fields={"Subject": {"a": 1}["a"]})
    assert "JSON_PARSER_ERROR" in refusal or "Subject" in refusal


@CASES.allowed("record.upsert")
async def by_an_external_id(world: World) -> None:
    where = {"object": "Case", "external_field": world.place.facts["external_field"], "external_id": uuid4().hex[:16]}
    fields = {"Subject": "Contract test: delete me"}
    assert await world.found("record.upsert", "k", "manager", **where, fields=fields) is None
    first = await world.call("record.upsert", "manager", **where, fields=fields)
    again = await world.call("record.upsert", "manager", **where, fields=fields)
    assert (first["created"], again["created"]) == (True, False)
    assert again["id"] in (first["id"], "")
    assert await world.found("record.upsert", "k", "manager", **where, fields=fields) is not None


@CASES.allowed("composite.run")
async def several_at_once(world: World) -> None:
    account = await world.call("account.get", account=world.place.facts["account"])
    steps = [
        {"ref": "case", "action": "create", "object": "Case", "fields": {"Subject": "Contract test: delete me"}},
        {
            "ref": "link",
            "action": "update",
            "object": "Case",
            "id": "@{case.id}",
            "fields": {"AccountId": account["id"]},
        },
        {"ref": "back", "action": "get", "object": "Case", "id": "@{case.id}", "read": ["AccountId", "CaseNumber"]},
    ]
    done = await world.call("composite.run", "manager", steps=steps)
    assert [step["ref"] for step in done["steps"]] == ["case", "link", "back"]
    assert done["steps"][2]["result"]["AccountId"] == account["id"]


@CASES.allowed("composite.run")
async def all_or_none(world: World) -> None:
    subject = f"Contract test {uuid4().hex}"
    steps = [
        {"ref": "one", "action": "create", "object": "Case", "fields": {"Subject": subject}},
        {"ref": "two", "action": "create", "object": "Contact", "fields": {"FirstName": "x"}},
    ]
    refusal = await world.refusal("composite.run", "manager", steps=steps)
    assert "REQUIRED_FIELD_MISSING" in refusal
    query = f"SELECT Id FROM Case WHERE Subject = '{subject}'"
    assert (await world.call("query.run", "manager", query=query))["records"] == []


@CASES.allowed("report.list", "report.run")
async def reports(world: World) -> None:
    listed = await world.call("report.list", "manager", text=world.place.facts["report"])
    report = listed["reports"][0]
    ran = await world.call("report.run", "manager", id=report["id"])
    assert ran["name"] == report["name"]
    assert ran["rows"]
    assert set(ran["rows"][0]) <= {*ran["columns"], "group"}


@CASES.denied("query.run", "search.run", "account.search", "account.get", "object.describe", "record.get")
async def accounts_are_not_seen(world: World) -> None:
    account = await _account(world)
    for tool, arguments in (
        ("query.run", {"query": "SELECT Id FROM Account"}),
        ("search.run", {"text": account["name"], "objects": ["Account"]}),
        ("account.search", {"name": account["name"]}),
        ("account.get", {"account": account["name"]}),
        ("object.describe", {"object": "Account"}),
        ("record.get", {"object": "Account", "id": account["id"]}),
    ):
        refusal = await world.refusal(tool, **arguments)
        assert "you lack the permission “Read on " in refusal, refusal
        assert account["owner"] not in refusal


@CASES.denied("record.create", "record.update", "record.upsert", "record.delete", "case.create", "composite.run")
async def nothing_is_changed(world: World) -> None:
    account = await _account(world)
    changes: dict[str, Any] = {"fields": {"Phone": "1"}}
    external = {"object": "Account", "external_field": "Id__c", "external_id": "7"}
    steps = [{"ref": "a", "action": "update", "object": "Account", "id": account["id"], **changes}]
    for tool, needs, arguments in (
        ("record.create", "Create on Account", {"object": "Account", "fields": {"Name": "no"}}),
        ("case.create", "Create on Case", {"subject": "no"}),
        ("record.update", "Edit on Account", {"object": "Account", "id": account["id"], **changes}),
        ("record.upsert", "Create and Edit on Account", {**external, **changes}),
        ("record.delete", "Delete on Account", {"object": "Account", "id": account["id"]}),
        ("composite.run", "Edit on Account", {"steps": steps}),
    ):
        refusal = await world.refusal(tool, **arguments)
        assert f"permission “{needs}”" in refusal, refusal
    # one who may read the account may not change it either
    for tool, needs in (("record.update", "Edit on Account"), ("record.delete", "Delete on Account")):
        more = changes if tool == "record.update" else {}
        refusal = await world.refusal(tool, "employee", object="Account", id=account["id"], **more)
        assert "INSUFFICIENT_ACCESS" in refusal
        assert f"“{needs}”; ask a Salesforce administrator" in refusal
    assert await _account(world) == account


@CASES.denied("report.list", "report.run")
async def no_reports(world: World) -> None:
    report = (await world.call("report.list", "manager", text=world.place.facts["report"]))["reports"][0]
    for tool, arguments in (("report.list", {}), ("report.run", {"id": report["id"]})):
        assert "Run Reports" in await world.refusal(tool, **arguments)


@CASES.denied("knowledge.search")
async def no_knowledge(world: World) -> None:
    assert "Knowledge" in await world.refusal("knowledge.search", text=world.place.facts["article"])


@CASES.denied("object.list")
async def a_token_that_is_not_good(world: World) -> None:
    refusal = await world.refusal("object.list", token=_NO_TOKEN)
    assert "no longer accepts your linked account" in refusal
    assert "INVALID_SESSION_ID" in refusal
    assert _NO_TOKEN not in refusal
    # and what a user may not see is not listed
    assert "Account" not in [row["name"] for row in (await world.call("object.list", "contractor"))["objects"]]
