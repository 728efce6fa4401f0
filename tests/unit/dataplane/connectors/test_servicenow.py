from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse_dataplane.connectors.base import (
    CallContext,
    Credential,
    CredentialRefused,
    Refused,
    SecretText,
    SystemUnavailable,
)
from pilothouse_dataplane.connectors.servicenow import query, values
from pilothouse_dataplane.connectors.servicenow.client import number, sys_id
from pilothouse_dataplane.connectors.servicenow.connector import CALLS, FINDS
from pilothouse_dataplane.connectors.servicenow.instance import correlation_id
from pilothouse_dataplane.connectors.servicenow.journal import reference
from pilothouse_dataplane.connectors.servicenow.tools import servicenow_tools
from pilothouse_dataplane.core.messages import Effect, Lookup
from pilothouse_testing.answering import Answering, acting_as, calling

TABLE = "/api/now/table"
ID = "0123456789abcdef0123456789abcdef"
OTHER = "fedcba9876543210fedcba9876543210"
FLAT = {"sysparm_display_value": "all", "sysparm_exclude_reference_link": "true"}


def servicenow(site: Answering, **options: Any) -> Any:
    return calling("servicenow", site, **options)


def both(value: str, shown: str = "") -> dict[str, str]:
    return {"value": value, "display_value": shown or value}


def record(**fields: str) -> dict[str, Any]:
    return {name: both(value) for name, value in fields.items()}


ME = {"result": [record(sys_id=OTHER, user_name="erin", email="Erin@acme.example", name="Erin")]}
INCIDENT = record(sys_id=ID, number="INC0010001", short_description="VPN", state="2")


# --- what is sent


async def test_an_incident_carries_its_key_and_its_caller() -> None:
    made = {"result": {**INCIDENT, **record(correlation_id="run/s1")}}
    group = {"result": [record(sys_id="a" * 32, name="Network")]}
    watchers = {"result": [record(sys_id="b" * 32, email="mona@acme.example")]}
    site = Answering([(200, ME), (200, group), (200, watchers), (201, made), (201, made)])
    async with servicenow(site) as call:
        result = await call(
            "incident.create",
            short_description=" VPN\nbroken ",
            description="a\nb",
            urgency="1",
            assignment_group="network",
            watch_list=["Mona@acme.example", "x@elsewhere.example"],
        )
        await call("incident.create", short_description="again")
    me, sent = site.asked[0], site.asked[3]
    assert (me.method, me.path) == ("GET", f"{TABLE}/sys_user")
    assert me.query == {
        "sysparm_query": "email=erin@acme.example^active=true",
        "sysparm_fields": "sys_id,user_name,email,name",
        "sysparm_limit": "2",
        "sysparm_offset": "0",
        **FLAT,
    }
    assert {a.query["sysparm_query"] for a in site.asked[1:3]} == {
        "name=network",
        "emailINmona@acme.example,x@elsewhere.example",
    }
    assert (sent.method, sent.path, sent.headers["Authorization"]) == ("POST", f"{TABLE}/incident", "Bearer t0")
    assert sent.body == {
        "short_description": "VPN broken",
        "description": "a\nb",
        "urgency": "1",
        "assignment_group": "a" * 32,
        "watch_list": f"{'b' * 32},x@elsewhere.example",
        "caller_id": OTHER,
        "correlation_id": "run/s1",
        "correlation_display": "pilothouse",
    }
    assert sent.query["sysparm_display_value"] == "all"
    assert "correlation_id" in sent.query["sysparm_fields"].split(",")
    assert result.summary == "Created INC0010001 in ServiceNow."
    assert result.citations[0].url.endswith(f"/incident.do?sys_id={ID}")
    assert len(site.asked) == 5  # who she is was asked once


async def test_a_search_pages_over_the_gaps_that_access_rules_leave() -> None:
    site = Answering([(200, {"result": [INCIDENT]}), (200, {"result": [INCIDENT]}), (200, {"result": []})])
    site.headers = {"X-Total-Count": "5"}
    async with servicenow(site) as call:
        result = await call("incident.search", text="vpn token", open=True, max_results=2)
    assert [a.query["sysparm_offset"] for a in site.asked] == ["0", "2"]
    assert site.asked[0].query["sysparm_query"] == (
        "short_descriptionLIKEvpn^ORdescriptionLIKEvpn^short_descriptionLIKEtoken^ORdescriptionLIKEtoken"
        "^state!=6^state!=7^state!=8^ORDERBYDESCsys_updated_on"
    )
    assert result.summary == "Found at least 2 incidents in ServiceNow."


async def test_a_link_header_says_that_there_is_more_where_no_count_does() -> None:
    site = Answering([(200, {"result": [INCIDENT]})])
    site.headers = {"Link": '<https://evil.example/api/now/table/incident?sysparm_offset=1>;rel="next"'}
    async with servicenow(site) as call:
        result = await call("incident.search", max_results=1)
    assert result.data["more"] is True
    assert len(site.asked) == 1  # the address itself is never followed


async def test_an_order_names_the_user_only_where_the_token_is_not_hers() -> None:
    ordered = {"result": {"request_number": "REQ0010002", "request_id": ID, "number": "REQ0010002"}}
    site = Answering([(200, ordered), (200, ME), (200, ordered)])
    service = CallContext("erin@acme.example", "k", credential=Credential(SecretText("t"), "service account snow"))
    async with servicenow(site) as call:
        result = await call("catalog.order", sys_id=ID, variables={"model": "14"}, quantity=2)
        await call("catalog.order", service, sys_id=ID)
    assert site.asked[0].path == f"/api/sn_sc/servicecatalog/items/{ID}/order_now"
    assert site.asked[0].body == {"sysparm_quantity": "2", "variables": {"model": "14"}}
    assert site.asked[2].body == {"sysparm_quantity": "1", "variables": {}, "sysparm_requested_for": OTHER}
    assert result.summary == "Ordered in ServiceNow: request REQ0010002."


async def test_a_file_is_sent_as_it_is() -> None:
    site = Answering([(200, {"result": [INCIDENT]}), (201, {"result": {"sys_id": OTHER}})])
    async with servicenow(site) as call:
        await call("attachment.add", number="inc0010001", file_name="a b.txt", content="ä\n")
    sent = site.asked[1]
    assert (sent.method, sent.path) == ("POST", "/api/now/attachment/file")
    assert sent.query == {"table_name": "incident", "table_sys_id": ID, "file_name": "a b.txt"}
    assert (sent.body, sent.headers["Content-Type"]) == ("ä\n".encode(), "text/plain")


async def test_knowledge_is_read_as_text() -> None:
    html = "<h1>VPN</h1><script>alert(1)</script><style>p{}</style><ul><li>one &amp; two</li></ul><p onclick='x'>three"
    found = {
        "meta": {"count": 9},
        "articles": [{"id": f"kb_knowledge:{ID}", "number": "KB0010001", "title": "A <b>VPN</b>", "snippet": "x<br>y"}],
    }
    site = Answering([(200, {"result": found})])
    site.answers.append((200, {"result": {"content": html, "number": "KB0010001", "sys_id": ID}}))
    async with servicenow(site) as call:
        listed = await call("knowledge.search", text="vpn ^ javascript:x")
        article = await call("knowledge.get", number="kb0010001")
    assert site.asked[0].path == "/api/sn_km_api/knowledge/articles"
    assert site.asked[0].query == {
        "query": "vpn ^ javascript:x",  # a text search, no encoded query
        "limit": "5",
        "offset": "0",
        "fields": "short_description",
    }
    assert listed.data["articles"][0]["title"] == "A VPN"
    assert listed.data["more"] is True
    assert site.asked[1].path == "/api/sn_km_api/knowledge/articles/KB0010001"
    assert article.data["text"] == "VPN\n- one & two\nthree"


# --- hostile input


BAD_VALUES = [
    "x^ORDERBYnumber", "x^NQactive=true", "x^ORstate=1", "^", "a＾b",
    "javascript:gs.getUserID()", "JavaScript :x", "java\u200bscript:x",
    "NULL", "empty", "DYNAMIC", "=x", "!=x", "<x", ">x", "*x", "%x", "@x",
    "a\nb", "a\x00b", "a\rb", "\ud800", "", "x" * 256,
    "ｊavascript:x",
]  # fmt: skip


@pytest.mark.parametrize("value", BAD_VALUES)
def test_no_value_leaves_its_condition(value: str) -> None:
    for build in (query.equals, query.differs, query.contains, lambda field, v: query.one_of(field, ["a", v])):
        with pytest.raises(Refused) as raised:
            build("name", value)
        assert not raised.value.asked
        assert "nothing was sent" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_comma_makes_no_second_value() -> None:
    with pytest.raises(Refused):
        query.one_of("email", ["a@x.example,b@x.example"])
    assert query.equals("name", "Desk, second floor") == "name=Desk, second floor"


@given(st.text(max_size=60))
def test_text_to_search_for_adds_only_conditions_of_ours(text: str) -> None:
    built = query.text_in(("name", "title"), text)
    assert "javascript:" not in built.casefold()
    for part in filter(None, built.split("^")):
        assert part.startswith(("nameLIKE", "ORtitleLIKE"))
    assert built.count("^") <= 2 * 8


@given(st.text(max_size=60))
def test_what_passes_as_a_value_is_one(value: str) -> None:
    try:
        built = query.every(query.equals("a", value), query.equals("b", "1"))
    except Refused:
        return
    assert built.count("^") == 1
    assert "javascript:" not in built.casefold()


@pytest.mark.parametrize("field", ["a^b", "javascript:x", "A", "", "a=b", "a..b", "a.b.c.d.e"])
def test_a_field_is_a_name_of_ours(field: str) -> None:
    with pytest.raises(ValueError, match="is no field"):
        query.equals(field, "x")


BAD_IDS = ["../x", "..%2fx", f"{ID}/../x", f"{ID}\n", ID.upper(), ID[:-1], f"{ID}0", "",
           "INC001\x00", "INC0010001/..", "INC٠٠١٠",
           "ＩＮＣ0010001", "INC0010001^NQ", "INC0010001?x", "I0", "INC" + "1" * 40]  # fmt: skip


@pytest.mark.parametrize("value", BAD_IDS)
async def test_what_is_no_record_reaches_nobody(value: str) -> None:
    site = Answering()
    more: dict[str, Any] = {
        "text": "x", "close_notes": "x", "decision": "approved", "file_name": "x", "content": "x", "urgency": "1",
    }  # fmt: skip
    async with servicenow(site) as call:
        for name, tool in call.tools.items():
            for argument in {"number", "sys_id"} & set(tool.parameters["properties"]):
                arguments = {argument: value, **{k: v for k, v in more.items() if k in tool.parameters["properties"]}}
                for asks in (call, call.find if name in FINDS else call):
                    with pytest.raises(Refused) as raised:
                        await asks(name, **arguments)
                    assert not raised.value.asked
    assert site.asked == []


@pytest.mark.parametrize("value", [None, 5, [ID], {"a": 1}, True])
def test_ids_are_texts(value: object) -> None:
    for check in (sys_id, number):
        with pytest.raises(Refused):
            check(value)


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "a\\b", "a..b", "\x00", "", ".hidden", "a\nb", "x" * 101, "a;b", "<x>"]
)
async def test_a_file_has_a_plain_name(name: str) -> None:
    site = Answering()
    async with servicenow(site) as call:
        with pytest.raises(Refused) as raised:
            await call("attachment.add", number="INC0010001", file_name=name, content="x")
        assert not raised.value.asked
    assert site.asked == []


@pytest.mark.parametrize("kind", ["sys_user", "cmdb_ci/../sys_user", "cmdb_ci?x=1", "CMDB_CI", "cmdb_ci_" + "x" * 80])
async def test_only_classes_of_the_cmdb_are_searched(kind: str) -> None:
    site = Answering()
    async with servicenow(site) as call:
        with pytest.raises(Refused):
            await call("ci.search", text="x", **{"class": kind})
        with pytest.raises(Refused, match="no word"):
            await call("ci.search", text="^^^")
    assert site.asked == []


@pytest.mark.parametrize(
    "email", ["x", "a@b", "a,b@x.example", "a b@x.example", "a@x.example^NQ", "@x.example", "a@x.\n.y"]
)
async def test_only_addresses_are_watched(email: str) -> None:
    site = Answering([(200, ME)])
    async with servicenow(site) as call:
        with pytest.raises(Refused):
            await call("incident.create", short_description="x", watch_list=[email])
    assert [a.path for a in site.asked] == [f"{TABLE}/sys_user"]


# --- what comes back


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        (401, CredentialRefused, "Link your ServiceNow account again"),
        (403, Refused, "refused this: “Operation Failed: ACL Exception”. It takes the permission “read on incident”"),
        (404, Refused, "you lack the permission “read on incident”"),
        (400, Refused, "did not accept this: “Operation Failed: ACL Exception”"),
        (429, SystemUnavailable, "too many requests"),
        (500, SystemUnavailable, "ServiceNow failed (500): “Operation Failed"),
        (200, SystemUnavailable, "did not finish: “Operation Failed"),
    ],
)
async def test_refusals_carry_servicenows_own_words(status: int, error: type[Exception], said: str) -> None:
    body = {"error": {"message": "Operation Failed", "detail": "ACL Exception"}, "status": "failure", "result": []}
    site = Answering([(status, body)])
    site.headers = {"Retry-After": "7"}
    async with servicenow(site) as call:
        with pytest.raises(error) as raised:
            await call("incident.get", number=ID)
    assert said in str(raised.value)
    if status == 429:
        assert isinstance(raised.value, SystemUnavailable)
        assert raised.value.retry_after == 7


async def test_an_instance_that_ignores_a_condition_finds_nobody_else() -> None:
    """Unless a property says otherwise, a part of a query that is not understood is left out, and all records fit."""
    wrong = {"result": [record(sys_id=OTHER, user_name="other", email="other@acme.example", number="INC0099999")]}
    site = Answering([(200, wrong)] * 5)
    async with servicenow(site) as call:
        with pytest.raises(Refused, match="no user that you may see"):
            await call("incident.create", short_description="x")
        with pytest.raises(Refused, match="no INC0010001 that you may see"):
            await call("incident.get", number="INC0010001")
        with pytest.raises(Refused, match="no group “Network”"):
            await call("incident.update", number="INC0010001", assignment_group="Network")
        assert (await call("user.search", text="erin@acme.example")).data["users"] == []
        with pytest.raises(SystemUnavailable, match="does not tell"):
            await call.find("incident.create", short_description="x")


async def test_not_found_is_proof_only_where_keys_are_kept() -> None:
    none: tuple[int, Any] = (200, {"result": []})
    made = {"result": {**INCIDENT, **record(correlation_id="run/s1")}}
    dropped = {"result": {**INCIDENT, **record(correlation_id="")}}
    earlier = {"result": [record(correlation_id="run/s0", correlation_display="pilothouse")]}
    site = Answering([none, (200, ME), none])
    async with servicenow(site) as call:
        with pytest.raises(SystemUnavailable, match="does not tell"):  # never seen to keep one
            await call.find("incident.create", short_description="x")
        assert site.asked[0].query["sysparm_query"] == "correlation_id=run/s1^correlation_display=pilothouse"
        assert site.asked[2].query["sysparm_query"] == "correlation_display=pilothouse^sys_created_by=erin"
        site.answers = [none, (200, earlier)]
        assert await call.find("incident.create", short_description="x") is None
        site.answers = [(201, dropped), none]
        await call("incident.create", short_description="x")
        with pytest.raises(SystemUnavailable, match="does not tell"):  # seen to drop one
            await call.find("incident.create", short_description="x")
        site.answers = [(201, made), none, (200, {"result": [made["result"]]})]
        await call("incident.create", short_description="x")
        assert await call.find("incident.create", short_description="x") is None
        found = await call.find("incident.create", short_description="x")
    assert found.data["number"] == "INC0010001"


def test_a_key_fits_into_its_field() -> None:
    assert correlation_id("run-1/s1") == "run-1/s1"
    for odd in ("a^b", "x" * 101, "javascript:x y", "ä"):
        assert correlation_id(odd) == hashlib.sha256(odd.encode()).hexdigest()
        query.equals("correlation_id", correlation_id(odd))


REF = reference("run/s1")
ENTRY = record(element_id=ID, element="comments", value=f"Hi\n\n{REF}")
OLD = record(element_id=ID, element="comments", value="older")
ELSEWHERE = record(element_id=OTHER, element="comments", value="elsewhere")


@pytest.mark.parametrize(
    ("answers", "there"),
    [
        ([(200, {"result": [OLD, ENTRY]})], True),
        ([(200, {"result": [OLD]})], False),
        # another record's entries show that she may read them, and so does the record's own journal
        ([(200, {"result": []}), (200, {"result": [ELSEWHERE]}), (200, {"result": {"comments": both("")}})], False),
        ([(403, {}), (200, {"result": {"comments": both("", f"Erin\nHi {REF}")}})], True),
        ([(403, {}), (200, {"result": {"comments": both("", "Erin\nolder")}})], False),
        # nothing is shown at all: that can't be told
        ([(403, {}), (200, {"result": {"comments": both("")}})], None),
        ([(200, {"result": []}), (200, {"result": []}), (200, {"result": {}})], None),
        # an instance that ignores the condition
        ([(200, {"result": [ELSEWHERE]}), (200, {"result": []}), (200, {"result": {}})], None),
    ],
)
async def test_a_comment_is_looked_for_where_the_user_may_read(answers: list[Any], there: bool | None) -> None:
    site = Answering([(200, {"result": INCIDENT}), *answers])
    async with servicenow(site) as call:
        if there is None:
            with pytest.raises(SystemUnavailable, match="does not tell"):
                await call.find("incident.comment", number=ID, text="Hi")
        else:
            assert (await call.find("incident.comment", number=ID, text="Hi") is not None) is there
    assert site.answers == []


async def test_a_dropped_note_is_not_told_as_written() -> None:
    now = {"result": {**record(sys_id=ID, number="INC0010001"), "work_notes": both("")}}
    note = record(element_id=ID, element="work_notes", value="older")
    site = Answering([(200, {"result": INCIDENT}), (200, now), (200, {"result": [note]})])
    async with servicenow(site) as call:
        with pytest.raises(Refused, match=r"did not keep the work note on INC0010001.*incident.work_notes") as raised:
            await call("incident.work_note", number=ID, text="[code]<b>x</b>[/code]")
    assert raised.value.asked
    assert site.asked[1].body == {"work_notes": f"[ code]<b>x</b>[ /code]\n\n{REF}"}


async def test_values_that_were_not_taken_are_told() -> None:
    after = {**INCIDENT, "urgency": both("3", "3 - Low"), "category": both("network")}
    site = Answering([(200, {"result": INCIDENT}), (200, {"result": after})] * 2)
    async with servicenow(site) as call:
        result = await call("incident.update", number=ID, urgency="1", category="network")
        assert result.summary.startswith("Changed INC0010001. It did not take urgency")
        with pytest.raises(Refused, match="did not change urgency of INC0010001"):
            await call("incident.update", number=ID, urgency="1")
        with pytest.raises(Refused, match="Nothing was named"):
            await call("incident.update", number=ID)


async def test_what_a_write_reads_first_leaves_nothing_in_doubt() -> None:
    writes = {
        "incident.create": {"short_description": "x"},
        "incident.update": {"number": ID, "urgency": "1"},
        "incident.comment": {"number": ID, "text": "x"},
        "incident.resolve": {"number": ID, "close_notes": "x"},
        "change.create": {"short_description": "x"},
        "approval.decide": {"sys_id": ID, "decision": "approved"},
        "attachment.add": {"number": "INC0010001", "file_name": "a.txt", "content": "x"},
    }
    site = Answering([(503, {})] * len(writes))
    async with servicenow(site) as call:
        for name, arguments in writes.items():
            with pytest.raises(SystemUnavailable) as raised:
                await call(name, **arguments)
            assert not raised.value.may_have_acted, name


async def test_a_decision_is_hers_and_is_made_once() -> None:
    def approval(state: str) -> tuple[int, Any]:
        return 200, {"result": {**record(sys_id=ID, state=state), "sysapproval": both(OTHER, "REQ0010001")}}

    site = Answering([approval("requested"), approval("approved"), approval("approved"), approval("rejected")])
    async with servicenow(site) as call:
        result = await call("approval.decide", sys_id=ID, decision="approved", comments="ok")
        assert result.summary == "Approved REQ0010001 in ServiceNow."
        assert site.asked[1].body == {"state": "approved", "comments": "ok"}
        await call("approval.decide", sys_id=ID, decision="approved")
        with pytest.raises(Refused, match="waits no more: it is in the state rejected"):
            await call("approval.decide", sys_id=ID, decision="approved")
        assert [a.method for a in site.asked] == ["GET", "PATCH", "GET", "GET"]
        with pytest.raises(Refused, match="say why"):
            await call("approval.decide", sys_id=ID, decision="rejected", comments=" ")
        with pytest.raises(Refused, match="is no decision"):
            await call("approval.decide", sys_id=ID, decision="cancelled")
        site.answers = [approval("requested"), approval("requested")]
        with pytest.raises(Refused, match="only the approver herself"):
            await call("approval.decide", sys_id=ID, decision="approved")


async def test_a_file_is_found_by_what_is_in_it() -> None:
    def listed(**more: str) -> tuple[int, Any]:
        return 200, {"result": [{"sys_id": OTHER, "table_sys_id": ID, "file_name": "a.txt", "size_bytes": "1", **more}]}

    wanted: dict[str, Any] = {"number": "INC0010001", "file_name": "a.txt", "content": "x"}
    there: tuple[int, Any] = (200, {"result": [INCIDENT]})
    site = Answering([there, listed(hash=hashlib.sha256(b"x").hexdigest())])
    async with servicenow(site) as call:
        assert (await call.find("attachment.add", **wanted)).data["sys_id"] == OTHER
        site.answers = [there, listed(hash=hashlib.sha256(b"y").hexdigest())]
        assert await call.find("attachment.add", **wanted) is None
        site.answers = [there, listed()]
        with pytest.raises(SystemUnavailable, match="does not tell"):
            await call.find("attachment.add", **wanted)


async def test_what_the_instance_says_of_its_limit_is_kept() -> None:
    site = Answering([(429, {})])
    site.headers = {"X-RateLimit-Limit": "500", "X-RateLimit-Reset": "4102444800", "X-RateLimit-Remaining": "0"}
    context = acting_as("erin@acme.example")
    async with servicenow(site) as call:
        with pytest.raises(SystemUnavailable):
            await call("incident.get", context, number=ID)
    assert context.record.limit is not None
    assert context.record.limit.remaining == 0


async def test_the_probe_takes_a_refusal_as_a_sign_of_life() -> None:
    site = Answering([(401, {}), (503, {})])
    async with servicenow(site) as call:
        await call.connector.probe()
        with pytest.raises(SystemUnavailable):
            await call.connector.probe()
    assert all("Authorization" not in asked.headers for asked in site.asked)


@given(st.text(alphabet=st.sampled_from("<>/&;pbscript =\"'!-x\n")))
def test_html_of_any_shape_gives_text(html: str) -> None:
    assert len(values.text_of(html, 20)) <= 20


def test_a_bomb_of_html_is_cut() -> None:
    assert len(values.text_of("<b>x</b>" * 1_000_000, 500)) <= 500


def test_every_tool_is_served_and_every_write_can_be_looked_up() -> None:
    tools = {tool.name.removeprefix("servicenow."): tool for tool in servicenow_tools("servicenow")}
    assert set(CALLS) == set(tools)
    assert set(FINDS) == {name for name, tool in tools.items() if tool.lookup is not Lookup.NONE}
    writes = {name for name, tool in tools.items() if tool.effect is Effect.WRITE}
    assert writes - set(FINDS) == {"catalog.order"}
