"""When a Tenant's workers count as running exactly its configuration.

The policy is ``RULES``: each rule is a function of the workers' state that gives a sentence where it is not met. The
first sentence is the Tenant's message; with none, ``Ready`` is ``True``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime

from pilothouse_operator.core.resources import Json


@dataclass(frozen=True)
class Worker:
    """A worker Pod as the API shows it."""

    name: str
    address: str | None
    ready: bool
    terminating: bool
    revision: str
    phase: str = "Running"


@dataclass(frozen=True)
class ConnectorReport:
    """What a worker said of one connector. Two reports of the same state are equal."""

    name: str
    tools: int = 0
    reachable: bool | None = None
    """None: not probed yet."""
    message: str = ""
    """What the last probe found, where it failed."""
    problem: str = ""
    """Why it can't be used although the configuration was loaded."""


@dataclass(frozen=True)
class WorkerReport:
    """What a worker said of itself; ``error`` says why it could not be asked or could not load its configuration."""

    config_hash: str = ""
    tenant: str = ""
    error: str | None = None
    connectors: tuple[ConnectorReport, ...] = ()
    credentials_error: str = ""
    """Why the credentials' store can't be asked; empty where it can, or there is none."""
    credentials_until: datetime | None = None
    """While the store is away: when the first of the cached credentials ends."""
    route_problems: tuple[str, ...] = ()
    """What is wrong with the model route although it was loaded, a sentence each."""


@dataclass(frozen=True)
class Fleet:
    """All that the rules look at."""

    tenant: str
    desired: int
    config_hash: str
    revision: str
    deployment: Json | None
    deployment_current: bool
    """The live Deployment is what was decided (nothing is left to apply)."""
    workers: tuple[Worker, ...]
    reports: dict[str, WorkerReport] = field(default_factory=dict)

    @property
    def serving(self) -> tuple[Worker, ...]:
        """Workers that may be dealt new sessions: a terminating one only ends those that it has."""
        return tuple(w for w in self.workers if not w.terminating and w.phase not in ("Succeeded", "Failed"))

    @property
    def confirmed(self) -> int:
        """Ready workers that report the Tenant's configuration."""
        return sum(1 for worker in self.serving if worker.ready and self.runs_it(worker))

    @property
    def current_reports(self) -> tuple[WorkerReport, ...]:
        """Of the workers that run the Tenant's configuration, by Pod name: others speak of another one."""
        current = sorted(worker.name for worker in self.serving if self.runs_it(worker))
        return tuple(self.reports[name] for name in current)

    @property
    def worth_asking(self) -> bool:
        """A worker is up and has not confirmed: only asking it tells more. All else comes as an event."""
        return any(worker.ready and not self.runs_it(worker) for worker in self.serving)

    def runs_it(self, worker: Worker) -> bool:
        """The worker itself reports exactly this configuration, for this tenant."""
        report = self.reports.get(worker.name)
        return report is not None and report.tenant == self.tenant and report.config_hash == self.config_hash


def worker_of(pod: Json, revision_label: str) -> Worker:
    """The part of a Pod that the rules read."""
    meta, status = pod["metadata"], pod.get("status") or {}
    ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in status.get("conditions") or [])
    return Worker(
        name=meta["name"],
        address=status.get("podIP") or None,
        ready=ready,
        terminating=bool(meta.get("deletionTimestamp")),
        revision=(meta.get("labels") or {}).get(revision_label, ""),
        phase=status.get("phase") or "Pending",
    )


def _deployment_observed(fleet: Fleet) -> str | None:
    if fleet.deployment is None or not fleet.deployment_current:
        return f"0 of {fleet.desired} workers run configuration {fleet.config_hash}: the Deployment is being applied"
    observed = (fleet.deployment.get("status") or {}).get("observedGeneration", 0)
    if observed != fleet.deployment["metadata"].get("generation"):
        return f"The Deployment's change is not rolled out yet ({_count(fleet)})"
    return None


def _no_stale_workers(fleet: Fleet) -> str | None:
    status = (fleet.deployment or {}).get("status") or {}
    updated, total = int(status.get("updatedReplicas") or 0), int(status.get("replicas") or 0)
    stale = sum(1 for worker in fleet.serving if worker.revision != fleet.revision)
    if stale or total > updated:
        return f"{max(stale, total - updated)} workers of an earlier revision still run ({_count(fleet)})"
    return None


def _all_there(fleet: Fleet) -> str | None:
    updated = int(((fleet.deployment or {}).get("status") or {}).get("updatedReplicas") or 0)
    if len(fleet.serving) != fleet.desired or updated != fleet.desired:
        return f"{_count(fleet)}; {len(fleet.serving)} of {fleet.desired} workers are there"
    return None


def _all_confirmed(fleet: Fleet) -> str | None:
    if fleet.confirmed == fleet.desired:
        return None
    for worker in fleet.serving:
        report = fleet.reports.get(worker.name)
        if worker.ready and report is not None and report.error:
            return f"{_count(fleet)}; {worker.name}: {report.error}"
    return _count(fleet)


def _count(fleet: Fleet) -> str:
    return f"{fleet.confirmed} of {fleet.desired} workers run configuration {fleet.config_hash}"


RULES: tuple[Callable[[Fleet], str | None], ...] = (
    _deployment_observed,  # else the counts below speak of an earlier Deployment
    _no_stale_workers,  # an old worker would still be dealt sessions
    _all_there,  # fewer confirm than were asked for
    _all_confirmed,  # each one says so itself: written YAML proves nothing
)


def unmet(fleet: Fleet, rules: Iterable[Callable[[Fleet], str | None]] = RULES) -> str | None:
    """The first sentence that says why the workers are not ready, None where they are."""
    return next((sentence for rule in rules if (sentence := rule(fleet)) is not None), None)


POLL_FIRST_SECONDS = 0.3
POLL_LAST_SECONDS = 5.0
IDLE_SECONDS = 15.0
"""While no worker is there to be asked: its becoming ready comes as an event, this is for an event that is lost."""


def poll_delay(tries: int, worth_asking: bool) -> float:
    """Seconds until an unsettled Tenant is looked at again: 0.3 s for the first ten looks, then growing to 5 s."""
    if not worth_asking:
        return IDLE_SECONDS
    return float(min(POLL_FIRST_SECONDS * 1.3 ** min(max(tries - 10, 0), 20), POLL_LAST_SECONDS))
