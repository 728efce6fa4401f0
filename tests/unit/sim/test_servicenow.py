"""The ServiceNow stand-in speaks the platform's dialect: what it answers, and what it refuses to whom and how."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from aiohttp.test_utils import TestClient, TestServer

from pilothouse_sim.faults import Faults
from pilothouse_sim.servicenow.app import make_app
from pilothouse_sim.servicenow.store import sys_id_of

TABLE = "/api/now/table"
ACL = "ACL Exception {} Failed due to security constraints"
FLAT = {"sysparm_exclude_reference_link": "true"}


class Instance:
    """A client of one stand-in that asks as a named user."""

    def __init__(self, client: TestClient[Any, Any], clock: list[float]) -> None:
        self.client = client
        self.clock = clock
        self.headers: dict[str, str] = {}

    async def ask(self, method: str, path: str, user: str = "employee", **options: Any) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer servicenow-token-{user}", **options.pop("headers", {})}
        async with self.client.request(method, path, headers=headers, **options) as response:
            self.headers = dict(response.headers)
            return response.status, (await response.json() if await response.read() else None)

    async def numbers(self, table: str, query: str, user: str = "manager", **more: str) -> list[str]:
        params = {"sysparm_query": query, "sysparm_fields": "number", **more}
        status, body = await self.ask("GET", f"{TABLE}/{table}", user, params=params)
        assert status == 200, body
        return [record["number"] for record in body["result"]]

    async def names(self, table: str, query: str, user: str = "employee") -> list[str]:
        params = {"sysparm_query": query, "sysparm_fields": "name"}
        status, body = await self.ask("GET", f"{TABLE}/{table}", user, params=params)
        assert status == 200, body
        return [record["name"] for record in body["result"]]

    async def change(self, record: str, user: str, **values: object) -> tuple[int, Any]:
        return await self.ask("PATCH", f"{TABLE}/{record}", user, params=FLAT, json=values)


@asynccontextmanager
async def instance(**options: Any) -> AsyncIterator[Instance]:
    clock = [1_790_000_000.0]
    async with TestClient(TestServer(make_app(clock=lambda: clock[0], **options))) as client:
        yield Instance(client, clock)


def refused(body: Any) -> str:
    """The sentence of a refusal, whose shape is checked."""
    assert set(body) == {"error", "status"}
    assert body["status"] == "failure"
    assert set(body["error"]) == {"message", "detail"}
    return f"{body['error']['message']}: {body['error']['detail'] or ''}"


# --- queries


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ("state=2", ["INC0010001"]),
        ("state!=7^caller_id.email=employee@acme.example", ["INC0010001"]),
        ("short_descriptionLIKEvpn^ORDERBYDESCnumber", ["INC0010004", "INC0010001"]),
        ("short_descriptionNOT LIKEvpn^active=true", ["INC0010002"]),
        ("short_descriptionSTARTSWITHVPN CERT", ["INC0010004"]),
        ("stateIN3,7^ORDERBYnumber", ["INC0010003", "INC0010004"]),
        ("stateNOT IN1,2,3", ["INC0010003"]),
        ("priority<3^ORstate=7", ["INC0010003", "INC0010004"]),
        ("active=true^priority<3^ORpriority=5^ORDERBYpriority", ["INC0010004", "INC0010002"]),
        ("state=7^NQstate=2", ["INC0010001", "INC0010003"]),
        ("assigned_toISEMPTY^active=true", ["INC0010002", "INC0010004"]),
        ("assigned_to=NULL^active=true", ["INC0010002", "INC0010004"]),
        ("assigned_toISNOTEMPTY", ["INC0010001"]),
        ("opened_at>=2026-10-06 09:00:00^opened_at<2026-10-12 12:00:01", ["INC0010002", "INC0010004"]),
        ("caller_idLIKEmona", ["INC0010002"]),
        ("assignment_group.nameSTARTSWITHnet", ["INC0010001", "INC0010004"]),
        ("priorityBETWEEN2@3", ["INC0010001", "INC0010004"]),
        ("123TEXTQUERY321=lisbon vpn", ["INC0010004"]),
        ("short_descriptionLIKEa^^b", []),
        ("number=INC0010002^EQ", ["INC0010002"]),
    ],
)
async def test_encoded_queries(query: str, numbers: list[str]) -> None:
    async with instance() as now:
        found = await now.numbers("incident", query)
        assert (found if "ORDERBY" in query else sorted(found)) == numbers


@pytest.mark.parametrize("query", ["colour=red", "numberRESEMBLESx", "caller_id.colour=red", "ORDERBYcolour"])
async def test_an_invalid_query_returns_no_rows_where_the_property_says_so(query: str) -> None:
    async with instance() as now:
        assert await now.numbers("incident", query) == []
        assert now.headers["X-Total-Count"] == "0"


async def test_an_invalid_part_is_ignored_where_the_property_is_not_set() -> None:
    seed = _seed()
    seed["properties"] = {}
    async with instance(seed=seed) as now:
        assert await now.numbers("incident", "colour=red^state=2") == ["INC0010001"]
        assert len(await now.numbers("incident", "colour=red")) == 4


def _seed() -> dict[str, Any]:
    return json.loads(files("pilothouse_sim.servicenow").joinpath("seed.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("query", ["caller_id=javascript:gs.getUserID()", "state=1^number=JavaScript:x"])
async def test_scripts_in_queries_are_refused(query: str) -> None:
    async with instance() as now:
        status, body = await now.ask("GET", f"{TABLE}/incident", params={"sysparm_query": query})
        assert status == 400
        assert "javascript: is not evaluated" in refused(body)


async def test_a_field_among_the_parameters_is_a_condition() -> None:
    async with instance() as now:
        assert await now.numbers("incident", "", number="INC0010002") == ["INC0010002"]


async def test_classes_hold_the_records_of_those_that_extend_them() -> None:
    async with instance() as now:
        assert await now.names("cmdb_ci_server", "ORDERBYname") == ["file-01", "vpn-gw-01", "vpn-gw-02"]
        assert await now.names("cmdb_ci", "nameSTARTSWITHvpn^operational_status=1") == ["vpn-gw-01"]
        assert await now.names("cmdb_ci", "sys_class_nameINSTANCEOFcmdb_ci_netgear") == ["sw-lisbon-3"]
        assert "INC0010001" in await now.numbers("task", "")


# --- pages and shapes


async def test_pages_are_counted_and_linked() -> None:
    async with instance() as now:
        page = {"sysparm_limit": "1", "sysparm_offset": "1"}
        assert await now.numbers("incident", "ORDERBYnumber", **page) == ["INC0010002"]
        assert now.headers["X-Total-Count"] == "4"
        links = dict(reversed(part[1:].split('>;rel="')) for part in now.headers["Link"].split('",'))
        assert set(links) == {"first", "prev", "next", 'last"'}
        assert "sysparm_offset=2" in links["next"]
        assert "sysparm_offset=3" in links['last"']
        assert await now.numbers("incident", "", sysparm_limit="10") != []
        assert "Link" not in now.headers
        await now.numbers("incident", "", **page, sysparm_suppress_pagination_header="true", sysparm_no_count="true")
        assert not {"Link", "X-Total-Count"} & set(now.headers)


@pytest.mark.parametrize(
    "page", [{"sysparm_limit": "many"}, {"sysparm_offset": "-1"}, {"sysparm_display_value": "some"}]
)
async def test_parameters_are_checked(page: dict[str, str]) -> None:
    async with instance() as now:
        status, body = await now.ask("GET", f"{TABLE}/incident", params=page)
        assert status == 400
        assert next(iter(page)) in refused(body)


async def test_unreadable_records_leave_holes_in_a_page() -> None:
    async with instance() as now:
        status, body = await now.ask("GET", f"{TABLE}/kb_knowledge", params={"sysparm_fields": "number"})
        assert status == 200
        assert now.headers["X-Total-Count"] == "4"
        assert "KB0010003" not in [record["number"] for record in body["result"]]


@pytest.mark.parametrize(
    ("display", "exclude", "caller", "state"),
    [
        ("false", "true", sys_id_of("erin"), "2"),
        ("true", "true", "Erin Employee", "In Progress"),
        ("all", "true", {"display_value": "Erin Employee", "value": sys_id_of("erin")},
         {"display_value": "In Progress", "value": "2"}),
    ],
)  # fmt: skip
async def test_display_values(display: str, exclude: str, caller: object, state: object) -> None:
    async with instance() as now:
        params = {
            "sysparm_display_value": display,
            "sysparm_exclude_reference_link": exclude,
            "sysparm_fields": "caller_id,state,nothing,caller_id.email",
        }
        _, body = await now.ask("GET", f"{TABLE}/incident/{sys_id_of('inc1')}", params=params)
        assert body["result"]["caller_id"] == caller
        assert body["result"]["state"] == state
        assert set(body["result"]) == {"caller_id", "state", "caller_id.email"}


async def test_references_have_links() -> None:
    async with instance() as now:
        _, body = await now.ask("GET", f"/api/now/v2/table/incident/{sys_id_of('inc1')}")
        reference = body["result"]["caller_id"]
        assert reference["value"] == sys_id_of("erin")
        assert reference["link"].endswith(f"/api/now/v2/table/sys_user/{sys_id_of('erin')}")
        assert body["result"]["cmdb_ci"]["value"] == sys_id_of("srv-vpn1")
        assert body["result"]["parent"] == ""


async def test_a_manager_is_found_from_the_user() -> None:
    async with instance() as now:
        params = {"sysparm_query": "email=employee@acme.example", "sysparm_fields": "manager.name,manager.email"}
        _, body = await now.ask("GET", f"{TABLE}/sys_user", params=params)
        assert body["result"] == [{"manager.name": "Mona Manager", "manager.email": "manager@acme.example"}]


# --- writes


async def test_an_employee_opens_an_incident() -> None:
    async with instance() as now:
        values = {
            "short_description": "x" * 300, "impact": 1, "urgency": "1", "caller_id": sys_id_of("erin"),
            "priority": "5", "no_such_field": "x", "work_notes": "hidden", "comments": "Please hurry.",
            "correlation_id": "k-1", "correlation_display": "pilothouse", "active": True, "cmdb_ci": "not a sys_id",
        }  # fmt: skip
        status, body = await now.ask("POST", f"{TABLE}/incident", params=FLAT, json=values)
        assert status == 201
        record = body["result"]
        assert now.headers["Location"].endswith(f"{TABLE}/incident/{record['sys_id']}")
        assert record["number"] == "INC0010005"
        assert (record["priority"], record["state"], record["cmdb_ci"]) == ("1", "1", "")
        assert len(record["short_description"]) == 160
        assert record["opened_by"] == sys_id_of("erin")
        assert "no_such_field" not in record
        assert await now.numbers("incident", "correlation_id=k-1", "employee") == ["INC0010005"]
        shown = {"sysparm_display_value": "true", "sysparm_fields": "comments"}
        _, body = await now.ask("GET", f"{TABLE}/incident/{record['sys_id']}", params=shown)
        assert "Erin Employee (Additional comments)\nPlease hurry." in body["result"]["comments"]
        journal = {"sysparm_query": f"element_id={record['sys_id']}", "sysparm_fields": "element,value"}
        _, body = await now.ask("GET", f"{TABLE}/sys_journal_field", "manager", params=journal)
        assert body["result"] == [{"element": "comments", "value": "Please hurry."}]


async def test_mandatory_and_unreadable_bodies() -> None:
    async with instance() as now:
        status, body = await now.ask("POST", f"{TABLE}/incident", json={"description": "x"})
        assert (status, "Short description is mandatory" in refused(body)) == (403, True)
        status, body = await now.ask("POST", f"{TABLE}/incident", json=["x"])
        assert (status, refused(body)) == (400, "Exception while reading request: The payload is not valid JSON.")
        deep = {"data": "[" * 100_000, "headers": {"Content-Type": "application/json"}}
        status, body = await now.ask("POST", f"{TABLE}/incident", **deep)
        assert (status, refused(body)) == (400, "Exception while reading request: The payload is not valid JSON.")
        status, body = await now.ask("POST", f"{TABLE}/incident", json={"short_description": ["x"]})
        assert (status, "short_description" in refused(body)) == (400, True)
        status, body = await now.ask("POST", f"{TABLE}/incident", data="a=b", headers={"Content-Type": "text/plain"})
        assert status == 415
        status, _ = await now.ask("GET", f"{TABLE}/incident", headers={"Accept": "text/csv"})
        assert status == 406


async def test_resolving_needs_code_and_notes() -> None:
    async with instance() as now:
        inc1 = f"incident/{sys_id_of('inc1')}"
        status, body = await now.change(inc1, "employee", state="6")
        assert status == 403
        assert "Data Policy Exception: Resolution code is mandatory\nClose notes is mandatory" in refused(body)
        status, body = await now.change(inc1, "employee", state="6", close_code="Fixed!", close_notes="x")
        assert (status, "was aborted by Business Rule" in refused(body)) == (403, True)
        status, body = await now.change(inc1, "employee", state="6", close_code="User error", close_notes="x")
        assert (status, body["result"]["resolved_by"]) == (200, sys_id_of("erin"))
        status, body = await now.change(inc1, "manager", state="7")
        assert (status, body["result"]["active"]) == (200, "false")
        status, body = await now.change(inc1, "manager", short_description="again")
        assert (status, refused(body)) == (403, "Operation Failed: " + ACL.format("Update"))


async def test_display_values_are_taken_on_request() -> None:
    async with instance() as now:
        values = {"assignment_group": "Network", "urgency": "1 - High"}
        params = {"sysparm_input_display_value": "true", **FLAT}
        path = f"{TABLE}/incident/{sys_id_of('inc2')}"
        _, body = await now.ask("PATCH", path, "manager", params=params, json=values)
        assert (body["result"]["assignment_group"], body["result"]["urgency"]) == (sys_id_of("grp-network"), "1")
        _, body = await now.ask("PATCH", path, "manager", params=FLAT, json={"assignment_group": "Network"})
        assert body["result"]["assignment_group"] == ""


async def test_an_employee_changes_her_own_incident_only_where_she_may() -> None:
    async with instance() as now:
        values = {"urgency": "1", "assigned_to": sys_id_of("mona"), "work_notes": "x", "comments": "More."}
        status, body = await now.change(f"incident/{sys_id_of('inc1')}", "employee", **values)
        assert status == 200
        assert (body["result"]["urgency"], body["result"]["assigned_to"]) == ("1", sys_id_of("ned"))
        journal = {"sysparm_query": "element=work_notes", "sysparm_fields": "value"}
        _, body = await now.ask("GET", f"{TABLE}/sys_journal_field", "manager", params=journal)
        assert body["result"] == [{"value": "Gateway 1 shows renegotiations."}]


async def test_changes_have_a_state_model() -> None:
    async with instance() as now:
        status, body = await now.ask("POST", f"{TABLE}/change_request", json={"short_description": "x"})
        assert (status, refused(body)) == (403, "Operation Failed: " + ACL.format("Insert"))
        new = {"short_description": "x", "type": "normal"}
        status, body = await now.ask("POST", f"{TABLE}/change_request", "manager", params=FLAT, json=new)
        assert (status, body["result"]["state"], body["result"]["number"]) == (201, "-5", "CHG0030003")
        status, body = await now.change(f"change_request/{body['result']['sys_id']}", "manager", state="3")
        assert (status, "State model" in refused(body)) == (403, True)


async def test_an_approval_is_its_approvers() -> None:
    async with instance() as now:
        mine = {"sysparm_query": "state=requested", "sysparm_fields": "sysapproval.number"}
        _, body = await now.ask("GET", f"{TABLE}/sysapproval_approver", "manager", params=mine)
        assert sorted(r["sysapproval.number"] for r in body["result"]) == ["CHG0030001", "REQ0010002"]
        approval = f"sysapproval_approver/{sys_id_of('appr1')}"
        status, body = await now.change(approval, "employee", state="approved")
        assert (status, "No Record found" in refused(body)) == (404, True)
        status, body = await now.change(approval, "manager", state="banana")
        assert status == 403
        status, body = await now.change(approval, "manager", state="approved", comments="Fine.")
        assert (status, body["result"]["state"]) == (200, "approved")
        status, body = await now.change(approval, "manager", state="rejected")
        assert (status, "was aborted by Business Rule" in refused(body)) == (403, True)
        assert await now.numbers("sc_request", "approval=approved^number=REQ0010002") == ["REQ0010002"]


async def test_nobody_here_deletes_records() -> None:
    async with instance() as now:
        for user in ("employee", "manager"):
            status, body = await now.ask("DELETE", f"{TABLE}/incident/{sys_id_of('inc1')}", user)
            assert (status, refused(body)) == (403, "Operation Failed: " + ACL.format("Delete"))


# --- who may


async def test_without_a_token_nothing_is_told() -> None:
    async with instance() as now:
        for headers in ({"Authorization": "Bearer wrong"}, {"Authorization": "Basic YTpi"}, {"Authorization": ""}):
            status, body = await now.ask("GET", f"{TABLE}/incident", headers=headers)
            assert (status, refused(body)) == (401, "User Not Authenticated: Required to provide Auth information")
            assert now.headers["WWW-Authenticate"] == 'BASIC realm="Service-now"'


async def test_an_employee_sees_her_own_tasks() -> None:
    async with instance() as now:
        assert await now.numbers("incident", "ORDERBYnumber", "employee") == ["INC0010001", "INC0010003"]
        assert await now.numbers("sc_request", "ORDERBYnumber", "employee") == ["REQ0010001", "REQ0010002"]
        status, body = await now.ask("GET", f"{TABLE}/incident/{sys_id_of('inc2')}")
        assert (status, "ACL restricts the record retrieval" in refused(body)) == (404, True)
        status, body = await now.ask("GET", f"{TABLE}/sys_user/{sys_id_of('ned')}")
        assert (status, "mobile_phone" in body["result"], body["result"]["name"]) == (200, False, "Ned Network")
        _, body = await now.ask("GET", f"{TABLE}/sys_user/{sys_id_of('ned')}", "manager")
        assert body["result"]["mobile_phone"] == "+49 170 5550 177"


@pytest.mark.parametrize(
    "table", ["incident", "change_request", "sc_request", "cmdb_ci", "kb_knowledge", "sysapproval_approver",
              "sys_journal_field", "sys_user_group"]
)  # fmt: skip
async def test_a_contractor_queries_nothing(table: str) -> None:
    async with instance() as now:
        params = {"sysparm_query": "sys_created_onISNOTEMPTY"}
        status, body = await now.ask("GET", f"{TABLE}/{table}", "contractor", params=params)
        assert (status, "Insufficient rights to query records" in refused(body)) == (403, True)
        assert await now.ask("GET", f"{TABLE}/{table}", "contractor") == (200, {"result": []})


async def test_a_contractor_sees_himself_and_creates_nothing() -> None:
    async with instance() as now:
        assert await now.names("sys_user", "ORDERBYname", "contractor") == ["Carl Contractor"]
        status, body = await now.ask("POST", f"{TABLE}/incident", "contractor", json={"short_description": "x"})
        assert (status, refused(body)) == (403, "Operation Failed: " + ACL.format("Insert"))
        assert await now.ask("GET", "/api/sn_sc/servicecatalog/items", "contractor") == (200, {"result": []})
        item = f"/api/sn_sc/servicecatalog/items/{sys_id_of('item-monitor')}"
        status, body = await now.ask("GET", item, "contractor")
        assert (status, "User does not have access" in refused(body)) == (400, True)
        status, body = await now.ask("POST", f"{item}/order_now", "contractor", json={"sysparm_quantity": 1})
        assert (status, refused(body)) == (400, "Security constraints prevent ordering of Item: ")


async def test_the_log_says_as_whom() -> None:
    async with instance() as now:
        await now.ask("GET", f"{TABLE}/incident")
        await now.ask("POST", f"{TABLE}/incident", "contractor", json={"short_description": "x"})
        _, log = await now.ask("GET", "/__sim/log")
        assert [(e["user"], e["status"], e["credential"]) for e in log["requests"]] == [
            ("employee@acme.example", 200, "static"),
            ("contractor@acme.example", 403, "static"),
        ]
        assert "servicenow-token" not in str(log)


# --- catalog, knowledge, attachments


async def test_an_order_becomes_a_request_that_waits_for_approval() -> None:
    async with instance() as now:
        items = "/api/sn_sc/v1/servicecatalog/items"
        _, body = await now.ask("GET", items, params={"sysparm_text": "laptop", "sysparm_limit": "5"})
        (item,) = body["result"]
        _, body = await now.ask("GET", f"{items}/{item['sys_id']}")
        variables = {v["name"]: v["mandatory"] for v in body["result"]["variables"]}
        assert variables == {"model": True, "reason": True, "delivery_date": False}
        order = f"{items}/{item['sys_id']}/order_now"
        for bad, sentence in (
            ({"variables": {}}, "Invalid Quantity value"),
            ({"sysparm_quantity": "two"}, "Invalid Quantity value"),
            ({"sysparm_quantity": "+"}, "Invalid Quantity value"),
            ({"sysparm_quantity": "0"}, "Invalid Quantity value"),
            ({"sysparm_quantity": "9" * 5000}, "Invalid Quantity value"),
            (
                {"sysparm_quantity": "1", "variables": {"model": "14", "reason": " "}},
                "Mandatory Variables are required",
            ),
            ({"sysparm_quantity": "1", "variables": [1]}, "variables must be an object"),
            ({"sysparm_quantity": "1", "quantity": 2}, "Unknown field quantity"),
        ):
            status, body = await now.ask("POST", order, json=bad)
            assert (status, sentence in refused(body)) == (400, True)
        good = {"sysparm_quantity": 2, "variables": {"model": "14", "reason": "New colleague", "x": "dropped"}}
        status, body = await now.ask("POST", order, json=good)
        assert (status, body["result"]["request_number"]) == (200, "REQ0010004")
        params = {
            "sysparm_query": f"request={body['result']['request_id']}",
            "sysparm_fields": "quantity,stage,variables.model,variables.x",
        }
        _, body = await now.ask("GET", f"{TABLE}/sc_req_item", params=params)
        assert body["result"] == [
            {"quantity": "2", "stage": "waiting_for_approval", "variables.model": "14", "variables.x": ""}
        ]
        waiting = await now.numbers("sc_request", "number=REQ0010004^approval=requested")
        assert waiting == ["REQ0010004"]


async def test_knowledge_is_searched() -> None:
    async with instance() as now:
        path = "/api/sn_km_api/knowledge/articles"
        _, body = await now.ask("GET", path, params={"query": "vpn", "limit": "1", "fields": "author,number"})
        result = body["result"]
        assert (result["meta"]["count"], len(result["articles"])) == (2, 1)
        article = result["articles"][0]
        assert article["id"] == f"kb_knowledge:{sys_id_of('kb1')}"
        assert "<" not in article["snippet"]
        assert article["fields"]["author"]["display_value"] == "Ned Network"
        _, body = await now.ask("GET", f"{path}/{sys_id_of('kb1')}")
        assert "<b>factor</b>" in body["result"]["content"]
        status, body = await now.ask("GET", f"{path}/{sys_id_of('kb3')}")
        assert (status, "User Not Authorized" in refused(body)) == (403, True)
        _, body = await now.ask("GET", path, "contractor", params={"query": "vpn"})
        assert body["result"]["articles"] == []


async def test_attachments_follow_their_record() -> None:
    async with instance() as now:
        upload = {"table_name": "incident", "table_sys_id": sys_id_of("inc1"), "file_name": "vpn.log"}
        path = "/api/now/attachment"
        text = {"Content-Type": "text/plain"}
        status, body = await now.ask("POST", f"{path}/file", params=upload, data=b"drop", headers=text)
        assert status == 201
        record = body["result"]
        assert (record["size_bytes"], record["content_type"], record["file_name"]) == ("4", "text/plain", "vpn.log")
        async with now.client.get(
            record["download_link"].partition(str(now.client.make_url("/"))[:-1])[2],
            headers={"Authorization": "Bearer servicenow-token-manager"},
        ) as response:
            assert await response.read() == b"drop"
        query = {"sysparm_query": f"table_sys_id={sys_id_of('inc1')}"}
        _, body = await now.ask("GET", path, params=query)
        assert [entry["file_name"] for entry in body["result"]] == ["vpn.log"]
        status, _ = await now.ask("GET", path, "contractor", params=query)
        assert status == 403
        status, _ = await now.ask("GET", f"{path}/{record['sys_id']}", "contractor")
        assert status == 404
        for bad, expected in (
            ({**upload, "table_sys_id": sys_id_of("inc2")}, 404),
            ({**upload, "table_sys_id": sys_id_of("inc3")}, 403),
            ({**upload, "table_name": "nothing"}, 404),
            ({"table_name": "incident"}, 400),
        ):
            status, body = await now.ask("POST", f"{path}/file", params=bad, data=b"x", headers=text)
            assert status == expected, refused(body)
        status, body = await now.ask("POST", f"{path}/file", params=upload, data=b"x" * (3 << 20), headers=text)
        assert (status, "larger than" in refused(body)) == (413, True)
        assert (await now.ask("DELETE", f"{path}/{record['sys_id']}", "manager"))[0] == 403
        assert (await now.ask("DELETE", f"{path}/{record['sys_id']}"))[0] == 204


# --- limits, OAuth, state


async def test_too_many_requests() -> None:
    async with instance(faults=Faults(rate_limit_per_minute=4)) as now:
        answers = [await now.ask("GET", f"{TABLE}/incident") for _ in range(3)]
        assert answers[0][0] == 200
        status, body = answers[-1]
        assert (status, "Rate limit exceeded" in refused(body)) == (429, True)
        assert now.headers["X-RateLimit-Limit"] == "4"
        assert int(now.headers["X-RateLimit-Reset"]) == int(now.clock[0]) + int(now.headers["Retry-After"])
        assert len(now.headers["X-RateLimit-Rule"]) == 32


async def test_what_is_not_there() -> None:
    async with instance() as now:
        for path, expected in (
            (f"{TABLE}/nothing", 400),
            (f"{TABLE}/incident/{'0' * 32}", 404),
            (f"{TABLE}/incident/..%2Fsys_user", 404),
            ("/api/now/v3/table/incident", 404),
            ("/api/now/elsewhere", 404),
        ):
            status, body = await now.ask("GET", path)
            assert status == expected, path
            assert refused(body)


async def test_a_linked_account_acts_as_its_user() -> None:
    async with instance() as now:
        back, verifier = "http://127.0.0.1:9/oauth/callback", "v" * 43
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
        params = {
            "response_type": "code", "client_id": "pilothouse", "redirect_uri": back, "state": "s",
            "code_challenge": challenge, "code_challenge_method": "S256",
        }  # fmt: skip
        form = {"username": "employee@acme.example", "decision": "allow"}
        async with now.client.post("/oauth_auth.do", params=params, data=form, allow_redirects=False) as response:
            code = parse_qs(urlsplit(response.headers["Location"]).query)["code"][0]
        grant = {
            "grant_type": "authorization_code", "code": code, "redirect_uri": back, "code_verifier": verifier,
            "client_id": "pilothouse", "client_secret": "pilothouse-servicenow-secret",
        }  # fmt: skip
        async with now.client.post("/oauth_token.do", data=grant) as response:
            token = (await response.json())["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        status, body = await now.ask("GET", f"{TABLE}/incident", params={"sysparm_fields": "number"}, headers=headers)
        assert (status, len(body["result"])) == (200, 2)
        _, log = await now.ask("GET", "/__sim/log")
        assert log["requests"][-1]["user"] == "employee@acme.example"
        assert log["requests"][-1]["credential"] == "authorization_code"
        assert token not in str(log)


async def test_state_outlives_a_restart(tmp_path: Path) -> None:
    async with instance(state_dir=tmp_path) as now:
        await now.ask("POST", f"{TABLE}/incident", json={"short_description": "kept", "caller_id": sys_id_of("erin")})
        upload = {"table_name": "incident", "table_sys_id": sys_id_of("inc1"), "file_name": "a"}
        _, body = await now.ask("POST", "/api/now/attachment/file", params=upload, data=b"x")
        attachment = f"/api/now/attachment/{body['result']['sys_id']}"
    with (tmp_path / "journal.jsonl").open("a") as file:
        file.write('{"table": "incident", "rec')  # as a killed process leaves it
    for _ in range(2):
        async with instance(state_dir=tmp_path) as now:
            assert await now.numbers("incident", "short_description=kept", "employee") == ["INC0010005"]
            assert (await now.ask("GET", attachment))[0] == 200
    async with instance(state_dir=tmp_path) as now:
        assert (await now.ask("DELETE", attachment))[0] == 204
    async with instance(state_dir=tmp_path) as now:
        assert (await now.ask("GET", attachment))[0] == 404


async def test_requests_at_once_get_numbers_of_their_own() -> None:
    async with instance() as now:
        answers = await asyncio.gather(
            *(now.ask("POST", f"{TABLE}/incident", json={"short_description": str(n)}) for n in range(10))
        )
        assert len({body["result"]["number"] for _, body in answers}) == 10
