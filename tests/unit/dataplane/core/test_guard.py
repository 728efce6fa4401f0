from __future__ import annotations

from pilothouse_dataplane.core.breaker import BreakerMode, BreakerSettings, BreakerState, Rates
from pilothouse_dataplane.core.guard import BreakerChange, Guard, GuardRegistry

SETTINGS = BreakerSettings(window=4, minimum_calls=2, failure_rate_percent=50, open_seconds=10, half_open_calls=2)


class Sharer:
    def __init__(self) -> None:
        self.told: list[tuple[str, BreakerState]] = []

    def created(self, guard: Guard) -> None:
        self.told.append(("created", guard.state))

    def changed(self, guard: Guard) -> None:
        self.told.append(("changed", guard.state))


class World:
    def __init__(self) -> None:
        self.now = 0.0
        self.changes: list[BreakerChange] = []
        self.registry = GuardRegistry(lambda: self.now, self.changes.append)
        self.guard = self.registry.get("connector/jira", SETTINGS)

    def fail(self, times: int) -> None:
        for _ in range(times):
            permit = self.guard.try_acquire()
            assert permit is not None
            self.guard.failed(permit, "Jira can't be reached.", seconds=1.5)

    def told(self) -> list[tuple[BreakerState, float, str, str]]:
        return [(c.state, c.failure_rate_percent, c.reason, c.origin) for c in self.changes]


def test_it_tells_its_first_use_and_each_change_once_and_survives_a_reload() -> None:
    world = World()
    world.guard.tick()  # a look is no use
    world.fail(2)
    assert world.guard.try_acquire() is None
    assert world.told() == [
        (BreakerState.CLOSED, 0.0, "first call", ""),
        (BreakerState.OPEN, 100.0, "Jira can't be reached.", ""),
    ]
    assert world.registry.get("connector/jira", SETTINGS) is world.guard
    assert world.registry.get("connector/jira", BreakerSettings()).state is BreakerState.CLOSED


def test_slow_answers_open_it_and_the_reason_says_so() -> None:
    world = World()
    guard = world.registry.get("provider/local", BreakerSettings(window=4, minimum_calls=2, slow_call_seconds=2))
    for _ in range(2):
        permit = guard.try_acquire()
        assert permit is not None
        guard.succeeded(permit, seconds=3)
    assert world.changes[-1] == BreakerChange(
        "provider/local", BreakerState.OPEN, 0.0, "100% of 2 calls took longer than 2 s", 100.0
    )


def test_an_sres_word_holds_over_calls_and_over_new_settings_until_it_is_taken_back() -> None:
    world = World()
    world.guard.set_mode(BreakerMode.FORCED_OPEN, "forced open by ana")
    assert world.guard.try_acquire() is None
    assert world.guard.when() == "an operator has switched it off"
    fresh = world.registry.get("connector/jira", BreakerSettings())
    assert fresh.try_acquire() is None
    fresh.set_mode(BreakerMode.DISABLED, "switched off by ana")
    for _ in range(50):
        permit = fresh.try_acquire()
        assert permit is not None
        fresh.failed(permit, "down")
    fresh.set_mode(BreakerMode.AUTOMATIC, "given back by ana")
    assert fresh.state is BreakerState.CLOSED
    assert [state for state, _, _, _ in world.told()[-2:]] == [BreakerState.DISABLED, BreakerState.CLOSED]


def test_what_another_worker_found_is_applied_told_once_and_not_told_back() -> None:
    world, sharer = World(), Sharer()
    world.registry.attach(sharer)
    permit = world.guard.try_acquire()
    assert permit is not None
    for _ in range(2):
        world.guard.apply_remote(
            BreakerState.OPEN, age=4, rates=Rates(0, 60, 0), reason="Jira is down.", origin="worker-b"
        )
    assert world.guard.retry_in() == 6
    assert world.told()[1:] == [(BreakerState.OPEN, 60, "Jira is down.", "worker-b")]
    world.guard.failed(permit, "late")  # began before: no verdict on what the other found
    assert sharer.told == [("created", BreakerState.CLOSED)]
    world.now = 6
    assert world.guard.try_acquire() is not None
    assert sharer.told[1:] == [("changed", BreakerState.HALF_OPEN)]


def test_with_other_workers_about_half_open_starts_with_one_call() -> None:
    for shared, passed in ((False, 2), (True, 1)):
        world = World()
        world.fail(2)
        world.registry.shared, world.now = shared, 10
        assert sum(world.guard.try_acquire() is not None for _ in range(5)) == passed


def test_a_guard_that_a_reload_replaced_no_longer_speaks_for_its_name() -> None:
    world, sharer = World(), Sharer()
    world.registry.attach(sharer)
    world.registry.get("connector/jira", BreakerSettings())
    world.fail(2)
    assert sharer.told == [("created", BreakerState.CLOSED)] * 2


def test_a_quota_that_is_used_up_opens_it_at_once_and_every_worker_hears_why() -> None:
    world, sharer = World(), Sharer()
    world.registry.attach(sharer)
    permit = world.guard.try_acquire()
    assert permit is not None
    world.guard.exhausted(permit, "The credit is used up.")
    assert world.told()[-1] == (BreakerState.OPEN, 100.0, "The credit is used up.", "")
    assert sharer.told[-1] == ("changed", BreakerState.OPEN)
