"""Spans of runs, by OpenTelemetry's GenAI conventions; they cost next to nothing where nobody collects them.

The exporter (OTLP over HTTP) and the SDK's tracing are used, and imported by us, only where
``OTEL_EXPORTER_OTLP_ENDPOINT`` (or its variant for traces) is set; the SDK's own variables (sampler, headers, batch
sizes) hold. A batch processor sends from a thread of its own; what a collector that is away can't take is dropped
there, and no run notices.

::

    invoke_agent acme                   one run on this worker
    ├─ plan acme                        one call of the model
    └─ execute_tool jira.issue.create   one tool call
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping
from typing import Any, Protocol

from pilothouse_api.workerconfig import WorkerConfig
from pilothouse_dataplane.core.state import Step
from pilothouse_dataplane.ledger.base import NewRun
from pilothouse_dataplane.models.cost import ModelCallRecord

CONVENTIONS = "1.42.0"
"""The one version of the GenAI semantic conventions whose names stand below."""
SCHEMA_URL = f"https://opentelemetry.io/schemas/gen-ai/{CONVENTIONS}"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_CLOSE_SECONDS = 2.0

OPERATION = "gen_ai.operation.name"
AGENT_NAME = "gen_ai.agent.name"
AGENT_VERSION = "gen_ai.agent.version"
CONVERSATION = "gen_ai.conversation.id"
PROVIDER = "gen_ai.provider.name"
MODEL = "gen_ai.request.model"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHED_TOKENS = "gen_ai.usage.cache_read.input_tokens"
FIRST_TOKEN = "gen_ai.response.time_to_first_chunk"  # noqa: S105 - a name
TOOL_NAME = "gen_ai.tool.name"
TOOL_CALL_ID = "gen_ai.tool.call.id"
TOOL_TYPE = "gen_ai.tool.type"
ERROR_TYPE = "error.type"
RUN = "pilothouse.run.id"
SESSION = "pilothouse.session.id"
TENANT = "pilothouse.tenant"
REVISION = "pilothouse.revision"
STEP = "pilothouse.step.id"
TIER = "pilothouse.tier"
REASON = "pilothouse.tier.reason"
"""Why this tier, a few words."""
ESCALATED = "pilothouse.tier.escalated"
FALLBACK = "pilothouse.fallback"
"""Why the target before this one did not answer."""
CACHED = "pilothouse.cached"
ACCOUNT = "pilothouse.account"
"""As whom a system was asked."""

Attributes = Mapping[str, str | int | float | bool]


class Span(Protocol):
    """One span that is under way."""

    @property
    def ids(self) -> Mapping[str, str]:
        """``trace_id`` and ``span_id`` in hex, for logs; empty where nothing is traced."""
        ...

    def child(self, name: str, attributes: Attributes) -> Span:
        """A span within this one."""
        ...

    def set(self, attributes: Attributes) -> None: ...

    def end(self, error: str = "") -> None:
        """``error``: a class of error, or "" where it went well."""
        ...


class Tracing(Protocol):
    """Where spans begin."""

    enabled: bool

    def start(self, name: str, attributes: Attributes, parent: Mapping[str, str] | None = None) -> Span:
        """A span; ``parent`` holds the caller's W3C ``traceparent`` and ``tracestate`` headers."""
        ...

    async def aclose(self) -> None:
        """Send what is left, for at most two seconds."""
        ...


class _NoSpan:
    ids: Mapping[str, str] = {}

    def child(self, name: str, attributes: Attributes) -> Span:
        return self

    def set(self, attributes: Attributes) -> None:
        """Nobody collects."""

    def end(self, error: str = "") -> None:
        """Nobody collects."""


_NO_SPAN = _NoSpan()


class NoTracing:
    """Nobody collects spans."""

    enabled = False

    def start(self, name: str, attributes: Attributes, parent: Mapping[str, str] | None = None) -> Span:
        return _NO_SPAN

    async def aclose(self) -> None:
        """Nothing is open."""


class _OtelSpan:
    def __init__(self, tracer: Any, span: Any) -> None:
        self._tracer, self._span = tracer, span

    @property
    def ids(self) -> Mapping[str, str]:
        context = self._span.get_span_context()
        return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}

    def child(self, name: str, attributes: Attributes) -> Span:
        from opentelemetry.trace import set_span_in_context

        started = self._tracer.start_span(name, context=set_span_in_context(self._span), attributes=attributes)
        return _OtelSpan(self._tracer, started)

    def set(self, attributes: Attributes) -> None:
        self._span.set_attributes(attributes)

    def end(self, error: str = "") -> None:
        if error:
            from opentelemetry.trace import Status, StatusCode

            self._span.set_attribute(ERROR_TYPE, error)
            self._span.set_status(Status(StatusCode.ERROR, error))
        self._span.end()


class OtelTracing:
    """Spans through OpenTelemetry's SDK; ``processor`` is what takes the finished ones."""

    enabled = True

    def __init__(self, worker: str, processor: Any) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        resource = Resource.create({"service.name": "pilothouse-worker", "service.instance.id": worker})
        self._provider = TracerProvider(resource=resource)
        self._provider.add_span_processor(processor)
        self._tracer: Any = self._provider.get_tracer("pilothouse.worker", schema_url=SCHEMA_URL)
        self._propagator = TraceContextTextMapPropagator()

    def start(self, name: str, attributes: Attributes, parent: Mapping[str, str] | None = None) -> Span:
        context = self._propagator.extract(dict(parent)) if parent else None
        return _OtelSpan(self._tracer, self._tracer.start_span(name, context=context, attributes=attributes))

    async def aclose(self) -> None:
        # it waits for the collector in a thread; that must not hold the worker's end up
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await asyncio.to_thread(self._provider.force_flush, round(_CLOSE_SECONDS * 1000))


def from_environment(worker: str) -> Tracing:
    """As the environment asks for."""
    if not any(os.environ.get(name) for name in _ENDPOINTS):
        return NoTracing()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    return OtelTracing(worker, BatchSpanProcessor(OTLPSpanExporter()))


class RunSpans:
    """The spans of one run on one worker."""

    def __init__(self, tracing: Tracing, config: WorkerConfig, run: NewRun, parent: Mapping[str, str] | None) -> None:
        self._on = tracing.enabled
        self._name = config.tenant
        self._ids: dict[str, str] = {}
        if self._on:
            self._ids = {
                RUN: run.run_id,
                SESSION: run.session_id,
                TENANT: config.tenant,
                REVISION: config.revision,
                AGENT_NAME: config.tenant,
                AGENT_VERSION: config.revision,
                CONVERSATION: run.session_id,
            }
        self.run = tracing.start(
            f"invoke_agent {self._name}", {OPERATION: "invoke_agent", **self._ids} if self._on else {}, parent
        )

    def plan(self) -> Span:
        """One call of the model."""
        if not self._on:
            return _NO_SPAN
        return self.run.child(f"plan {self._name}", {OPERATION: "plan", **self._ids})

    def called(self, span: Span, record: ModelCallRecord) -> None:
        """Which model it was and why, and what it used; of several calls the last one's, the one that answered."""
        if self._on:
            usage = record.usage
            span.set(
                {
                    PROVIDER: record.provider,
                    MODEL: record.model,
                    INPUT_TOKENS: usage.input_tokens,
                    OUTPUT_TOKENS: usage.output_tokens,
                    CACHED_TOKENS: usage.cached_input_tokens,
                    FIRST_TOKEN: record.first_token_seconds,
                    TIER: record.tier,
                    REASON: record.reason,
                    ESCALATED: record.escalated,
                    CACHED: record.cached,
                    **({FALLBACK: record.fallback} if record.fallback else {}),
                }
            )

    def tool(self, step: Step) -> Span:
        """One tool call."""
        if not self._on:
            return _NO_SPAN
        attributes = {
            OPERATION: "execute_tool",
            TOOL_NAME: step.name,
            TOOL_CALL_ID: step.call.id,
            TOOL_TYPE: "extension",
            STEP: step.id,
        }
        return self.run.child(f"execute_tool {step.name}", {**attributes, **self._ids})
