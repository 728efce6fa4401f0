from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse_dataplane.connectors.base import (
    AccountNotLinked,
    CredentialRefused,
    RateLimit,
    Refused,
    SystemUnavailable,
)
from pilothouse_dataplane.connectors.jira import adf, jql
from pilothouse_dataplane.connectors.jira.client import issue_key, project_key, site_in, site_of
from pilothouse_dataplane.connectors.jira.connector import CALLS, FINDS
from pilothouse_dataplane.connectors.jira.tools import jira_tools
from pilothouse_dataplane.core.messages import Effect, Lookup
from pilothouse_sim.jira import adf as stand_in_adf
from pilothouse_testing.answering import Answering, acting_as, calling

API = "/rest/api/3"


def jira(site: Answering, **options: Any) -> Any:
    return calling("jira", site, **options)


async def test_create_carries_the_key_and_the_next_search_names_the_new_issue() -> None:
    site = Answering([(201, {"id": "10042", "key": "IT-42"}), (200, {"issues": []})])
    async with jira(site) as call:
        result = await call(
            "issue.create", project="it", summary="a\nb", description="one\n\ntwo", priority="High", labels=["x"]
        )
        await call("issue.search", mine=True, open=True)
    asked = site.asked[0]
    assert (asked.method, asked.path, asked.headers["Authorization"]) == ("POST", f"{API}/issue", "Bearer t0")
    assert asked.body["properties"] == [{"key": "pilothouse", "value": {"idempotencyKey": "run/s1"}}]
    fields = asked.body["fields"]
    assert (fields["summary"], fields["project"], fields["issuetype"]) == ("a b", {"key": "IT"}, {"name": "Task"})
    assert (fields["priority"], fields["labels"]) == ({"name": "High"}, ["x"])
    assert len(fields["description"]["content"]) == 2
    assert result.summary == "Created IT-42 in Jira."
    assert result.citations[0].url.endswith("/browse/IT-42")
    assert site.asked[1].body["reconcileIssues"] == [10042]


async def test_search_pages_by_token() -> None:
    site = Answering()
    issue = {"id": "1", "key": "IT-1", "fields": {"summary": "s", "status": {"name": "To Do"}}}
    site.answers = [(200, {"issues": [issue], "nextPageToken": "n"}), (200, {"issues": [issue]})]
    async with jira(site) as call:
        result = await call("issue.search", text="vpn")
    assert site.asked[1].body["nextPageToken"] == "n"
    assert result.summary == "Found 2 issues in Jira."


async def test_search_by_people_asks_for_their_account_ids_first() -> None:
    erin = {"accountId": "712020:e", "displayName": "Erin", "emailAddress": "Erin@acme.example", "active": True}
    site = Answering([(200, [erin, {**erin, "accountId": "712020:x", "emailAddress": "x@acme.example"}])])
    site.answers.append((200, {"issues": []}))
    async with jira(site) as call:
        await call("issue.search", assignee="erin@acme.example", reporter="ME", status='a" OR 1=1', updated_days=7)
    assert (site.asked[0].path, site.asked[0].query["query"]) == (f"{API}/user/search", "erin@acme.example")
    assert site.asked[1].body["jql"] == (
        'status = "a\\" OR 1=1" AND assignee = "712020:e" AND reporter = currentUser() AND updated >= "-7d" '
        "ORDER BY updated DESC"
    )


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        (401, CredentialRefused, "Link your Jira account again"),
        (403, Refused, "“Not yours”. It takes the permission “Create Issues”"),
        (404, Refused, "lack the permission “Create Issues”"),
        (400, Refused, "Jira did not accept this: “Not yours”"),
        (429, SystemUnavailable, "too many requests"),
        (500, SystemUnavailable, "Jira failed (500)"),
        (302, SystemUnavailable, "redirects"),
    ],
)
async def test_refusals_carry_jiras_own_sentence(status: int, error: type[Exception], said: str) -> None:
    site = Answering([(status, {"errorMessages": ["Not yours."], "errors": {}})])
    site.headers = {"Retry-After": "2", "Location": "http://127.0.0.1:1/"}
    async with jira(site) as call:
        with pytest.raises(error) as raised:
            await call("issue.create", project="IT", summary="s")
    assert said in str(raised.value)
    if isinstance(raised.value, SystemUnavailable):
        assert raised.value.may_have_acted is (status == 500)


async def test_the_gateways_own_refusals_and_limits_are_read() -> None:
    site = Answering([(401, {"code": 401, "message": "Unauthorized; scope does not match"})])
    site.headers = {"X-RateLimit-Remaining": "3", "X-RateLimit-Reset": "2100-01-01T00:00:00Z"}
    context = acting_as("erin@acme.example")
    async with jira(site) as call:
        with pytest.raises(CredentialRefused, match="scope does not match"):
            await call("user.me", context)
    assert context.record.limit is not None
    assert context.record.limit.remaining == 3
    assert isinstance(context.record.limit, RateLimit)


@pytest.mark.parametrize(
    "key",
    ["../../admin-1?x=1", "..%2f..%2fadmin-1", "IT-1/../x", "IT-1\n", "IT-1\x00", "IT\u20111", "\uff29\uff34-1",
     "IT-\u0661", "IT-1#", "IT-1%00", "", "IT-" + "1" * 50],
)  # fmt: skip
async def test_what_is_no_key_reaches_nobody(key: str) -> None:
    site = Answering()
    async with jira(site) as call:
        for name in CALLS:
            if "key" not in call.tools[name].parameters["properties"]:
                continue
            more = {"relation": "blocks", "other": "IT-2", "status": "x", "body": "x", "assignee": "me", "summary": "s"}
            with pytest.raises(Refused) as raised:
                await call(name, key=key, **more)
            assert not raised.value.asked
            if name in FINDS:
                with pytest.raises(Refused):
                    await call.find(name, key=key, **more)
        with pytest.raises(Refused):
            await call("issue.link", key="IT-1", relation="blocks", other=key)
        with pytest.raises(Refused):
            await call("project.issue_types", project=key)
    assert site.asked == []


@given(st.text(max_size=20))
def test_what_passes_as_a_key_is_one_part_of_a_path(text: str) -> None:
    for check in (issue_key, project_key):
        try:
            passed = check(text)
        except Refused:
            continue
        assert passed.isascii()
        assert not set(passed) & set("/\\%?#&.: \n\x00")


@pytest.mark.parametrize("value", [None, 5, ["IT-1"], {"key": "IT-1"}])
def test_a_key_is_a_text(value: object) -> None:
    with pytest.raises(Refused):
        issue_key(value)


async def test_a_missing_link_reaches_nobody() -> None:
    site = Answering()
    async with jira(site) as call:
        with pytest.raises(AccountNotLinked, match="No account is linked"):
            await call("issue.search", acting_as("carl@acme.example", token=""))
    assert site.asked == []


async def test_bodies_are_bounded_and_typed() -> None:
    site = Answering([(200, "x" * 1_100_000), (200, "<html>"), (200, "{")])
    async with jira(site) as call:
        with pytest.raises(SystemUnavailable, match="more than 1 MB"):
            await call("issue.get", key="IT-1")
        with pytest.raises(SystemUnavailable, match="broken JSON"):
            await call("issue.get", key="IT-1")
        site.content_type = "text/html"
        with pytest.raises(SystemUnavailable, match="text/html instead of JSON"):
            await call("issue.get", key="IT-1")


async def test_transition_by_name() -> None:
    listed = {"transitions": [{"id": "31", "name": "Close", "to": {"name": "Done"}}]}
    site = Answering([(200, listed), (204, ""), (200, listed), (200, {"transitions": []})])
    async with jira(site) as call:
        result = await call("issue.transition", key="IT-1", status="done")
        assert result.summary == "Moved IT-1 to Done."
        with pytest.raises(Refused, match="Possible: Done"):
            await call("issue.transition", key="IT-1", status="Nowhere")
        with pytest.raises(Refused, match="Transition Issues"):
            await call("issue.transition", key="IT-1", status="Done")
    assert site.asked[1].body == {"transition": {"id": "31"}}


async def test_what_a_write_reads_first_leaves_nothing_in_doubt() -> None:
    site = Answering([(503, {})] * 4)
    async with jira(site) as call:
        for name, more in (
            ("issue.transition", {"status": "Done"}),
            ("issue.assign", {"assignee": "me"}),
            ("issue.link", {"relation": "blocks", "other": "IT-2"}),
            ("issue.delete", {}),
        ):
            with pytest.raises(SystemUnavailable) as raised:
                await call(name, key="IT-1", **more)
            assert not raised.value.may_have_acted, name


async def test_edit_sets_the_named_fields_only() -> None:
    site = Answering([(204, ""), (204, "")])
    async with jira(site) as call:
        result = await call("issue.edit", key="it-1", summary=" new\ntitle ", labels=["a"])
        await call("issue.edit", key="IT-1", description="")
        with pytest.raises(Refused, match="Nothing was named"):
            await call("issue.edit", key="IT-1")
        with pytest.raises(Refused, match="takes no blanks"):
            await call("issue.edit", key="IT-1", labels=["a b"])
    assert (site.asked[0].method, site.asked[0].path) == ("PUT", f"{API}/issue/IT-1")
    assert site.asked[0].body == {"fields": {"summary": "new title", "labels": ["a"]}}
    assert site.asked[1].body == {"fields": {"description": None}}
    assert result.summary == "Changed labels, summary of IT-1."
    assert len(site.asked) == 2


async def test_an_edit_is_found_by_what_the_issue_holds() -> None:
    there = {
        "summary": "new",
        "description": adf.from_text("- a\n- b"),
        "priority": {"name": "High"},
        "labels": ["x", "y"],
    }
    site = Answering([(200, {"key": "IT-1", "fields": there})] * 5)
    same = {"summary": "new", "description": "- a\n- b", "priority": "high", "labels": ["y", "x"]}
    async with jira(site) as call:
        assert await call.find("issue.edit", key="IT-1", **same) is not None
        for name, other in (("summary", "old"), ("description", "c"), ("priority", "Low"), ("labels", ["x"])):
            assert await call.find("issue.edit", key="IT-1", **{**same, name: other}) is None


async def test_assign_resolves_a_person_among_those_who_can_have_it() -> None:
    mona = {"accountId": "712020:m", "displayName": "Mona Manager", "active": True}
    gone = {**mona, "accountId": "712020:g", "active": False}
    site = Answering([(200, [gone, mona]), (204, ""), (204, "")])
    async with jira(site) as call:
        result = await call("issue.assign", key="IT-1", assignee="Mona Manager")
        await call("issue.assign", key="IT-1", assignee="Nobody")
        assert result.summary == "Assigned IT-1 to Mona Manager."
        assert site.asked[0].path == f"{API}/user/assignable/search"
        assert site.asked[0].query == {"query": "Mona Manager", "maxResults": "20", "issueKey": "IT-1"}
        assert (site.asked[1].path, site.asked[1].body) == (f"{API}/issue/IT-1/assignee", {"accountId": "712020:m"})
        assert site.asked[2].body == {"accountId": None}
        site.answers = [(200, [{**mona, "displayName": "Mona A"}, {**mona, "displayName": "Mona B"}]), (200, [])]
        with pytest.raises(Refused, match=r"Several people.*Mona A, Mona B"):
            await call("issue.assign", key="IT-1", assignee="Mona")
        with pytest.raises(Refused, match=r"nobody called “Zoe” to whom IT-1.*Assign Issues"):
            await call("issue.assign", key="IT-1", assignee="Zoe")


TYPES = {
    "issueLinkTypes": [
        {"id": "1", "name": "Blocks", "inward": "is blocked by", "outward": "blocks"},
        {"id": "2", "name": "Relates", "inward": "relates to", "outward": "relates to"},
    ]
}


@pytest.mark.parametrize(
    ("relation", "kind", "source", "target"),
    [
        ("Blocks", "Blocks", "IT-1", "IT-2"),
        ("is  blocked by", "Blocks", "IT-2", "IT-1"),
        ("relates to", "Relates", "IT-1", "IT-2"),
    ],
)
async def test_links_are_named_as_people_say_them(relation: str, kind: str, source: str, target: str) -> None:
    site = Answering([(200, TYPES), (201, "")])
    async with jira(site) as call:
        result = await call("issue.link", key="IT-1", relation=relation, other="it-2")
    assert site.asked[1].body == {
        "type": {"name": kind},
        "inwardIssue": {"key": source},
        "outwardIssue": {"key": target},
    }
    assert result.data == {"key": source, "url": result.citations[0].url}


async def test_an_unknown_relation_names_the_known_ones() -> None:
    site = Answering([(200, TYPES)])
    async with jira(site) as call:
        with pytest.raises(Refused, match="Possible: blocks, is blocked by, relates to"):
            await call("issue.link", key="IT-1", relation="eats", other="IT-2")


async def test_a_deleted_issue_is_one_that_is_gone() -> None:
    gone = (404, {"errorMessages": ["Issue does not exist or you do not have permission to see it."]})
    there = (200, {"key": "IT-1", "fields": {"summary": "old"}})
    site = Answering([there, (204, ""), gone, there, (403, {}), (401, {})])
    async with jira(site) as call:
        assert (await call("issue.delete", key="IT-1")).summary == "Deleted IT-1 from Jira: old"
        assert (site.asked[1].method, site.asked[1].query) == ("DELETE", {"deleteSubtasks": "false"})
        assert await call.find("issue.delete", key="IT-1") is not None
        assert await call.find("issue.delete", key="IT-1") is None
        for error in (Refused, CredentialRefused):
            with pytest.raises(error):
                await call.find("issue.delete", key="IT-1")


async def test_links_lead_to_the_site_even_through_atlassians_gateway() -> None:
    issue = {"key": "IT-1", "id": "1", "fields": {}}
    site = Answering([(200, {"baseUrl": "https://acme.atlassian.net/"}), (200, issue), (200, issue)])
    async with jira(site, path="/ex/jira/11223344-a1b2-3b33-c444-def123456789") as call:
        first = await call("issue.get", key="IT-1")
        second = await call("issue.get", key="IT-1")
    assert [c.url for r in (first, second) for c in r.citations] == ["https://acme.atlassian.net/browse/IT-1"] * 2
    assert site.asked[0].path == "/ex/jira/11223344-a1b2-3b33-c444-def123456789/rest/api/3/serverInfo"
    assert len(site.asked) == 3
    site = Answering([(500, {}), (200, issue), (200, {"baseUrl": "javascript:alert(1)"}), (200, issue)])
    async with jira(site, path="/ex/jira/x") as call:
        for _ in range(2):
            result = await call("issue.get", key="IT-1")
            assert result.citations == ()
            assert result.data["url"] == ""


@pytest.mark.parametrize(
    ("said", "site"),
    [
        ({"baseUrl": "https://acme.atlassian.net"}, "https://acme.atlassian.net"),
        ({"baseUrl": "https://acme.atlassian.net/x?y#z"}, "https://acme.atlassian.net"),
        ({"baseUrl": "javascript:alert(1)"}, None),
        ({"baseUrl": "https://acme.atlassian.net@evil.example"}, None),
        ({"baseUrl": "https://[::1"}, None),
        ({"baseUrl": 7}, None),
        ([], None),
        (None, None),
    ],
)
def test_only_a_plain_address_becomes_a_link(said: object, site: str | None) -> None:
    assert site_in(said) == site
    assert site_of("https://acme.atlassian.net") == "https://acme.atlassian.net"
    assert site_of("https://api.atlassian.com/ex/jira/1") is None


async def test_the_probe_takes_a_refusal_as_a_sign_of_life() -> None:
    site = Answering([(200, {}), (401, {}), (503, {}), (429, {})])
    async with jira(site) as call:
        await call.connector.probe()
        await call.connector.probe()
        for _ in range(2):
            with pytest.raises(SystemUnavailable):
                await call.connector.probe()
    assert all("Authorization" not in asked.headers for asked in site.asked)


@given(st.text())
def test_no_text_leaves_its_quotes(text: str) -> None:
    quoted = jql.quote(text)
    inner = quoted[1:-1]
    assert '"' not in inner.replace("\\\\", "").replace('\\"', "")
    assert "\n" not in quoted
    query = jql.search(text=text, project=text, mine=False, open_only=True)
    assert query.endswith("statusCategory != Done ORDER BY updated DESC")


def test_an_empty_query_is_restricted() -> None:
    assert jql.search(text="", project="", mine=False, open_only=False).startswith("updated >= ")


def _texts(node: Any) -> list[Any]:
    found = [node] if node.get("type") == "text" else []
    for child in node.get("content", []):
        found.extend(_texts(child))
    return found


MARKDOWN = st.text(alphabet=st.sampled_from("ab *`#->[]()1.\n\\/:htps\u0000\u2028@"), max_size=120)


@given(MARKDOWN | st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=200))
def test_whatever_is_written_is_a_document_that_jira_takes(text: str) -> None:
    document = adf.from_text(text)
    assert stand_in_adf.valid(document)
    for node in _texts(document):
        assert all(c in "\n\t" or c >= " " for c in node["text"])
        for mark in node.get("marks", []):
            assert mark["type"] in ("code", "strong", "link")
            assert mark["type"] != "link" or mark["attrs"]["href"].startswith(("http://", "https://", "mailto:"))


@pytest.mark.parametrize(
    ("text", "back"),
    [
        ("one\ntwo\n\nthree", "one\ntwo\nthree"),
        ("# Title\ntext", "Title\ntext"),
        ("- a\n* b\n\n1. c\n2) d", "- a\n- b\n1. c\n2. d"),
        ("```python\nif x:\n    y\n```\nafter", "if x:\n    y\nafter"),
        ("```\nnever closed", "never closed"),
        ("> said\n> twice", "> said\ntwice"),
        ("see [the page](https://x.example/a?b=1) or https://y.example.", "see the page (https://x.example/a?b=1) or https://y.example."),
        ("**bold** and `code` and @mona", "bold and code and @mona"),
        ("[x](javascript:alert(1)) a*b*c 2 * 3 * 4", "[x](javascript:alert(1)) a*b*c 2 * 3 * 4"),
        ("", ""),
    ],
)  # fmt: skip
def test_text_comes_back(text: str, back: str) -> None:
    assert adf.to_text(adf.from_text(text)) == back


def _node(kind: str, *content: Any, **attributes: Any) -> dict[str, Any]:
    return {
        "type": kind,
        **({"content": list(content)} if content else {}),
        **({"attrs": attributes} if attributes else {}),
    }


def test_every_kind_of_node_gives_its_words() -> None:
    def words(text: str) -> dict[str, Any]:
        return _node("paragraph", {"type": "text", "text": text})

    document = _node(
        "doc",
        _node("panel", words("panel"), panelType="info"),
        _node("paragraph", _node("mention", id="1", text="@Mona"), _node("emoji", shortName=":smile:")),
        _node("paragraph", _node("date", timestamp="1790000000000"), _node("status", text="LATE")),
        _node("table", _node("tableRow", _node("tableHeader", words("h")), _node("tableCell", words("c")))),
        _node("taskList", _node("taskItem", {"type": "text", "text": "t"}, state="DONE")),
        _node("expand", words("inside"), title="More"),
        _node("mediaSingle", _node("media", alt="plan.png")),
        _node("rule"),
        _node("blockCard", url="https://x.example"),
        _node("somethingNew", words("kept"), {"type": "alsoNew", "text": "kept, too"}),
    )
    shown = adf.to_text(document)
    for word in ("panel", "@Mona", ":smile:", "2026-09-21", "[LATE]", "h\n| c", "[x] t", "More\ninside", "[plan.png]",
                 "---", "https://x.example", "kept", "kept, too"):  # fmt: skip
        assert word in shown, shown


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "content", "text", "attrs", "marks", "timestamp"]), inner, max_size=5
        )
    ),
    max_leaves=20,
)


@given(JSON)
def test_no_document_breaks_the_reader(document: Any) -> None:
    assert isinstance(adf.to_text(document, 100), str)
    assert len(adf.to_text({"type": "doc", "content": [document] * 50}, 100)) <= 100


def test_a_deep_document_ends() -> None:
    document: dict[str, Any] = {"type": "text", "text": "x"}
    for _ in range(5000):
        document = {"type": "paragraph", "content": [document]}
    assert adf.to_text(document) == ""


async def test_a_lookup_that_cant_tell_does_not_say_no() -> None:
    site = Answering()
    hidden = {"comments": [{"id": "1", "body": "x"}]}
    site.answers = [(200, {"nonsense": True}), (200, hidden), (200, {"comments": []}), (404, {})]
    async with jira(site) as call:
        for said in ("can't be read", "does not tell"):
            with pytest.raises(SystemUnavailable, match=said):
                await call.find("issue.comment", key="IT-1", body="b")
        assert await call.find("issue.comment", key="IT-1", body="b") is None
        with pytest.raises(Refused):
            await call.find("issue.comment", key="IT-1", body="b")
        with pytest.raises(Refused):
            await call.find("issue.comment", key="IT-1\n", body="b")


async def test_a_transition_that_was_named_is_found_by_the_status_it_leads_to() -> None:
    site = Answering()
    done, todo = ({"key": "IT-1", "fields": {"status": {"name": name}}} for name in ("Done", "To Do"))
    listed = {"transitions": [{"id": "31", "name": "Close", "to": {"name": "Done"}}]}
    site.answers = [
        (200, done),
        (200, done),
        (200, listed),
        (200, todo),
        (200, listed),
        (200, done),
        (200, {"transitions": []}),
    ]
    async with jira(site) as call:
        assert await call.find("issue.transition", key="IT-1", status="done")
        assert await call.find("issue.transition", key="IT-1", status="close")
        assert await call.find("issue.transition", key="IT-1", status="Close") is None
        with pytest.raises(SystemUnavailable, match="does not tell"):  # not offered: it may have been carried out
            await call.find("issue.transition", key="IT-1", status="Close")


def test_what_absence_proves() -> None:
    tools = {tool.name: tool.lookup for tool in jira_tools("jira") if tool.effect is not Effect.READ}
    assert tools == {
        "jira.issue.create": Lookup.EVENTUAL,
        **{
            f"jira.issue.{verb}": Lookup.AUTHORITATIVE
            for verb in ("edit", "assign", "comment", "transition", "link", "delete")
        },
    }


def test_every_tool_is_served_and_every_write_can_be_looked_up() -> None:
    tools = {tool.name.removeprefix("jira."): tool for tool in jira_tools("jira")}
    assert set(CALLS) == set(tools)
    assert set(FINDS) == {name for name, tool in tools.items() if tool.lookup is not Lookup.NONE}
    assert {name for name, tool in tools.items() if tool.effect is Effect.DESTRUCTIVE} == {"issue.delete"}
