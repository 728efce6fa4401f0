from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from pilothouse_api.workerconfig import ApprovalRule, BreakerConfig, ConnectorConfig, SecretValue, ServiceAccountConfig
from pilothouse_dataplane.connectors.base import CallContext, Refused, SystemUnavailable
from pilothouse_dataplane.connectors.toolset import Settled, Toolset
from pilothouse_dataplane.core.guard import GuardRegistry
from pilothouse_dataplane.core.messages import Approver, By, Lookup, Outcome, Tool, ToolResult
from pilothouse_testing.fakes import ECHO, WRITE, FakeConnector

THING = {"name": "a"}
READER = ServiceAccountConfig(token=SecretValue(secret="reader", key="token"))
CUT = SystemUnavailable("It broke off.", may_have_acted=True)
REFUSED_CONNECTION = SystemUnavailable("It can't be reached.", may_have_acted=False)
DONE = ToolResult(Outcome.SUCCEEDED, "Done.")
PROVEN = replace(WRITE, lookup=Lookup.AUTHORITATIVE)
LAGGING = replace(WRITE, lookup=Lookup.EVENTUAL)
BLIND = replace(WRITE, lookup=Lookup.NONE)


class Scripted(FakeConnector):
    """Plays answers to calls and to look-ups; the last one repeats."""

    def __init__(self, *answers: ToolResult | Exception, finds: tuple[ToolResult | Exception | None, ...] = ()) -> None:
        super().__init__(self._next)
        self._answers = list(answers)
        self._finds = list(finds)
        self.looks = 0

    def _next(self, tool: Tool, arguments: Mapping[str, Any]) -> ToolResult | Exception:
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]

    async def find_by_key(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext) -> ToolResult | None:
        assert (context.user_email, context.key) == ("erin@acme.example", "run/s1")
        self.looks += 1
        found = self._finds.pop(0) if len(self._finds) > 1 else self._finds[0]
        if isinstance(found, Exception):
            raise found
        return found


def toolset(connector: FakeConnector, **options: Any) -> Toolset:
    options = {"timeout_seconds": 0.3, **options}
    config = ConnectorConfig(name="fake", type="openapi", url="http://x", **{"auth_mode": "UserOAuth", **options})
    guards = GuardRegistry(time.monotonic)
    return Toolset({"fake": (config, connector)}, guards, clock=time.monotonic, random=lambda: 0.0)


def erin(seconds: float = 5) -> CallContext:
    return CallContext("erin@acme.example", "run/s1", time.monotonic() + seconds)


@pytest.mark.parametrize(
    ("tool", "answers", "finds", "outcome", "calls", "sent"),
    [
        pytest.param(ECHO, (CUT,), (), Outcome.FAILED, 3, True, id="a read is tried again"),
        pytest.param(ECHO, (CUT, DONE), (), Outcome.SUCCEEDED, 2, True, id="until it works"),
        pytest.param(WRITE, (REFUSED_CONNECTION,), (), Outcome.FAILED, 3, False, id="a write that never left is, too"),
        pytest.param(PROVEN, (CUT,), (DONE,), Outcome.SUCCEEDED, 1, True, id="a write that is found is done"),
        pytest.param(PROVEN, (CUT,), (None, DONE), Outcome.SUCCEEDED, 1, True, id="found later"),
        pytest.param(PROVEN, (CUT, DONE), (None,), Outcome.SUCCEEDED, 2, True, id="proven absent: sent again"),
        pytest.param(PROVEN, (CUT,), (None,), Outcome.FAILED, 3, True, id="proven absent each time: not done"),
        pytest.param(PROVEN, (CUT, DONE), (CUT,), Outcome.UNKNOWN, 1, True, id="can't be looked up: in doubt"),
        pytest.param(PROVEN, (CUT, DONE), (Refused("No."),), Outcome.UNKNOWN, 1, True, id="may not be looked up"),
        pytest.param(LAGGING, (CUT, DONE), (None,), Outcome.UNKNOWN, 1, True, id="search may lag: never sent again"),
        pytest.param(LAGGING, (CUT,), (None, DONE), Outcome.SUCCEEDED, 1, True, id="search may lag, but finds it"),
        pytest.param(BLIND, (CUT, DONE), (), Outcome.UNKNOWN, 1, True, id="no way to look: in doubt"),
        pytest.param(PROVEN, (ValueError("a defect"), DONE), (DONE,), Outcome.SUCCEEDED, 1, True, id="our own defect"),
        pytest.param(WRITE, (Refused("You may not."),), (), Outcome.REFUSED, 1, True, id="refused"),
        pytest.param(WRITE, (Refused("No link.", asked=False),), (), Outcome.REFUSED, 1, False, id="refused by us"),
    ],
)
async def test_what_is_sent_again(
    tool: Tool,
    answers: tuple[ToolResult | Exception, ...],
    finds: tuple[ToolResult | Exception | None, ...],
    outcome: Outcome,
    calls: int,
    sent: bool,
) -> None:
    connector = Scripted(*answers, finds=finds)
    report = await toolset(connector).call(tool, THING, erin())
    assert (report.result.outcome, len(connector.calls), report.attempts, report.sent) == (outcome, calls, calls, sent)
    assert {context.key for _, _, context in connector.calls} == {"run/s1"}
    if outcome is Outcome.UNKNOWN:
        assert "please check in Fake before you ask again" in report.result.summary
        assert "write thing" in report.result.summary


async def test_absence_is_proven_only_after_the_earlier_request_can_be_under_way_no_more() -> None:
    connector = Scripted(DONE, finds=(None,))
    began = time.monotonic()
    assert await toolset(connector, timeout_seconds=0.4).settle(PROVEN, THING, erin()) == Settled(None, absent=True)
    assert time.monotonic() - began >= 0.4
    assert connector.looks == 2
    short = await toolset(connector, timeout_seconds=5).settle(PROVEN, THING, erin(0.3))
    assert short == Settled(None, absent=False), "the deadline came before the proof"


async def test_a_lasting_failure_is_not_tried_again() -> None:
    connector = Scripted(SystemUnavailable("Its certificate is not valid.", may_have_acted=False, lasting=True))
    report = await toolset(connector).call(ECHO, THING, erin())
    assert (report.result.outcome, report.attempts) == (Outcome.FAILED, 1)


async def test_retry_after_is_waited_for_where_it_fits_in() -> None:
    busy = SystemUnavailable("Too many.", may_have_acted=False, retry_after=0.2)
    report = await toolset(Scripted(busy, DONE)).call(ECHO, THING, erin())
    assert report.result.outcome is Outcome.SUCCEEDED
    assert report.seconds >= 0.2
    report = await toolset(Scripted(busy, DONE)).call(ECHO, THING, erin(0.1))
    assert (report.result.outcome, report.attempts) == (Outcome.FAILED, 1)


async def test_calls_wait_for_a_place_and_no_longer_than_the_run_lasts() -> None:
    connector = FakeConnector(delay=0.1)
    tools = toolset(connector, concurrent_calls=2)
    began = time.monotonic()
    reports = await asyncio.gather(*(tools.call(ECHO, THING, erin()) for _ in range(6)))
    assert 0.3 <= time.monotonic() - began < 5
    assert {report.result.outcome for report in reports} == {Outcome.SUCCEEDED}
    slow = asyncio.gather(*(tools.call(ECHO, THING, erin()) for _ in range(2)))
    await asyncio.sleep(0)
    report = await tools.call(WRITE, THING, erin(0.02))
    assert (report.result.outcome, report.attempts, report.sent) == (Outcome.FAILED, 0, False)
    assert "too many calls" in report.result.summary
    await slow


async def test_the_runs_end_ends_a_call_and_is_no_failure_of_the_system() -> None:
    tools = toolset(FakeConnector(delay=5), breaker=BreakerConfig(window=2, minimum_calls=1))
    report = await tools.call(ECHO, THING, erin(0.05))
    assert (report.result.outcome, report.breaker_state) == (Outcome.FAILED, "closed")
    report = await tools.call(BLIND, THING, erin(0.05))
    assert report.result.outcome is Outcome.UNKNOWN
    report = await tools.call(BLIND, THING, erin(-1))
    assert (report.result.outcome, report.sent) == (Outcome.FAILED, False)


async def test_an_open_breaker_is_told_and_refusals_dont_open_it() -> None:
    breaker = BreakerConfig(window=4, minimum_calls=2)
    connector = Scripted(REFUSED_CONNECTION)
    tools = toolset(connector, breaker=breaker)
    report = await tools.call(WRITE, THING, erin())
    assert (len(connector.calls), report.breaker_state, report.sent) == (2, "open", False)
    assert "Fake is down at the moment" in report.result.summary
    connector = Scripted(Refused("You may not."))
    tools = toolset(connector, breaker=breaker)
    for _ in range(5):
        assert (await tools.call(ECHO, THING, erin())).result.outcome is Outcome.REFUSED
    assert len(connector.calls) == 5


async def test_a_write_in_doubt_is_looked_up_though_the_breaker_is_open() -> None:
    connector = Scripted(CUT, finds=(DONE,))
    report = await toolset(connector, breaker=BreakerConfig(window=1, minimum_calls=1)).call(PROVEN, THING, erin())
    assert (report.result.outcome, report.breaker_state) == (Outcome.SUCCEEDED, "open")


async def test_results_are_made_plain() -> None:
    deep: Any = "bottom"
    for _ in range(500):
        deep = [deep]
    result = ToolResult(Outcome.SUCCEEDED, "a\x00b", {"deep": deep, "nul": "\x00x", "nan": float("nan"), "n": 1})
    report = await toolset(Scripted(result)).call(ECHO, THING, erin())
    assert report.result.summary == "ab"
    assert isinstance(report.result.data, dict)
    assert (report.result.data["nul"], report.result.data["nan"], report.result.data["n"]) == ("x", None, 1)
    assert str(report.result.data["deep"]).count("[") < 30


def test_the_allow_list_and_read_only_accounts_hide_tools() -> None:
    assert [t.name for t in toolset(FakeConnector(), auth_mode="ServiceAccount", service_account=READER).tools] == [
        "fake.thing.read"
    ]
    assert [t.name for t in toolset(FakeConnector(), allow=("thing.w*",)).tools] == ["fake.thing.write"]


def test_the_first_rule_that_matches_says_who_approves() -> None:
    rules = (
        ApprovalRule(match="thing.write", by="Group", group="it"),
        ApprovalRule(match="thing.*", by="Manager"),
        ApprovalRule(match="*", by="User"),
    )
    approvers = {tool.name: tool.approver for tool in toolset(FakeConnector(), approvals=rules).tools}
    assert approvers == {"fake.thing.read": Approver(By.MANAGER), "fake.thing.write": Approver(By.GROUP, "it")}
    assert toolset(FakeConnector(), approvals=rules[:1]).tools[0].approver is None
