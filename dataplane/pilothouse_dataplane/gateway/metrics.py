"""Prometheus metrics of one gateway, in a registry of their own: two apps in one process do not collide."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.process_collector import ProcessCollector


class Metrics:
    """What ``/metrics`` shows. No label carries a tenant, a user or a session: their number is not bounded."""

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
