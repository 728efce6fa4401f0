"""Rollout: how a new agent revision reaches the users, step by step, and what sends it back."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

from pilothouse_api.meta import (
    AGE,
    Bool,
    Column,
    Duration,
    Int,
    Kind,
    Label,
    LocalRef,
    Model,
    Percent,
    Status,
    about,
    condition_column,
)
from pilothouse_api.rules import ListOf, Rule, Transition, immutable, matches
from pilothouse_api.tenant import AgentTemplate

BUILTIN_METRICS = ("success-rate", "p95-latency", "accuracy", "cost-per-request")
"""Metrics that the evaluator computes per revision: a share, seconds, a score 0..1, USD."""


class Pause(Model):
    """A wait between two weights."""

    duration: Annotated[Duration | None, about("How long. Unset: until somebody promotes the rollout.", "10m")] = None


class Step(Model):
    """One step: a weight or a pause."""

    set_weight: Annotated[
        Int | None, about("Percent of new sessions that get the canary from here on.", 25, ge=0, le=100)
    ] = None
    pause: Annotated[Pause | None, about("Wait here; {} waits until promoted.", {"duration": "10m"})] = None

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.setWeight) != has(self.pause)",
            message="a step is either setWeight or pause: set exactly one, and make two steps of two",
            holds=lambda step: (step.set_weight is not None) != (step.pause is not None),
        ),
    )


def _weights(canary: Canary) -> list[int]:
    return [step.set_weight for step in canary.steps if step.set_weight is not None]


def _rising(canary: Canary) -> bool:
    weights = _weights(canary)
    return all(before < after for before, after in pairwise(weights))


class Canary(Model):
    """New sessions go to the canary by a weight that grows; a session that began on a revision ends on it."""

    steps: Annotated[
        tuple[Step, ...],
        about(
            "Weights and pauses, in order.",
            [{"setWeight": 5}, {"pause": {"duration": "10m"}}, {"setWeight": 100}],
            min_length=1,
            max_length=50,
        ),
    ]

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.steps.map(s, has(s.setWeight), s.setWeight).isSorted() && self.steps.all(s, !has(s.setWeight) || "
            "self.steps.exists_one(t, has(t.setWeight) && t.setWeight == s.setWeight))",
            message="each setWeight must be above the one before it: put the weights in rising order, each once",
            holds=_rising,
        ),
        Rule(
            cel="self.steps.exists(s, has(s.setWeight) && s.setWeight == 100)",
            message="the last setWeight must be 100, else the new revision never reaches everybody: "
            "add the step {setWeight: 100}",
            holds=lambda canary: 100 in _weights(canary),
        ),
    )


class Strategy(Model):
    """How a new revision is brought to the users."""

    canary: Annotated[Canary, about("A share of new sessions that grows step by step.")]


class Compare(Model):
    """The canary against the baseline: the stable revision in the same time."""

    against: Annotated[Literal["Baseline"], about("Baseline: the stable revision in the same time.", "Baseline")] = (
        "Baseline"
    )
    max_decrease: Annotated[
        Percent | None, about("Most that the canary may lie below, relative to the baseline.", "2%")
    ] = None
    max_increase: Annotated[
        Percent | None, about("Most that the canary may lie above, relative to the baseline.", "20%")
    ] = None

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.maxDecrease) != has(self.maxIncrease)",
            message="set exactly one of maxDecrease (higher is better) and maxIncrease (lower is better)",
            holds=lambda compare: (compare.max_decrease is not None) != (compare.max_increase is not None),
        ),
    )


class Metric(Model):
    """A measurement that the canary must pass."""

    name: Annotated[
        Label,
        about(f"Name of the metric; for source Builtin one of {', '.join(BUILTIN_METRICS)}.", "success-rate"),
    ]
    source: Annotated[
        Literal["Builtin", "Prometheus"],
        about("Builtin: from the evaluator. Prometheus: the result of query.", "Builtin"),
    ] = "Builtin"
    query: Annotated[
        str | None,
        about(
            "PromQL that gives one number; with source Prometheus.",
            "sum(pilothouse_queue_depth)",
            min_length=1,
            max_length=4096,
        ),
    ] = None
    success_condition: Annotated[
        str | None,
        about("When a measurement passes; instead of compare.", "result < 100", max_length=64),
        matches(
            r"result *(<|<=|>|>=|==|!=) *-?[0-9]{1,15}(\.[0-9]{1,9})?",
            "must compare result with a number, such as: result < 100",
        ),
    ] = None
    compare: Annotated[
        Compare | None, about("The canary against the baseline; instead of successCondition.", {"maxDecrease": "2%"})
    ] = None
    failure_limit: Annotated[
        Int, about("Failed measurements that are borne; one more aborts the rollout.", 2, ge=0, le=1000)
    ] = 0

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="(self.source == 'Prometheus') == has(self.query)",
            message="source Prometheus needs query, and source Builtin has none: add query, or set source: Prometheus",
            holds=lambda metric: (metric.source == "Prometheus") == (metric.query is not None),
        ),
        Rule(
            cel="has(self.successCondition) != has(self.compare)",
            message="nothing or too much says when the metric passes: set exactly one of successCondition and compare",
            holds=lambda metric: (metric.success_condition is not None) != (metric.compare is not None),
        ),
        Rule(
            cel=f"self.source != 'Builtin' || self.name in {list(BUILTIN_METRICS)!r}",
            message=f"no builtin metric has this name: use one of {', '.join(BUILTIN_METRICS)}, or source: Prometheus",
            holds=lambda metric: metric.source != "Builtin" or metric.name in BUILTIN_METRICS,
        ),
    )


class Analysis(Model):
    """What is measured while the canary serves; a failure rolls back, too little data pauses."""

    interval: Annotated[Duration, about("Time between two measurements.", "30s")] = "30s"
    metrics: Annotated[
        tuple[Metric, ...],
        about(
            "Measurements that the canary must pass.",
            [{"name": "success-rate", "compare": {"maxDecrease": "2%"}}],
            min_length=1,
            max_length=16,
        ),
        ListOf("name"),
    ]


class RolloutSpec(Model):
    """What shall run, and how it gets there."""

    tenant_ref: Annotated[LocalRef, about("The Tenant whose agent it governs. Cannot change.", {"name": "acme"})]
    template: Annotated[AgentTemplate, about("The agent's revision; a change here starts a canary.")]
    strategy: Annotated[Strategy, about("How a new revision is brought to the users.")]
    analysis: Annotated[
        Analysis | None, about("What is measured meanwhile. Unset: only the steps and people decide.")
    ] = None
    paused: Annotated[Bool, about("True: stay at the current step until it is false.", False)] = False

    transitions: ClassVar[tuple[Transition, ...]] = (
        immutable("tenantRef", "tenant_ref", "delete this Rollout and create one for the other tenant"),
    )


class RolloutStatus(Status):
    """Where the rollout is."""

    stable_revision: Annotated[
        str | None, about("The revision that sessions get unless they get the canary.", "acme-7c9f", max_length=253)
    ] = None
    canary_revision: Annotated[
        str | None, about("The revision that is tried; unset where none is.", "acme-5d21", max_length=253)
    ] = None
    weight: Annotated[Int | None, about("Percent of new sessions that get the canary.", 25, ge=0, le=100)] = None
    current_step_index: Annotated[Int | None, about("Index in steps, from 0.", 2, ge=0)] = None
    steps: Annotated[Int | None, about("Number of steps.", 5, ge=0)] = None
    step_started_at: Annotated[datetime | None, about("When the current step began.", "2026-11-22T10:00:00Z")] = None


class Rollout(Kind):
    """The revision of a tenant's agent: a change of its template reaches the users step by step, or goes back."""

    plural: ClassVar[str] = "rollouts"
    short_names: ClassVar[tuple[str, ...]] = ("ro",)
    name_limit: ClassVar[int] = 40
    selectable: ClassVar[tuple[str, ...]] = (".spec.tenantRef.name",)
    columns: ClassVar[tuple[Column, ...]] = (
        Column(name="Tenant", path=".spec.tenantRef.name", description="The Tenant whose agent it governs."),
        Column(name="Step", path=".status.currentStepIndex", type="integer", description="Index in steps, from 0."),
        Column(
            name="Weight", path=".status.weight", type="integer", description="Percent of new sessions to the canary."
        ),
        Column(name="Stable", path=".status.stableRevision", description="The revision that is in use."),
        Column(name="Canary", path=".status.canaryRevision", description="The revision that is tried."),
        condition_column("Ready", "Ready", "status", "True: the wanted revision serves everybody."),
        condition_column("Reason", "Ready", "reason", "Why it is ready or not."),
        condition_column("Message", "Ready", "message", "What to do.", wide=True),
        AGE,
    )

    kind: Literal["Rollout"] = "Rollout"
    spec: Annotated[RolloutSpec, about("What shall run, and how it gets there.")]
    status: Annotated[RolloutStatus, about("Where the rollout is; the operator writes it.")] = RolloutStatus()
