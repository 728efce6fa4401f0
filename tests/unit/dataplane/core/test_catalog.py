"""Which tools a model is shown, and how it asks for others."""

from __future__ import annotations

import time

import pytest

from pilothouse_dataplane.core import journal, run
from pilothouse_dataplane.core import state as flow
from pilothouse_dataplane.core.catalog import SHOWN, Catalog
from pilothouse_dataplane.core.messages import Effect, Message, Outcome, Tool, ToolCall, Usage
from pilothouse_dataplane.core.words import asked, clauses, known, stem, tokens, wishes, without_quotes

KEY = r"\b[A-Z]{2,10}-\d+\b"


def tool(name: str, what: str, effect: Effect = Effect.READ, **more: object) -> Tool:
    schema = {"type": "object", "properties": {"q": {"type": "string"}}, "additionalProperties": False}
    return Tool(name, what, schema, effect, **more)  # type: ignore[arg-type]


TOOLS = (
    tool("jira.issue.search", "Find Jira issues.", patterns=(KEY,)),
    tool("jira.issue.create", "Create a Jira issue.", Effect.WRITE),
    tool("jira.issue.comment", "Add a comment to an issue.", Effect.WRITE, patterns=(KEY,)),
    tool("okta.user.manager", "Who is a person's manager.", keywords=("boss",)),
    tool("okta.factor.reset", "Reset a sign-in factor.", Effect.DESTRUCTIVE, keywords=("vpn token",)),
    tool("okta.factor.list", "List sign-in factors."),
    tool("crm.account.search", "Find customers."),
    *(tool(f"books.ledger{i}.post", f"Post to ledger number {i} of the books.", Effect.WRITE) for i in range(30)),
)
CATALOG = Catalog(TOOLS, {"crm": "Salesforce"})


def shown(text: str, *earlier: str) -> set[str]:
    chosen = CATALOG.choose(text, earlier)
    assert len(chosen) <= SHOWN
    return {tool.name for tool in chosen}


@pytest.mark.parametrize(
    ("text", "needed"),
    [
        ("file a ticket in jira", {"jira.issue.create", "jira.issue.search"}),
        ("reset my VPN token and tell my boss", {"okta.factor.reset", "okta.factor.list", "okta.user.manager"}),
        ("IT-42: solved by a restart", {"jira.issue.comment", "jira.issue.search"}),
        ("who looks after Globex in Salesforce?", {"crm.account.search"}),
        ("post to ledger 7, then comment on the issue", {"books.ledger7.post", "jira.issue.comment"}),
    ],
)
def test_the_tools_of_each_wish_are_shown(text: str, needed: set[str]) -> None:
    assert needed <= shown(text)


@pytest.mark.parametrize(
    ("text", "needed"),
    [
        ("reset my authentcator", {"okta.factor.reset"}),  # a letter is missing
        ("who is Erin's superior?", {"okta.user.manager"}),  # another word for it
        ('comment on IT-42: "who is the manager of the sign-in factor?"', {"jira.issue.comment", "jira.issue.search"}),
    ],
)
def test_a_request_need_not_say_what_a_system_says(text: str, needed: set[str]) -> None:
    assert needed <= shown(text)


def test_every_word_of_the_vocabulary_can_be_asked_with_whatever_tools_there_are() -> None:
    for word in (*known(), "recuiters", "interviewerz"):
        assert len(CATALOG.choose(f"about {word}")) == SHOWN


def test_what_is_quoted_and_what_is_told_are_not_what_is_wanted() -> None:
    asked_for = asked("comment on IT-42 at 3pm, tell erin@acme.example, 40 euros")
    assert {"erin", "acm", "42", "40", "3", "euro"}.isdisjoint(asked_for.words)
    assert without_quotes('find "reset my password"') == "find  "
    assert without_quotes('"all of it"') == '"all of it"'
    assert wishes("comment on IT-1: it works") == ("comment on IT-1", "it works")
    assert wishes("two things: book a room") == ("two things: book a room", "")


@pytest.mark.parametrize(
    ("text", "does"),
    [
        ("open a ticket", {"create"}),
        ("who opened the ticket?", {"read"}),
        ("please approve it", {"decide"}),
        ("the last comment", set()),
        ("can you delete that", {"delete"}),
    ],
)
def test_a_clause_says_what_shall_be_done(text: str, does: set[str]) -> None:
    assert asked(text).actions == does


def test_a_tool_that_does_what_is_asked_comes_before_its_neighbours() -> None:
    tools = [
        tool(f"desk.{verb}Ticket", f"{verb} a ticket", Effect.WRITE) for verb in ("merge", "tag", "create", "close")
    ]
    filling = [tool(f"books.ledger{i}.post", f"Post to ledger {i}.", Effect.WRITE) for i in range(20)]
    assert Catalog([*tools, *filling]).choose("raise a ticket", limit=4)[0].name == "desk.createTicket"


def test_an_operation_brings_the_one_that_lists_what_it_needs() -> None:
    ids = {"type": "object", "properties": {"invoiceId": {"type": "string"}}, "required": ["invoiceId"]}
    tools = [
        Tool("erp.payInvoice", "Pay an invoice", ids, Effect.WRITE),
        Tool("erp.invoiceLines", "Lines of an invoice", ids, Effect.READ),
        Tool("erp.listInvoices", "List invoices", {"type": "object", "properties": {}}, Effect.READ),
        *(tool(f"books.ledger{i}.post", f"Pay into ledger {i}.", Effect.WRITE) for i in range(20)),
    ]
    assert "erp.listInvoices" in {one.name for one in Catalog(tools).choose("pay the invoice of Globex", limit=3)}


@pytest.mark.parametrize(
    "text", ["x" * 50_000, "a-" * 20_000, "a@" * 20_000, "1:" * 20_000, '"aa' * 15_000, " please," * 9000]
)
def test_a_hostile_request_costs_little(text: str) -> None:
    began = time.process_time()
    CATALOG.choose(text, (text, text))
    assert time.process_time() - began < 0.5


def test_a_short_wish_is_read_with_what_was_said_before() -> None:
    assert "jira.issue.comment" in shown("and add a comment to it", "which issues do I have?", "IT-3 and IT-4.")


@pytest.mark.parametrize("text", ["", "?!", "x" * 16_000, "и ещё", "a" * 5000 + " jira " * 500, "\x00\ud800"])
def test_odd_requests_are_dealt_something_and_never_too_much(text: str) -> None:
    assert len(CATALOG.choose(text)) <= SHOWN


def test_few_tools_are_all_shown_in_their_order() -> None:
    assert Catalog(TOOLS[:5]).choose("anything") == TOOLS[:5]
    assert Catalog(()).choose("anything") == ()


def test_words_are_brought_to_one_form() -> None:
    assert tokens("closeIssue, tickets_closed") == [stem("close"), stem("issue"), stem("tickets"), stem("closed")]
    assert stem("closed") == stem("closes") == stem("closing") == stem("close")
    assert stem("policies") == stem("policy")
    assert tokens("getSLOs, JQLSearch, put_files_id") == ["get", "slo", "jql", stem("search"), "put", "fil"]
    assert clauses("Reset it, and then tell my boss; thanks") == ["Reset it", "tell my boss", "thanks"]


def test_a_model_finds_what_it_was_not_shown_and_a_replay_shows_the_same() -> None:
    question = (Message("user", "post to ledger 3"),)
    limits, asking = flow.Limits(), flow.Asking("e@acme.example")
    state, actions = run.start("r", question, CATALOG, limits, asking, 30)
    (call,) = [action for action in actions if isinstance(action, flow.CallModel)]
    assert run.FIND in call.tools
    assert len(call.tools) == SHOWN + 2  # FIND and REPLY are the run's own
    assert not any(tool.name == "okta.factor.reset" for tool in call.tools)
    asked = ToolCall("c1", run.FIND.model_name, '{"words": "reset vpn token"}')
    state, actions = run.advance(state, flow.ModelFinished((asked,), Usage()), 1)
    (next_call,) = [action for action in actions if isinstance(action, flow.CallModel)]
    assert next_call.tools[0].name == "okta.factor.reset"
    assert "okta__factor__reset" in next_call.messages[-1].content
    records = [journal.encode(action.entry) for action in actions if isinstance(action, flow.Record)]
    again = journal.replay("r", journal.Opening(question), records, CATALOG, limits, asking, 30)
    assert [tool.name for tool in again.shown] == [tool.name for tool in state.shown]


def test_a_tool_that_was_not_shown_can_still_be_called() -> None:
    state, _ = run.start("r", (Message("user", "post"),), CATALOG, flow.Limits(), flow.Asking("e@acme.example"), 30)
    call = ToolCall("c1", "crm__account__search", "{}")
    state, actions = run.advance(state, flow.ModelFinished((call,), Usage()), 1)
    assert any(isinstance(action, flow.StartTool) for action in actions)


@pytest.mark.parametrize("arguments", ['{"words": ""}', "{}", '{"words": "{{s1.x}}"}', "nonsense"])
def test_looking_for_tools_in_a_broken_way_is_refused(arguments: str) -> None:
    state, _ = run.start("r", (Message("user", "post"),), CATALOG, flow.Limits(), flow.Asking("e@acme.example"), 30)
    before = state.shown
    state, _ = run.advance(state, flow.ModelFinished((ToolCall("c1", "tools__find", arguments),), Usage()), 1)
    (step,) = state.steps
    assert step.result is not None
    assert step.result.outcome is Outcome.REFUSED
    assert state.shown == before


def test_what_wrapped_instructions_say_of_a_request_belongs_to_it() -> None:
    advice = (
        "You help Acme's employees. With VPN trouble, add a comment to the Jira issue, and find the customer NetGuard. "
        "For payroll questions, reset a sign-in factor."
    )
    advised = Catalog(TOOLS, {"crm": "Salesforce"}, advice)
    names = {tool.name for tool in advised.choose("my VPN is broken")}
    assert {"jira.issue.comment", "crm.account.search"} <= names
    payroll = {tool.name for tool in advised.choose("a question about payroll", limit=4)}
    assert "okta.factor.reset" in payroll
    assert "okta.factor.reset" not in {tool.name for tool in CATALOG.choose("a question about payroll", limit=4)}
