"""The breaker against a model that keeps every call for ever and counts anew each time."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings as profile
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pilothouse_api.workerconfig import BreakerConfig
from pilothouse_dataplane.core.breaker import (
    OTHERS_PROBE_SECONDS,
    Breaker,
    BreakerMode,
    BreakerSettings,
    BreakerState,
    Permit,
    Rates,
    settings_of,
)

SETTINGS = BreakerSettings(window=4, minimum_calls=2, failure_rate_percent=50, open_seconds=10, half_open_calls=2)


def _call(breaker: Breaker, *, failed: bool, now: float, seconds: float = 0.0) -> None:
    permit = breaker.try_acquire(now)
    assert permit is not None
    breaker.record(permit, failed=failed, seconds=seconds, now=now)


def _opened(settings: BreakerSettings = SETTINGS) -> Breaker:
    breaker = Breaker(settings)
    for _ in range(settings.minimum_calls):
        _call(breaker, failed=True, now=0)
    assert breaker.state is BreakerState.OPEN
    return breaker


def test_the_settings_are_those_of_the_configuration() -> None:
    config = BreakerConfig(window_type="Time", window=60, slow_call_seconds=2, slow_call_rate_percent=80)
    settings = settings_of(config)
    assert {name: getattr(settings, name) for name in BreakerSettings.__slots__} == config.model_dump()
    assert settings_of(BreakerConfig()) == BreakerSettings()


def test_open_refuses_until_its_time_has_passed_then_lets_the_permitted_calls_through() -> None:
    breaker = _opened()
    assert breaker.try_acquire(9.9) is None
    first, second = breaker.try_acquire(10), breaker.try_acquire(10)
    assert breaker.try_acquire(10) is None
    assert first is not None
    assert second is not None
    breaker.record(first, failed=False, now=11)
    breaker.record(second, failed=False, now=11)
    assert breaker.state is BreakerState.CLOSED


def test_slow_calls_open_it_though_none_failed_and_not_where_the_threshold_is_off() -> None:
    slow = BreakerSettings(window=4, minimum_calls=4, slow_call_seconds=2, slow_call_rate_percent=75)
    breaker, off = Breaker(slow), Breaker(SETTINGS)
    for seconds in (2.0, 2.1, 2.1, 9.0):  # as long as the threshold is not slow yet
        assert breaker.state is BreakerState.CLOSED
        _call(breaker, failed=False, now=0, seconds=seconds)
        _call(off, failed=False, now=0, seconds=seconds)
    assert (breaker.state, breaker.decided_by) == (BreakerState.OPEN, Rates(4, 0.0, 75.0))
    assert off.state is BreakerState.CLOSED


def test_half_open_is_decided_in_its_time_by_what_came_back() -> None:
    hanging = _opened()
    assert hanging.try_acquire(10)
    assert hanging.try_acquire(10)
    hanging.tick(10 + SETTINGS.half_open_seconds)
    assert hanging.state is BreakerState.OPEN
    seldom = _opened()  # a tenant that asks too seldom to use both permits
    _call(seldom, failed=False, now=10)
    seldom.tick(10 + SETTINGS.half_open_seconds)
    assert seldom.state is BreakerState.CLOSED


def test_another_workers_half_open_lets_nothing_through_here_and_ends_by_itself() -> None:
    breaker = _opened()
    breaker.adopt(BreakerState.HALF_OPEN, 10, Rates())
    breaker.grant()  # only who began half-open may be granted its permits
    waits = min(OTHERS_PROBE_SECONDS, SETTINGS.half_open_seconds)
    assert breaker.try_acquire(10 + waits - 0.01) is None
    # the other one may be dead: the next call here probes, with all its permits
    assert [breaker.try_acquire(10 + waits) is not None for _ in range(SETTINGS.half_open_calls + 1)][-2:] == [
        True,
        False,
    ]
    assert breaker.state is BreakerState.HALF_OPEN


def test_an_unsure_prober_gets_one_call_until_it_is_granted_the_rest() -> None:
    breaker = _opened()
    assert breaker.try_acquire(10, probes=1)
    assert breaker.try_acquire(10, probes=1) is None
    breaker.grant()
    assert breaker.try_acquire(10, probes=1)
    assert breaker.try_acquire(10, probes=1) is None


def test_only_the_calls_in_the_window_count() -> None:
    count = Breaker(BreakerSettings(window=10, failure_rate_percent=100))
    never = BreakerSettings(window=10, failure_rate_percent=100, window_type="Time", slow_call_seconds=1)
    time = Breaker(never)
    for number in range(20_000):  # 200 a second
        _call(count, failed=number % 4 == 0, now=number / 200)
        _call(time, failed=number % 4 == 0, now=number / 200, seconds=number % 2 * 3)
    assert count.rates(100) == Rates(10, 20.0, 0.0)
    assert time.rates(99.9) == Rates(2000, 25.0, 50.0)
    assert time.rates(100) == Rates(1800, 25.0, 50.0)
    assert time.rates(1000) == Rates()


def test_one_call_with_proof_opens_it_at_once_but_not_one_of_an_earlier_state() -> None:
    breaker = Breaker(SETTINGS)
    old, permit = breaker.try_acquire(0), breaker.try_acquire(0)
    assert old is not None
    assert permit is not None
    breaker.trip(permit, 1)
    assert (breaker.state, breaker.since, breaker.decided_by) == (BreakerState.OPEN, 1, Rates(1, 100.0, 0.0))
    breaker.trip(old, 2)
    assert breaker.since == 1
    probe = breaker.try_acquire(11)
    assert probe is not None
    breaker.trip(probe, 12)
    assert (breaker.state, breaker.since) == (BreakerState.OPEN, 12)


@dataclass
class _Model:
    """What is known of every call ever made: state's epoch, time, failed, slow. Nothing is kept in sum."""

    settings: BreakerSettings
    state: BreakerState = BreakerState.CLOSED
    since: float = 0.0
    epoch: int = 0
    let_through: int = 0
    """In this half-open, less those released."""
    calls: list[tuple[int, float, bool, bool]] = field(default_factory=list)

    def go(self, state: BreakerState, since: float) -> None:
        self.state, self.since, self.epoch, self.let_through = state, since, self.epoch + 1, 0

    def counted(self, now: float) -> list[tuple[bool, bool]]:
        mine = [(at, failed, slow) for epoch, at, failed, slow in self.calls if epoch == self.epoch]
        if self.state is BreakerState.CLOSED:
            if self.settings.window_type == "Count":
                mine = mine[-self.settings.window :]
            else:
                mine = [call for call in mine if int(call[0]) > int(now) - self.settings.window]
        return [(failed, slow) for _, failed, slow in mine]

    def too_much(self, calls: list[tuple[bool, bool]]) -> bool:
        failed = 100 * sum(failed for failed, _ in calls) / len(calls) >= self.settings.failure_rate_percent
        slow = 100 * sum(slow for _, slow in calls) / len(calls) >= self.settings.slow_call_rate_percent
        return failed or (self.settings.slow_call_seconds > 0 and slow)

    def pass_time(self, now: float) -> None:
        end = self.since + self.settings.half_open_seconds
        if self.state is BreakerState.HALF_OPEN and now >= end:
            back = self.counted(now)
            all_calls = back + [(True, True)] * (self.let_through - len(back))
            bad = not all_calls or self.too_much(all_calls)
            self.go(BreakerState.OPEN if bad else BreakerState.CLOSED, end)

    def may_call(self, now: float) -> bool:
        self.pass_time(now)
        if self.state is BreakerState.OPEN and now - self.since >= self.settings.open_seconds:
            self.go(BreakerState.HALF_OPEN, now)
        if self.state is BreakerState.HALF_OPEN:
            if self.let_through == self.settings.half_open_calls:
                return False
            self.let_through += 1
            return True
        return self.state in (BreakerState.CLOSED, BreakerState.DISABLED)

    def came_back(self, epoch: int, now: float, failed: bool, slow: bool) -> None:
        self.pass_time(now)
        self.calls.append((epoch, now, failed, slow))
        if epoch != self.epoch or self.state is BreakerState.DISABLED:
            return
        calls, need = self.counted(now), self.settings.minimum_calls
        if self.state is BreakerState.HALF_OPEN:
            need = min(need, self.settings.half_open_calls)
        elif self.settings.window_type == "Count":
            need = min(need, self.settings.window)
        if len(calls) >= need:
            if self.too_much(calls):
                self.go(BreakerState.OPEN, now)
            elif self.state is BreakerState.HALF_OPEN:
                self.go(BreakerState.CLOSED, now)

    def released(self, epoch: int, now: float) -> None:
        self.pass_time(now)
        if epoch == self.epoch and self.state is BreakerState.HALF_OPEN:
            self.let_through -= 1


@st.composite
def _settings(draw: st.DrawFn) -> BreakerSettings:
    return BreakerSettings(
        window_type=draw(st.sampled_from(["Count", "Time"])),
        window=draw(st.integers(1, 6)),
        minimum_calls=draw(st.integers(1, 6)),
        failure_rate_percent=draw(st.sampled_from([1, 34, 50, 100])),
        slow_call_seconds=draw(st.sampled_from([0, 2])),
        slow_call_rate_percent=draw(st.sampled_from([50, 100])),
        open_seconds=draw(st.sampled_from([1, 5])),
        half_open_calls=draw(st.integers(1, 4)),
        half_open_seconds=draw(st.sampled_from([2, 5])),
    )


class AgainstTheModel(RuleBasedStateMachine):
    """Times are quarters of a second, so that model and breaker reckon exactly."""

    @initialize(settings=_settings())
    def begin(self, settings: BreakerSettings) -> None:
        self.settings = settings
        self.breaker, self.model, self.now = Breaker(settings), _Model(settings), 0.0
        self.held: list[tuple[Permit, int]] = []
        self.given_back: list[Permit] = []

    @rule(quarters=st.integers(1, 30))
    def wait(self, quarters: int) -> None:
        self.now += quarters / 4

    @rule(times=st.integers(1, 5))
    def ask(self, times: int) -> None:
        for _ in range(times):
            permit = self.breaker.try_acquire(self.now)
            assert (permit is not None) == self.model.may_call(self.now)
            if permit is not None:
                self.held.append((permit, self.model.epoch))

    @rule(data=st.data(), failed=st.booleans(), seconds=st.sampled_from([0.0, 2.0, 3.0]), times=st.integers(1, 4))
    def come_back(self, data: st.DataObject, failed: bool, seconds: float, times: int) -> None:
        for _ in range(min(times, len(self.held))):
            permit, epoch = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
            self.breaker.record(permit, failed=failed, seconds=seconds, now=self.now)
            self.model.came_back(epoch, self.now, failed, 0 < self.settings.slow_call_seconds < seconds)
            self.given_back.append(permit)

    @rule()
    def trip(self) -> None:
        if self.held:
            permit, epoch = self.held.pop(0)
            self.breaker.trip(permit, self.now)
            self.model.pass_time(self.now)
            if epoch == self.model.epoch and self.model.state in (BreakerState.CLOSED, BreakerState.HALF_OPEN):
                self.model.go(BreakerState.OPEN, self.now)
            self.given_back.append(permit)

    @rule()
    def cancel(self) -> None:
        if self.held:
            permit, epoch = self.held.pop(0)
            self.breaker.release(permit, self.now)
            self.model.released(epoch, self.now)
            self.given_back.append(permit)

    @rule(failed=st.booleans())
    def give_back_twice(self, failed: bool) -> None:
        if self.given_back:
            self.model.pass_time(self.now)
            self.breaker.release(self.given_back[-1], self.now)
            self.breaker.record(self.given_back[-1], failed=failed, now=self.now)

    @rule(mode=st.sampled_from(BreakerMode))
    def force(self, mode: BreakerMode) -> None:
        self.model.pass_time(self.now)
        self.breaker.tick(self.now)
        if mode is not self.breaker.mode:
            states = {BreakerMode.AUTOMATIC: BreakerState.CLOSED}
            self.model.go(states.get(mode) or BreakerState(mode.value), self.now)
        self.breaker.set_mode(mode, self.now)

    @invariant()
    def agree(self) -> None:
        if not hasattr(self, "breaker"):
            return
        self.model.pass_time(self.now)
        self.breaker.tick(self.now)
        assert (self.breaker.state, self.breaker.since) == (self.model.state, self.model.since)
        calls = self.model.counted(self.now) if self.model.state is not BreakerState.DISABLED else []
        assert self.breaker.rates(self.now).calls == len(calls)
        assert self.breaker.permitted <= self.settings.half_open_calls

    def teardown(self) -> None:
        """However it stands, a breaker that nobody forces lets a call through within the sum of its bounds."""
        if hasattr(self, "breaker") and self.breaker.mode is BreakerMode.AUTOMATIC:
            later = self.now + self.settings.half_open_seconds + self.settings.open_seconds
            assert self.breaker.try_acquire(later) is not None


TestAgainstTheModel = AgainstTheModel.TestCase
TestAgainstTheModel.settings = profile(max_examples=200, stateful_step_count=50, deadline=None)
