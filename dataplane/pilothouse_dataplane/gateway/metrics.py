"""Prometheus metrics of one gateway, in a registry of their own: two apps in one process do not collide."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from pilothouse_proto.fleet.v1 import fleet_pb2 as fleet


class Metrics:
    """What ``/metrics`` shows beside ``ModelCosts``. No label carries a user or a session: their number is not bounded.
    A tenant stands in what models cost only, since whoever pays asks by tenant."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.connections = Gauge("pilothouse_gateway_connections", "Open chat WebSockets.", registry=self.registry)
        self.runs_in_flight = Gauge("pilothouse_gateway_runs_in_flight", "Runs under way.", registry=self.registry)
        self.runs = Counter("pilothouse_gateway_runs", "Runs by last event.", ["outcome"], registry=self.registry)
        self.errors = Counter("pilothouse_gateway_errors", "Error events by code.", ["code"], registry=self.registry)
        self.first_event = Histogram(
            "pilothouse_gateway_first_event_seconds",
            "Seconds from a question to the worker's first event.",
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
            registry=self.registry,
        )
        self.takeovers = Counter(
            "pilothouse_gateway_takeovers", "Runs given to another worker.", ["cause"], registry=self.registry
        )
        self.takeover_time = Histogram(
            "pilothouse_gateway_takeover_seconds",
            "Seconds from the loss of a worker to the next worker's first event.",
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 1.5, 2, 3, 5, 10),
            registry=self.registry,
        )
        self.fleet_clients = Gauge("pilothouse_gateway_fleet_clients", "Open Fleet streams.", registry=self.registry)
        self.fleet_events = Counter("pilothouse_gateway_fleet_events", "Run events folded.", registry=self.registry)
        self.fleet_rejected = Counter(
            "pilothouse_gateway_fleet_rejected", "Run events that could not be read.", registry=self.registry
        )


_LABELS = ("tenant", "tier", "provider", "model")
_FAMILIES = (
    ("cost_micros", "cost_micros", "Micro-dollars that model calls cost."),
    ("calls", "calls", "Model calls that reached a provider."),
    ("calls_cached", "cached_calls", "Answers of a model that were used again instead of a call."),
    ("saved_micros", "saved_micros", "Micro-dollars that the answers used again would have cost."),
    ("calls_fallback", "fallbacks", "Model calls that came after another target had failed."),
    ("calls_aborted", "aborted", "Model calls that were cut off."),
    ("calls_escalated", "escalated", "Model calls after a cheaper tier's plan that could not be carried out."),
    ("input_tokens", "input_tokens", "Tokens that models read."),
    ("input_tokens_cached", "cached_input_tokens", "Of the tokens read: from the provider's prompt cache."),
    ("output_tokens", "output_tokens", "Tokens that models wrote."),
)
"""Name after ``pilothouse_model_``, field of ``CostSum``, help."""


class ModelCosts(Collector):
    """What the tenants' model calls cost: the same sums that Fleet shows, which are those of the ledger.

    They are of one day (UTC) and begin anew at midnight, which ``rate`` and ``increase`` take as a counter's reset.
    Each gateway tells of all tenants: with several, take ``max by (tenant, tier, provider, model)``, not the sum.
    """

    def __init__(self, costs: Callable[[], Iterable[fleet.TenantCost]]) -> None:
        self._costs = costs

    def collect(self) -> Iterator[CounterMetricFamily]:
        """One family a field, one sample a tenant, tier, provider and model."""
        known = list(self._costs())
        for name, field, told in _FAMILIES:
            family = CounterMetricFamily(f"pilothouse_model_{name}", told, labels=_LABELS)
            for cost in known:
                for one in cost.sums:
                    family.add_metric((cost.tenant, one.tier, one.provider, one.model), getattr(one, field))
            yield family
