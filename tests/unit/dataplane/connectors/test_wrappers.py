"""Each wrapper around a connector, by itself."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import structlog

from pilothouse_api.workerconfig import (
    ApprovalRule,
    ConnectorConfig,
    EffectRule,
    SecretValue,
    ServiceAccountConfig,
)
from pilothouse_dataplane.connectors.base import (
    CallContext,
    CallRecord,
    CredentialUnavailable,
    InDoubt,
    RateLimit,
    Refused,
    SecretText,
    SystemUnavailable,
)
from pilothouse_dataplane.connectors.wrappers.allow import WithAllowList
from pilothouse_dataplane.connectors.wrappers.approval import WithApprovals
from pilothouse_dataplane.connectors.wrappers.audit import AuditRecord, LogAudit, WithAudit
from pilothouse_dataplane.connectors.wrappers.breaker import WithBreaker
from pilothouse_dataplane.connectors.wrappers.cache import WithCache
from pilothouse_dataplane.connectors.wrappers.rate_limit import WithRateLimit
from pilothouse_dataplane.connectors.wrappers.retry import WithRetry
from pilothouse_dataplane.connectors.wrappers.validation import WithValidation
from pilothouse_dataplane.core.approvals import arguments_hash
from pilothouse_dataplane.core.breaker import BreakerSettings, BreakerState
from pilothouse_dataplane.core.guard import GuardRegistry
from pilothouse_dataplane.core.messages import Approver, By, Effect, Lookup, Outcome, Tool, ToolResult
from pilothouse_dataplane.core.retry import Backoff
from pilothouse_testing.fakes import ECHO, WRITE, FakeConnector

THING = {"name": "a"}
DELETE = replace(WRITE, name="fake.thing.delete", effect=Effect.DESTRUCTIVE)
DONE = ToolResult(Outcome.SUCCEEDED, "Done.", {"n": 1})
CUT = SystemUnavailable("It broke off.", may_have_acted=True)
AWAY = SystemUnavailable("It can't be reached.", may_have_acted=False)
READER = ServiceAccountConfig(token=SecretValue(secret="reader", key="token"))


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def who(user: str = "erin@acme.example", deadline: float = float("inf"), key: str = "run/s1") -> CallContext:
    return CallContext(user, key, deadline, record=CallRecord())


def config(**options: Any) -> ConnectorConfig:
    base = {"name": "fake", "type": "openapi", "url": "http://x", "auth_mode": "UserOAuth"}
    return ConnectorConfig.model_validate({**base, **options})


def playing(*answers: ToolResult | Exception, **options: Any) -> FakeConnector:
    """Plays the answers; the last one repeats."""
    left = list(answers)

    def next_one(tool: Tool, arguments: Mapping[str, Any]) -> ToolResult | Exception:
        return left.pop(0) if len(left) > 1 else left[0]

    made = FakeConnector(next_one, **options)
    made.tools = (ECHO, WRITE, DELETE)
    return made


# --- allow, approval --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "seen"),
    [
        ({}, {"read", "write", "delete"}),
        ({"allow": ["thing.r*"]}, {"read"}),
        ({"deny": ["*.delete"]}, {"read", "write"}),
        ({"allow": ["thing.write"], "deny": ["*"]}, set()),
        ({"auth_mode": "ServiceAccount", "service_account": READER}, {"read"}),
    ],
)
async def test_what_is_not_allowed_is_neither_seen_nor_called(options: dict[str, Any], seen: set[str]) -> None:
    connector = playing(DONE)
    allowing = WithAllowList(connector, config(**options))
    assert {tool.name.rpartition(".")[2] for tool in allowing.describe_tools()} == seen
    for tool in (ECHO, WRITE, DELETE):
        if tool.name.rpartition(".")[2] in seen:
            await allowing.call(tool, THING, who())
        else:
            with pytest.raises(Refused, match="was not called") as refused:
                await allowing.call(tool, THING, who())
            assert not refused.value.asked
    assert len(connector.calls) == len(seen)


def test_policy_says_what_a_tool_does_and_who_approves() -> None:
    def tools(**options: Any) -> dict[str, tuple[Effect, Approver | None]]:
        described = WithApprovals(playing(DONE), config(**options)).describe_tools()
        return {tool.name.rpartition(".")[2]: (tool.effect, tool.approver) for tool in described}

    assert tools() == {
        "read": (Effect.READ, None),
        "write": (Effect.WRITE, None),
        "delete": (Effect.DESTRUCTIVE, Approver(By.USER)),
    }
    nobody = tools(approvals=(ApprovalRule(match="thing.delete", by="Nobody"),))
    assert nobody["delete"] == (Effect.DESTRUCTIVE, None)
    graver = tools(effects=(EffectRule(match="thing.w*", effect="Destructive"), EffectRule(match="*", effect="Read")))
    assert graver == {
        "read": (Effect.READ, None),
        "write": (Effect.DESTRUCTIVE, Approver(By.USER)),
        "delete": (Effect.READ, None),
    }
    first = tools(approvals=(ApprovalRule(match="*.delete", by="Manager"), ApprovalRule(match="*", by="Nobody")))
    assert first["delete"][1] == Approver(By.MANAGER)


def test_an_account_that_may_only_read_goes_by_what_policy_says_a_tool_does() -> None:
    options = {"auth_mode": "ServiceAccount", "service_account": READER}
    harder = config(effects=(EffectRule(match="*.read", effect="Write"),), **options)
    assert WithAllowList(WithApprovals(playing(DONE), harder), harder).describe_tools() == ()


# --- validation -------------------------------------------------------------------------------------------------------
async def test_arguments_are_checked_again_right_before_they_leave() -> None:
    connector = playing(DONE)
    checking = WithValidation(connector, "Fake")
    for bad in ({}, {"name": 1}, {"name": "a", "x": 1}, {"name": "a\x00"}):
        with pytest.raises(Refused, match="“Fake: read thing” was not called: ") as refused:
            await checking.call(ECHO, bad, who())
        assert not refused.value.asked
    assert connector.calls == []


async def test_a_reads_data_that_dont_fit_reach_nobody_and_a_write_stays_done() -> None:
    returns = {"type": "object", "properties": {"key": {"type": "string"}}, "required": ["key"]}
    odd = ToolResult(Outcome.SUCCEEDED, "Done.", {"key": 7})
    checking = WithValidation(playing(odd, found=odd), "Fake")
    with pytest.raises(SystemUnavailable, match="can't be used") as wrong:
        await checking.call(replace(ECHO, returns=returns), THING, who())
    assert wrong.value.lasting
    with structlog.testing.capture_logs() as logs:
        written = await checking.call(replace(WRITE, returns=returns), THING, who())
    assert (written.outcome, written.data, written.summary) == (Outcome.SUCCEEDED, None, "Done.")
    assert "'key' must be of type string" in logs[0]["wrong"]
    found = await checking.find_by_key(replace(WRITE, returns=returns), THING, who(key="other"))
    assert found is not None
    assert found.data is None
    refused = WithValidation(playing(ToolResult(Outcome.REFUSED, "No.", {"key": 7})), "Fake")
    assert (await refused.call(replace(ECHO, returns=returns), THING, who())).data == {"key": 7}
    fine = WithValidation(playing(ToolResult(Outcome.SUCCEEDED, "Done.", {"key": "7", "more": 1})), "Fake")
    assert (await fine.call(replace(ECHO, returns=returns), THING, who())).data == {"key": "7", "more": 1}


# --- cache ------------------------------------------------------------------------------------------------------------
class AsAccount(FakeConnector):
    """Says as whom it was asked, as the credentials' wrapper does."""

    async def call(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
        context.record.account = f"{context.user_email} there"
        return await super().call(tool, arguments, context)


async def test_a_read_serves_the_same_user_again_for_a_while() -> None:
    clock, connector = Clock(), AsAccount()
    kept = WithCache(connector, 10, clock)
    await kept.call(ECHO, {"name": "a", "more": [1]}, who())
    again = who()
    assert (await kept.call(ECHO, {"more": [1], "name": "a"}, again)).summary == "Done."
    assert (again.record.cached, again.record.account) == (True, "erin@acme.example there")
    assert len(connector.calls) == 1
    await kept.call(ECHO, {"name": "a", "more": [1]}, who("carl@acme.example"))
    await kept.call(ECHO, {"name": "b"}, who())
    await kept.call(replace(ECHO, name="fake.thing.other"), {"name": "b"}, who())
    assert len(connector.calls) == 4, "another user, other arguments, another tool"
    clock.now += 10
    await kept.call(ECHO, {"name": "b"}, who())
    assert len(connector.calls) == 5


async def test_a_write_of_the_user_drops_what_she_had_read_and_no_one_elses() -> None:
    connector = FakeConnector()
    kept = WithCache(connector, 10, Clock())
    for user in ("erin@acme.example", "carl@acme.example"):
        await kept.call(ECHO, THING, who(user))
    await kept.call(WRITE, THING, who("Erin@acme.example"))
    for user in ("erin@acme.example", "carl@acme.example"):
        await kept.call(ECHO, THING, who(user))
    assert [(name.rpartition(".")[2], context.user_email[:4].lower()) for name, _, context in connector.calls] == [
        ("read", "erin"),
        ("read", "carl"),
        ("write", "erin"),
        ("read", "erin"),
    ]


async def test_a_read_that_began_before_a_write_is_not_kept_after_it() -> None:
    connector = FakeConnector(delay=0.02)
    kept = WithCache(connector, 10, Clock())
    reading = asyncio.create_task(kept.call(ECHO, THING, who()))
    await asyncio.sleep(0.005)
    writing = asyncio.create_task(kept.call(WRITE, THING, who()))
    await reading
    await writing
    late = who()
    await kept.call(ECHO, THING, late)
    assert not late.record.cached


async def test_refusals_and_failures_are_not_kept_and_a_refusal_drops_what_was() -> None:
    connector = playing(DONE, Refused("You may not."), DONE)
    kept = WithCache(connector, 10, Clock())
    await kept.call(ECHO, THING, who())
    with pytest.raises(Refused):
        await kept.call(ECHO, {"name": "b"}, who())
    after = who()
    await kept.call(ECHO, THING, after)
    assert not after.record.cached, "her rights may have changed"
    failing = WithCache(playing(AWAY, ToolResult(Outcome.FAILED, "No."), DONE), 10, Clock())
    with pytest.raises(SystemUnavailable):
        await failing.call(ECHO, THING, who())
    assert (await failing.call(ECHO, THING, who())).outcome is Outcome.FAILED
    assert (await failing.call(ECHO, THING, who())).outcome is Outcome.SUCCEEDED


async def test_the_cache_is_bounded_and_forgets_the_least_used() -> None:
    sizes = {"a": 10, "b": 10, "c": 10, "huge": 40_000}
    connector = FakeConnector(lambda _, given: ToolResult(Outcome.SUCCEEDED, "x" * sizes[given["name"]]))
    kept = WithCache(connector, 10, Clock(), max_entries=2, max_bytes=100_000)
    for name in ("a", "b", "a", "c", "a", "b", "huge", "huge"):
        await kept.call(ECHO, {"name": name}, who())
    assert [given["name"] for _, given, _ in connector.calls] == ["a", "b", "c", "b", "huge", "huge"]
    assert kept._bytes == sum(entry.size for entry in kept._kept.values())


# --- retry ------------------------------------------------------------------------------------------------------------
def retrying(connector: FakeConnector, timeout: float = 0.3) -> WithRetry:
    return WithRetry(connector, Backoff(3), timeout, "Fake", clock=time.monotonic, random=lambda: 0.0)


SAME = replace(WRITE, idempotent=True, lookup=Lookup.NONE)
SAME_PROVEN = replace(WRITE, idempotent=True, lookup=Lookup.AUTHORITATIVE)


async def test_an_idempotent_write_is_sent_again_without_looking() -> None:
    connector = playing(CUT, CUT, DONE)
    assert (await retrying(connector).call(SAME_PROVEN, THING, who())).outcome is Outcome.SUCCEEDED
    assert len(connector.calls) == 3
    assert connector.looked_up == []


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param((CUT,), id="each try broke off"),
        pytest.param((CUT, AWAY), id="the first may have acted, though the later never left"),
        pytest.param((CUT, Refused("It is not there.")), id="refused, perhaps as the first try did it"),
        pytest.param((SystemUnavailable("x", may_have_acted=True, lasting=True),), id="no use in trying again"),
    ],
)
async def test_an_idempotent_write_of_which_nothing_is_known_is_in_doubt(answers: tuple[Exception, ...]) -> None:
    with pytest.raises(InDoubt, match="please check in Fake"):
        await retrying(playing(*answers)).call(SAME, THING, who())
    done = playing(*answers, found=DONE)
    assert (await retrying(done).call(SAME_PROVEN, THING, who())).outcome is Outcome.SUCCEEDED
    absent = playing(*answers)
    with pytest.raises(SystemUnavailable, match="nothing was changed"):
        await retrying(absent).call(SAME_PROVEN, THING, who())


async def test_an_idempotent_write_that_is_refused_at_once_is_just_refused() -> None:
    with pytest.raises(Refused, match="You may not"):
        await retrying(playing(Refused("You may not."))).call(SAME, THING, who())
    with pytest.raises(SystemUnavailable, match="can't be reached"):
        await retrying(playing(AWAY)).call(SAME, THING, who())


# --- rate limit -------------------------------------------------------------------------------------------------------
def limiting(
    connector: FakeConnector, per_minute: int = 0, clock: Callable[[], float] = time.monotonic, *, shared: bool = False
) -> WithRateLimit:
    return WithRateLimit(connector, per_minute, "Fake", clock, shared=shared)


async def test_calls_are_held_to_the_connectors_own_limit() -> None:
    clock, connector = Clock(), FakeConnector()
    limited = limiting(connector, 60, clock)
    for _ in range(10):
        await limited.call(ECHO, THING, who())
    with pytest.raises(SystemUnavailable, match=r"takes no more requests at the moment .* ask again in 1 s") as full:
        await limited.call(ECHO, THING, who(deadline=clock.now + 0.5))
    assert full.value.lasting, "retrying would only ask the same again"
    assert not full.value.may_have_acted
    assert len(connector.calls) == 10, "a burst of ten seconds"
    clock.now += 1
    await limited.call(ECHO, THING, who(deadline=clock.now + 0.5))
    clock.now += 3600
    for _ in range(10):
        await limited.call(ECHO, THING, who(deadline=clock.now + 0.5))
    with pytest.raises(SystemUnavailable):
        await limited.call(ECHO, THING, who(deadline=clock.now + 0.5))


async def test_a_call_waits_for_its_turn_where_there_is_time() -> None:
    connector = FakeConnector()
    limited = limiting(connector, 1200)  # one each 50 ms
    limited._bucket._tolerance = 0.0  # type: ignore[union-attr]
    began = time.monotonic()
    await asyncio.gather(*(limited.call(ECHO, THING, who(deadline=began + 5)) for _ in range(4)))
    assert 0.15 <= time.monotonic() - began < 1
    waiting = asyncio.create_task(limited.call(ECHO, THING, who(deadline=began + 5)))
    await asyncio.sleep(0)
    before = limited._bucket._next  # type: ignore[union-attr]
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert limited._bucket._next < before, "a call that is given up gives its turn back"  # type: ignore[union-attr]


async def test_after_a_429_the_same_users_calls_wait_and_others_dont() -> None:
    clock = Clock()
    busy = SystemUnavailable("Too many.", may_have_acted=False, retry_after=60)
    connector = playing(busy, DONE)
    limited = limiting(connector, clock=clock)
    with pytest.raises(SystemUnavailable, match="It takes requests again in 60 s"):
        await limited.call(ECHO, THING, who())
    with pytest.raises(SystemUnavailable, match="was not asked; ask again in 60 s"):
        await limited.call(ECHO, THING, who())
    assert len(connector.calls) == 1
    assert (await limited.call(ECHO, THING, who("carl@acme.example"))).summary == "Done."
    clock.now += 60
    assert (await limited.call(ECHO, THING, who())).summary == "Done."


async def test_an_answer_that_says_nothing_is_left_holds_the_next_call() -> None:
    class Telling(FakeConnector):
        limit = RateLimit(0, 0.1)

        async def call(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
            context.record.limit = self.limit
            return await super().call(tool, arguments, context)

    limited = limiting(Telling())
    began = time.monotonic()
    for _ in range(3):
        await limited.call(ECHO, THING, who(deadline=began + 5))
    assert 0.2 <= time.monotonic() - began < 1
    for nonsense in (RateLimit(5, 1000), RateLimit(0, 0), RateLimit(0, 10**12)):
        clock, telling = Clock(), Telling()
        telling.limit = nonsense
        limited = limiting(telling, clock=clock)
        await limited.call(ECHO, THING, who())
        clock.now += 301  # no word of a system locks a user out for longer
        await limited.call(ECHO, THING, who())
        assert len(telling.calls) == 2


@pytest.mark.parametrize(
    "answer",
    [
        SystemUnavailable("Too many.", may_have_acted=False),  # a 429 that says when in its own headers only
        Refused("You may not."),
    ],
)
async def test_the_last_word_of_a_failed_answer_counts_too(answer: Exception) -> None:
    class Telling(FakeConnector):
        async def call(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
            context.record.limit = RateLimit(0, 60)
            return await super().call(tool, arguments, context)

    connector = Telling(lambda tool, given: answer)
    limited = limiting(connector, clock=Clock())
    with pytest.raises(type(answer)) as first:
        await limited.call(ECHO, THING, who())
    assert ("again in 60 s" in str(first.value)) is isinstance(answer, SystemUnavailable)
    with pytest.raises(SystemUnavailable, match="was not asked; ask again in 60 s"):
        await limited.call(ECHO, THING, who())
    assert len(connector.calls) == 1


async def test_a_limit_that_several_users_meet_is_the_systems() -> None:
    busy = SystemUnavailable("Too many.", may_have_acted=False, retry_after=60)
    connector = playing(busy, busy, busy, DONE)
    limited = limiting(connector, clock=Clock())
    for user in "abc":
        with pytest.raises(SystemUnavailable, match="takes requests again"):
            await limited.call(ECHO, THING, who(f"{user}@acme.example"))
    with pytest.raises(SystemUnavailable, match="was not asked"):
        await limited.call(ECHO, THING, who("d@acme.example"))
    shared = limiting(playing(busy, DONE), clock=Clock(), shared=True)
    with pytest.raises(SystemUnavailable, match="takes requests again"):
        await shared.call(ECHO, THING, who("a@acme.example"))
    with pytest.raises(SystemUnavailable, match="was not asked"):
        await shared.call(ECHO, THING, who("b@acme.example"))


# --- breaker ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("error", "state"),
    [
        (AWAY, BreakerState.OPEN),
        (ValueError("a defect"), BreakerState.OPEN),
        (CredentialUnavailable("The store is away.", may_have_acted=False), BreakerState.CLOSED),
        (Refused("You may not."), BreakerState.CLOSED),
        (Refused("Not sent.", asked=False), BreakerState.CLOSED),
    ],
)
async def test_only_the_system_itself_opens_its_breaker(error: Exception, state: BreakerState) -> None:
    guard = GuardRegistry(time.monotonic).get("connector/fake", BreakerSettings(window=4, minimum_calls=2))
    wrapped = WithBreaker(playing(error), guard, "Fake", time.monotonic)
    for _ in range(4):
        with pytest.raises((Refused, SystemUnavailable)):
            await wrapped.call(ECHO, THING, who())
    assert guard.state is state


# --- audit ------------------------------------------------------------------------------------------------------------
class Kept:
    def __init__(self) -> None:
        self.entries: list[AuditRecord] = []

    def record(self, entry: AuditRecord) -> None:
        self.entries.append(entry)


async def test_every_call_leaves_one_record_and_no_arguments() -> None:
    sink, connector = Kept(), playing(DONE, Refused("No."), InDoubt("Perhaps."), CUT, delay=0.01)
    audited = WithAudit(connector, "acme", sink, time.monotonic)
    secret = {"name": "planted-argument"}
    for _ in range(4):
        await asyncio.gather(audited.call(WRITE, secret, who()), return_exceptions=True)
    given_up = asyncio.create_task(audited.call(WRITE, secret, who()))
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.gather(given_up, return_exceptions=True)
    connector.done.clear()
    await audited.find_by_key(WRITE, secret, who())
    assert [(entry.action, entry.outcome) for entry in sink.entries] == [
        ("call", "succeeded"),
        ("call", "refused"),
        ("call", "unknown"),
        ("call", "failed"),
        ("call", "cancelled"),
        ("settle", "absent"),
    ]
    first = sink.entries[0]
    assert first.arguments_hash == arguments_hash(WRITE.name, secret)
    assert (first.tenant, first.key, first.user, first.tool, first.effect) == (
        "acme",
        "run/s1",
        "erin@acme.example",
        "fake.thing.write",
        "write",
    )
    with structlog.testing.capture_logs() as logs:
        for entry in sink.entries:
            LogAudit().record(entry)
    assert len(logs) == 6
    assert "planted" not in json.dumps(logs)


def test_no_wrapper_shows_a_token() -> None:
    context = CallContext("erin@acme.example", "k", user_token=SecretText("planted"))
    assert "planted" not in repr(context)
