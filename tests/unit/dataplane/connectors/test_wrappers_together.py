"""All wrappers in their order, through the toolset: as whom, what is shown, what is discovered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from pilothouse_api.workerconfig import ConnectorConfig, OAuthConfig, SecretValue
from pilothouse_dataplane.connectors.base import (
    AccountNotLinked,
    CallContext,
    CredentialRefused,
    CredentialUnavailable,
    Refused,
    SystemUnavailable,
)
from pilothouse_dataplane.connectors.toolset import Toolset
from pilothouse_dataplane.connectors.wrappers.audit import AuditRecord
from pilothouse_dataplane.core.guard import GuardRegistry
from pilothouse_dataplane.core.messages import Citation, Effect, Lookup, Outcome, Tool, ToolResult
from pilothouse_testing.fakes import ECHO, WRITE, FakeConnector, FakeSource

THING = {"name": "a"}
APP = OAuthConfig(client_id=SecretValue(secret="app", key="client-id"))


class Kept:
    def __init__(self) -> None:
        self.entries: list[AuditRecord] = []

    def record(self, entry: AuditRecord) -> None:
        self.entries.append(entry)


def erin(seconds: float = 5, user: str = "erin@acme.example") -> CallContext:
    return CallContext(user, "run/s1", time.monotonic() + seconds)


def toolset(connector: FakeConnector, source: FakeSource | None = None, **options: Any) -> Toolset:
    base = {"name": "fake", "type": "openapi", "url": "http://x", "auth_mode": "UserOAuth", "timeout_seconds": 0.2}
    config = ConnectorConfig.model_validate({**base, **options})
    return Toolset(
        {"fake": (config, connector)},
        GuardRegistry(time.monotonic),
        clock=time.monotonic,
        random=lambda: 0.0,
        sources={"fake": source} if source is not None else {},
        audit=Kept(),
        link_url=lambda name: f"https://agents.example/accounts?connect={name}" if config.oauth == APP else "",
        tenant="acme",
    )


def audit(made: Toolset) -> list[AuditRecord]:
    return made.connectors["fake"]._sink.entries  # type: ignore[attr-defined, no-any-return]


# --- as whom ----------------------------------------------------------------------------------------------------------
async def test_each_call_carries_its_own_users_token_and_names_the_account() -> None:
    connector = FakeConnector()
    source = FakeSource({"erin@acme.example": "t-erin", "carl@acme.example": "t-carl"})
    tools = toolset(connector, source)
    for user in ("erin", "carl"):
        report = await tools.call(ECHO, THING, erin(user=f"{user}@acme.example"))
        assert report.result.account == f"{user}@acme.example"
    assert [context.token.reveal() for _, _, context in connector.calls] == ["t-erin", "t-carl"]
    assert [entry.account for entry in audit(tools)] == ["erin@acme.example", "carl@acme.example"]
    assert all(context.deadline < float("inf") for _, _, context in connector.calls)


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (Refused("You may not."), Outcome.REFUSED),
        (SystemUnavailable("Broken.", may_have_acted=True, lasting=True), Outcome.UNKNOWN),
        (SystemUnavailable("Away.", may_have_acted=False, lasting=True), Outcome.FAILED),
    ],
)
async def test_refusals_and_failures_name_the_account_too(answer: Exception, outcome: Outcome) -> None:
    connector = FakeConnector(lambda tool, given: answer)
    source = FakeSource({"erin@acme.example": "t"}, account="service account reporting")
    report = await toolset(connector, source).call(replace(WRITE, lookup=Lookup.NONE), THING, erin())
    assert (report.result.outcome, report.result.account) == (outcome, "service account reporting")


async def test_a_write_that_was_found_names_the_account() -> None:
    connector = FakeConnector(found=ToolResult(Outcome.SUCCEEDED, "It is there."))
    settled = await toolset(connector, FakeSource({"erin@acme.example": "t"})).settle(WRITE, THING, erin())
    assert settled.result is not None
    assert settled.result.account == "erin@acme.example"


async def test_a_token_that_ran_out_is_renewed_once_and_the_write_is_sent_again() -> None:
    source = FakeSource({"erin@acme.example": "old"})
    source.fresh["erin@acme.example"] = "new"
    connector = FakeConnector()

    def answer(tool: Tool, given: Mapping[str, Any]) -> ToolResult | Exception:
        token = connector.calls[-1][2].token.reveal()
        return ToolResult(Outcome.SUCCEEDED, "Done.") if token == "new" else CredentialRefused("It ran out.")

    connector._answer = answer
    report = await toolset(connector, source).call(replace(WRITE, lookup=Lookup.NONE), THING, erin())
    assert (report.result.outcome, len(connector.calls), report.attempts) == (Outcome.SUCCEEDED, 2, 1)


# --- an account that is not linked ------------------------------------------------------------------------------------
async def test_who_has_no_account_is_told_where_to_link_it() -> None:
    connector = FakeConnector()
    report = await toolset(connector, FakeSource({}), oauth=APP).call(ECHO, THING, erin())
    url = "https://agents.example/accounts?connect=fake"
    assert report.result.outcome is Outcome.REFUSED
    assert url in report.result.summary
    assert report.result.citations == (Citation("Link your Fake account", url),)
    assert (report.result.account, report.sent, connector.calls) == ("", False, [])


async def test_who_can_not_link_it_alone_is_sent_nowhere() -> None:
    for options in ({}, {"oauth": OAuthConfig(accounts=SecretValue(secret="a", key="accounts.json"))}):
        report = await toolset(FakeConnector(), FakeSource({}), **options).call(ECHO, THING, erin())
        assert (report.result.outcome, report.result.citations) == (Outcome.REFUSED, ())
        assert "https://" not in report.result.summary
    # and without any source no call is made as nobody
    connector = FakeConnector()

    def answer(tool: Tool, given: Mapping[str, Any]) -> ToolResult:
        connector.calls[-1][2].token.reveal()
        raise AssertionError("there is a token")

    connector._answer = answer
    assert (await toolset(connector).call(ECHO, THING, erin())).result.outcome is Outcome.REFUSED


# --- the order --------------------------------------------------------------------------------------------------------
async def test_what_is_refused_early_costs_no_credential_and_is_in_the_record() -> None:
    source, connector = FakeSource({"erin@acme.example": "t"}), FakeConnector()
    tools = toolset(connector, source, deny=("thing.write",))
    assert (await tools.call(ECHO, {"name": 3}, erin())).result.outcome is Outcome.REFUSED
    wrapped = tools.connectors["fake"]
    with pytest.raises(Refused, match="does not allow"):
        await wrapped.call(WRITE, THING, erin())
    assert (source.asked, connector.calls) == ([], [])
    assert [(entry.outcome, entry.sent, entry.account) for entry in audit(tools)] == [("refused", False, "")] * 2
    gone = await tools.call(WRITE, THING, erin())
    assert (gone.result.outcome, gone.sent) == (Outcome.FAILED, False)


async def test_what_the_cache_serves_needs_no_system_no_token_and_no_turn() -> None:
    source, connector = FakeSource({"erin@acme.example": "t"}), FakeConnector()
    tools = toolset(
        connector, source, cache_seconds=60, requests_per_minute=1, breaker={"window": 1, "minimum_calls": 1}
    )
    first = await tools.call(ECHO, THING, erin())
    connector._answer = lambda tool, given: SystemUnavailable("Away.", may_have_acted=False)
    source.failing = CredentialUnavailable("The store is away.", may_have_acted=False)
    again = await tools.call(ECHO, THING, erin())
    assert (again.cached, again.attempts, again.result.data) == (True, 0, first.result.data)
    assert again.result.account == "erin@acme.example"
    other = await tools.call(ECHO, {"name": "b"}, erin(0.5))
    assert other.result.outcome is Outcome.FAILED
    assert "takes no more requests" in other.result.summary
    tools.forget("Erin@acme.example", "fake")
    assert not (await tools.call(ECHO, THING, erin(0.5))).cached
    tools.forget("erin@acme.example", "nowhere")


async def test_a_store_that_is_away_does_not_open_the_systems_breaker() -> None:
    source = FakeSource({"erin@acme.example": "t"})
    source.failing = CredentialUnavailable("The store is away.", may_have_acted=False)
    tools = toolset(FakeConnector(), source, breaker={"window": 2, "minimum_calls": 1}, attempts=1)
    for _ in range(4):
        report = await tools.call(ECHO, THING, erin())
        assert (report.result.summary, report.breaker_state, report.sent) == ("The store is away.", "closed", False)


# --- names ------------------------------------------------------------------------------------------------------------
def test_a_tool_that_takes_anothers_name_or_one_that_models_refuse_is_left_out() -> None:
    connector = FakeConnector()
    names = ["fake.a.b", "fake.a__b", "jira.issue.create", "fake", f"fake.{'x' * 60}", "fake.a b", "fake.ok"]
    connector.tools = tuple(replace(ECHO, name=name) for name in names)
    tools = toolset(connector)
    assert [tool.name for tool in tools.tools] == ["fake.a.b", "fake.ok"]
    assert (tools.count("fake"), tools.connector_of("fake.ok"), tools.connector_of("jira.issue.create")) == (
        2,
        "fake",
        "",
    )


# --- discovery --------------------------------------------------------------------------------------------------------
class Discovered(FakeConnector):
    """Knows no tools before it has asked; plays answers, the last one repeats."""

    def __init__(self, *answers: Exception | bool | float) -> None:
        super().__init__()
        self.tools: tuple[Tool, ...] = ()
        self.asked: list[CallContext | None] = []
        self._answers = list(answers)

    async def discover(self, context: CallContext | None) -> bool:
        self.asked.append(context)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        if not isinstance(answer, bool):
            await asyncio.sleep(answer)
        self.tools = (ECHO, replace(WRITE, effect=Effect.DESTRUCTIVE))
        return True


async def eventually(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.01)


async def test_tools_that_are_known_later_appear_without_a_restart_and_under_policy() -> None:
    connector = Discovered(SystemUnavailable("It can't be reached.", may_have_acted=False), True)
    tools = toolset(connector, deny=("thing.read",))
    assert tools.tools == ()
    await tools.start(wait=1)
    assert (tools.tools, tools.problem("fake")) == ((), "It can't be reached.")
    await eventually(lambda: tools.tools)
    assert [tool.name for tool in tools.tools] == ["fake.thing.write"]
    assert tools.tools[0].approver is not None
    assert (tools.problem("fake"), tools.prepared) == ("", True)
    assert tools.catalog.by_model_name["fake__thing__write"] == tools.tools[0]
    assert connector.asked == [None, None]
    await tools.aclose()


async def test_a_system_that_answers_users_only_is_asked_as_the_one_whose_run_begins() -> None:
    no = AccountNotLinked("Sign in.")
    connector, source = Discovered(no, no, True), FakeSource({"carl@acme.example": "bad", "erin@acme.example": "good"})
    tools = toolset(connector, source)
    await tools.start(wait=1)
    assert not tools.prepared
    for user in ("nobody", "carl", "carl"):
        await tools.prepare(erin(user=f"{user}@acme.example"))
        assert tools.tools == ()
    assert len(connector.asked) == 2, "a credential that did not do is not tried again at once"
    await tools.prepare(erin())
    assert len(tools.tools) == 2
    assert tools.prepared
    asked = connector.asked[-1]
    assert asked is not None
    assert asked.token.reveal() == "good"
    await tools.aclose()


async def test_a_run_does_not_wait_long_for_tools() -> None:
    tools = toolset(Discovered(60.0))
    began = time.monotonic()
    await tools.prepare(erin())
    assert time.monotonic() - began < 0.1, "not started: nothing to wait for"
    await tools.start()
    await tools.prepare(erin())
    assert 1.4 <= time.monotonic() - began < 3
    await tools.aclose()


async def test_a_defect_in_one_connectors_discovery_is_told_and_takes_nobody_along() -> None:
    tools = toolset(Discovered(KeyError("tools")))
    await tools.start(wait=1)
    assert "can't be read" in tools.problem("fake")
    await tools.prepare(erin())
    await tools.aclose()
