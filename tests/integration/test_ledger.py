"""The ledger on a real PostgreSQL: what is promised in ``ledger.base`` under races, kills and hostile data."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from pilothouse_dataplane.core.approvals import ApprovalRequest, arguments_hash
from pilothouse_dataplane.core.messages import By, Citation, Outcome, ToolResult
from pilothouse_dataplane.core.provenance import ArgumentOrigin
from pilothouse_dataplane.ledger.base import (
    Asker,
    Claim,
    DeadLetterRecord,
    Fenced,
    Finished,
    Held,
    LedgerError,
    LedgerUnavailable,
    NewRun,
    RunKey,
    Verdict,
    WriteIntent,
    WriteRefused,
)
from pilothouse_dataplane.ledger.migrate import migrate
from pilothouse_dataplane.ledger.postgres import PostgresLedger
from pilothouse_testing.postgres import PostgresServer, postgres_server, run_sql

NUMBERS = itertools.count(1)
ANA = Asker("sub-ana", "ana@acme.example", "Ana", "max@acme.example", ("it",))
MADE = ToolResult(Outcome.SUCCEEDED, "Created IT-1.", {"key": "IT-1"}, (Citation("IT-1", "https://jira.example/IT-1"),))
BOUND = 3.5
"""Seconds within which a call that waits must answer (3), and a little."""

Maker = Callable[..., PostgresLedger]


def migrate_process(server: PostgresServer, url: str) -> subprocess.Popen[str]:
    env = {
        **os.environ,
        "PILOTHOUSE_DATABASE_URL": url,
        "PILOTHOUSE_WORKER_DATABASE_PASSWORD": server.settings.worker_database_password,
    }
    command = [sys.executable, "-m", "pilothouse_dataplane.ledger.migrate"]
    return subprocess.Popen(command, env=env, cwd="/", text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.fixture(scope="module")
def migrated() -> Iterator[tuple[PostgresServer, list[str]]]:
    """A server whose schema two processes migrated at once, and what they said."""
    with postgres_server() as server:
        both = [migrate_process(server, server.owner_url) for _ in range(2)]
        said = ["".join(process.communicate(timeout=60)) for process in both]
        assert [process.returncode for process in both] == [0, 0], said
        yield server, said


@pytest.fixture(scope="module")
def server(migrated: tuple[PostgresServer, list[str]]) -> PostgresServer:
    return migrated[0]


@pytest.fixture
async def ledger(server: PostgresServer) -> AsyncIterator[Maker]:
    """Makes ledgers of one fresh tenant, by the worker's name; they are closed after the test."""
    made: list[PostgresLedger] = []
    own = f"tenant-{next(NUMBERS)}"

    def make(worker: str = "w1", tenant: str = own, **options: Any) -> PostgresLedger:
        made.append(PostgresLedger(options.pop("url", server.worker_url), tenant, worker, **options))
        return made[-1]

    yield make
    for one in made:
        await one.aclose()


def new_run(run_id: str = "") -> NewRun:
    return NewRun(run_id or f"run-{next(NUMBERS)}", "session-1", ANA, "A ticket for my printer, please.", "r1")


def intent(key: RunKey, step: str = "s1", approval: str | None = None, **arguments: object) -> WriteIntent:
    hashed = arguments_hash("jira.issue.create", arguments)
    return WriteIntent(f"{key.run_id}/{step}", step, "jira.issue.create", arguments, hashed, ANA.email, approval)


def request(step: str = "s1", expires_in: float = 60.0, by: By = By.USER, **arguments: object) -> ApprovalRequest:
    return ApprovalRequest(
        step_id=step,
        tool="jira.issue.create",
        summary="Create an issue",
        arguments=arguments,
        arguments_hash=arguments_hash("jira.issue.create", arguments),
        by=by,
        approver={By.USER: ANA.email, By.MANAGER: ANA.manager_email, By.GROUP: "it"}[by],
        reason="The policy says so.",
        origins=(ArgumentOrigin("summary", "printer", "jira.issue.get (s1)"),),
        expires_in=expires_in,
    )


async def claimed(ledger: PostgresLedger, run: NewRun | None = None, **options: Any) -> Claim:
    answer = await ledger.claim(run or new_run(), **options)
    assert isinstance(answer, Claim)
    return answer


async def as_superuser(server: PostgresServer, sql: str, *arguments: object) -> list[Any]:
    """Rows as nobody's tenant: row-level security does not bind a superuser."""
    connection = await asyncpg.connect(server.superuser_url, timeout=5)
    try:
        return list(await connection.fetch(sql, *arguments))
    finally:
        await connection.close()


async def as_worker(server: PostgresServer, tenant: str | None) -> Any:
    settings = {"pilothouse.tenant": tenant} if tenant is not None else {}
    return await asyncpg.connect(server.worker_url, timeout=5, server_settings=settings)


# --- schema ---
def test_two_migrations_at_once_migrate_once(migrated: tuple[PostgresServer, list[str]]) -> None:
    server, said = migrated
    assert sorted("from nothing" in words for words in said) == [False, True], said
    again = migrate_process(server, server.owner_url)
    assert "up to date" in again.communicate(timeout=60)[0]
    assert again.returncode == 0


def test_a_newer_schema_is_accepted_as_long_as_it_says_so(server: PostgresServer) -> None:
    run_sql(server.superuser_url, "CREATE DATABASE newer OWNER pilothouse")
    url = server.owner_url.replace("/pilothouse", "/newer") if server.owner_url.count("/pilothouse") == 1 else ""
    url = url or server.owner_url.rsplit("/", 1)[0] + "/newer"
    assert "from nothing" in asyncio.run(migrate(url))
    run_sql(url, "UPDATE alembic_version SET version_num = '0099'")
    assert "newer than this code" in asyncio.run(migrate(url))
    run_sql(url, "UPDATE ledger_schema SET oldest_code = 99")
    refused = migrate_process(server, url)
    said = refused.communicate(timeout=60)[1]
    assert refused.returncode == 1
    assert "the schema was not changed; run a newer release" in said


async def test_a_tenant_sees_and_writes_nothing_of_another(server: PostgresServer, ledger: Maker) -> None:
    mine, theirs = ledger(tenant="rls-a"), ledger(tenant="rls-b")
    claim = await claimed(mine)
    mine.open(claim.key, b"o")
    mine.record(claim.key, b"x")
    await mine.ask(claim.key, [("rls-approval", request())])
    await mine.intend(claim.key, intent(claim.key))
    await mine.bury(letter(claim))
    assert await theirs.claim_known(claim.run.run_id) is None
    assert (await theirs.decide("rls-approval", approved=True, decider=ANA)).verdict is Verdict.NOT_FOUND
    assert not await theirs.pending()
    assert not await theirs.dead_letters(all_states=True)
    # The same id is another tenant's own run.
    assert (await claimed(theirs, claim.run)).fresh

    tables = ("runs", "run_journal", "tool_calls", "approvals", "dead_letters")
    for table in tables:
        assert (await as_superuser(server, f"SELECT count(*) FROM {table} WHERE tenant = 'rls-a'"))[0][0] == 1
        for url, tenant in [(server.worker_url, "rls-c"), (server.worker_url, None), (server.owner_url, None)]:
            settings = {"pilothouse.tenant": tenant} if tenant else {}
            connection = await asyncpg.connect(url, timeout=5, server_settings=settings)
            try:
                assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0, (table, tenant)
            finally:
                await connection.close()
    connection = await as_worker(server, "rls-b")
    try:
        for forbidden in [
            "INSERT INTO run_journal (tenant, run_id, seq, entry) VALUES ('rls-a', 'r', 1, '')",  # WITH CHECK
            "ALTER TABLE runs DISABLE ROW LEVEL SECURITY",
            "DROP POLICY own_tenant ON runs",
            "TRUNCATE runs",
            "CREATE TABLE mine (x int)",
            "UPDATE runs SET tenant = 'rls-b'",
            "UPDATE runs SET asker = '{}'",
            "UPDATE tool_calls SET arguments = '{}'",
            "UPDATE approvals SET arguments_hash = ''",
            "UPDATE dead_letters SET error = ''",
            *(f"DELETE FROM {table}" for table in tables if table != "run_journal"),
        ]:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(forbidden)
    finally:
        await connection.close()


# --- claims ---
async def test_a_run_taken_over_is_told_whole(ledger: Maker) -> None:
    first, second = ledger("w1"), ledger("w2")
    hostile = {"text": "nul \x00, half \ud800", "big": 2**70, "float": 1e22, "deep": {"a": [1.0, None, True]}}
    run = replace(new_run(), text="nul \x00")
    claim = await claimed(first, run)
    assert claim.fresh
    assert claim.key.fence == 1
    first.open(claim.key, b"opening")
    for entry in (b"one", b"two", b"\x00three"):
        first.record(claim.key, entry)
    odd = replace(intent(claim.key), arguments=hostile, arguments_hash="sha256:odd")
    await first.intend(claim.key, odd)
    await first.intend(claim.key, intent(claim.key, "s2"))
    first.outcome(claim.key, intent(claim.key, "s2").key, MADE)
    first.outcome(claim.key, intent(claim.key, "s2").key, ToolResult(Outcome.FAILED, "a second outcome"))
    await first.settled(claim.key)

    assert await second.claim(run) == Held("w1")
    taken = await claimed(second, run, lost_worker="w1")
    assert (taken.fresh, taken.key.fence, taken.opening) == (False, 2, b"opening")
    assert taken.journal == (b"one", b"two", b"\x00three")
    assert taken.run == replace(run, text="nul \ufffd")
    known, settled = taken.writes
    assert known.intent == odd  # to the letter, so that its hash is what it was
    assert known.result is None
    assert settled.result == MADE

    # The old worker is told at its next call, and nothing of it counts any more.
    first.record(claim.key, b"too late")
    first.finish(claim.key, "answered", b"too late")
    with pytest.raises(Fenced):
        await first.intend(claim.key, intent(claim.key, "s3"))
    second.record(taken.key, b"four")
    await second.settled(taken.key)
    again = await claimed(second, run)
    assert again.journal == (b"one", b"two", b"\x00three", b"four")
    assert len(again.writes) == 2


async def test_a_claim_and_a_record_wait_for_each_other(server: PostgresServer, ledger: Maker) -> None:
    """On two connections, with the transactions held open by hand: whichever comes first, the other one sees it."""
    tenant = "fence"
    claim = await claimed(ledger("w1", tenant=tenant))
    one, two = await as_worker(server, tenant), await as_worker(server, tenant)

    def flush(connection: Any, fence: int, worker: str, seq: int) -> Any:
        columns = [[] for _ in range(15)]
        sql = (
            "SELECT held FROM ledger_flush_1($1, false, $2, $3, '{}', '{}', '{1}', $4, $5"
            + ", '{}'" * len(columns)
            + ")"
        )
        return connection.fetchval(sql, worker, [claim.run.run_id], [fence], [seq], [b"entry %d" % seq])

    def take(connection: Any, worker: str) -> Any:
        return connection.fetchrow(
            "SELECT * FROM ledger_claim_1($1, $2, 'w1', 10, NULL, NULL, NULL, NULL, NULL)", claim.run.run_id, worker
        )

    try:
        transaction = one.transaction()
        await transaction.start()
        assert await flush(one, 1, "w1", 0) == [1]
        taking = asyncio.ensure_future(take(two, "w2"))
        await asyncio.sleep(0.3)
        assert not taking.done()  # it waits for the record
        await transaction.commit()
        row = await taking
        assert (row["verdict"], row["fence"], row["journal"]) == ("claimed", 2, [b"entry 0"])

        transaction = two.transaction()
        await transaction.start()
        assert (await two.fetchval("SELECT fence FROM ledger_claim_1($1, 'w3', 'w2', 10, NULL, NULL, NULL, NULL, NULL)",
                                   claim.run.run_id)) == 3  # fmt: skip
        late = asyncio.ensure_future(flush(one, 2, "w2", 1))
        await asyncio.sleep(0.3)
        assert not late.done()  # it waits for the claim
        await transaction.commit()
        assert await late is None
        entries = await as_superuser(server, "SELECT entry FROM run_journal WHERE run_id = $1", claim.run.run_id)
        assert [bytes(row[0]) for row in entries] == [b"entry 0"]
    finally:
        await one.close()
        await two.close()


async def test_a_takeover_at_any_moment_sees_all_that_was_acknowledged_and_nothing_comes_after(
    server: PostgresServer, ledger: Maker
) -> None:
    first, second = ledger("w1"), ledger("w2")

    async def one(number: int) -> tuple[int, int]:
        run = new_run()
        claim = await claimed(first, run)
        acknowledged: list[str] = []

        async def work() -> None:
            for step in itertools.count():
                first.record(claim.key, b"%d" % step)
                await first.intend(claim.key, intent(claim.key, f"s{step}"))
                acknowledged.append(f"{run.run_id}/s{step}")
                await asyncio.sleep(random.random() * 0.01)

        working = asyncio.create_task(work())
        await asyncio.sleep(random.random() * 0.15)
        at_claim = len(acknowledged)
        taken = await claimed(second, run, lost_worker="w1")
        with pytest.raises(Fenced):
            await working
        assert {write.intent.key for write in taken.writes} == set(acknowledged[: len(taken.writes)])
        assert len(acknowledged) <= len(taken.writes), "a write was allowed that the new holder does not know of"
        assert list(taken.journal) == [b"%d" % step for step in range(len(taken.journal))]
        assert len(taken.journal) >= len(acknowledged)
        rows = await as_superuser(
            server, "SELECT (SELECT count(*) FROM run_journal WHERE run_id = $1), "
            "(SELECT count(*) FROM tool_calls WHERE run_id = $1)", run.run_id)  # fmt: skip
        assert tuple(rows[0]) == (len(taken.journal), len(taken.writes)), "something was recorded after the claim"
        return at_claim, len(acknowledged)

    for batch in range(5):
        counts = await asyncio.gather(*(one(batch * 12 + n) for n in range(12)))
    assert any(after for _, after in counts), "no write was under way: the test proved nothing"


async def test_of_many_claims_at_once_one_wins(ledger: Maker) -> None:
    run = new_run()
    answers = await asyncio.gather(*(ledger(f"w{n}").claim(run) for n in range(12)))
    winners = [answer for answer in answers if isinstance(answer, Claim)]
    assert len(winners) == 1
    assert {type(answer) for answer in answers} == {Claim, Held}


async def test_a_finished_run_is_told_its_end_at_once_and_ever_after(server: PostgresServer, ledger: Maker) -> None:
    first, second = ledger("w1"), ledger("w2")
    claim = await claimed(first)
    first.open(claim.key, b"o")
    first.record(claim.key, b"x")
    await first.ask(claim.key, [(f"{claim.run.run_id}-a", request())])
    first.finish(claim.key, "answered", b"the end")
    # Not flushed yet: the same worker, asked again, must not begin again.
    assert await first.claim(claim.run) == Finished(b"the end")
    await first.settled(claim.key)
    assert await second.claim(claim.run, lost_worker="w1") == Finished(b"the end")
    assert not await second.pending()
    with pytest.raises(Fenced):
        await first.intend(claim.key, intent(claim.key))
    left = await as_superuser(server, "SELECT 1 FROM run_journal WHERE run_id = $1", claim.run.run_id)
    kept = await as_superuser(server, "SELECT opening, outcome FROM runs WHERE run_id = $1", claim.run.run_id)
    assert (left, tuple(kept[0])) == ([], (None, "answered"))


async def test_leases_are_renewed_while_the_worker_lives_and_run_out_when_it_dies(
    ledger: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("postgres", "writer"):
        monkeypatch.setattr(f"pilothouse_dataplane.ledger.{module}.LEASE_SECONDS", 0.6)
    monkeypatch.setattr("pilothouse_dataplane.ledger.writer.RENEW_SECONDS", 0.15)
    first, second = ledger("w1"), ledger("w2")
    claim, given_up = await claimed(first), await claimed(first)
    await first.release(given_up.key)
    await asyncio.sleep(1.0)
    assert await second.claim(claim.run) == Held("w1")
    assert await second.abandoned(10) == [given_up.run.run_id]
    with pytest.raises(Fenced):
        await first.intend(given_up.key, intent(given_up.key))
    assert isinstance(await second.claim(given_up.run), Claim)
    await first.aclose()
    assert await second.claim(claim.run) == Held("w1")
    await asyncio.sleep(0.8)
    assert await second.abandoned(10) == [claim.run.run_id]
    assert isinstance(await second.claim(claim.run), Claim)
    assert await second.abandoned(10) == []


# --- approvals ---
async def test_an_approval_allows_one_write_with_exactly_its_arguments(ledger: Maker) -> None:
    one = ledger()
    claim = await claimed(one)
    key, ask = claim.key, f"{claim.run.run_id}-a"
    (asked,) = await one.ask(key, [(ask, request(summary="printer"))])
    assert asked.request == request(summary="printer")
    assert (await one.ask(key, [(ask, request(summary="other"))])) == [asked]  # recorded already

    with pytest.raises(WriteRefused):
        await one.intend(key, intent(key, approval=ask, summary="printer"))  # not decided
    stranger = replace(ANA, email="eve@acme.example", groups=("it",))
    assert (await one.decide(ask, approved=True, decider=stranger)).verdict is Verdict.NOT_ALLOWED
    decided = await one.decide(ask, approved=True, decider=ANA)
    assert (decided.verdict, decided.resume) == (Verdict.DECIDED, False)
    assert (await one.decide(ask, approved=False, decider=ANA)).verdict is Verdict.ALREADY_DECIDED

    other_run = await claimed(one)
    for refused, holder in [
        (intent(key, approval=ask, summary="another printer"), key),
        (intent(key, approval="no-such", summary="printer"), key),
        (intent(other_run.key, approval=ask, summary="printer"), other_run.key),
    ]:
        with pytest.raises(WriteRefused):
            await one.intend(holder, refused)
    at_once = [intent(key, step, approval=ask, summary="printer") for step in ("s1", "s2", "s3")]
    answers = await asyncio.gather(*(one.intend(key, each) for each in at_once), return_exceptions=True)
    assert sorted(type(answer).__name__ for answer in answers) == ["NoneType", "WriteRefused", "WriteRefused"]
    allowed = at_once[answers.index(None)]
    await one.intend(key, allowed)  # the same again, until it has succeeded
    one.outcome(key, allowed.key, MADE)
    with pytest.raises(WriteRefused):
        await one.intend(key, allowed)


async def test_park_and_decide_never_miss_one_another(ledger: Maker) -> None:
    """Either the worker is told of the decision and goes on, or it has parked and the decider is told to resume."""
    holder, front = ledger("w1"), ledger("w2")
    seen = {"told": 0, "parked": 0}

    async def race(number: int) -> None:
        claim = await claimed(holder)
        ask = f"{claim.run.run_id}-a"
        await holder.ask(claim.key, [(ask, request())])

        async def park() -> Any:
            await asyncio.sleep(random.random() * 0.02)
            return await holder.park(claim.key)

        async def decide() -> Any:
            await asyncio.sleep(random.random() * 0.2)  # parking is one after the other: it takes longer
            return await front.decide(ask, approved=True, decider=ANA)

        told, decision = await asyncio.gather(park(), decide())
        assert decision.verdict is Verdict.DECIDED
        if told is None:
            seen["parked"] += 1
            assert decision.resume, "parked, and nobody was told to resume it"
            resumed = await front.claim_known(claim.run.run_id)
            assert isinstance(resumed, Claim)
            assert [record.approved for record in resumed.approvals] == [True]
        else:
            seen["told"] += 1
            assert not decision.resume
            assert [record.approval_id for record in told] == [ask]
            assert await holder.park(claim.key) is None  # what it was told does not hold it up again

    for _ in range(10):
        await asyncio.gather(*(race(number) for number in range(20)))
    assert min(seen.values()) >= 10, f"one order hardly happened: {seen}"


async def test_what_nobody_answers_lapses_and_resumes(ledger: Maker) -> None:
    one, two = ledger("w1"), ledger("w2")
    claim = await claimed(one)
    short, long = f"{claim.run.run_id}-a", f"{claim.run.run_id}-b"
    await one.ask(claim.key, [(short, request(expires_in=0.3)), (long, request("s2", by=By.MANAGER))])
    assert await one.park(claim.key) is None
    manager = replace(ANA, email=ANA.manager_email.upper())
    assert [record.approval_id for record in await two.pending(ANA)] == [short]
    assert [record.approval_id for record in await two.pending(manager)] == [long]
    await asyncio.sleep(0.4)
    assert [record.approval_id for record in await two.pending()] == [long]
    assert await two.abandoned(10) == []  # the other one still waits
    late = await two.decide(short, approved=True, decider=ANA)
    assert (late.verdict, late.resume) == (Verdict.EXPIRED, False)
    last = await two.decide(long, approved=True, decider=manager)
    assert (last.verdict, last.resume) == (Verdict.DECIDED, True)
    assert await two.abandoned(10) == [claim.run.run_id]
    resumed = await claimed(two, claim.run)
    assert [(record.approved, record.decided_by) for record in resumed.approvals] == [
        (False, ""),
        (True, manager.email),
    ]
    assert 0.3 < resumed.parked_seconds < 5
    assert resumed.elapsed < 5


# --- dead letters ---
def letter(claim: Claim, **changes: Any) -> DeadLetterRecord:
    made = DeadLetterRecord(
        id=f"letter-{next(NUMBERS)}", run_id=claim.run.run_id, session_id="session-1", step_id="s1", asker=ANA,
        tool="jira.issue.create", arguments={"summary": "printer"}, key=f"{claim.run.run_id}/s1", error="503",
        attempts=3, breaker_state="open", in_doubt=True, created=datetime.now(UTC),
    )  # fmt: skip
    return replace(made, **changes)


async def test_a_dead_letter_is_kept_once_and_closed_once(ledger: Maker) -> None:
    one = ledger()
    claim = await claimed(one)
    buried = letter(claim)
    await one.bury(buried)
    await one.bury(letter(claim))  # the same run and step
    assert await one.dead_letters() == [buried]
    assert await one.later_success(buried) == ""

    later = await claimed(one)
    same = replace(intent(later.key, summary="printer"))
    await one.intend(later.key, same)
    assert await one.later_success(buried) == ""  # not known to have happened
    one.outcome(later.key, same.key, MADE)
    await one.settled(later.key)
    assert await one.later_success(buried) == later.run.run_id
    assert await one.later_success(replace(buried, asker=replace(ANA, email="eve@acme.example"))) == ""
    assert await one.later_success(replace(buried, arguments={"summary": "other"})) == ""

    closed = await asyncio.gather(
        *(one.resolve(buried.id, state="replayed", by=f"sre{n}", resolution="IT-1") for n in range(5))
    )
    (winner,) = [record for record in closed if record is not None]
    assert await one.dead_letters() == []
    assert await one.dead_letters(all_states=True) == [winner] == await one.dead_letters(id=buried.id)


# --- trouble ---
async def test_data_that_postgresql_refuses_hurts_its_own_run_only(ledger: Maker) -> None:
    one = ledger()
    bad, good = await claimed(one), await claimed(one)
    one.record(good.key, b"one")
    one.record(bad.key, b"one")
    refused = one.intend(bad.key, replace(intent(bad.key), user_email="nul \x00"))
    accepted = one.intend(good.key, intent(good.key))
    answers = await asyncio.gather(refused, accepted, return_exceptions=True)
    assert isinstance(answers[0], LedgerError)
    assert answers[1] is None
    one.record(good.key, b"two")
    await one.settled(good.key)
    assert (await claimed(one, good.run)).journal == (b"one", b"two")


async def _until_answers(server: PostgresServer, *options: str) -> None:
    await asyncio.to_thread(server.start, *options)


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """One that the test may kill."""
    with postgres_server() as server:
        asyncio.run(migrate(server.owner_url, server.settings.worker_database_password))
        yield server


async def timed(awaitable: Any) -> tuple[Any, float]:
    begun = time.monotonic()
    try:
        answer = await awaitable
    except Exception as error:
        answer = error
    return answer, time.monotonic() - begun


async def test_a_killed_postgresql_loses_nothing_acknowledged(own_server: PostgresServer, ledger: Maker) -> None:
    server = own_server
    one, small = ledger(url=server.worker_url), ledger("w9", url=server.worker_url, max_queued=20_000)
    claims = [await claimed(one) for _ in range(8)]
    hoarder = await claimed(small)
    acknowledged: list[str] = []
    waits: list[float] = []
    stop = asyncio.Event()

    async def work(claim: Claim) -> int:
        for step in itertools.count():
            if stop.is_set():
                await one.settled(claim.key)
                return step
            one.record(claim.key, b"%d" % step)
            write = intent(claim.key, f"s{step}")
            answer, seconds = await timed(one.intend(claim.key, write))
            waits.append(seconds)
            if answer is None:
                acknowledged.append(write.key)
            else:
                assert isinstance(answer, LedgerUnavailable), answer
            await asyncio.sleep(0.001)
        return 0

    working = [asyncio.create_task(work(claim)) for claim in claims]
    for _ in range(3):
        await asyncio.sleep(0.3 + random.random() * 0.2)
        await asyncio.to_thread(server.kill)
        await asyncio.sleep(0.2)
        await _until_answers(server)
    await asyncio.to_thread(server.kill)
    before = len(acknowledged)
    answer, seconds = await timed(one.claim(new_run()))
    assert isinstance(answer, LedgerUnavailable)
    assert seconds < BOUND
    for _ in range(100):
        small.record(hoarder.key, b"x" * 1000)
    answer, seconds = await timed(small.settled(hoarder.key))
    assert isinstance(answer, LedgerUnavailable)  # it dropped records, and says so
    assert seconds < 0.5
    await asyncio.sleep(2)
    await _until_answers(server)
    await asyncio.sleep(1.5)
    stop.set()
    recorded = await asyncio.gather(*working)
    assert len(acknowledged) > before > 0
    assert max(waits) < BOUND
    rows = await as_superuser(server, "SELECT key FROM tool_calls")
    assert set(acknowledged) <= {row[0] for row in rows}
    for claim, count in zip(claims, recorded, strict=True):
        taken = await claimed(one, claim.run)
        assert list(taken.journal) == [b"%d" % number for number in range(count)], "a record was lost or came twice"
    answer, _ = await timed(small.settled(hoarder.key))
    assert isinstance(answer, LedgerUnavailable)
    assert (await claimed(one, hoarder.run, lost_worker="w9")).journal == ()


async def test_a_frozen_postgresql_holds_nobody_up_for_long(own_server: PostgresServer, ledger: Maker) -> None:
    server = own_server
    one = ledger(url=server.worker_url)
    claim = await claimed(one)
    await one.settled(claim.key)
    one.record(claim.key, b"0")
    server.signal_all(signal.SIGSTOP)
    try:
        calls = [one.intend(claim.key, intent(claim.key)), one.claim(new_run()), one.park(claim.key), one.pending()]
        for answer, seconds in await asyncio.gather(*map(timed, calls)):
            assert isinstance(answer, LedgerUnavailable), answer
            assert seconds < BOUND
    finally:
        server.signal_all(signal.SIGCONT)
    one.record(claim.key, b"1")
    async with asyncio.timeout(10):
        while True:
            answer, _ = await timed(one.settled(claim.key))
            if answer is None:
                break
    await one.intend(claim.key, intent(claim.key))
    taken = await claimed(one, claim.run)
    assert taken.journal == (b"0", b"1")
    assert len(taken.writes) == 1
