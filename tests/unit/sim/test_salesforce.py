"""The Salesforce stand-in speaks the vendor's dialect: what it answers, and what it refuses to whom and how."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from aiohttp.test_utils import TestClient, TestServer
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from pilothouse_sim.faults import Faults
from pilothouse_sim.salesforce import dates
from pilothouse_sim.salesforce.app import make_app
from pilothouse_sim.salesforce.schema import long_id

DATA = "/services/data/v66.0"
GLOBEX, NETGUARD = "0015g0000000001AAA", "0015g0000000002AAA"
CASE1, CASE2 = "5005g0000000001AAA", "5005g0000000002AAA"
NOW = 1_790_000_000.0  # 2026-09-21
PEOPLE = ("employee", "manager", "contractor")


class Organization:
    """A client of one stand-in that asks as a named user."""

    def __init__(self, client: TestClient[Any, Any], clock: list[float]) -> None:
        self.client = client
        self.clock = clock
        self.headers: dict[str, str] = {}

    async def ask(self, method: str, path: str, user: str = "employee", **options: Any) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer salesforce-token-{user}", **options.pop("headers", {})}
        where = path if path.startswith(("/services", "/id", "/__sim")) else DATA + path
        async with self.client.request(method, where, headers=headers, **options) as response:
            self.headers = dict(response.headers)
            return response.status, (await response.json() if await response.read() else None)

    async def query(self, soql: str, user: str = "employee") -> list[dict[str, Any]]:
        status, body = await self.ask("GET", "/query", user, params={"q": soql})
        assert status == 200, body
        assert body["totalSize"] == len(body["records"])
        return [{k: v for k, v in record.items() if k != "attributes"} for record in body["records"]]

    async def refused(self, method: str, path: str, user: str = "employee", **options: Any) -> tuple[int, str, str]:
        """Status, code and message of a refusal, whose shape is checked."""
        status, body = await self.ask(method, path, user, **options)
        assert status >= 400, body
        (error,) = body
        assert set(error) <= {"message", "errorCode", "fields"}
        return status, error["errorCode"], error["message"]

    async def refused_query(self, soql: str, user: str = "employee") -> tuple[int, str, str]:
        return await self.refused("GET", "/query", user, params={"q": soql})


@asynccontextmanager
async def organization(**options: Any) -> AsyncIterator[Organization]:
    clock = [NOW]
    async with TestClient(TestServer(make_app(clock=lambda: clock[0], **options))) as client:
        yield Organization(client, clock)


def seed() -> dict[str, Any]:
    return json.loads(files("pilothouse_sim.salesforce").joinpath("seed.json").read_text(encoding="utf-8"))


# --- SOQL


@pytest.mark.parametrize(
    ("where", "names"),
    [
        ("WHERE Name = 'netguard'", ["NetGuard"]),
        ("WHERE Name != 'NetGuard' AND Industry = 'Technology'", ["Initech"]),
        ("WHERE Name LIKE 'glo%' ORDER BY Name", ["Globex Corporation", "Globex UK"]),
        ("WHERE Name LIKE '_nitech'", ["Initech"]),
        (r"WHERE Name LIKE '%\%%'", []),
        (r"WHERE Name = 'O\'Brien & Sons'", ["O'Brien & Sons"]),
        ("WHERE Industry IN ('Energy', 'Manufacturing') ORDER BY Name DESC",
         ["O'Brien & Sons", "Globex UK", "Globex Corporation"]),
        ("WHERE Type NOT IN ('Customer', 'Prospect')", ["NetGuard"]),
        ("WHERE (Type = 'Vendor' OR Type = 'Prospect') AND (NOT Name LIKE 'Net%')", ["O'Brien & Sons"]),
        ("WHERE Owner.Name = 'Olivia Owner'", ["NetGuard"]),
        ("WHERE Parent.Owner.LastName = 'Seller'", ["Globex UK"]),
        ("WHERE ParentId != null", ["Globex UK"]),
        ("WHERE NumberOfEmployees >= 120 ORDER BY NumberOfEmployees", ["NetGuard", "Globex Corporation"]),
        ("WHERE NumberOfEmployees = null ORDER BY Name LIMIT 1 OFFSET 1", ["Initech"]),
        (f"WHERE Id = '{NETGUARD[:15]}'", ["NetGuard"]),
        ("WHERE Id IN (SELECT AccountId FROM Contact WHERE LastName = 'Nett')", ["NetGuard"]),
        ("WHERE Id NOT IN (SELECT AccountId FROM Contact) ORDER BY Name", ["Globex UK", "O'Brien & Sons"]),
        ("WHERE CreatedDate = LAST_N_DAYS:30 AND Type = 'Vendor'", ["NetGuard"]),
        ("WHERE CreatedDate < 2026-09-01T08:00:00Z", []),
        ("ORDER BY ParentId NULLS LAST LIMIT 1", ["Globex UK"]),
    ],
)  # fmt: skip
async def test_conditions(where: str, names: list[str]) -> None:
    async with organization() as org:
        assert [r["Name"] for r in await org.query(f"SELECT Name FROM Account {where}")] == names


async def test_related_records_are_nested() -> None:
    async with organization() as org:
        soql = (
            "select id, owner.name, Parent.Name, (SELECT Email FROM Contacts) from account "
            "where name = 'NetGuard' ORDER BY Name"
        )
        status, body = await org.ask("GET", "/query", params={"q": soql})
        assert status == 200
        (record,) = body["records"]
        assert record["attributes"] == {"type": "Account", "url": f"{DATA}/sobjects/Account/{NETGUARD}"}
        assert record["Owner"]["Name"] == "Olivia Owner"
        assert record["Parent"] is None
        assert record["Contacts"]["records"][0]["Email"] == "nina.nett@netguard.example"


async def test_counts_and_groups() -> None:
    async with organization() as org:
        _, body = await org.ask("GET", "/query", params={"q": "SELECT COUNT() FROM Case WHERE IsClosed = false"})
        assert body == {"totalSize": 1, "done": True, "records": []}
        groups = await org.query(
            "SELECT Type, COUNT(Id) n, MAX(Name) FROM Account GROUP BY Type ORDER BY Type", "manager"
        )
        assert groups[0] == {"Type": "Customer", "n": 3, "expr0": "Initech"}
        (total,) = await org.query("SELECT SUM(Amount) total FROM Opportunity WHERE IsClosed = false", "manager")
        assert total == {"total": 340000.0}


@pytest.mark.parametrize(
    ("soql", "code", "words"),
    [
        ("", "MALFORMED_QUERY", "unexpected token: '<EOF>'"),
        ("DELETE FROM Account", "MALFORMED_QUERY", "unexpected token: 'DELETE'"),
        ("SELECT Id FROM Account WHERE", "MALFORMED_QUERY", "Row:1:Column:29\nunexpected token: '<EOF>'"),
        ("SELECT Id FROM Account; DELETE", "MALFORMED_QUERY", "no viable alternative at character ';'"),
        ("SELECT Id FROM Account WHERE Name = 'O'Brien'", "MALFORMED_QUERY", "Row:1:Column:"),
        ("SELECT Id FROM Account WHERE Name = 'x", "MALFORMED_QUERY", "no viable alternative"),
        (r"SELECT Id FROM Account WHERE Name = '\q'", "MALFORMED_QUERY", "Illegal escape"),
        (
            "SELECT Id FROM Account WHERE Name = 'a' AND Id = null OR Type = 'b'",
            "MALFORMED_QUERY",
            "unexpected token: 'OR'",
        ),
        ("SELECT Id FROM Account WHERE Name = :name", "MALFORMED_QUERY", "Bind variables only allowed in Apex code"),
        ("SELECT * FROM Account", "MALFORMED_QUERY", "Row:1:Column:8"),
        ("SELECT Id FROM Account LIMIT ten", "MALFORMED_QUERY", "unexpected token: 'ten'"),
        ("SELECT Name, COUNT(Id) FROM Account", "MALFORMED_QUERY", "must be grouped or aggregated"),
        ("SELECT Id FROM Nothing__c", "INVALID_TYPE", "sObject type 'Nothing__c' is not supported."),
        ("SELECT Foo FROM Account", "INVALID_FIELD", "No such column 'Foo' on entity 'Account'"),
        ("SELECT Id FROM Account WHERE Foo = 1", "INVALID_FIELD", "No such column 'Foo'"),
        ("SELECT Boss.Name FROM Account", "INVALID_FIELD", "Didn't understand relationship 'Boss'"),
        ("SELECT (SELECT Id FROM Friends) FROM Account", "INVALID_TYPE", "Didn't understand relationship 'Friends'"),
        ("SELECT Id FROM Account WHERE NumberOfEmployees = '5'", "INVALID_FIELD", "must be of type int"),
        ("SELECT Id FROM Account WHERE Name = 5", "INVALID_FIELD", "must be of type string and should be enclosed"),
        ("SELECT Id FROM Task WHERE ActivityDate = '2026-01-01'", "INVALID_FIELD", "must be of type date"),
        ("SELECT Id FROM Account WHERE CreatedDate > 2026-01-01", "INVALID_FIELD", "must be of type dateTime"),
        ("SELECT Id FROM Account WHERE Description LIKE '%x%'", "INVALID_FIELD", "can not be filtered"),
        ("SELECT Id FROM Account WHERE Id = 'abc'", "INVALID_QUERY_FILTER_OPERATOR", "invalid ID field: abc"),
        ("SELECT Id FROM Account WHERE OwnerId LIKE '005%'", "INVALID_QUERY_FILTER_OPERATOR", "invalid operator"),
        ("SELECT Id FROM Account OFFSET 2001", "NUMBER_OUTSIDE_VALID_RANGE", "Maximum SOQL offset"),
        ("SELECT Id FROM Account WHERE " + "(" * 50 + "Name = 'x'" + ")" * 50, "QUERY_TOO_COMPLICATED", "nested"),
    ],
)
async def test_queries_are_refused(soql: str, code: str, words: str) -> None:
    async with organization() as org:
        status, found, message = await org.refused_query(soql)
        assert (status, found) == (400, code)
        assert words in message


async def test_a_query_goes_on_at_its_next_address() -> None:
    async with organization(batch=2) as org:
        _, body = await org.ask("GET", "/query", params={"q": "SELECT Name FROM Account ORDER BY Name"})
        assert (body["totalSize"], body["done"], len(body["records"])) == (5, False, 2)
        names = [record["Name"] for record in body["records"]]
        first = body["nextRecordsUrl"]
        while "nextRecordsUrl" in body:
            _, body = await org.ask("GET", body["nextRecordsUrl"])
            names += [record["Name"] for record in body["records"]]
        assert (names, body["done"]) == (sorted(names), True)
        assert len(names) == 5
        for path, user in ((first, "manager"), (f"{DATA}/query/nothing-2", "employee")):
            assert (await org.refused("GET", path, user))[:2] == (400, "INVALID_QUERY_LOCATOR")


async def test_batch_size_is_taken_from_the_header() -> None:
    async with organization() as org:
        for part in range(2):
            many = [{"attributes": {"type": "Task"}, "Subject": f"{part}-{n}"} for n in range(125)]
            await org.ask("POST", "/composite/sobjects", json={"records": many})
        headers = {"Sforce-Query-Options": "batchSize=10"}
        _, body = await org.ask("GET", "/query", params={"q": "SELECT Id FROM Task"}, headers=headers)
        assert len(body["records"]) == 200  # no page is smaller
        _, rest = await org.ask("GET", body["nextRecordsUrl"])
        assert len(rest["records"]) == 51


@pytest.mark.parametrize(
    ("word", "first", "last"),
    [
        ("TODAY", "2026-09-21", "2026-09-22"), ("LAST_N_DAYS:7", "2026-09-14", "2026-09-22"),
        ("THIS_WEEK", "2026-09-20", "2026-09-27"), ("LAST_MONTH", "2026-08-01", "2026-09-01"),
        ("THIS_QUARTER", "2026-07-01", "2026-10-01"), ("NEXT_MONTH", "2026-10-01", "2026-11-01"),
        ("LAST_YEAR", "2025-01-01", "2026-01-01"),
    ],
)  # fmt: skip
def test_date_literals(word: str, first: str, last: str) -> None:
    assert dates.word_range(word, NOW) == (dates.seconds_of(first), dates.seconds_of(last))


# --- searches


async def test_sosl() -> None:
    async with organization() as org:
        sosl = ("FIND {vpn token} IN ALL FIELDS RETURNING Knowledge__kav(Id, Title WHERE PublishStatus = 'Online' AND "
                "Language = 'en_US'), Account(Name) LIMIT 5")  # fmt: skip
        _, body = await org.ask("GET", "/search", params={"q": sosl})
        assert [r["Title"] for r in body["searchRecords"]] == ["Reset a NetGuard VPN token"]
        assert body["searchRecords"][0]["attributes"]["type"] == "Knowledge__kav"
        _, body = await org.ask("GET", "/search", params={"q": "FIND {netg*} IN NAME FIELDS"})
        assert [r["attributes"]["type"] for r in body["searchRecords"]] == ["Account", "Task", "Knowledge__kav"]


@pytest.mark.parametrize(
    "sosl", ["", "FIND vpn", "FIND {x}", "FIND {vpn} IN SOME FIELDS", "FIND {vpn} DELETE", "FIND {a (b} IN ALL FIELDS"]
)
async def test_sosl_is_refused(sosl: str) -> None:
    async with organization() as org:
        status, code, _ = await org.refused("GET", "/search", params={"q": sosl})
        assert (status, code) == (400, "MALFORMED_SEARCH")


async def test_parameterized_search() -> None:
    async with organization() as org:
        body = {"q": "globex", "in": "NAME", "sobjects": [{"name": "Account", "fields": ["Name"], "limit": 1}]}
        _, found = await org.ask("POST", "/parameterizedSearch", json=body)
        assert [r["Name"] for r in found["searchRecords"]] == ["Globex Corporation"]
        params = {"q": "globex", "sobject": "Account", "Account.fields": "Name", "Account.where": "Name LIKE '%UK'"}
        _, found = await org.ask("GET", "/parameterizedSearch", params=params)
        assert [r["Name"] for r in found["searchRecords"]] == ["Globex UK"]
        for bad in (
            {"q": "globex", "object": "Account"},
            {"sobjects": []},
            {"q": "globex", "sobjects": [{"name": "Account", "limit": "1"}]},
            {"q": "globex", "sobjects": [{"name": "Account LIMIT 1"}]},
        ):
            assert (await org.refused("POST", "/parameterizedSearch", json=bad))[:2] == (400, "INVALID_SEARCH")
        refused = await org.refused("POST", "/parameterizedSearch", "contractor", json=body)
        assert refused[:2] == (400, "INVALID_TYPE")


# --- records


async def test_a_record_is_created_read_changed_and_deleted() -> None:
    async with organization() as org:
        status, body = await org.ask("POST", "/sobjects/Case", json={"Subject": "Portal", "AccountId": NETGUARD[:15]})
        assert (status, body["success"], body["errors"]) == (201, True, [])
        path = f"/sobjects/Case/{body['id']}"
        assert org.headers["Location"] == DATA + path
        _, record = await org.ask("GET", path)
        assert (record["Status"], record["AccountId"], record["CaseNumber"]) == ("New", NETGUARD, "00001004")
        assert (record["OwnerId"], record["IsClosed"]) == (record["CreatedById"], False)
        assert await org.ask("PATCH", path, json={"Status": "Working"}) == (204, None)
        _, record = await org.ask("GET", path, params={"fields": "status,Subject"})
        assert {k: v for k, v in record.items() if k != "attributes"} == {"Status": "Working", "Subject": "Portal"}
        assert (await org.refused("DELETE", path))[:2] == (403, "INSUFFICIENT_ACCESS_OR_READONLY")
        assert await org.ask("DELETE", path, "manager") == (204, None)
        assert (await org.refused("GET", path))[:2] == (404, "ENTITY_IS_DELETED")


@pytest.mark.parametrize(
    ("name", "values", "code", "words"),
    [
        ("Case", {"Foo": 1}, "INVALID_FIELD", "No such column 'Foo' on sobject of type Case"),
        ("Case", {"Subject": 5}, "JSON_PARSER_ERROR", "Cannot deserialize instance of string from VALUE_NUMBER_INT"),
        ("Case", {"Subject": ["x"]}, "JSON_PARSER_ERROR", "START_ARRAY"),
        ("Task", {"ActivityDate": "tomorrow"}, "JSON_PARSER_ERROR", "instance of date from VALUE_STRING"),
        ("Case", {"Subject": "x" * 256}, "STRING_TOO_LONG", "Subject: data value too large"),
        ("Case", {"Status": "Broken"}, "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST", "bad value for restricted picklist"),
        ("Case", {"AccountId": "abc"}, "MALFORMED_ID", "id value of incorrect type: abc"),
        ("Case", {"AccountId": CASE1}, "MALFORMED_ID", "id value of incorrect type"),
        ("Case", {"AccountId": "0015g00000zzzzzAAA"}, "INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id"),
        ("Case", {"CreatedDate": "2026-01-01T00:00:00Z"}, "INVALID_FIELD_FOR_INSERT_UPDATE", "Unable to create/update"),
        ("Case", {"OwnerId": "0055g0000000001AAA"}, "INVALID_FIELD_FOR_INSERT_UPDATE", "OwnerId"),
        ("Case", {"Status": "Closed"}, "FIELD_CUSTOM_VALIDATION_EXCEPTION", "only with a resolution"),
        ("CaseComment", {"CommentBody": "x"}, "REQUIRED_FIELD_MISSING", "Required fields are missing: [ParentId]"),
        ("CaseComment", {"ParentId": CASE2}, "INSUFFICIENT_ACCESS_ON_CROSS_REFERENCE_ENTITY", "cross-reference id"),
        ("Account", {"Name": "x"}, "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", "entity type cannot be inserted: Account"),
    ],
)  # fmt: skip
async def test_writes_are_checked(name: str, values: dict[str, Any], code: str, words: str) -> None:
    async with organization() as org:
        status, found, message = await org.refused("POST", f"/sobjects/{name}", json=values)
        assert (status, found) == (400, code)
        assert words in message


async def test_a_managers_writes_are_checked() -> None:
    async with organization() as org:
        for name, values, code, fields in (
            ("Contact", {"FirstName": "A"}, "REQUIRED_FIELD_MISSING", ["LastName"]),
            ("Contact", {"LastName": "A", "Email": "nobody"}, "INVALID_EMAIL_ADDRESS", ["Email"]),
            ("Opportunity", {"Name": "A", "StageName": "Closed Won", "CloseDate": "2026-12-01"},
             "FIELD_CUSTOM_VALIDATION_EXCEPTION", ["Amount"]),
            ("Opportunity", {"Name": "A", "StageName": "Prospecting", "CloseDate": "2026-12-01", "Amount": "1"},
             "JSON_PARSER_ERROR", None),
            ("Account", {"Name": "A", "AnnualRevenue": 1e999}, "JSON_PARSER_ERROR", None),
        ):  # fmt: skip
            status, body = await org.ask("POST", f"/sobjects/{name}", "manager", json=values)
            assert (status, body[0]["errorCode"], body[0].get("fields")) == (400, code, fields)


async def test_upsert_creates_at_most_once() -> None:
    async with organization() as org:
        path = "/sobjects/Case/Pilothouse_Key__c/run-1%2Fstep-2"
        status, body = await org.ask("PATCH", path, json={"Subject": "First"})
        assert (status, body["created"]) == (201, True)
        status, again = await org.ask("PATCH", path, json={"Subject": "Second"})
        assert (status, again["created"], again["id"]) == (200, False, body["id"])
        old = path.replace("/sobjects", "/services/data/v45.0/sobjects")
        assert await org.ask("PATCH", old, json={"Subject": "Third"}) == (204, None)
        _, record = await org.ask("GET", path)
        assert (record["Subject"], record["Pilothouse_Key__c"]) == ("Third", "run-1/step-2")
        refused = await org.refused("PATCH", path, json={"Pilothouse_Key__c": "x"})
        assert refused[:2] == (400, "INVALID_FIELD")
        assert (await org.refused("PATCH", "/sobjects/Case/Subject/x", json={}))[:2] == (404, "NOT_FOUND")
        taken = await org.refused("POST", "/sobjects/Case", json={"Pilothouse_Key__c": "RUN-1/step-2"})
        assert taken[:2] == (400, "DUPLICATE_VALUE")
        # Somebody else's record of that key is not hers to change.
        await org.ask("PATCH", "/sobjects/Case/Pilothouse_Key__c/k-2", "manager", json={"Subject": "Hers"})
        refused = await org.refused("PATCH", "/sobjects/Case/Pilothouse_Key__c/k-2", json={"Subject": "Mine"})
        assert refused[:2] == (403, "INSUFFICIENT_ACCESS_OR_READONLY")


async def test_describe_tells_what_the_user_may() -> None:
    async with organization() as org:
        _, body = await org.ask("GET", "/sobjects/Case/describe")
        fields = {entry["name"]: entry for entry in body["fields"]}
        key = fields["Pilothouse_Key__c"]
        assert (key["externalId"], key["unique"], key["createable"], key["custom"]) == (True, True, True, True)
        assert fields["Status"]["picklistValues"][0]["value"] == "New"
        assert fields["AccountId"]["referenceTo"] == ["Account"]
        assert (fields["OwnerId"]["updateable"], body["deletable"]) == (False, False)
        _, body = await org.ask("GET", "/sobjects/Account/describe")
        assert "AnnualRevenue" not in {entry["name"] for entry in body["fields"]}
        _, body = await org.ask("GET", "/sobjects", "contractor")
        assert [entry["name"] for entry in body["sobjects"]] == ["Case", "Task", "User", "Organization"]


# --- who may


async def test_sharing_decides_who_sees_what() -> None:
    async with organization() as org:
        everyone = "SELECT CaseNumber FROM Case ORDER BY CaseNumber"
        numbers = {user: [r["CaseNumber"] for r in await org.query(everyone, user)] for user in PEOPLE}
        hers = ["00001001", "00001003"]
        assert numbers == {"employee": hers, "manager": hers, "contractor": []}
        assert (await org.refused("GET", f"/sobjects/Case/{CASE2}"))[:2] == (404, "NOT_FOUND")
        assert (await org.refused("PATCH", f"/sobjects/Account/{GLOBEX}", json={"Phone": "1"}))[:2] == (
            403, "INSUFFICIENT_ACCESS_OR_READONLY",
        )  # fmt: skip
        assert await org.ask("PATCH", f"/sobjects/Account/{GLOBEX}", "manager", json={"Phone": "1"}) == (204, None)
        assert await org.query("SELECT Id FROM Opportunity") == []
        assert len(await org.query("SELECT Id FROM Opportunity", "manager")) == 3
        hidden = await org.refused_query("SELECT Amount FROM Opportunity")
        assert hidden[:2] == (400, "INVALID_FIELD")
        drafts = "SELECT Title FROM Knowledge__kav WHERE PublishStatus = 'Draft'"
        assert await org.query(drafts) == []


async def test_a_contractor_has_no_accounts() -> None:
    async with organization() as org:
        assert (await org.refused_query("SELECT Id FROM Account", "contractor"))[:2] == (400, "INVALID_TYPE")
        assert (await org.refused("GET", f"/sobjects/Account/{GLOBEX}", "contractor"))[:2] == (404, "NOT_FOUND")
        assert (await org.refused("GET", "/sobjects/Account/describe", "contractor"))[:2] == (404, "NOT_FOUND")
        assert (await org.refused("POST", "/sobjects/Case", "contractor", json={"Subject": "x"}))[:2] == (
            400, "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY",
        )  # fmt: skip
        for path in ("/analytics/reports", "/analytics/reports/00O5g0000000001EAA"):
            assert (await org.refused("GET", path, "contractor"))[:2] == (403, "FORBIDDEN")
        owner = await org.refused_query("SELECT Account.Name FROM Case", "contractor")
        assert owner[:2] == (400, "INVALID_FIELD")


async def test_without_a_token_nothing_is_told() -> None:
    async with organization() as org:
        for headers in ({"Authorization": "Bearer wrong"}, {"Authorization": "OAuth salesforce-token-employee"}):
            status, code, message = await org.refused("GET", "/sobjects", headers=headers)
            assert (status, code, message) == (401, "INVALID_SESSION_ID", "Session expired or invalid")
            assert "WWW-Authenticate" in org.headers
        status, body = await org.ask("GET", "/services/data/", headers={"Authorization": ""})
        assert status == 200
        assert body[-1]["url"].startswith("/services/data/v")


async def test_the_log_says_as_whom() -> None:
    async with organization() as org:
        await org.query("SELECT Id FROM Account")
        await org.refused_query("SELECT Id FROM Account", "contractor")
        _, log = await org.ask("GET", "/__sim/log")
        assert [(e["user"], e["status"]) for e in log["requests"]] == [
            ("employee@acme.example", 200), ("contractor@acme.example", 400),
        ]  # fmt: skip
        assert "salesforce-token" not in str(log)


# --- composite, collections, reports


def _step(reference: str, method: str, path: str, **more: Any) -> dict[str, Any]:
    return {"referenceId": reference, "method": method, "url": DATA + path, **more}


async def test_composite_hands_results_on() -> None:
    async with organization() as org:
        steps = [
            _step("made", "POST", "/sobjects/Case", body={"Subject": "Both"}),
            _step("note", "POST", "/sobjects/CaseComment", body={"ParentId": "@{made.id}", "CommentBody": "x"}),
            _step("read", "GET", "/query?q=SELECT+Id,Subject+FROM+Case+WHERE+Id='@{made.id}'"),
            _step(
                "back", "PATCH", "/sobjects/Case/@{read.records[0].Id}", body={"Subject": "@{read.records[0].Subject}!"}
            ),
        ]
        status, body = await org.ask("POST", "/composite", json={"allOrNone": True, "compositeRequest": steps})
        assert status == 200
        results = {entry["referenceId"]: entry for entry in body["compositeResponse"]}
        assert [results[name]["httpStatusCode"] for name in ("made", "note", "read", "back")] == [201, 201, 200, 204]
        assert results["made"]["httpHeaders"]["Location"].endswith(results["made"]["body"]["id"])
        assert await org.query("SELECT Subject FROM Case WHERE Subject LIKE 'Both%'") == [{"Subject": "Both!"}]


async def test_composite_is_all_or_nothing_where_it_is_asked_for() -> None:
    async with organization() as org:
        steps = [
            _step("one", "POST", "/sobjects/Case", body={"Subject": "Gone"}),
            _step("two", "POST", "/sobjects/Case", body={"Subject": 5}),
            _step("three", "POST", "/sobjects/Case", body={"Subject": "Kept"}),
        ]
        _, body = await org.ask("POST", "/composite", json={"allOrNone": True, "compositeRequest": steps})
        codes = [entry["body"][0]["errorCode"] for entry in body["compositeResponse"]]
        assert codes == ["PROCESSING_HALTED", "JSON_PARSER_ERROR", "PROCESSING_HALTED"]
        assert await org.query("SELECT Id FROM Case WHERE Subject IN ('Gone', 'Kept')") == []
        _, body = await org.ask("POST", "/composite", json={"compositeRequest": steps})
        assert [entry["httpStatusCode"] for entry in body["compositeResponse"]] == [201, 400, 201]
        assert len(await org.query("SELECT Id FROM Case WHERE Subject IN ('Gone', 'Kept')")) == 2


@pytest.mark.parametrize(
    "body",
    [
        {"steps": []},
        {"compositeRequest": [], "extra": 1},
        {"compositeRequest": [_step("a b", "GET", "/limits")]},
        {"compositeRequest": [_step("a", "GET", "/limits"), _step("a", "GET", "/limits")]},
        {"compositeRequest": [_step("a", "TRACE", "/limits")]},
        {"compositeRequest": [_step(f"r{n}", "GET", "/limits") for n in range(26)]},
    ],
)
async def test_composite_is_checked(body: dict[str, Any]) -> None:
    async with organization() as org:
        status, code, _ = await org.refused("POST", "/composite", json=body)
        assert (status, code in ("JSON_PARSER_ERROR", "INVALID_INPUT")) == (400, True)


async def test_composite_goes_nowhere_else() -> None:
    async with organization() as org:
        steps = [
            {"referenceId": "a", "method": "GET", "url": "http://169.254.169.254/latest"},
            {"referenceId": "b", "method": "GET", "url": "/services/oauth2/token"},
            _step("c", "POST", "/composite", body={"compositeRequest": []}),
            _step("d", "GET", "/sobjects/Case/@{nobody.id}"),
        ]
        _, body = await org.ask("POST", "/composite", json={"compositeRequest": steps})
        codes = [entry["body"][0]["errorCode"] for entry in body["compositeResponse"]]
        assert codes == ["INVALID_INPUT", "INVALID_INPUT", "NOT_FOUND", "PROCESSING_HALTED"]


async def test_a_deep_body_leaves_no_transaction_open(tmp_path: Path) -> None:
    async with organization(state_dir=tmp_path) as org:
        deep: Any = "x"
        for _ in range(600):
            deep = [deep]
        steps = [
            _step("a", "POST", "/sobjects/Case", body={"Subject": "A"}),
            _step("b", "POST", "/sobjects/Case", body={"Subject": deep}),
        ]
        status, _ = await org.ask("POST", "/composite", json={"allOrNone": True, "compositeRequest": steps})
        assert status in (200, 400)
        await org.ask("POST", "/sobjects/Case", json={"Subject": "Kept"})
    async with organization(state_dir=tmp_path) as org:
        subjects = await org.query("SELECT Subject FROM Case WHERE Subject IN ('A', 'Kept')")
        assert subjects == [{"Subject": "Kept"}]


async def test_collections() -> None:
    async with organization() as org:
        good, bad = {"attributes": {"type": "Task"}, "Subject": "A"}, {"attributes": {"type": "Task"}, "Foo": 1}
        _, body = await org.ask("POST", "/composite/sobjects", json={"records": [good, bad]})
        assert [entry["success"] for entry in body] == [True, False]
        assert body[1]["errors"][0]["statusCode"] == "INVALID_FIELD"
        _, body = await org.ask("POST", "/composite/sobjects", json={"allOrNone": True, "records": [good, bad]})
        assert [entry["errors"][0]["statusCode"] for entry in body] == [
            "ALL_OR_NONE_OPERATION_ROLLED_BACK", "INVALID_FIELD",
        ]  # fmt: skip
        assert len(await org.query("SELECT Id FROM Task WHERE Subject = 'A'")) == 1
        many = {"records": [good] * 201}
        assert (await org.refused("POST", "/composite/sobjects", json=many))[1] == "EXCEEDED_MAX_SOBJECTS"
        params = {"ids": f"{CASE1},{CASE2}", "fields": "CaseNumber"}
        _, body = await org.ask("GET", "/composite/sobjects/Case", params=params)
        assert (body[0]["CaseNumber"], body[1]) == ("00001001", None)


async def test_reports_run_as_the_user() -> None:
    async with organization() as org:
        _, listed = await org.ask("GET", "/analytics/reports")
        ids = {entry["name"]: entry["id"] for entry in listed}
        assert set(ids) == {"Accounts by Owner", "Open Cases", "Pipeline"}
        path = f"/analytics/reports/{ids['Open Cases']}"
        _, body = await org.ask("GET", path, params={"includeDetails": "true"})
        assert body["factMap"]["T!T"]["aggregates"][0]["value"] == 1
        assert body["groupingsDown"]["groupings"][0]["label"] == "Working"
        cells = body["factMap"]["0!T"]["rows"][0]["dataCells"]
        assert [cell["label"] for cell in cells] == ["00001001", "Cannot reach the VPN portal", "High", "NetGuard"]
        assert body["reportMetadata"]["detailColumns"] == ["CaseNumber", "Subject", "Priority", "Account.Name"]
        filters = [{"column": "Owner.Name", "operator": "contains", "value": "O'liv"}]
        accounts = f"/analytics/reports/{ids['Accounts by Owner']}"
        _, body = await org.ask("POST", accounts, json={"reportMetadata": {"reportFilters": filters}})
        assert body["factMap"]["T!T"]["aggregates"][0]["value"] == 0
        filters[0]["operator"] = "resembles"
        refused = await org.refused("POST", accounts, json={"reportMetadata": {"reportFilters": filters}})
        assert refused[:2] == (400, "BAD_REQUEST")
        _, body = await org.ask("GET", f"/analytics/reports/{ids['Pipeline']}?includeDetails=true")
        assert (body["reportMetadata"]["detailColumns"], body["factMap"]["T!T"]["rows"]) == (
            ["Name", "StageName", "CloseDate"], [],
        )  # fmt: skip
        _, body = await org.ask("GET", f"/analytics/reports/{ids['Pipeline']}?includeDetails=true", "manager")
        assert body["factMap"]["T!T"]["rows"][0]["dataCells"][2]["label"] == "$250,000.00"


# --- protocol, limits, OAuth, state


async def test_what_is_not_there() -> None:
    async with organization() as org:
        for method, path, expected in (
            ("GET", "/services/data/v12.0/sobjects", (404, "NOT_FOUND")),
            ("GET", "/services/data/v66/sobjects", (404, "NOT_FOUND")),
            ("GET", "/nothing", (404, "NOT_FOUND")),
            ("GET", "/services/data/v\u00b2.0/sobjects", (404, "NOT_FOUND")),
            ("GET", "/query/01g-\u00b2", (400, "INVALID_QUERY_LOCATOR")),
            ("GET", "/sobjects/Nothing__c", (404, "NOT_FOUND")),
            ("GET", "/sobjects/Case/..%2F..%2FAccount", (404, "NOT_FOUND")),
            ("GET", f"/sobjects/Case/{GLOBEX}", (400, "MALFORMED_ID")),
            ("PUT", "/sobjects/Case", (405, "METHOD_NOT_ALLOWED")),
            ("GET", "/services/elsewhere", (404, "NOT_FOUND")),
        ):
            assert (await org.refused(method, path))[:2] == expected, path


async def test_bodies_are_checked() -> None:
    async with organization() as org:
        headers = {"Content-Type": "application/json"}
        for data, kind, expected in (
            ("{", headers, (400, "JSON_PARSER_ERROR")),
            ("", headers, (400, "JSON_PARSER_ERROR")),
            ("[]", headers, (400, "JSON_PARSER_ERROR")),
            ("[" * 100_000, headers, (400, "JSON_PARSER_ERROR")),
            ('{"Subject": NaN}', headers, (400, "JSON_PARSER_ERROR")),
            ("a=b", {"Content-Type": "text/plain"}, (415, "UNSUPPORTED_MEDIA_TYPE")),
        ):
            assert (await org.refused("POST", "/sobjects/Case", data=data, headers=kind))[:2] == expected


async def test_limits() -> None:
    short = {**seed(), "dailyApiRequests": 2}
    async with organization(seed=short) as org:
        _, body = await org.ask("GET", "/limits")
        assert body["DailyApiRequests"] == {"Max": 2, "Remaining": 1}
        assert org.headers["Sforce-Limit-Info"] == "api-usage=1/2"
        await org.query("SELECT Id FROM Account")
        refused = await org.refused_query("SELECT Id FROM Account")
        assert refused == (403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.")
    async with organization(faults=Faults(rate_limit_per_minute=4)) as org:
        await org.query("SELECT Id FROM Account")
        assert (await org.refused_query("SELECT Id FROM Account"))[:2] == (403, "REQUEST_LIMIT_EXCEEDED")


def _assertion(key: rsa.RSAPrivateKey, **claims: Any) -> str:
    def part(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).decode().rstrip("=")

    head = f"{part(json.dumps({'alg': 'RS256'}).encode())}.{part(json.dumps(claims).encode())}"
    return f"{head}.{part(key.sign(head.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


async def test_jwt_bearer_gives_the_users_own_token() -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    own = seed()
    own["connectedApp"] = {"certificate": public.decode(), "approved": ["employee@acme.example"]}
    async with organization(seed=own) as org:

        async def token(**changed: Any) -> tuple[int, Any]:
            claims = {"iss": "pilothouse", "sub": "employee@acme.example", "aud": "https://login.salesforce.com",
                      "exp": int(NOW) + 120, **changed}  # fmt: skip
            form = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": _assertion(key, **claims)}
            async with org.client.post("/services/oauth2/token", data=form) as response:
                return response.status, await response.json()

        status, body = await token()
        assert status == 200
        assert body["instance_url"] == str(org.client.make_url("/")).rstrip("/")
        headers = {"Authorization": f"Bearer {body['access_token']}"}
        status, described = await org.ask("GET", "/sobjects/Account/describe", headers=headers)
        assert (status, described["createable"]) == (200, False)
        status, identity = await org.ask("GET", urlsplit(body["id"]).path, headers=headers)
        assert (status, identity["email"]) == (200, "employee@acme.example")
        _, log = await org.ask("GET", "/__sim/log")
        assert (log["requests"][-2]["user"], log["requests"][-2]["credential"]) == (
            "employee@acme.example",
            "jwt_bearer",
        )
        status, body = await token(sub="contractor@acme.example")
        assert (status, body["error"], body["error_description"]) == (
            400, "invalid_grant", "user hasn't approved this consumer",
        )  # fmt: skip
        assert (await token(aud="https://elsewhere.example"))[1]["error_description"] == "audience is invalid"


def test_the_demos_certificate_is_the_registered_one() -> None:
    demo = Path(__file__).parents[3] / "hack" / "demo" / "vault" / "salesforce-jwt.crt"
    assert seed()["connectedApp"]["certificate"] == demo.read_text(encoding="utf-8")


async def test_a_linked_account_acts_as_its_user() -> None:
    async with organization() as org:
        back, verifier = "https://pilothouse.example/oauth/callback", "v" * 43
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
        params = {
            "response_type": "code", "client_id": "pilothouse", "redirect_uri": back, "state": "s", "scope": "id",
            "code_challenge": challenge, "code_challenge_method": "S256",
        }  # fmt: skip

        async def token(scope: str) -> dict[str, Any]:
            form = {"username": "manager@acme.example", "decision": "allow"}
            async with org.client.post(
                "/services/oauth2/authorize", params={**params, "scope": scope}, data=form, allow_redirects=False
            ) as response:
                code = parse_qs(urlsplit(response.headers["Location"]).query)["code"][0]
            grant = {
                "grant_type": "authorization_code", "code": code, "redirect_uri": back, "code_verifier": verifier,
                "client_id": "pilothouse", "client_secret": "pilothouse-salesforce-secret",
            }  # fmt: skip
            async with org.client.post("/services/oauth2/token", data=grant) as response:
                body: dict[str, Any] = await response.json()
                return body

        body = await token("api refresh_token")
        assert {"instance_url", "id", "issued_at", "refresh_token"} <= set(body)
        headers = {"Authorization": f"Bearer {body['access_token']}"}
        params_ = {"q": "SELECT COUNT() FROM Opportunity"}
        status, counted = await org.ask("GET", "/query", params=params_, headers=headers)
        assert (status, counted["totalSize"]) == (200, 3)
        # A token without the scope for it opens no data.
        body = await token("id")
        headers = {"Authorization": f"Bearer {body['access_token']}"}
        assert (await org.refused("GET", "/query", params=params_, headers=headers))[0] == 401


async def test_state_outlives_a_restart(tmp_path: Path) -> None:
    async with organization(state_dir=tmp_path) as org:
        await org.ask("PATCH", "/sobjects/Case/Pilothouse_Key__c/k-1", json={"Subject": "Kept"})
        await org.ask("DELETE", "/sobjects/Case/5005g0000000003AAA", "manager")
        steps = [_step("a", "POST", "/sobjects/Case", body={"Subject": "No"}), _step("b", "GET", "/nothing")]
        await org.ask("POST", "/composite", json={"allOrNone": True, "compositeRequest": steps})
    with (tmp_path / "journal.jsonl").open("a") as file:
        file.write('{"type": "Case", "rec')  # as a killed process leaves it
    for _ in range(2):
        async with organization(state_dir=tmp_path) as org:
            subjects = [r["Subject"] for r in await org.query("SELECT Subject FROM Case ORDER BY CaseNumber")]
            assert subjects == ["Cannot reach the VPN portal", "Kept"]


def test_ids_have_check_characters() -> None:
    assert long_id("0015g0000000001") == GLOBEX
    assert long_id("001D000000IRFma") == "001D000000IRFmaIAH"


async def test_wildcards_take_no_time() -> None:
    async with organization() as org:
        await org.ask("POST", "/sobjects/Task", json={"Subject": "a" * 255})
        started = time.monotonic()
        assert await org.query("SELECT Id FROM Task WHERE Subject LIKE '" + "%a" * 60 + "b'") == []
        assert time.monotonic() - started < 1
