"""Every record of a run names as whom each call was made: stream, events, spans, journal, ledger."""

from __future__ import annotations

import json

from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from pilothouse_dataplane.core import journal
from pilothouse_dataplane.core.messages import Outcome, ToolResult
from pilothouse_dataplane.core.state import ToolFinished
from pilothouse_dataplane.ledger import codec
from pilothouse_dataplane.worker import tracing
from pilothouse_testing.fakes import FakeModel, FakeSource, asks_for, text
from pilothouse_testing.runs import EMPLOYEE, FakeTenant, fake_connector, worker_config

NAMED = ToolResult(Outcome.SUCCEEDED, "Done.", {"n": 1}, account="service account reporting")


async def test_a_runs_stream_events_spans_and_journal_name_the_account_and_no_token() -> None:
    exporter = InMemorySpanExporter()
    source = FakeSource({EMPLOYEE.email: "planted-token"}, account="service account reporting")
    tenant = FakeTenant(
        FakeModel(
            [asks_for("fake.thing.read", "a", name="x"), asks_for("fake.thing.write", "b", name="y")], [text("Ok.")]
        ),
        tracing=tracing.OtelTracing("w1", SimpleSpanProcessor(exporter)),
        sources={"fake": source},
    )
    told = await tenant.ask().end()
    assert [step.account for step in told.of("step_finished")] == ["service account reporting"] * 2
    published = [step for step in tenant.published("step_finished") if step.tool.startswith("fake")]
    assert [step.account for step in published] == ["service account reporting"] * 2
    spans = [span for span in exporter.get_finished_spans() if span.name.startswith("execute_tool")]
    assert [(span.attributes or {})[tracing.ACCOUNT] for span in spans] == ["service account reporting"] * 2
    kept = repr(tenant.store.__dict__)
    assert "service account reporting" in kept
    everything = [kept, *map(repr, tenant.sink.published), *map(str, told.events), *map(repr, tenant.model.requests)]
    everything += [span.to_json() for span in exporter.get_finished_spans()]
    assert not [record for record in everything if "planted-token" in record]


async def test_a_step_that_asked_nobody_names_no_account() -> None:
    model = FakeModel([asks_for("fake.thing.read", "a", name="x")], [text("Ok.")])
    oauth = {"client_id": {"secret": "app", "key": "client-id"}}
    config = worker_config(connectors=[fake_connector(oauth=oauth)], public_url="https://agents.example/")
    told = await FakeTenant(model, config=config, sources={"fake": FakeSource({})}).ask().end()
    (step,) = told.of("step_finished")
    assert step.account == ""
    assert "https://agents.example/accounts?connect=fake" in step.summary
    assert [citation.title for citation in told.last.final.citations] == ["Link your Fake account"]


def test_the_journal_keeps_the_account_and_reads_entries_without_one() -> None:
    entry = journal.encode(ToolFinished("s1", NAMED))
    assert journal.decode(entry) == ToolFinished("s1", NAMED)
    old = json.loads(entry)
    del old["account"]
    decoded = journal.decode(json.dumps(old).encode())
    assert isinstance(decoded, ToolFinished)
    assert decoded.result.account == ""
    assert "account" not in json.loads(journal.encode(ToolFinished("s1", ToolResult(Outcome.FAILED, "No."))))


def test_the_ledger_keeps_the_account_and_reads_rows_without_one() -> None:
    row = {
        "key": "r/s1",
        "step_id": "s1",
        "tool": "fake.thing.write",
        "arguments": {},
        "arguments_hash": "h",
        "user_email": "e",
        "approval_id": None,
        "outcome": "succeeded",
        "result": json.loads(codec.result_json(NAMED)),
    }
    assert codec.write_of(row).result == NAMED
    del row["result"]["account"]  # type: ignore[attr-defined]
    read = codec.write_of(row).result
    assert read is not None
    assert read.account == ""
