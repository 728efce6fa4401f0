"""A tenant's costs from the ledger's sums and from events: no call twice, none lost, whatever comes in which order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from pilothouse_dataplane.gateway.fleet import costs
from pilothouse_dataplane.gateway.fleet.costs import DayCosts
from pilothouse_proto.agent.v1 import agent_pb2 as agent
from pilothouse_proto.events.v1 import events_pb2 as ev

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
DAY = NOON.date()


def called(id: str, cost: int = 10, tier: str = "mid", **fields: bool | str | int) -> ev.ModelCalled:
    usage = agent.Usage(input_tokens=2 * cost, output_tokens=cost, cost_micros=cost)
    return ev.ModelCalled(id=id, tier=tier, provider="p", model="m", usage=usage, **fields)  # type: ignore[arg-type]


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def booked(calls: list[ev.ModelCalled]) -> list[agent.CostSum]:
    """As the ledger sums them."""
    day = DayCosts()
    for call in calls:
        day.heard("r", NOON, call)
    return day.sums()


def test_an_answer_of_the_ledger_replaces_what_it_covers() -> None:
    day = DayCosts()
    day.heard("r1", at(1), called("r1/1.1", 10))
    day.heard("r1", at(9), called("r1/1.2", 5))
    # the ledger knows of one more, whose event was lost
    day.reconcile(DAY, at(5), booked([called("r1/1.1", 10), called("r0/1.1", 100)]), at(10))

    cost = day.message("acme")
    assert (cost.cost_micros, cost.input_tokens, cost.output_tokens) == (115, 230, 115)
    assert cost.reconciled.ToDatetime(UTC) == at(10)
    assert not day.heard("r0", at(5), called("r0/1.1", 100))  # its event, after all: covered
    assert day.message("acme").cost_micros == 115


def test_an_older_answer_changes_nothing() -> None:
    day = DayCosts()
    day.reconcile(DAY, at(9), booked([called("a", 7), called("b", 1)]), at(10))
    day.reconcile(DAY, at(5), booked([called("a", 7)]), at(6))
    assert day.message("acme").cost_micros == 8


def test_at_midnight_sums_begin_anew_and_yesterday_is_over() -> None:
    day = DayCosts()
    day.heard("r1", at(0), called("a", 7))
    assert day.heard("r2", at(12 * 3600), called("b", 1))
    assert not day.heard("r1", at(1), called("c", 100))
    day.reconcile(DAY, at(5), booked([called("a", 7)]), at(6))

    assert (day.message("acme").cost_micros, day.message("acme").day) == (1, "2026-11-23")
    assert day.begin(DAY + timedelta(days=2))
    assert day.message("acme").cost_micros == 0


def test_what_is_saved_cached_aborted_escalated_and_fallen_back_is_counted() -> None:
    day = DayCosts()
    day.heard("r1", at(0), called("a", 7, fallback="timeout"))
    day.heard("r1", at(1), called("b", 0, cached=True, saved_micros=7, fallback="timeout"))
    day.heard("r1", at(2), called("c", 3, tier="power", aborted=True, escalated=True))

    power, mid = sorted(day.sums(), key=lambda one: one.cost_micros)
    assert (mid.calls, mid.cached_calls, mid.fallbacks, mid.saved_micros) == (1, 1, 1, 7)
    assert (power.tier, power.aborted, power.escalated, power.calls) == ("power", 1, 1, 1)


moments = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 50), st.sampled_from(["fast", "mid"])), max_size=25)


@given(moments, st.data())
def test_the_sum_is_exact_once_the_ledger_was_asked_whatever_was_lost_or_told_twice(
    calls: list[tuple[int, int, str]], data: st.DataObject
) -> None:
    made = [(at(seconds), called(f"r/1.{n}", cost, tier)) for n, (seconds, cost, tier) in enumerate(calls)]
    day, asked = DayCosts(), -1
    for moment, call in made:
        if data.draw(st.booleans(), "asks the ledger"):
            asked = max(asked, data.draw(st.integers(0, 30), "until"))
            day.reconcile(DAY, at(asked), booked([c for m, c in made if m <= at(asked)]), NOON)
        late = moment > at(asked)
        times = data.draw(st.integers(1 if late else 0, 3), "times told")  # only what the ledger covers may be lost
        for _ in range(times):
            day.heard("r", moment, call)
    last = data.draw(st.integers(max(asked, 0), 30), "until")
    day.reconcile(DAY, at(last), booked([c for m, c in made if m <= at(last)]), NOON)

    assert day.message("acme").cost_micros == sum(call.usage.cost_micros for _, call in made)
    assert sum(one.calls for one in day.sums()) == len(made)


def test_without_a_ledger_the_sum_stays_bounded_in_memory(monkeypatch: object) -> None:
    before, costs.MAX_RECENT = costs.MAX_RECENT, 5
    try:
        day = DayCosts()
        for number in range(50):
            day.heard("r", at(number), called(f"r/1.{number}", 2))
        assert day.message("acme").cost_micros == 100
        assert len(day._recent) == 5
    finally:
        costs.MAX_RECENT = before
