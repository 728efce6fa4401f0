"""Spans: their names, attributes and parents; none of it where nobody collects them; a collector that is away."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from pilothouse_dataplane.worker import tracing
from pilothouse_dataplane.worker.begin import Wanted
from pilothouse_testing.fakes import FakeModel, asks_for, text
from pilothouse_testing.runs import FakeTenant

TRACE = "0af7651916cd43dd8448eb211c80319c"


def script() -> FakeModel:
    return FakeModel([asks_for("fake.thing.read", "a", name="x")], [text("Done.")])


async def test_a_run_is_one_trace_with_the_run_s_ids_under_the_caller_s() -> None:
    exporter = InMemorySpanExporter()
    tenant = FakeTenant(script(), tracing=tracing.OtelTracing("w1", SimpleSpanProcessor(exporter)))
    told = tenant.ask()
    # the front door's header, as service.py hands it on
    told.driver._wanted = Wanted("r1", told.driver._wanted.new, "", {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"})
    await told.end()
    spans: dict[str, Any] = {}
    for span in exporter.get_finished_spans():
        spans.setdefault(span.name, span)
    assert set(spans) == {"invoke_agent acme", "plan acme", "execute_tool fake.thing.read"}
    root = spans["invoke_agent acme"]
    assert f"{root.context.trace_id:032x}" == TRACE
    assert root.instrumentation_scope.schema_url == tracing.SCHEMA_URL
    for span in spans.values():
        assert span.attributes[tracing.RUN] == "r1"
        assert span.attributes[tracing.TENANT] == "acme"
        assert span.attributes[tracing.CONVERSATION] == "s"
        assert span is root or span.parent.span_id == root.context.span_id
    assert spans["plan acme"].attributes[tracing.INPUT_TOKENS] == 100
    assert spans["plan acme"].attributes[tracing.MODEL] == "m"
    tool = spans["execute_tool fake.thing.read"]
    assert tool.attributes[tracing.STEP] == "s1"
    assert tool.attributes[tracing.TOOL_NAME] == "fake.thing.read"


class Broken(SpanExporter):
    """A collector that is away."""

    def export(self, spans: Any) -> SpanExportResult:
        raise OSError("away")

    def shutdown(self) -> None:
        """Nothing is open."""


async def test_a_collector_that_is_away_touches_no_run() -> None:
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    on = tracing.OtelTracing("w1", BatchSpanProcessor(Broken(), schedule_delay_millis=10))
    told = await FakeTenant(script(), tracing=on).ask().end()
    assert told.text == "Done."
    began = time.monotonic()
    await on.aclose()
    assert time.monotonic() - began < 3


def test_no_exporter_is_imported_where_nobody_collects(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    code = (
        "import sys; from pilothouse_dataplane.worker import server, tracing;"
        "assert not tracing.from_environment('w').enabled;"
        "print([name for name in sys.modules if name.startswith('opentelemetry.exporter') or name == 'requests'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
