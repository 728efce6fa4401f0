from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pilothouse_dataplane.core.breaker import Breaker, BreakerSettings, BreakerState, Permit, acquire, record, release
from pilothouse_dataplane.core.guard import BreakerChange, Guard, GuardRegistry

SETTINGS = BreakerSettings(window=4, minimum_calls=2, failure_rate_percent=50, open_seconds=10, half_open_calls=2)


def _call(breaker: Breaker, failed: bool, now: float) -> Breaker:
    breaker, permit = acquire(breaker, now)
    assert permit is not None
    return record(breaker, permit, failed=failed, now=now)


def _opened() -> Breaker:
    return _call(_call(Breaker(SETTINGS), True, 0), True, 0)


def test_opens_at_the_rate_once_the_minimum_is_reached() -> None:
    breaker = _call(Breaker(SETTINGS), True, 0)
    assert breaker.state is BreakerState.CLOSED
    assert _call(breaker, True, 0).state is BreakerState.OPEN


def test_open_refuses_until_its_time_has_passed_then_lets_the_permitted_calls_through() -> None:
    breaker = _opened()
    assert acquire(breaker, 9.9)[1] is None
    breaker, first = acquire(breaker, 10)
    breaker, second = acquire(breaker, 10)
    breaker, third = acquire(breaker, 10)
    assert first is not None
    assert second is not None
    assert third is None
    breaker = record(breaker, first, failed=False, now=11)
    assert record(breaker, second, failed=False, now=11).state is BreakerState.CLOSED
    assert record(breaker, second, failed=True, now=11).state is BreakerState.OPEN  # 1 of 2 is 50%


def test_half_open_is_bounded_where_permitted_calls_never_return() -> None:
    breaker, _ = acquire(_opened(), 10)
    breaker, _ = acquire(breaker, 10)
    breaker, permit = acquire(breaker, 10 + SETTINGS.half_open_seconds)
    assert permit is None
    assert breaker.state is BreakerState.OPEN


def test_a_late_result_of_an_earlier_state_is_dropped_and_a_released_permit_can_be_had_again() -> None:
    closed = Breaker(SETTINGS)
    closed, late = acquire(closed, 0)
    assert late is not None
    breaker, first = acquire(_call(_call(closed, True, 0), True, 0), 10)
    assert record(breaker, late, failed=True, now=10) == breaker
    assert first is not None
    assert release(breaker, first, 10).permitted == 0


@given(st.lists(st.tuples(st.sampled_from(["ask", "ok", "fail", "ignore"]), st.floats(0, 15)), max_size=80))
def test_against_a_simple_model(script: list[tuple[str, float]]) -> None:
    """The model keeps calls of each state in a plain list and decides by counting."""
    breaker, now = Breaker(SETTINGS), 0.0
    held: list[tuple[Permit, int]] = []
    state, since, epoch, results, out = "closed", 0.0, 0, [], 0
    for what, wait in script:
        now += wait
        if state == "half_open" and now - since >= SETTINGS.half_open_seconds:
            state, since, epoch, results, out = "open", since + SETTINGS.half_open_seconds, epoch + 1, [], 0
        if what == "ask":
            if state == "open" and since + SETTINGS.open_seconds - now <= 0:
                state, since, epoch, results, out = "half_open", now, epoch + 1, [], 0
            may = state == "closed" or (state == "half_open" and out < SETTINGS.half_open_calls)
            out += may and state == "half_open"
            breaker, permit = acquire(breaker, now)
            assert (permit is not None) == may
            if permit:
                held.append((permit, epoch))
        elif held:
            permit, then = held.pop(0)
            if what == "ignore":
                breaker = release(breaker, permit, now)
                out -= then == epoch and state == "half_open"
            else:
                breaker = record(breaker, permit, failed=what == "fail", now=now)
                if then == epoch and state != "open":
                    results = [*results, what == "fail"][-SETTINGS.window :]
                    rate = 100 * sum(results) / len(results)
                    if state == "closed" and len(results) >= SETTINGS.minimum_calls and rate >= 50:
                        state, since, epoch, results, out = "open", now, epoch + 1, [], 0
                    elif state == "half_open" and len(results) == SETTINGS.half_open_calls:
                        state, since, epoch, results, out = ("open" if rate >= 50 else "closed"), now, epoch + 1, [], 0
        else:
            continue
        assert breaker.state.value == state


def test_a_guard_tells_its_first_use_and_each_change_once_and_survives_a_reload() -> None:
    changes: list[BreakerChange] = []
    registry = GuardRegistry(lambda: 0.0, changes.append)
    guard: Guard = registry.get("connector/jira", SETTINGS)
    for _ in range(2):
        permit = guard.try_acquire()
        assert permit is not None
        guard.failed(permit, "Jira can't be reached.")
    assert guard.try_acquire() is None
    assert [(c.name, c.state, c.reason) for c in changes] == [
        ("connector/jira", BreakerState.CLOSED, "first call"),
        ("connector/jira", BreakerState.OPEN, "Jira can't be reached."),
    ]
    assert registry.get("connector/jira", SETTINGS) is guard
    assert registry.get("connector/jira", BreakerSettings()) is not guard
