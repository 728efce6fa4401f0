"""The Salesforce connector against requests and answers as Salesforce's documentation has them."""

from __future__ import annotations

from typing import Any

import pytest

from pilothouse_api.egress import EgressRule
from pilothouse_api.workerconfig import ConnectorConfig
from pilothouse_dataplane.connectors.base import (
    ConnectorError,
    CredentialRefused,
    RateLimit,
    Refused,
    SystemUnavailable,
)
from pilothouse_dataplane.connectors.factory import ConnectorConfigError, make_connector
from pilothouse_dataplane.connectors.http import JsonResponse
from pilothouse_dataplane.connectors.salesforce.client import error_from, sentence, used_up
from pilothouse_dataplane.connectors.salesforce.connector import _CALLS, _FINDS
from pilothouse_dataplane.connectors.salesforce.instance import instance
from pilothouse_dataplane.connectors.salesforce.keys import KeyFields, value_of
from pilothouse_dataplane.connectors.salesforce.tools import salesforce_tools
from pilothouse_dataplane.core.messages import Effect, Lookup
from pilothouse_testing.vendor import Vendor, calling

V = "/services/data/v67.0"
ACCOUNT = {
    "attributes": {"type": "Account", "url": f"{V}/sobjects/Account/001D000000IqhSLIAZ"},
    "Id": "001D000000IqhSLIAZ",
    "Name": "Globex",
    "Phone": "+1 555 0100",
    "Website": None,
    "Industry": "Energy",
    "BillingCity": "Lisbon",
    "Owner": {"attributes": {"type": "User"}, "Name": "Sam Seller", "Email": "sam@acme.example"},
}
FIELDS = "SELECT Id, Name, Phone, Website, Industry, BillingCity, Owner.Name, Owner.Email FROM Account"
KEY_FIELD = {"name": "Pilothouse_Key__c", "externalId": True, "createable": True}
CASE_ID = "500D000000IqhSLIAZ"
KEY = value_of("run-7/s1")


def page(*records: Any, total: int | None = None, following: str = "") -> dict[str, Any]:
    found = {"totalSize": len(records) if total is None else total, "done": not following, "records": list(records)}
    return found | ({"nextRecordsUrl": following} if following else {})


def error(code: str, message: str = "no", **more: Any) -> list[dict[str, Any]]:
    return [{"message": message, "errorCode": code, **more}]


async def test_an_account_is_found_with_its_owner() -> None:
    query = f"{FIELDS} WHERE Name LIKE '%Glo\\'b\\%x%' ORDER BY Name LIMIT 11"
    vendor = Vendor().expect(f"GET {V}/query", answer=page(ACCOUNT), query={"q": query})
    async with calling(vendor, "salesforce") as call:
        result = await call("account.search", name="Glo'b%x")
    assert result.summary == "Globex is owned by Sam Seller in Salesforce."
    assert isinstance(result.data, dict)
    assert result.data["owner_email"] == "sam@acme.example"
    assert result.data["accounts"][0]["owner"] == "Sam Seller"
    assert result.citations[0].url == f"{vendor.base}/001D000000IqhSLIAZ"


async def test_an_account_is_told_with_what_is_open_as_far_as_the_user_may_see_it() -> None:
    query = f"{FIELDS} WHERE Name = 'Globex' LIMIT 2"
    where = "WHERE AccountId = '001D000000IqhSLIAZ' AND IsClosed = FALSE"
    vendor = Vendor().expect(f"GET {V}/query", answer=page(ACCOUNT), query={"q": query})
    seen: list[str] = []

    async with calling(vendor, "salesforce") as call:
        client = call.connector._client  # type: ignore[attr-defined]
        ask = client.call

        async def counted(method: str, path: str, context: Any, **more: Any) -> Any:
            asked = (more.get("query") or {}).get("q", "")
            if not asked.startswith("SELECT COUNT()"):
                return await ask(method, path, context, **more)
            seen.append(asked)
            if "Opportunity" in asked:
                raise error_from(400, error("INVALID_TYPE", "sObject type 'Opportunity' is not supported."), "Read")
            return page(total=2)

        client.call = counted
        result = await call("account.get", account="Globex")
    assert seen == [f"SELECT COUNT() FROM {name} {where}" for name in ("Opportunity", "Case")]
    assert result.summary == "Globex is owned by Sam Seller and has 2 open cases."
    assert isinstance(result.data, dict)
    assert result.data["open_opportunities"] is None


async def test_a_query_follows_its_pages_and_is_bounded() -> None:
    one, two = {"Id": "1", "attributes": {}}, {"Id": "2", "Owner": {"attributes": {}, "Name": "Sam"}}
    vendor = Vendor().expect(
        f"GET {V}/query",
        answer=page(one, total=3, following=f"{V}/query/01gD0000002HU6KIAW-2000"),
        query={"q": "SELECT Id FROM Account LIMIT 3"},
    )
    vendor.expect(f"GET {V}/query/01gD0000002HU6KIAW-2000", answer=page(two, two))
    async with calling(vendor, "salesforce") as call:
        result = await call("query.run", query="SELECT Id FROM Account", max_results=2)
    assert result.data == {"records": [{"Id": "1"}, {"Id": "2", "Owner": {"Name": "Sam"}}], "total": 3, "more": True}


@pytest.mark.parametrize(
    "following",
    [
        "https://evil.example/services/data/v67.0/query/01gD-2000",
        "//evil.example/services/data/v67.0/query/01gD-2000",
        f"{V}/query/../sobjects/Account",
        f"{V}/query/01gD-2000?x=1",
        f"{V}/query/%2e%2e",
        f"{V}/sobjects",
        "/services/data/v20.0/query/01gD-2000",
        7,
        ["x"],
    ],
)
async def test_a_next_page_at_another_address_is_not_asked_for(following: Any) -> None:
    vendor = Vendor().expect(
        f"GET {V}/query",
        answer=page({"Id": "1"}, total=3, following=following),
        query={"q": "SELECT Id FROM Account LIMIT 51"},
    )
    async with calling(vendor, "salesforce") as call:
        with pytest.raises(Refused, match="another address") as refusal:
            await call("query.run", query="SELECT Id FROM Account")
    assert not refusal.value.asked
    assert len(vendor.asked) == 1


async def test_a_count_is_told() -> None:
    vendor = Vendor().expect(f"GET {V}/query", answer=page(total=42), query={"q": "SELECT COUNT() FROM Case"})
    async with calling(vendor, "salesforce") as call:
        assert (await call("query.run", query="SELECT COUNT() FROM Case")).summary == "Salesforce counts 42."


async def test_a_search_goes_with_parameters_and_without_operators() -> None:
    body = {
        "q": "globex OR or FIND vpn",
        "in": "ALL",
        "overallLimit": 20,
        "sobjects": [{"name": "Case", "fields": ["Id", "CaseNumber", "Subject", "Status"], "limit": 20}],
    }
    found = {"attributes": {"type": "Case"}, "Id": CASE_ID, "Subject": "VPN"}
    vendor = Vendor().expect(f"POST {V}/parameterizedSearch", answer={"searchRecords": [found]}, body=body)
    async with calling(vendor, "salesforce") as call:
        result = await call("search.run", text='globex" OR {or} FIND* (vpn)', objects=["Case"])
    assert result.data == {"records": [{"object": "Case", "Id": CASE_ID, "Subject": "VPN"}], "more": False}


async def test_knowledge_is_searched_for_what_is_published() -> None:
    where = "PublishStatus = 'Online' AND Language = 'de'"
    fields = ["Id", "Title", "Summary", "UrlName", "ArticleNumber", "LastPublishedDate"]
    filters = [{"name": "Knowledge__kav", "fields": fields, "where": where, "limit": 5}]
    body = {"q": "vpn", "in": "ALL", "overallLimit": 5, "sobjects": filters}
    article = {"Id": "ka0D000000IqhSLIAZ", "Title": "VPN", "Summary": "How to", "ArticleNumber": "000001000"}
    vendor = Vendor().expect(f"POST {V}/parameterizedSearch", answer={"searchRecords": [article]}, body=body)
    async with calling(vendor, "salesforce") as call:
        result = await call("knowledge.search", text="vpn", language="de")
    assert result.summary == "Found 1 article in Salesforce Knowledge."


async def test_a_creation_carries_the_key_as_external_id_where_the_object_has_the_field() -> None:
    vendor = Vendor().expect(f"GET {V}/sobjects/Case/describe", answer={"fields": [KEY_FIELD]})
    for _ in range(2):  # described once
        vendor.expect(
            f"PATCH {V}/sobjects/Case/Pilothouse_Key__c/{KEY}",
            201,
            {"id": CASE_ID, "success": True, "errors": [], "created": True},
            body={"Subject": "VPN", "Priority": "High"},
        )
        vendor.expect(
            f"GET {V}/sobjects/Case/{CASE_ID}", answer={"CaseNumber": "00001026"}, query={"fields": "CaseNumber"}
        )
    async with calling(vendor, "salesforce") as call:
        await call("case.create", subject="VPN", priority="High")
        result = await call("case.create", subject="VPN", priority="High")
    assert result.summary == "Created Case 00001026 in Salesforce."


async def test_a_creation_without_the_field_is_plain_and_can_not_be_looked_up() -> None:
    vendor = Vendor().expect(f"GET {V}/sobjects/Task/describe", answer={"fields": [KEY_FIELD | {"createable": False}]})
    created = {"id": "00TD000000IqhSLIAZ", "success": True, "errors": []}
    vendor.expect(f"POST {V}/sobjects/Task", 201, created, body={"Subject": "Call"})
    async with calling(vendor, "salesforce") as call:
        result = await call("record.create", object="Task", fields={"Subject": "Call"})
        with pytest.raises(Refused, match="Pilothouse_Key__c is missing"):
            await call.find("record.create", object="Task", fields={"Subject": "Call"})
    assert result.summary == "Created Task 00TD000000IqhSLIAZ in Salesforce."


@pytest.mark.parametrize(
    ("status", "answer", "found"), [(200, {"Id": CASE_ID}, True), (404, error("NOT_FOUND"), False)]
)
async def test_an_unknown_creation_is_looked_up_by_its_key(status: int, answer: Any, found: bool) -> None:
    vendor = Vendor().expect(f"GET {V}/sobjects/Case/describe", answer={"fields": [KEY_FIELD]})
    vendor.expect(f"GET {V}/sobjects/Case/Pilothouse_Key__c/{KEY}", status, answer, query={"fields": "Id"})
    if found:
        vendor.expect(f"GET {V}/sobjects/Case/{CASE_ID}", 500, query={"fields": "CaseNumber"})
    async with calling(vendor, "salesforce") as call:
        result = await call.find("case.create", subject="VPN")
    assert (result is not None) == found
    assert result is None or result.summary == f"Created Case {CASE_ID} in Salesforce."


async def test_changing_and_deleting_go_to_the_record() -> None:
    path = f"{V}/sobjects/Account/001D000000IqhSLIAZ"
    vendor = Vendor().expect(f"PATCH {path}", 204, body={"Phone": None}).expect(f"DELETE {path}", 204)
    async with calling(vendor, "salesforce") as call:
        changed = await call("record.update", object="Account", id="001D000000IqhSLIAZ", fields={"Phone": None})
        deleted = await call("record.delete", object="Account", id="001D000000IqhSLIAZ")
    assert changed.summary == "Changed Account 001D000000IqhSLIAZ in Salesforce."
    assert deleted.summary.startswith("Deleted Account 001D000000IqhSLIAZ")


@pytest.mark.parametrize(
    ("kept", "found"),
    [
        ({"Phone": "1  2", "AccountId": "001D000000IqhSLIAZ", "Fax": None, "Amount": 5.0}, True),
        ({"Phone": "1 2", "AccountId": "001D000000IqhSL", "Fax": "", "Amount": 5}, True),
        ({"Phone": "1 3", "AccountId": "001D000000IqhSL", "Fax": None, "Amount": 5}, False),
        ({"Phone": "1 2", "AccountId": "001D000000IqhSMIAZ", "Fax": None, "Amount": 5}, False),
        ({"Phone": "1 2", "AccountId": "001D000000IqhSL", "Fax": "9", "Amount": 5}, False),
        ({}, False),
    ],
)
async def test_a_change_is_told_from_the_values_that_the_record_has(kept: Any, found: bool) -> None:
    fields = {"Phone": "1 2 ", "AccountId": "001D000000IqhSL", "Fax": None, "Amount": 5}
    query = {"fields": "Id,Phone,AccountId,Fax,Amount"}
    vendor = Vendor().expect(f"GET {V}/sobjects/Lead/00QD000000IqhSLIAZ", answer=kept, query=query)
    vendor.expect(f"GET {V}/sobjects/Lead/Legacy__c/7", answer=kept, query=query)
    vendor.expect(f"GET {V}/sobjects/Lead/Legacy__c/7", 404, error("NOT_FOUND"), query=query)
    by_id = {"object": "Lead", "external_field": "Legacy__c", "external_id": "7", "fields": fields}
    async with calling(vendor, "salesforce") as call:
        updated = await call.find("record.update", object="Lead", id="00QD000000IqhSLIAZ", fields=fields)
        upserted = await call.find("record.upsert", **by_id)
        assert await call.find("record.upsert", **by_id) is None
    assert (updated is not None) == (upserted is not None) == found


@pytest.mark.parametrize(
    ("status", "answer", "expected"),
    [
        (404, error("ENTITY_IS_DELETED", "entity is deleted"), "deleted"),
        (200, {"Id": "001D000000IqhSLIAZ"}, "there"),
        (404, error("NOT_FOUND"), "unknown"),
        (403, error("INSUFFICIENT_ACCESS"), "unknown"),
    ],
)
async def test_only_a_record_that_is_called_deleted_was_deleted(status: int, answer: Any, expected: str) -> None:
    path = f"{V}/sobjects/Account/001D000000IqhSLIAZ"
    vendor = Vendor().expect(f"GET {path}", status, answer, query={"fields": "Id"})
    async with calling(vendor, "salesforce") as call:
        try:
            result = await call.find("record.delete", object="Account", id="001D000000IqhSLIAZ")
        except SystemUnavailable:
            assert expected == "unknown"
        else:
            assert expected == ("there" if result is None else "deleted")


@pytest.mark.parametrize(
    ("status", "answer", "how"),
    [
        (201, {"id": "001D000000IqhSLIAZ", "success": True, "created": True}, "Created"),
        (200, {"id": "001D000000IqhSLIAZ", "success": True, "created": False}, "Changed"),
        (204, None, "Changed"),
    ],
)
async def test_an_upsert_quotes_the_external_id(status: int, answer: Any, how: str) -> None:
    path = f"PATCH {V}/sobjects/Account/Legacy__c/a%2F..%2Fb%20c"
    vendor = Vendor().expect(path, status, answer, body={"Name": "x"})
    async with calling(vendor, "salesforce") as call:
        result = await call(
            "record.upsert", object="Account", external_field="Legacy__c", external_id="a/../b c", fields={"Name": "x"}
        )
    assert result.summary == f"{how} Account a/../b c in Salesforce."


async def test_several_records_with_one_external_id_are_said_to_be_several() -> None:
    answer = [f"{V}/sobjects/Account/001D000000IqhSLIAZ", f"{V}/sobjects/Account/001D000000IqhSMIAZ"]
    vendor = Vendor().expect(f"PATCH {V}/sobjects/Account/Legacy__c/7", 300, answer, body={"Name": "x"})
    async with calling(vendor, "salesforce") as call:
        with pytest.raises(Refused, match="several records with this external id"):
            await call(
                "record.upsert", object="Account", external_field="Legacy__c", external_id="7", fields={"Name": "x"}
            )


STEPS: list[dict[str, Any]] = [
    {"ref": "acc", "action": "create", "object": "Account", "fields": {"Name": "Initech"}},
    {"ref": "con", "action": "create", "object": "Contact", "fields": {"LastName": "L", "AccountId": "@{acc.id}"}},
    {"ref": "back", "action": "get", "object": "Account", "id": "@{acc.id}", "read": ["Name"]},
]
REQUESTS = [
    {"method": "POST", "url": f"{V}/sobjects/Account", "referenceId": "acc", "body": {"Name": "Initech"}},
    {
        "method": "POST",
        "url": f"{V}/sobjects/Contact",
        "referenceId": "con",
        "body": {"LastName": "L", "AccountId": "@{acc.id}"},
    },
    {"method": "GET", "url": f"{V}/sobjects/Account/@{{acc.id}}?fields=Name", "referenceId": "back"},
]


def composite(*parts: tuple[str, int, Any]) -> dict[str, Any]:
    return {
        "compositeResponse": [
            {"referenceId": ref, "httpStatusCode": status, "body": body, "httpHeaders": {}}
            for ref, status, body in parts
        ]
    }


async def test_several_steps_go_in_one_request() -> None:
    body = {"allOrNone": True, "compositeRequest": REQUESTS}
    answer = composite(
        ("acc", 201, {"id": "001D000000IqhSLIAZ"}), ("con", 201, {"id": "003"}), ("back", 200, {"Name": "Initech"})
    )
    vendor = Vendor().expect(f"POST {V}/composite", answer=answer, body=body)
    async with calling(vendor, "salesforce") as call:
        result = await call("composite.run", steps=STEPS)
    assert isinstance(result.data, dict)
    assert result.data["steps"][2] == {"ref": "back", "result": {"Name": "Initech"}}


@pytest.mark.parametrize(
    ("failure", "kind", "words"),
    [
        (error("REQUIRED_FIELD_MISSING", "Required fields are missing: [LastName]"), Refused, "Required fields"),
        (error("UNABLE_TO_LOCK_ROW"), SystemUnavailable, "somebody else is changing"),
        (error("INSUFFICIENT_ACCESS"), Refused, "Create on Contact"),
        ("junk", Refused, "did not accept"),
    ],
)
async def test_a_step_that_fails_fails_all(failure: Any, kind: type[ConnectorError], words: str) -> None:
    halted = error("PROCESSING_HALTED", "The transaction was rolled back")
    answer = composite(("acc", 400, halted), ("con", 400, failure), ("back", 400, halted))
    vendor = Vendor().expect(
        f"POST {V}/composite", answer=answer, body={"allOrNone": True, "compositeRequest": REQUESTS}
    )
    async with calling(vendor, "salesforce") as call:
        with pytest.raises(kind, match=words) as caught:
            await call("composite.run", steps=STEPS)
    assert not (isinstance(caught.value, SystemUnavailable) and caught.value.may_have_acted)


@pytest.mark.parametrize("answer", [composite(("acc", 201, {})), composite(), {}, [], composite(("acc", "x", {}))])  # type: ignore[arg-type]
async def test_an_answer_without_each_step_leaves_the_outcome_open(answer: Any) -> None:
    vendor = Vendor().expect(
        f"POST {V}/composite", answer=answer, body={"allOrNone": True, "compositeRequest": REQUESTS}
    )
    async with calling(vendor, "salesforce") as call:
        with pytest.raises(SystemUnavailable) as caught:
            await call("composite.run", steps=STEPS)
    assert caught.value.may_have_acted


CREATE = STEPS[0]


@pytest.mark.parametrize(
    "steps",
    [
        [],
        "x",
        [7],
        [CREATE] * 11,
        [CREATE, CREATE],
        [CREATE | {"action": "delete"}],
        [CREATE | {"ref": "a.b"}],
        [CREATE | {"object": "Account/../Case"}],
        [CREATE | {"fields": {"Name": "@{later.id}"}}],
        [CREATE, CREATE | {"ref": "b", "fields": {"Name": "see @{acc.id}"}}],
        [CREATE | {"fields": {"Name": {"a": 1}}}],
        [CREATE | {"fields": {"Name; DROP": "x"}}],
        [CREATE | {"action": "update", "id": "@{acc.id}"}],
        [CREATE | {"action": "get", "id": "../x"}],
        [CREATE | {"action": "get", "id": "001D000000IqhSLIAZ", "read": ["Name&x=1"]}],
    ],
)
async def test_a_step_that_is_not_plain_is_refused_before_it_is_sent(steps: Any) -> None:
    vendor = Vendor()
    async with calling(vendor, "salesforce") as call:
        with pytest.raises(Refused) as refusal:
            await call("composite.run", steps=steps)
    assert not refusal.value.asked
    assert vendor.asked == []


async def test_a_report_is_read_with_its_groups_and_totals() -> None:
    answer = {
        "allData": True,
        "reportMetadata": {"name": "Pipeline", "detailColumns": ["OPP", "AMOUNT"], "aggregates": ["s!AMOUNT"]},
        "reportExtendedMetadata": {
            "detailColumnInfo": {"OPP": {"label": "Deal"}, "AMOUNT": {"label": "Amount"}},
            "aggregateColumnInfo": {"s!AMOUNT": {"label": "Sum of Amount"}},
        },
        "groupingsDown": {
            "groupings": [{"key": "0", "label": "EMEA", "groupings": [{"key": "0_0", "label": "Q1", "groupings": []}]}]
        },
        "factMap": {
            "0_0!T": {"rows": [{"dataCells": [{"label": "VPN", "value": "x"}, {"label": "$5", "value": 5}]}]},
            "T!T": {"aggregates": [{"label": "$5", "value": 5}], "rows": []},
        },
    }
    path = f"GET {V}/analytics/reports/00OD000000IqhSLIAZ"
    vendor = Vendor().expect(path, answer=answer, query={"includeDetails": "true"})
    async with calling(vendor, "salesforce") as call:
        result = await call("report.run", id="00OD000000IqhSLIAZ")
    assert isinstance(result.data, dict)
    assert result.data["rows"] == [{"Deal": "VPN", "Amount": "$5", "group": "EMEA / Q1"}]
    assert result.data["totals"] == {"Sum of Amount": "$5"}


async def test_objects_and_fields_are_described() -> None:
    objects = [{"name": "Case", "label": "Case", "queryable": True}, {"name": "CaseShare", "queryable": False}]
    field = {
        "name": "Priority",
        "label": "Priority",
        "type": "picklist",
        "nillable": False,
        "createable": True,
        "picklistValues": [{"value": "High", "active": True}, {"value": "Old", "active": False}],
        "referenceTo": [],
    }
    vendor = Vendor().expect(f"GET {V}/sobjects", answer={"sobjects": objects})
    vendor.expect(f"GET {V}/sobjects/Case/describe", answer={"label": "Case", "fields": [field], "createable": True})
    async with calling(vendor, "salesforce") as call:
        listed = await call("object.list", text="case")
        described = await call("object.describe", object="Case")
    assert listed.summary == "Found 1 object in Salesforce."
    assert isinstance(described.data, dict)
    assert described.data["fields"][0]["choices"] == ["High"]
    assert described.data["fields"][0]["required"] is True


@pytest.mark.parametrize(
    ("status", "answer", "kind", "words"),
    [
        (401, error("INVALID_SESSION_ID", "Session expired or invalid"), CredentialRefused, "Session expired"),
        (403, error("REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded."), SystemUnavailable, "used up"),
        (
            403,
            error("INSUFFICIENT_ACCESS", "insufficient access rights"),
            Refused,
            "Edit on Account”; ask a Salesforce",
        ),
        (400, error("INSUFFICIENT_ACCESS_OR_READONLY", "insufficient access rights"), Refused, "Edit on Account"),
        (400, error("INVALID_FIELD_FOR_INSERT_UPDATE", "Unable to create/update fields: Phone"), Refused, "Edit on"),
        (400, error("FIELD_CUSTOM_VALIDATION_EXCEPTION", "Phone is needed"), Refused, "Phone is needed"),
        (404, error("NOT_FOUND", "The requested resource does not exist"), Refused, "nothing that you may see"),
        (
            400,
            error("UNABLE_TO_LOCK_ROW", "unable to obtain exclusive access"),
            SystemUnavailable,
            "Nothing was changed",
        ),
        (503, error("SERVER_UNAVAILABLE", "busy"), SystemUnavailable, "too busy"),
        (500, error("UNKNOWN_EXCEPTION", "An unexpected error occurred"), SystemUnavailable, "failed"),
    ],
)
async def test_each_error_says_what_salesforce_said(
    status: int, answer: Any, kind: type[ConnectorError], words: str
) -> None:
    vendor = Vendor().expect(f"PATCH {V}/sobjects/Account/001D000000IqhSLIAZ", status, answer, body={"Phone": "1"})
    async with calling(vendor, "salesforce") as call:
        with pytest.raises(kind, match=words) as caught:
            await call("record.update", object="Account", id="001D000000IqhSLIAZ", fields={"Phone": "1"})
    assert "token-of-erin" not in str(caught.value)
    if isinstance(caught.value, SystemUnavailable):
        assert caught.value.may_have_acted == (status == 500)


async def test_a_limit_is_told_only_when_it_is_nearly_used_up() -> None:
    assert used_up({"Sforce-Limit-Info": "api-usage=10018/100000; api-bursts=1/750"}) is None
    assert used_up({"Sforce-Limit-Info": "api-usage=99990/100000"}) == RateLimit(10, 60.0)
    assert used_up({"Sforce-Limit-Info": "api-usage=100001/100000"}) == RateLimit(0, 60.0)
    assert used_up({"Sforce-Limit-Info": "api-usage=x/y"}) is None
    headers = {"Sforce-Limit-Info": "api-usage=4999/5000"}
    query = {"q": "SELECT Id FROM Account LIMIT 51"}
    vendor = Vendor().expect(f"GET {V}/query", answer=page(), query=query, headers=headers)
    async with calling(vendor, "salesforce") as call:
        await call("query.run", query="SELECT Id FROM Account")
        assert call.record.limit == RateLimit(1, 60.0)


OWN = "https://acme.my.salesforce.com"
LOCAL = EgressRule(allow_hosts=("*.pilothouse-sim.svc",))


@pytest.mark.parametrize(
    "given",
    [OWN, f"{OWN}/", "https://acme--dev.sandbox.my.salesforce.com", "http://salesforce.pilothouse-sim.svc:8080"],
)
def test_a_token_goes_to_salesforce(given: str) -> None:
    assert instance(given, OWN, LOCAL) == given.rstrip("/")


@pytest.mark.parametrize(
    "given",
    [
        "https://evil.example",
        "https://evilsalesforce.com",
        "https://salesforce.com.evil.example",
        "http://acme.my.salesforce.com",
        "https://acme.my.salesforce.com:8443",
        "https://acme.my.salesforce.com@evil.example",
        "https://evil.example#.salesforce.com",
        "https://evil.example/.salesforce.com",
        "https://acme.my.salesforce.com/x",
        "ftp://salesforce.pilothouse-sim.svc",
        "http://169.254.169.254",
        "http://[::1",
        "x",
    ],
)
def test_a_token_goes_nowhere_else(given: str) -> None:
    with pytest.raises(Refused, match="nothing was asked") as refusal:
        instance(given, OWN, LOCAL)
    assert not refusal.value.asked


async def test_the_instance_of_the_token_is_where_calls_go() -> None:
    vendor = Vendor().expect(f"GET {V}/analytics/reports", answer=[])
    async with calling(vendor, "salesforce", url="https://login.salesforce.com") as call:
        # on this machine only the configured address or an allowed one counts, so the rule names the host
        call.connector._client._http.egress = EgressRule(allow_hosts=("127.0.0.1",))  # type: ignore[attr-defined]
        call.connector._client._http._judged.clear()  # type: ignore[attr-defined]
        call.instance_url = vendor.base
        assert (await call("report.list")).data == {"reports": []}
        call.instance_url = "https://evil.example"
        with pytest.raises(Refused):
            await call("report.list")


def test_another_version_of_the_api_is_a_setting() -> None:
    def config(version: str) -> ConnectorConfig:
        return ConnectorConfig(
            name="salesforce", type="salesforce", url=OWN, auth_mode="JWTBearer", api_version=version
        )

    connector: Any = make_connector(config("v68.0"), {}, EgressRule())
    assert connector._client.prefix == "/services/data/v68.0"
    for wrong in ("68", "v68.0/../x", "latest"):
        with pytest.raises(ConnectorConfigError):
            make_connector(config(wrong), {}, EgressRule())


HOSTILE = ["../Case", "..", "Account/x", "Acc\x00ount", "Account%2f", "Ａccount", "", "1x", "x" * 81, "Account?", "a.b"]
GOOD = {"object": "Account", "id": "001D000000IqhSLIAZ", "fields": {"Name": "x"}}


@pytest.mark.parametrize("value", [*HOSTILE, 7, None, [], {}, True])
@pytest.mark.parametrize(
    ("tool", "name"),
    [
        ("record.get", "object"),
        ("record.get", "id"),
        ("record.create", "object"),
        ("record.update", "id"),
        ("record.delete", "id"),
        ("object.describe", "object"),
        ("report.run", "id"),
    ],
)
async def test_what_is_no_name_or_id_is_never_a_part_of_an_address(tool: str, name: str, value: Any) -> None:
    vendor = Vendor()
    async with calling(vendor, "salesforce") as call:
        with pytest.raises(Refused) as refusal:
            await call(tool, **(GOOD | {name: value}))
    assert not refusal.value.asked
    assert vendor.asked == []


@pytest.mark.parametrize(
    "fields",
    [
        None,
        [],
        {},
        "x",
        {"Na me": 1},
        {"../x": 1},
        {"Id": "001D000000IqhSLIAZ"},
        {"Pilothouse_Key__c": "x"},
        {"Name": ["x"]},
        {"Name": {"x": 1}},
        {"Name": "x\x00"},
        {"Name": "x" * 40_000},
        {f"F{n}": n for n in range(101)},
    ],
)
async def test_fields_that_are_not_plain_are_refused(fields: Any) -> None:
    vendor = Vendor()
    async with calling(vendor, "salesforce") as call:
        for tool in ("record.create", "record.update"):
            with pytest.raises(Refused) as refusal:
                await call(tool, **(GOOD | {"fields": fields}))
            assert not refusal.value.asked
    assert vendor.asked == []


@pytest.mark.parametrize("value", ["..", ".", "", "a\nb", "x" * 256, 7, None, []])
async def test_an_external_id_that_is_none_is_refused(value: Any) -> None:
    vendor = Vendor()
    arguments = {"object": "Account", "external_field": "Legacy__c", "external_id": value, "fields": {"Name": "x"}}
    async with calling(vendor, "salesforce") as call:
        with pytest.raises(Refused) as refusal:
            await call("record.upsert", **arguments)
    assert not refusal.value.asked
    assert vendor.asked == []


JUNK: list[Any] = [
    None,
    7,
    "x",
    [],
    {},
    True,
    [[]],
    {"records": 7},
    {"records": [7, None, [], {"Id": [1], "Owner": "x", "Name": {"a": 1}}], "totalSize": "many"},
    {"searchRecords": [{"attributes": 7, "Id": {}}]},
    {"fields": [{"name": 7, "picklistValues": 3, "referenceTo": {"a": 1}}], "label": []},
    {"sobjects": [{"name": None, "queryable": True}]},
    {"factMap": {"x": 7, "T!T": {"rows": [{"dataCells": "x"}], "aggregates": 7}}, "groupingsDown": {"groupings": [7]}},
    {"reportMetadata": {"detailColumns": [7, None, {}]}, "factMap": []},
    {"id": {"x": 1}},
    {"id": 7},
]


@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("query.run", {"query": "SELECT Id FROM Account"}),
        ("search.run", {"text": "globex"}),
        ("knowledge.search", {"text": "vpn"}),
        ("account.search", {"name": "x"}),
        ("account.get", {"account": "x"}),
        ("object.list", {}),
        ("object.describe", {"object": "Case"}),
        ("record.get", {"object": "Case", "id": CASE_ID}),
        ("record.create", {"object": "Case", "fields": {"Subject": "x"}}),
        ("record.upsert", {"object": "A", "external_field": "B", "external_id": "c", "fields": {"D": 1}}),
        ("report.list", {}),
        ("report.run", {"id": "00OD000000IqhSLIAZ"}),
        ("composite.run", {"steps": [CREATE]}),
    ],
)
async def test_answers_of_any_shape_are_an_error_or_an_empty_field(
    tool: str, arguments: dict[str, Any], junk: Any
) -> None:
    async with calling(Vendor(), "salesforce") as call:

        async def send(*_: Any, **__: Any) -> JsonResponse:
            return JsonResponse(200, junk, None, {})

        call.connector._client._http.request = send  # type: ignore[attr-defined]
        try:
            result = await call(tool, **arguments)
        except ConnectorError:
            return
    assert isinstance(result.summary, str)


def test_an_error_of_any_shape_has_a_sentence() -> None:
    for junk in (*JUNK, {"error": "invalid_grant"}, [{"message": 7, "errorCode": []}, 7]):
        assert isinstance(sentence(junk), str)
        assert str(error_from(400, junk, "Read on Account")).startswith("Salesforce")


async def test_what_an_object_has_is_remembered_per_user_and_for_a_time() -> None:
    now = 0.0
    keys = KeyFields(lambda: now)
    asked: list[str] = []

    async def describe() -> object:
        asked.append("x")
        return {"fields": [KEY_FIELD]}

    for user in ("erin", "erin", "mona"):
        assert await keys.carried_by(user, "Case", describe)
    assert len(asked) == 2
    now = 601.0
    assert await keys.carried_by("erin", "case", describe)
    assert len(asked) == 3


def test_the_key_fits_an_address_and_the_field() -> None:
    for key in ("run-7/s1", "../x", "a" * 300, "é/\x00"):
        value = value_of(key)
        assert len(value) <= 80
        assert all(c.isascii() and (c.isalnum() or c in "_-") for c in value)
    assert value_of("a/b") != value_of("a-b")


def test_each_tool_has_a_handler_and_each_write_a_way_to_settle() -> None:
    tools = {tool.name.removeprefix("salesforce."): tool for tool in salesforce_tools("salesforce")}
    assert set(tools) == set(_CALLS)
    found = {name for name, tool in tools.items() if tool.effect is not Effect.READ and tool.lookup is not Lookup.NONE}
    assert found == set(_FINDS)
    open_ended = {
        name
        for name, tool in tools.items()
        if tool.effect is not Effect.READ and tool.lookup is Lookup.NONE and not tool.idempotent
    }
    assert open_ended == {"composite.run"}
    assert {n for n, t in tools.items() if t.effect is Effect.DESTRUCTIVE} == {"record.delete"}
