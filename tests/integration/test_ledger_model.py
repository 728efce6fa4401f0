"""The ledger in PostgreSQL and the one in memory are asked the same, in any order, and must say the same."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from pilothouse_dataplane.core.approvals import ApprovalRequest, arguments_hash
from pilothouse_dataplane.core.messages import By, Outcome, ToolResult
from pilothouse_dataplane.ledger.base import Asker, Claim, Decision, Ledger, LedgerError, NewRun, RunKey, WriteIntent
from pilothouse_dataplane.ledger.migrate import migrate
from pilothouse_dataplane.ledger.postgres import PostgresLedger
from pilothouse_testing.ledger import MemoryLedger, MemoryStore
from pilothouse_testing.postgres import PostgresServer, postgres_server

ANA = Asker("sub-ana", "ana@acme.example", "Ana", "max@acme.example")
RUNS = ("r1", "r2")
WORKERS = ("w1", "w2")
STEPS = ("s1", "s2")
TENANTS = itertools.count(1)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server("-c", "fsync=off") as server:
        asyncio.run(migrate(server.owner_url, server.settings.worker_database_password))
        yield server


def request(step: str) -> ApprovalRequest:
    arguments = {"step": step}
    hashed = arguments_hash("t", arguments)
    return ApprovalRequest(step, "t", "do", arguments, hashed, By.USER, ANA.email, "why", (), 3600.0)


def intent(run: str, step: str, other_arguments: bool, approval: bool) -> WriteIntent:
    arguments = {"step": step, "other": True} if other_arguments else {"step": step}
    hashed = arguments_hash("t", arguments)
    return WriteIntent(
        f"{run}/{step}", step, "t", arguments, hashed, ANA.email, f"{run}-a-{step}" if approval else None
    )


def comparable(answer: Any) -> Any:
    """Without times, which the two measure by clocks of their own."""
    if isinstance(answer, Claim):
        approvals = sorted(map(comparable, answer.approvals))
        writes = sorted(answer.writes, key=lambda write: write.intent.key)
        return (answer.key, answer.run, answer.fresh, answer.opening, answer.journal, writes, approvals)
    if isinstance(answer, Decision):
        return (answer.verdict, comparable(answer.record) if answer.record else None, answer.resume)
    if isinstance(answer, list):
        return sorted(map(comparable, answer))
    if hasattr(answer, "approval_id"):
        return (answer.approval_id, answer.approved, answer.decided_by)
    return answer


class Agreement(RuleBasedStateMachine):
    """Two workers, two runs. Keys of lost claims stay in use, as a worker does that has not heard of it yet."""

    server: PostgresServer

    @initialize()
    def begin(self) -> None:
        self.tenant = f"model-{next(TENANTS)}"
        self.runner = asyncio.Runner()
        store = MemoryStore()
        self.model = {name: MemoryLedger(store, name) for name in WORKERS}
        self.real = {name: PostgresLedger(self.server.worker_url, self.tenant, name) for name in WORKERS}
        self.keys: dict[str, list[tuple[str, RunKey]]] = {run: [] for run in RUNS}
        for run in RUNS:
            self.claim(run, "w1", "")

    def teardown(self) -> None:
        """Whatever happened, another worker that takes the runs over is told the same."""
        try:
            for run in RUNS if hasattr(self, "keys") else ():
                self.claim(run, "w2", "w1")
        finally:
            self.close()

    def close(self) -> None:
        async def close() -> None:
            for one in self.real.values():
                await one.aclose()

        if hasattr(self, "runner"):
            self.runner.run(close())
            self.runner.close()

    def both(self, worker: str, ask: Callable[[Ledger], Awaitable[Any]]) -> Any:
        async def answer(one: Ledger) -> Any:
            try:
                return await ask(one)
            except LedgerError as error:
                return type(error)

        model = self.runner.run(answer(self.model[worker]))
        real = self.runner.run(answer(self.real[worker]))
        assert comparable(real) == comparable(model)
        return model

    def tell(self, worker: str, say: Callable[[Ledger], None]) -> None:
        async def told() -> None:
            say(self.real[worker])

        say(self.model[worker])
        self.runner.run(told())

    def settle(self) -> None:
        """Only each worker's own records are in order: before the other one acts, all of them are made durable."""
        for keys in self.keys.values():
            for worker, key in keys:
                self.both(worker, lambda one, key=key: one.settled(key))  # type: ignore[misc]

    def key(self, run: str, older: bool) -> tuple[str, RunKey] | None:
        keys = self.keys[run]
        return None if not keys else keys[-2] if older and len(keys) > 1 else keys[-1]

    @rule(run=st.sampled_from(RUNS), worker=st.sampled_from(WORKERS), lost=st.sampled_from(("", *WORKERS)))
    def claims(self, run: str, worker: str, lost: str) -> None:
        self.claim(run, worker, lost)

    def claim(self, run: str, worker: str, lost: str) -> None:
        self.settle()
        new = NewRun(run, "session", ANA, "text", "r")
        answer = self.both(worker, lambda one: one.claim(new, lost_worker=lost))
        if isinstance(answer, Claim):
            self.keys[run].append((worker, answer.key))

    @rule(run=st.sampled_from(RUNS), older=st.booleans(), entry=st.binary(max_size=3))
    def record(self, run: str, older: bool, entry: bytes) -> None:
        if found := self.key(run, older):
            worker, key = found
            self.tell(worker, lambda one: one.record(key, entry))

    @rule(run=st.sampled_from(RUNS), older=st.booleans())
    def open(self, run: str, older: bool) -> None:
        if found := self.key(run, older):
            worker, key = found
            self.tell(worker, lambda one: one.open(key, b"opening of %d" % key.fence))

    @rule(
        run=st.sampled_from(RUNS),
        older=st.booleans(),
        step=st.sampled_from(STEPS),
        other=st.booleans(),
        approval=st.booleans(),
    )
    def intend(self, run: str, older: bool, step: str, other: bool, approval: bool) -> None:
        if found := self.key(run, older):
            worker, key = found
            self.both(worker, lambda one: one.intend(key, intent(run, step, other, approval)))

    @rule(
        run=st.sampled_from(RUNS),
        older=st.booleans(),
        step=st.sampled_from(STEPS),
        outcome=st.sampled_from(tuple(Outcome)),
    )
    def outcome(self, run: str, older: bool, step: str, outcome: Outcome) -> None:
        if found := self.key(run, older):
            worker, key = found
            self.tell(worker, lambda one: one.outcome(key, f"{run}/{step}", ToolResult(outcome, "so", {"a": 1})))

    @rule(run=st.sampled_from(RUNS), step=st.sampled_from(STEPS), outcome=st.sampled_from(tuple(Outcome)))
    def write(self, run: str, step: str, outcome: Outcome) -> None:
        """The usual way, so that it happens often enough; each in a transaction of its own."""
        worker, key = self.keys[run][-1]
        self.both(worker, lambda one: one.intend(key, intent(run, step, other_arguments=False, approval=False)))
        self.tell(worker, lambda one: one.outcome(key, f"{run}/{step}", ToolResult(outcome, "so", {"a": 1})))
        self.settle()

    @rule(run=st.sampled_from(RUNS), older=st.booleans(), steps=st.lists(st.sampled_from(STEPS), unique=True))
    def ask(self, run: str, older: bool, steps: list[str]) -> None:
        if found := self.key(run, older):
            worker, key = found
            self.both(worker, lambda one: one.ask(key, [(f"{run}-a-{step}", request(step)) for step in steps]))

    @rule(run=st.sampled_from(RUNS), older=st.booleans())
    def park(self, run: str, older: bool) -> None:
        if found := self.key(run, older):
            worker, key = found
            self.both(worker, lambda one: one.park(key))

    @rule(
        run=st.sampled_from(RUNS), step=st.sampled_from(STEPS), worker=st.sampled_from(WORKERS), approved=st.booleans()
    )
    def decide(self, run: str, step: str, worker: str, approved: bool) -> None:
        self.settle()
        self.both(worker, lambda one: one.decide(f"{run}-a-{step}", approved=approved, decider=ANA))
        self.both(worker, lambda one: one.pending())

    @rule(run=st.sampled_from(RUNS), older=st.booleans())
    def release(self, run: str, older: bool) -> None:
        if found := self.key(run, older):
            worker, key = found
            self.both(worker, lambda one: one.release(key))

    @rule(run=st.sampled_from(RUNS), older=st.booleans())
    def finish(self, run: str, older: bool) -> None:
        if found := self.key(run, older):
            worker, key = found
            self.tell(worker, lambda one: one.finish(key, "answered", b"end %d" % key.fence))

    @rule(run=st.sampled_from(RUNS))
    def lease_runs_out(self, run: str) -> None:
        self.settle()
        if stored := self.model["w1"].store.runs.get(run):
            stored.lease_until = -1.0

            async def expire() -> None:
                connection = await asyncpg.connect(self.server.superuser_url)
                await connection.execute(
                    "UPDATE runs SET lease_until = now() - interval '1 hour' WHERE tenant = $1 AND run_id = $2",
                    self.tenant,
                    run,
                )
                await connection.close()

            self.runner.run(expire())


def test_the_ledger_in_postgresql_does_what_the_one_in_memory_does(server: PostgresServer) -> None:
    Agreement.server = server
    run_state_machine_as_test(
        Agreement,
        settings=settings(
            max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
