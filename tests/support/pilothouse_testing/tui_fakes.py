"""Fixed data and fake sources for the terminal UI: for tests, the README's picture, and trying keys by hand.

``python -m pilothouse_testing.tui_fakes [TENANTS SESSIONS]`` runs the UI on them (with numbers: that many, changing).
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from pilothouse_tui.errors import ToolError
from pilothouse_tui.model import (
    FLEET,
    KUBERNETES,
    Approval,
    ApprovalGone,
    Approver,
    Breaker,
    BreakerMode,
    BreakerState,
    Condition,
    Connected,
    CostSum,
    DeadLetter,
    DeadLetters,
    DeadLetterState,
    DecideOutcome,
    Decision,
    FleetSnapshot,
    KubeObject,
    ModelCall,
    ObjectsListed,
    Origin,
    Replay,
    Run,
    RunOutcome,
    Session,
    SessionDetail,
    SessionUpdate,
    Step,
    StepOutcome,
    TenantCost,
    TimeSplit,
    Update,
)

NOW = datetime(2026, 11, 22, 9, 30, 0, tzinfo=UTC)


def ago(seconds: float) -> datetime:
    """A moment before ``NOW``."""
    return NOW - timedelta(seconds=seconds)


def conditions(ready: bool = True, reason: str = "", message: str = "", since: float = 7200) -> tuple[Condition, ...]:
    """``Accepted``, ``ResolvedRefs`` and ``Ready``; where not ready, ``ResolvedRefs`` has the reason."""
    return (
        Condition("Accepted", "True", "Accepted", "", ago(since)),
        Condition("ResolvedRefs", "True" if ready else "False", reason or "Resolved", message, ago(since)),
        Condition(
            "Ready",
            "True" if ready else "False",
            "AllWorkersLoaded" if ready else reason,
            "1 of 1 workers run this configuration" if ready else message,
            ago(since),
        ),
    )


def tenant(name: str, title: str = "", *, ready: bool = True, reason: str = "", message: str = "") -> KubeObject:
    """A Tenant in a namespace of its own name."""
    return KubeObject("Tenant", name, name, title or name.title(), name, "", 3, 3, conditions(ready, reason, message))


def connector(tenant_name: str, kind: str, *, ready: bool = True, reason: str = "", message: str = "") -> KubeObject:
    """A Connector of a tenant."""
    detail = f"{kind} · https://{tenant_name}.example/{kind}"
    state = conditions(ready, reason, message, since=300)
    return KubeObject("Connector", tenant_name, kind, kind, tenant_name, detail, 1, 1, state)


def route(namespace: str, *, ready: bool = True, reason: str = "", message: str = "") -> KubeObject:
    """A ModelRoute."""
    state = conditions(ready, reason, message, since=600)
    return KubeObject("ModelRoute", namespace, "standard", "standard", "", "local, anthropic", 2, 2, state)


MISSING = "Secret initech-sf has no key clientSecret. Create it, or change spec.auth.oauth.clientSecretRef."

OBJECTS: tuple[KubeObject, ...] = (
    tenant("acme", "Acme"),
    connector("acme", "jira"),
    connector("acme", "servicenow"),
    route("acme"),
    tenant("globex", "Globex"),
    connector("globex", "okta"),
    route("globex"),
    tenant("initech", "Initech"),
    connector("initech", "salesforce", ready=False, reason="SecretKeyMissing", message=MISSING),
    route("initech"),
    replace(tenant("umbrella", "Umbrella"), generation=4),
    tenant(
        "hooli", "Hooli", ready=False, reason="ModelRouteNotFound", message="There is no ModelRoute standard in hooli."
    ),
)

SESSIONS: tuple[Session, ...] = (
    Session(
        "acme", "s-7f31c2", "employee@acme.example", "r-5d9c", "acme-worker-5d9c-x2k", ago(320), ago(1),
        "jira.issue.create  Open an issue for the VPN outage", "VPN is down for the Berlin office", 3, 18_420, True,
        RunOutcome.ANSWERED,
    ),
    Session(
        "globex", "s-19ab40", "dana@globex.example", "r-11e0", "globex-worker-11e0-p9c", ago(45), ago(3),
        "okta.user.find  Look up Sam's account", "Unlock Sam's account", 1, 2_310, True, RunOutcome.UNKNOWN,
    ),
    Session(
        "acme", "s-c0ffee", "lena@acme.example", "r-5d9c", "acme-worker-5d9c-x2k", ago(900), ago(4),
        "", "Delete the duplicate of NET-41", 7, 92_800, True, RunOutcome.PARTIAL, 1,
    ),
    Session(
        "initech", "s-88aa01", "milton@initech.example", "r-77b2", "initech-worker-77b2-qq1", ago(3000), ago(64),
        "", "Update the Penetrode opportunity to closed won", 2, 40_120, False, RunOutcome.FAILED,
    ),
    Session(
        "umbrella", "s-5512ef", "alice@umbrella.example", "r-2a01", "umbrella-worker-2a01-m4z", ago(4000), ago(610),
        "", "Order a laptop for the new analyst", 4, 1_204_000, False, RunOutcome.ANSWERED,
    ),
    Session(
        "acme", "s-90d1aa", "山田@acme.example", "r-5d9c", "acme-worker-5d9c-x2k", ago(7300), ago(3700),
        "", "経費精算の締め切りはいつですか", 1, 900, False, RunOutcome.STOPPED,
    ),
)  # fmt: skip

BREAKERS: tuple[Breaker, ...] = (
    Breaker(
        "initech", "connector/salesforce", BreakerState.OPEN, 100.0, "6 of 6 calls failed: HTTP 503", ago(22), 33.0
    ),
    Breaker("hooli", "connector/okta", BreakerState.FORCED_OPEN, 0.0, "forced open by sre@platform.example", ago(1900)),
    Breaker("umbrella", "provider/local", BreakerState.DISABLED, 12.0, "disabled by sre@platform.example", ago(300)),
    Breaker("globex", "provider/anthropic", BreakerState.HALF_OPEN, 55.0, "trying 3 calls", ago(8)),
    Breaker("acme", "connector/jira", BreakerState.CLOSED, 0.0, "", ago(7200)),
    Breaker("acme", "connector/servicenow", BreakerState.CLOSED, 5.0, "", ago(7200)),
    Breaker("acme", "provider/local", BreakerState.CLOSED, 0.0, "", ago(7200)),
)

ACME_SUMS = (
    CostSum("power", "anthropic", "claude-opus", calls=88, aborted=2, escalated=4, input_tokens=310_000,
            output_tokens=40_000, cost_micros=8_100_000, runs=80),
    CostSum("mid", "anthropic", "claude-haiku", calls=402, fallbacks=31, input_tokens=900_442, output_tokens=162_110,
            cost_micros=5_012_120, runs=377),
    CostSum("fast", "local", "llama-3-8b", calls=960, cached_calls=112, input_tokens=1_100_000, output_tokens=200_000,
            cost_micros=1_270_000, saved_micros=148_200, runs=901),
)  # fmt: skip

COSTS: tuple[TenantCost, ...] = (
    TenantCost("acme", 14_382_120, 2_310_442, 402_110, 1204, "2026-11-22", 148_200, ACME_SUMS, ago(31)),
    TenantCost("globex", 6_021_000, 912_400, 110_020, 388),
    TenantCost("initech", 812_400, 99_120, 20_400, 41),
    TenantCost("umbrella", 2_204_000, 310_000, 51_200, 96),
)

APPROVALS: tuple[Approval, ...] = (
    Approval(
        "acme", "b71f20c4e9d54a7e", "s-c0ffee", "run-05", "s2", "lena@acme.example", ago(70), "jira.issue.delete",
        "Delete NET-57, the duplicate of NET-41", '{"issue": "NET-57", "delete_subtasks": true}', Approver.MANAGER,
        "boss@acme.example", ago(-830), "Acme's policy asks the user's manager before jira.issue.delete.",
    ),
    Approval(
        "globex", "b7a913d07f214c02", "s-19ab40", "run-01", "s3", "dana@globex.example", ago(800), "okta.group.add",
        "Add sam@globex.example to finance-admins",
        '{"user": "sam@globex.example", "group": "finance-admins", "reason": "asked for in INC0010042"}',
        Approver.GROUP, "it-admins", ago(-100), "Two of its values come from what a tool returned.",
        (
            Origin("group", "finance-admins", "servicenow.incident.get (s1)"),
            Origin("reason", "asked for in INC0010042", "servicenow.incident.get (s1)"),
        ),
    ),
)  # fmt: skip

LETTERS: tuple[DeadLetter, ...] = (
    DeadLetter(
        "9c1d77aa20f3", "initech", "s-88aa01", "run-02", "s2", "milton@initech.example",
        "salesforce.opportunity.update",
        '{"id": "0065g00000Xyz", "stage": "Closed Won", "amount": "48000.00"}', "run-02/s2",
        "Salesforce answered 503 four times: the service is unavailable.", 4, "open", ago(64), DeadLetterState.OPEN,
    ),
    DeadLetter(
        "9c1d02be11d4", "acme", "s-7f31c2", "run-00", "s1", "employee@acme.example", "jira.issue.create",
        '{"project": "NET", "summary": "VPN is down for the Berlin office", "labels": ["vpn", "berlin"]}', "run-00/s1",
        "The connection broke after the request had left; Jira's search does not show the issue.", 1, "closed",
        ago(5400), DeadLetterState.OPEN, in_doubt=True,
    ),
    DeadLetter(
        "55ab90cd0001", "umbrella", "s-5512ef", "run-03", "s4", "alice@umbrella.example", "servicenow.item.order",
        '{"item": "laptop-14"}', "run-03/s4", "ServiceNow answered 429 five times.", 5, "half_open", ago(90_000),
        DeadLetterState.REPLAYED, ago(80_000), "sre@platform.example", "Ordered as REQ0010007.",
    ),
)  # fmt: skip

SNAPSHOT = FleetSnapshot(SESSIONS, BREAKERS, COSTS, APPROVALS)

DETAIL = SessionDetail(
    SESSIONS[0],
    (
        Run(
            "run-01", "Is the VPN down?", ago(320), False, RunOutcome.ANSWERED, 1200, 240, 4_020, 2140, "",
            (
                Step("1", "servicenow.incident.search", "Looked for incidents about VPN: 2 found", False,
                     StepOutcome.SUCCEEDED, ago(319), 410),
                Step("2", "jira.issue.search", "Looked for issues about VPN: none", False,
                     StepOutcome.SUCCEEDED, ago(319), 388),
            ),
            TimeSplit(1_700, 410, 0, 30),
            (
                ModelCall("local", "llama-3-8b", "fast", "short question, 2 systems, no writes", input_tokens=700,
                          output_tokens=200, cost_micros=1_020, duration_ms=610),
                ModelCall("anthropic", "claude-haiku", "mid", "fast made a plan that can't be carried out",
                          escalated=True, fallback="local: no first token within 15 s", input_tokens=500,
                          cached_input_tokens=320, output_tokens=40, cost_micros=3_000, duration_ms=1_090),
            ),
        ),
        Run(
            "run-02", "Close the old incident", ago(200), False, RunOutcome.FAILED, 900, 80, 2_100, 3020,
            "ServiceNow refused: only the assignee may close INC0010042. Nothing was changed.",
            (Step("1", "servicenow.incident.close", "Close INC0010042", False, StepOutcome.REFUSED, ago(199), 290),),
            TimeSplit(2_718, 290, 0, 12),
            (
                ModelCall("local", "llama-3-8b", "fast", "short question, 1 system", cached=True, saved_micros=900,
                          duration_ms=2),
                ModelCall("local", "llama-3-8b", "fast", "short question, 1 system", aborted=True, estimated=True,
                          input_tokens=900, output_tokens=80, cost_micros=2_100, duration_ms=2_710),
            ),
        ),
        Run(
            "run-03", "Open an issue for the VPN outage", ago(3), True, RunOutcome.UNKNOWN, 1100, 60, 3_300, 0, "",
            (
                Step("1", "jira.project.find", "Found project NET", False, StepOutcome.SUCCEEDED, ago(2.5), 121),
                Step("2", "jira.issue.create", "Open an issue for the VPN outage", True,
                     StepOutcome.UNSPECIFIED, ago(2), 0),
            ),
        ),
    ),
)  # fmt: skip


PARKED = SessionDetail(
    SESSIONS[2],
    (
        Run(
            "run-04", "Move NET-41 to in progress", ago(600), False, RunOutcome.ANSWERED, 1400, 190, 3_900, 94_000, "",
            (Step("s1", "jira.issue.transition", "Moved NET-41 to In Progress", False, StepOutcome.SUCCEEDED,
                  ago(520), 610),),
            TimeSplit(2_350, 600, 91_000, 50),
        ),
        Run(
            "run-05", "Delete the duplicate of NET-41", ago(75), True, RunOutcome.UNKNOWN, 1500, 90, 2_900, 0, "",
            (Step("s1", "jira.issue.search", "Looked for duplicates of NET-41: NET-57", False, StepOutcome.SUCCEEDED,
                  ago(72), 402),),
        ),
    ),
)  # fmt: skip


class FakeSources:
    """Plays lists of updates, then waits; ``push`` adds more while the app runs.

    ``asked`` holds the actions that were asked for, in order; ``refusal`` is raised by each of them where it is set.
    """

    def __init__(
        self,
        objects: Sequence[KubeObject] = OBJECTS,
        snapshot: FleetSnapshot = SNAPSHOT,
        detail: SessionDetail = DETAIL,
        name: str = "pilothouse-local",
    ) -> None:
        self.name = name
        self.opened: list[tuple[str, str]] = []
        self.closed: list[tuple[str, str]] = []
        self.asked: list[tuple[object, ...]] = []
        self.refusal: ToolError | None = None
        self.gate = asyncio.Event()
        """Actions wait for it; set from the start."""
        self.gate.set()
        self.letters = {letter.key: letter for letter in LETTERS}
        self._detail = detail
        self._kube: asyncio.Queue[Update] = asyncio.Queue()
        self._fleet: asyncio.Queue[Update] = asyncio.Queue()
        self._session: asyncio.Queue[SessionUpdate] = asyncio.Queue()
        self._kube.put_nowait(Connected(KUBERNETES, "https://127.0.0.1:6443"))
        for kind in ("Tenant", "Connector", "ModelRoute"):
            self._kube.put_nowait(ObjectsListed(kind, tuple(o for o in objects if o.kind == kind)))
        self._fleet.put_nowait(Connected(FLEET, "127.77.0.5:9090"))
        self._fleet.put_nowait(snapshot)

    def push_fleet(self, *updates: Update) -> None:
        """More from Fleet."""
        for update in updates:
            self._fleet.put_nowait(update)

    def push_session(self, *updates: SessionUpdate) -> None:
        """More of the session that is open."""
        for update in updates:
            self._session.put_nowait(update)

    async def kubernetes(self) -> AsyncIterator[Update]:
        """See ``Sources``."""
        while True:
            yield await self._kube.get()

    async def fleet(self) -> AsyncIterator[Update]:
        """See ``Sources``."""
        while True:
            yield await self._fleet.get()

    async def session(self, tenant: str, session_id: str) -> AsyncIterator[SessionUpdate]:
        """See ``Sources``."""
        self.opened.append((tenant, session_id))
        try:
            yield Connected(FLEET)
            known = next((s for s in SESSIONS if s.key == (tenant, session_id)), self._detail.session)
            yield PARKED if known is PARKED.session else replace(self._detail, session=known)
            while True:
                yield await self._session.get()
        finally:
            self.closed.append((tenant, session_id))

    async def dead_letters(self, *, all_states: bool) -> DeadLetters:
        """See ``Sources``."""
        await self._act("dead_letters", all_states)
        found = (x for x in self.letters.values() if all_states or x.state is DeadLetterState.OPEN)
        return DeadLetters(tuple(found), (("hooli", "No worker of hooli answers."),))

    async def replay(self, tenant: str, id: str, *, force: bool = False) -> Replay:
        """See ``Sources``."""
        await self._act("replay", tenant, id, force)
        letter = replace(self.letters[tenant, id], state=DeadLetterState.REPLAYED)
        self.letters[tenant, id] = letter
        return Replay(letter, StepOutcome.SUCCEEDED, "The opportunity is updated.")

    async def discard(self, tenant: str, id: str) -> DeadLetter:
        """See ``Sources``."""
        await self._act("discard", tenant, id)
        self.letters[tenant, id] = replace(self.letters[tenant, id], state=DeadLetterState.DISCARDED)
        return self.letters[tenant, id]

    async def decide(self, tenant: str, approval_id: str, approved: bool) -> Decision:
        """See ``Sources``."""
        await self._act("decide", tenant, approval_id, approved)
        self.push_fleet(ApprovalGone(tenant, approval_id))
        return Decision(DecideOutcome.DECIDED, "Recorded; the run goes on.")

    async def set_breaker(self, tenant: str, name: str, mode: BreakerMode) -> None:
        """See ``Sources``."""
        await self._act("set_breaker", tenant, name, mode)

    async def _act(self, *what: object) -> None:
        self.asked.append(what)
        await self.gate.wait()
        if self.refusal is not None:
            raise self.refusal


def many(tenants: int, sessions: int) -> tuple[tuple[KubeObject, ...], FleetSnapshot]:
    """As many tenants and sessions as asked for, the same each time."""
    names = [f"tenant-{i:03d}" for i in range(tenants)]
    live = tuple(
        replace(SESSIONS[i % len(SESSIONS)], tenant=names[i % tenants], session_id=f"s-{i:05d}")
        for i in range(sessions)
    )
    breakers = tuple(Breaker(n, "connector/jira", BreakerState.CLOSED, 0.0, "", ago(60)) for n in names)
    costs = tuple(TenantCost(n, 1_000_000 + i, 1000, 1000, i) for i, n in enumerate(names))
    return tuple(tenant(n) for n in names), FleetSnapshot(live, breakers, costs)


async def churn(sources: FakeSources, snapshot: FleetSnapshot, per_second: int) -> None:
    """Change random sessions for ever."""
    chance = random.Random(7)
    while True:
        for _ in range(per_second // 20):
            session = chance.choice(snapshot.sessions)
            sources.push_fleet(
                replace(session, current_step=f"step {chance.randrange(99)}", active=chance.random() < 0.4)
            )
        await asyncio.sleep(0.05)


async def _main(arguments: list[str]) -> None:
    from pilothouse_tui.app import PilothouseApp

    if len(arguments) == 2:
        objects, snapshot = many(int(arguments[0]), int(arguments[1]))
        sources = FakeSources(objects, snapshot)
        task = asyncio.create_task(churn(sources, snapshot, 1000))
        await PilothouseApp(sources, clock=lambda: NOW).run_async()
        task.cancel()
    else:
        await PilothouseApp(FakeSources(), clock=lambda: NOW).run_async()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1:]))
