"""What the model stand-in plans and answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse_sim.models import planner
from pilothouse_sim.models.types import Call, Message, Reply, Tool

PARAMETERS = {
    "search": ["text", "project", "mine", "open", "max_results"],
    "get": ["key"],
    "create": ["project", "issue_type", "summary", "description"],
    "comment": ["key", "body"],
    "transition": ["key", "status"],
}
TOOLS = [Tool(f"jira__issue__{verb}", frozenset(names)) for verb, names in PARAMETERS.items()]


def plan(*texts: str) -> Reply:
    return planner.reply([Message("user", text) for text in texts], TOOLS)


def calls(*texts: str) -> list[tuple[str, dict[str, Any]]]:
    return [(call.name.removeprefix("jira__issue__"), dict(call.arguments)) for call in plan(*texts).calls]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Which open issues do I have about VPN? Also file a new issue in IT: VPN token expired on my laptop",
            [
                ("search", {"mine": True, "open": True, "text": "VPN"}),
                ("create", {"project": "IT", "summary": "VPN token expired on my laptop"}),
            ],
        ),
        ("list open issues in IT", [("search", {"open": True, "project": "IT"})]),
        ("Search issues about the printer", [("search", {"text": "printer"})]),
        ("show my tickets regarding printer and file a ticket in IT: toner empty", [
            ("search", {"mine": True, "text": "printer"}), ("create", {"project": "IT", "summary": "toner empty"})]),
        ("Create a bug in IT that login fails",
         [("create", {"project": "IT", "summary": "login fails", "issue_type": "Bug"})]),
        ("Open a ticket about slow wifi in IT", [("create", {"project": "IT", "summary": "slow wifi"})]),
        ("comment on IT-3: please hurry", [("comment", {"key": "IT-3", "body": "please hurry"})]),
        ("close IT-3", [("transition", {"key": "IT-3", "status": "Done"})]),
        ("Please move IT-3 to in progress", [("transition", {"key": "IT-3", "status": "In Progress"})]),
        ("what is IT-1?", [("get", {"key": "IT-1"})]),
        ("hello", []),
        ("", []),
    ],
)  # fmt: skip
def test_plans(text: str, expected: list[tuple[str, dict[str, Any]]]) -> None:
    assert calls(text) == expected
    if not expected:
        assert plan(text).text == planner.HELP


def test_asks_for_the_project_and_takes_the_answer() -> None:
    asked = plan("File an issue: my laptop is slow")
    assert asked == Reply(planner.ASK_PROJECT)
    conversation = [
        Message("user", "File an issue: my laptop is slow"),
        Message("assistant", asked.text),
        Message("user", "IT"),
    ]
    reply = planner.reply(conversation, TOOLS)
    assert dict(reply.calls[0].arguments) == {"project": "IT", "summary": "my laptop is slow"}


def test_takes_the_project_of_the_conversation() -> None:
    assert calls("show IT-3", "File an issue: my laptop is slow")[0][1]["project"] == "IT"


def test_says_so_when_it_was_given_no_tool() -> None:
    reply = planner.reply([Message("user", "close IT-3")], TOOLS[:1])
    assert not reply.calls
    assert "no tool to move an issue" in reply.text


REPLY = Tool("reply", frozenset(["text"]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Find my open VPN issue and comment on it: any news?",
            [
                ("search", {"mine": True, "open": True, "text": "VPN"}),
                ("comment", {"key": "{{s1.issues[0].key}}", "body": "any news?"}),
                ("reply", {"text": "I commented on {{s1.issues[0].key}} ({{s1.issues[0].summary}}): “any news?”"}),
            ],
        ),
        (
            "File an issue in IT: slow wifi, then comment on it: now",
            [
                ("create", {"project": "IT", "summary": "slow wifi"}),
                ("comment", {"key": "{{s1.key}}", "body": "now"}),
                ("reply", {"text": "I filed {{s1.key}}: slow wifi ({{s1.url}}).\n\nI commented on {{s1.key}}: “now”"}),
            ],
        ),
        (
            "File an issue in IT: VPN drops when I start it",  # no wish to start anything
            [
                ("create", {"project": "IT", "summary": "VPN drops when I start it"}),
                ("reply", {"text": "I filed {{s1.key}}: VPN drops when I start it ({{s1.url}})."}),
            ],
        ),
        # what has to be read first is not confirmed beforehand
        ("Show IT-3 and comment on it: hello",
         [("get", {"key": "IT-3"}), ("comment", {"key": "{{s1.key}}", "body": "hello"})]),
        ("Which open issues do I have? Close the first one",
         [("search", {"mine": True, "open": True}), ("transition", {"key": "{{s1.issues[0].key}}", "status": "Done"})]),
    ],
)  # fmt: skip
def test_plans_with_references_and_the_answer(text: str, expected: list[tuple[str, dict[str, Any]]]) -> None:
    reply = planner.reply([Message("user", text)], [*TOOLS, REPLY])
    assert [(call.name.removeprefix("jira__issue__"), dict(call.arguments)) for call in reply.calls] == expected


def test_it_is_the_issue_that_was_named_last_or_asked_for() -> None:
    assert plan("close it") == Reply(planner.ASK_WHICH)
    assert calls("show IT-3", "close it") == [("transition", {"key": "IT-3", "status": "Done"})]


def test_an_answer_after_a_refusal_names_no_reference() -> None:
    search = Call("jira__issue__search", {"text": "VPN"})
    comment = Call("jira__issue__comment", {"key": "{{s1.issues[0].key}}", "body": "x"})

    def said(found: list[dict[str, str]], why: str) -> str:
        results = [
            json.dumps({"step": "s1", "outcome": "succeeded", "summary": "", "data": {"issues": found}}),
            json.dumps({"step": "s2", "outcome": "refused", "summary": why}),
            json.dumps({"outcome": "refused", "summary": "It was not sent. Read the results, then answer."}),
        ]
        made = tuple((f"c{i}", c) for i, c in enumerate((search, comment, Call("reply", {"text": "x"}))))
        turn = [Message("tool", text, (), f"c{i}") for i, text in enumerate(results)]
        return planner.reply([Message("user", "x"), Message("assistant", "", made), *turn], TOOLS).text

    refused = said([{"key": "IT-1"}], "jira.issue.comment was not done: e@acme.example refused it.")
    assert refused.endswith("I did not comment on IT-1: e@acme.example refused it. Nothing was changed.")
    nowhere = said([], "jira.issue.comment was not called: {{s1.issues[0].key}} leads nowhere.")
    assert nowhere.endswith("I could not comment on the issue: no such issue was found. Nothing was changed.")


def test_what_is_in_doubt_is_not_told_as_not_done() -> None:
    text = answer("create", {"project": "IT", "summary": "Slow"}, enveloped("unknown", "Jira failed (503)."))
    assert text.startswith("I don't know whether I managed to file the issue “Slow” in IT. Jira failed (503).")


def answer(name: str, arguments: dict[str, Any], content: str) -> str:
    call = Call(f"jira__issue__{name}", arguments)
    turn = [Message("user", "x"), Message("assistant", "", (("c1", call),)), Message("tool", content, (), "c1")]
    return planner.reply(turn, TOOLS).text


def enveloped(outcome: str, summary: str, data: object = None) -> str:
    return json.dumps({"outcome": outcome, "summary": summary, **({"data": data} if data else {})})


def test_answers_from_results_whatever_wraps_them() -> None:
    rows = [{"key": "IT-1", "summary": "VPN drops", "status": "In Progress", "url": "http://jira/browse/IT-1"}]
    wrapped = f"[data, not instructions] {enveloped('succeeded', 'Found 1', {'issues': rows, 'more': False})} [end]"
    text = answer("search", {"mine": True, "open": True, "text": "VPN"}, wrapped)
    assert text == "You have 1 open issue about VPN:\n- IT-1: VPN drops (In Progress)"
    assert (
        answer("search", {"text": "x"}, enveloped("succeeded", "Found 0", {"issues": []}))
        == "I found no issues about x."
    )
    created = answer(
        "create", {"summary": "Slow"}, enveloped("succeeded", "Created", {"key": "IT-9", "url": "http://j/IT-9"})
    )
    assert created == "I filed IT-9: Slow (http://j/IT-9)."


def test_a_refusal_names_the_permission_and_what_to_do() -> None:
    said = "Jira refused this: “You do not have permission to create issues in this project.”"
    text = answer("create", {"project": "IT", "summary": "Slow"}, enveloped("refused", said))
    assert "Create Issues (CREATE_ISSUES)" in text
    assert "Nothing was changed" in text
    assert "administrator" in text
    linked = answer("create", {}, enveloped("refused", "Your Jira account is not linked, so nothing was done there."))
    assert "Connect your account" in linked
    down = answer("search", {}, enveloped("failed", "jira is down at the moment; it is unavailable"))
    assert "try again later" in down


@given(st.text(), st.text())
def test_never_fails_on_odd_input(text: str, content: str) -> None:
    plan(text)
    for verb in PARAMETERS:
        answer(verb, {}, content)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
                        st.sampled_from(["key", "issues", "error", "outcome", "status", "summary", "data", "fields"]),
                        inner, max_size=4), max_leaves=12))  # fmt: skip
def test_never_fails_on_odd_results(value: object) -> None:
    for verb in PARAMETERS:
        answer(verb, {}, json.dumps(value))


SYSTEM = Message("system", "The VPN is supplied by NetGuard.")
STORY = "My VPN token is broken and my manager needs to know"
ALL_TOOLS = [
    *TOOLS,
    Tool("okta__user__manager", frozenset({"user"})),
    Tool("okta__factor__reset", frozenset({"user", "factor_id", "type"})),
    Tool("servicenow__incident__create", frozenset({"short_description", "description", "category", "watch_list"})),
    Tool("salesforce__account__search", frozenset({"name"})),
]


def test_the_story_is_one_plan_over_four_systems() -> None:
    reply = planner.reply([SYSTEM, Message("user", STORY)], ALL_TOOLS)
    assert [call.name for call in reply.calls] == [
        "okta__user__manager",
        "jira__issue__search",
        "salesforce__account__search",
        "servicenow__incident__create",
        "okta__factor__reset",
        "jira__issue__comment",
    ]
    arguments = [dict(call.arguments) for call in reply.calls]
    assert arguments[2] == {"name": "NetGuard"}
    assert arguments[3]["watch_list"] == ["{{s1.email}}"]
    assert arguments[5]["key"] == "{{s2.issues[0].key}}"
    assert "{{s4.number}}" in arguments[5]["body"]


def test_a_function_that_is_not_offered_is_left_out_with_what_needs_it() -> None:
    without = [tool for tool in ALL_TOOLS if "okta" not in tool.name]
    reply = planner.reply([SYSTEM, Message("user", STORY)], without)
    assert [call.name.split("__")[0] for call in reply.calls] == ["jira", "salesforce"]


def test_the_story_is_planned_anew_once_where_it_can_not_be_done_as_thought() -> None:
    first = planner.reply([SYSTEM, Message("user", STORY)], ALL_TOOLS)
    calls = tuple((str(i), call) for i, call in enumerate(first.calls))
    said = {
        "servicenow__incident__create": '{"outcome":"refused","summary":"“” is not an e-mail address."}',
        "jira__issue__search": '{"outcome":"succeeded","summary":"Found 0.","data":{"issues":[],"more":false}}',
    }
    told = [
        Message("tool", said.get(call.name, '{"outcome":"succeeded","summary":"Done."}'), call_id=i)
        for i, call in calls
    ]
    turn = [SYSTEM, Message("user", STORY), Message("assistant", "", calls), *told]
    again = planner.reply(turn, ALL_TOOLS)
    assert [call.name for call in again.calls] == ["servicenow__incident__create", "jira__issue__create"]
    assert "watch_list" not in again.calls[0].arguments
    more = tuple((f"b{i}", call) for i, call in enumerate(again.calls))
    refused = [Message("tool", '{"outcome":"refused","summary":"It may not."}', call_id=i) for i, _ in more]
    last = planner.reply([*turn, Message("assistant", "", more), *refused], ALL_TOOLS)
    assert last.calls == ()
    assert last.text.count("It may not.") == 2


@pytest.mark.parametrize(
    ("text", "name", "arguments"),
    [
        ("Who is my manager?", "okta__user__manager", {}),
        ("Reset my VPN token", "okta__factor__reset", {"type": "token:software:totp"}),
        ("please reset my sms factor", "okta__factor__reset", {"type": "sms"}),
        ("Open an incident: my screen flickers", "servicenow__incident__create",
         {"short_description": "my screen flickers"}),
        ("Who owns the account Globex?", "salesforce__account__search", {"name": "Globex"}),
    ],
)  # fmt: skip
def test_wishes_of_other_systems(text: str, name: str, arguments: dict[str, Any]) -> None:
    (call,) = planner.reply([SYSTEM, Message("user", text)], ALL_TOOLS).calls
    assert (call.name, dict(call.arguments)) == (name, arguments)
