"""Model servers and systems that answer nonsense: each ends with a sentence, in bounded time and memory, and the next
good call works. Real sockets, within this process."""

from __future__ import annotations

import asyncio
import gzip
import ipaddress
import json
import ssl
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pilothouse_api.egress import EgressRule
from pilothouse_api.workerconfig import ConnectorConfig, TargetConfig
from pilothouse_dataplane.connectors.base import CallContext, Credential, SecretText
from pilothouse_dataplane.connectors.factory import make_connector
from pilothouse_dataplane.connectors.toolset import CallReport, Toolset
from pilothouse_dataplane.core.guard import GuardRegistry
from pilothouse_dataplane.core.messages import Message, ModelRequest, Outcome
from pilothouse_dataplane.models.anthropic import AnthropicProvider
from pilothouse_dataplane.models.base import (
    ModelDenied,
    ModelDone,
    ModelError,
    ModelEvent,
    ModelNonsense,
    ModelText,
    ModelTimeout,
    ModelTimeouts,
    ModelToolCall,
    ModelUnavailable,
)
from pilothouse_dataplane.models.openai import OpenAIProvider
from pilothouse_sim.faults import Faults
from pilothouse_sim.jira.app import make_app
from pilothouse_testing.fakes import ECHO
from pilothouse_testing.servers import Answer, raw_http

TARGET = TargetConfig(provider="p", model="m")
REQUEST = ModelRequest((Message("user", "hello"),), (ECHO,))
TIMEOUTS = ModelTimeouts(connect=0.5, first_token=0.6, between_tokens=0.3, whole=1.5)
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
MEGABYTE = b"x" * (1 << 20)


def sends(*parts: bytes | float, forever: bool = False) -> Answer:
    """Writes the parts; a number is a pause in seconds."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        while True:
            for part in parts:
                if isinstance(part, float):
                    await asyncio.sleep(part)
                else:
                    writer.write(part)
                    await writer.drain()
            if not forever:
                return

    return answer


def then(first: Answer, second: Answer) -> Answer:
    async def answer(writer: asyncio.StreamWriter) -> None:
        await first(writer)
        await second(writer)

    return answer


def data(value: object) -> bytes:
    return b"data: " + (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n\n"


def delta(**fields: Any) -> bytes:
    return data({"choices": [{"index": 0, "delta": fields}]})


def call(index: Any, arguments: Any, **fields: Any) -> dict[str, Any]:
    return {"index": index, "id": f"c{index}", "function": {"name": "x", "arguments": arguments}, **fields}


END = data({"choices": [{"delta": {}, "finish_reason": "stop"}]}) + data(b"[DONE]")
GOOD = sends(STREAM + delta(content="good") + END)
ANTHROPIC_GOOD = sends(
    STREAM
    + data({"type": "content_block_delta", "index": 0, "delta": {"text": "good"}})
    + data({"type": "message_stop"})
)


@asynccontextmanager
async def peak_memory(megabytes: float) -> AsyncIterator[None]:
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < megabytes * (1 << 20), f"{peak >> 20} MB"


async def collect(stream: AsyncIterator[ModelEvent]) -> list[ModelEvent]:
    return [event async for event in stream]


@pytest.mark.parametrize(
    ("answer", "error", "said", "seconds"),
    [
        pytest.param(sends(STREAM + b"data: {\n\n"), ModelUnavailable, "broken event", 0.5, id="broken JSON"),
        pytest.param(sends(STREAM + b"data: [1]\n\n"), ModelUnavailable, "broken event", 0.5, id="no object"),
        pytest.param(sends(STREAM + data({"x": 1}).replace(b"1", b"NaN")), ModelUnavailable, "broken", 0.5, id="NaN"),
        pytest.param(sends(STREAM + b"data: " + b"[" * 5000 + b"\n\n"), ModelUnavailable, "broken", 0.5, id="deep"),
        pytest.param(sends(STREAM + data({"error": {"message": "Out."}})), ModelUnavailable, "Out", 0.5, id="an error"),
        pytest.param(sends(STREAM), ModelUnavailable, "broke off", 0.5, id="an empty stream"),
        pytest.param(sends(STREAM + delta(content="a")), ModelUnavailable, "broke off", 0.5, id="closed midway"),
        pytest.param(sends(b""), ModelUnavailable, "broke off", 0.5, id="closed at once"),
        pytest.param(sends(5.0), ModelTimeout, "took too long", 1, id="no answer"),
        pytest.param(sends(STREAM, 5.0), ModelTimeout, "took too long", 1, id="nothing in the stream"),
        pytest.param(sends(STREAM + delta(content="a"), 5.0), ModelTimeout, "took too long", 1, id="silent midway"),
        pytest.param(
            then(sends(STREAM), sends(b"d", 0.05, forever=True)), ModelTimeout, "took too long", 1, id="a slow drip"
        ),
        pytest.param(
            then(sends(STREAM), sends(b": ping\n\n", 0.05, forever=True)), ModelTimeout, "too long", 1, id="only pings"
        ),
        pytest.param(
            then(sends(STREAM), sends(delta(content="a"), 0.05, forever=True)), ModelTimeout, "long", 2, id="endless"
        ),
        pytest.param(
            then(sends(STREAM), sends(delta(content="a" * 5000), forever=True)), ModelNonsense, "without end", 1.5,
            id="text without end",
        ),
        pytest.param(then(sends(STREAM), sends(MEGABYTE)), ModelUnavailable, "broke off", 1.5, id="a line without end"),
        pytest.param(
            then(sends(STREAM), sends(MEGABYTE, forever=True)), ModelNonsense, "without end", 2, id="bytes without end"
        ),
        pytest.param(
            sends(STREAM + b"".join(delta(tool_calls=[call(n, "{}")]) for n in range(200)) + END),
            ModelNonsense, "more than 64 tools", 1, id="200 tool calls",
        ),
        pytest.param(
            sends(STREAM + b"".join(delta(tool_calls=[call(0, '{"a":"' + "b" * 9000)]) for _ in range(20)) + END),
            ModelNonsense, "arguments of a tool without end", 1, id="arguments without end",
        ),
        pytest.param(
            sends(STREAM + delta(tool_calls=[call(0, '{"a": [1,')]) + END),
            ModelNonsense, "in the middle of a tool call", 1, id="half a tool call",
        ),
        pytest.param(
            sends(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<html>"),
            ModelUnavailable, "did not answer with a stream", 0.5, id="HTML",
        ),
        pytest.param(
            sends(b"HTTP/1.1 302 Found\r\nLocation: http://x.test/\r\nConnection: close\r\n\r\n"),
            ModelDenied, "redirects", 0.5, id="a redirect",
        ),
        pytest.param(
            sends(b"HTTP/1.1 500 Oops\r\nContent-Length: 99999999\r\n\r\n" + MEGABYTE),
            ModelUnavailable, "answered 500", 1, id="a huge error",
        ),
        pytest.param(
            sends(b"HTTP/1.1 200 OK\r\nX: " + MEGABYTE + b"\r\n\r\n"), ModelUnavailable, "can't be reached", 1,
            id="huge headers",
        ),
        pytest.param(sends(b"SSH-2.0-OpenSSH\r\n"), ModelUnavailable, "can't be reached", 1, id="another protocol"),
    ],
)  # fmt: skip
async def test_a_model_server_that_sends_nonsense(
    answer: Answer, error: type[ModelError], said: str, seconds: float
) -> None:
    async with raw_http(answer, GOOD) as server:
        provider = OpenAIProvider("local", server.url, "k", TIMEOUTS)
        began = time.monotonic()
        with pytest.raises(error, match=said):
            await collect(provider.stream(TARGET, REQUEST))
        assert time.monotonic() - began < seconds + 3
        assert ModelText("good") in await collect(provider.stream(TARGET, REQUEST))
        await provider.aclose()


@pytest.mark.parametrize(
    ("events", "calls"),
    [
        pytest.param(
            [{"choices": None}, {"choices": [7]}, {"choices": [{"delta": "x"}]}, {"new": 1}], [], id="unknown events"
        ),
        pytest.param([{"usage": {"prompt_tokens": -5, "completion_tokens": 1e300}}, {"usage": 3}], [], id="usage"),
        pytest.param([{"choices": [{"delta": {"content": 5, "tool_calls": {"a": 1}}}]}], [], id="types"),
        pytest.param([{"choices": [{"delta": {"tool_calls": [call("0", ["a"]), 5]}}]}], [""], id="types of a call"),
        pytest.param([{"choices": [{"delta": {"tool_calls": [call(0, "[1, 2]")]}}]}], ["[1, 2]"], id="no object"),
        pytest.param([{"choices": [{"delta": {"tool_calls": [call(-3, "a")]}}]}], ["a"], id="no JSON"),
        pytest.param(
            [{"choices": [{"delta": {"tool_calls": [call(0, '{"a":1}'), call(0, '{"a":2}', id="b")]}}]}],
            ['{"a":1}', '{"a":2}'],
            id="duplicate indexes",
        ),
    ],
)
async def test_shapes_that_the_protocol_does_not_know_read_as_absent(events: list[Any], calls: list[str]) -> None:
    async with raw_http(sends(STREAM + b"".join(map(data, events)) + END)) as server:
        provider = OpenAIProvider("local", server.url, None, TIMEOUTS)
        got = await collect(provider.stream(TARGET, REQUEST))
        await provider.aclose()
    assert [event.call.arguments for event in got if isinstance(event, ModelToolCall)] == calls
    done = got[-1]
    assert isinstance(done, ModelDone)
    assert done.estimated
    assert done.input_tokens > 0, "a call that is not counted escapes the budget"


@pytest.mark.parametrize(
    ("body", "error", "said"),
    [
        (data({"type": "content_block_start", "content_block": 5}), ModelUnavailable, "broke off"),
        (data({"type": "content_block_stop", "index": 7}), ModelUnavailable, "broke off"),
        (data({"type": "error", "error": {"message": "Overloaded"}}), ModelUnavailable, "Overloaded"),
        (
            b"".join(
                data({"type": "content_block_start", "index": n, "content_block": {"type": "tool_use", "name": "x"}})
                for n in range(200)
            ),
            ModelNonsense,
            "more than 64 tools",
        ),
        (data({"type": "content_block_delta", "delta": {"text": "a" * 300_000}}), ModelNonsense, "without end"),
    ],
)
async def test_anthropics_protocol_is_no_more_trusted(body: bytes, error: type[ModelError], said: str) -> None:
    async with raw_http(sends(STREAM + body), ANTHROPIC_GOOD) as server:
        provider = AnthropicProvider("local", server.url, "k", TIMEOUTS)
        with pytest.raises(error, match=said):
            await collect(provider.stream(TARGET, REQUEST))
        assert ModelText("good") in await collect(provider.stream(TARGET, REQUEST))
        await provider.aclose()


async def test_text_without_end_takes_bounded_memory() -> None:
    async with raw_http(then(sends(STREAM), sends(MEGABYTE, b"\n", forever=True))) as server:
        provider = OpenAIProvider("local", server.url, None, ModelTimeouts())
        async with peak_memory(12):
            with pytest.raises(ModelNonsense):
                await collect(provider.stream(TARGET, REQUEST))
        await provider.aclose()


@pytest.mark.parametrize("answer", [sends(30.0), sends(STREAM, 30.0), sends(STREAM + delta(content="a"), 30.0)])
async def test_cancelling_closes_the_models_connection_at_once(answer: Answer) -> None:
    async with raw_http(answer) as server:
        provider = OpenAIProvider("local", server.url, None, ModelTimeouts())
        task = asyncio.create_task(collect(provider.stream(TARGET, REQUEST)))
        await asyncio.sleep(0.1)
        task.cancel()
        async with asyncio.timeout(0.2):
            await server.gone.wait()
        with pytest.raises(asyncio.CancelledError):
            await task
        await provider.aclose()


def self_signed(folder: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    file = folder / "tls.pem"
    file.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


async def test_a_certificate_that_nobody_vouches_for(tmp_path: Path) -> None:
    async with raw_http(GOOD, tls=self_signed(tmp_path)) as server:
        provider = OpenAIProvider("local", server.url, "k", TIMEOUTS)
        with pytest.raises(ModelUnavailable, match="a platform operator must correct it"):
            await collect(provider.stream(TARGET, REQUEST))
        await provider.aclose()
        async with jira(server.url, attempts=3) as get:
            report = await get()
        assert report.attempts == 1, "it would fail again"
        assert "certificate is not valid (self" in report.result.summary
        assert "a platform operator must correct" in report.result.summary
        assert server.requests == []


ISSUE = json.dumps({"key": "IT-1", "fields": {"summary": "s", "status": {"name": "To Do"}}}).encode()


def response(body: bytes, status: str = "200 OK", **headers: str) -> bytes:
    given = {"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close"}
    lines = {**given, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return "".join([f"HTTP/1.1 {status}\r\n", *(f"{n}: {v}\r\n" for n, v in lines.items()), "\r\n"]).encode() + body


Get = Callable[[], Any]


@asynccontextmanager
async def tools(url: str, **options: Any) -> AsyncIterator[Toolset]:
    settings = {"timeout_seconds": 0.6, "attempts": 1, **options}
    config = ConnectorConfig(name="jira", type="jira", url=url, auth_mode="UserOAuth", **settings)
    connector = make_connector(config, {}, EgressRule(allow_hosts=("127.0.0.1", "localhost")))
    made = Toolset(
        {"jira": (config, connector)}, GuardRegistry(time.monotonic), clock=time.monotonic, random=lambda: 0.0
    )
    try:
        yield made
    finally:
        await made.aclose()


async def use(toolset: Toolset, verb: str, arguments: Mapping[str, Any], key: str = "run/s1") -> CallReport:
    tool = next(tool for tool in toolset.tools if tool.name == f"jira.issue.{verb}")
    credential = Credential(SecretText("jira-token-employee"), "employee@acme.example")
    context = CallContext("employee@acme.example", key, time.monotonic() + 10, credential=credential)
    return await toolset.call(tool, arguments, context)


@asynccontextmanager
async def jira(url: str, **options: Any) -> AsyncIterator[Get]:
    async with tools(url, **options) as toolset:
        yield lambda: use(toolset, "get", {"key": "IT-1"})


FIFTY_MEGABYTES = sends(response(b"", Content_Length=str(50 << 20)), *[MEGABYTE] * 50)
BOMB = gzip.compress(b'{"a": "' + b"x" * (40 << 20) + b'"}')


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        pytest.param(sends(response(b"<html>", Content_Type="text/html")), "text/html instead of JSON", id="HTML"),
        pytest.param(sends(response(b"{")), "broken JSON", id="broken JSON"),
        pytest.param(sends(response(b'{"key": NaN}')), "broken JSON", id="NaN"),
        pytest.param(sends(response(b"[" * 100_000 + b"]" * 100_000)), "broken JSON", id="nested too deep"),
        pytest.param(sends(response(ISSUE.decode().encode("utf-16"))), "broken JSON", id="another charset"),
        pytest.param(sends(response(b"[]")), "can't be read", id="another shape"),
        pytest.param(sends(response(b"", "204 No Content")), "can't be read", id="204"),
        pytest.param(FIFTY_MEGABYTES, "more than 1 MB", id="50 MB"),
        pytest.param(
            sends(response(b"").replace(b"Content-Length: 0\r\n", b""), *[MEGABYTE] * 50), "more than 1 MB",
            id="50 MB unannounced",
        ),
        pytest.param(sends(response(BOMB, Content_Encoding="gzip")), "more than 1 MB", id="a compressed bomb"),
        pytest.param(sends(response(b"xx", Content_Encoding="gzip")), "broken or too large", id="no gzip at all"),
        pytest.param(
            then(sends(response(b"", Content_Length="9999")), sends(b" ", 0.05, forever=True)),
            "did not answer within 0.6 s", id="a slow drip",
        ),
        pytest.param(
            then(sends(b"HTTP/1.1 200 OK\r\n"), sends(b"X: y\r\n", 0.05, forever=True)), "within 0.6 s",
            id="headers without end",
        ),
        pytest.param(sends(b"HTTP/1.1 200 OK\r\nX: " + MEGABYTE + b"\r\n\r\n"), "too large", id="huge headers"),
        pytest.param(sends(b"SSH-2.0-OpenSSH\r\n"), "broken or too large", id="another protocol"),
        pytest.param(sends(response(b"")[:20]), "broke off", id="cut in the head"),
        pytest.param(sends(response(ISSUE, Content_Length="9999")), "broken or too large", id="cut in the body"),
        pytest.param(sends(b""), "broke off", id="closed at once"),
        pytest.param(sends(5.0), "did not answer within 0.6 s", id="silent"),
        pytest.param(sends(response(MEGABYTE * 3, "502 Bad Gateway")), "more than 1 MB", id="a huge error"),
        pytest.param(sends(response(b"<html>", "502 Bad Gateway", Content_Type="text/html")), "failed (502)", id="502"),
    ],
)  # fmt: skip
async def test_a_system_that_sends_nonsense(answer: Answer, said: str) -> None:
    async with raw_http(answer, sends(response(ISSUE))) as server, jira(server.url) as get:
        async with peak_memory(10):
            report = await get()
        assert report.result.outcome is Outcome.FAILED
        assert said in report.result.summary
        assert report.seconds < 1
        assert (await get()).result.summary == "IT-1 is in the status To Do: s"


async def test_a_redirect_is_not_followed_and_no_token_goes_there() -> None:
    async with raw_http(sends(response(ISSUE))) as elsewhere:
        moved = sends(response(b"", "307 Temporary Redirect", Location=f"{elsewhere.url}/"))
        async with raw_http(moved) as server, jira(server.url, attempts=3) as get:
            report = await get()
        assert report.attempts == 1
        assert "a platform operator must correct its URL" in report.result.summary
        assert elsewhere.requests == []


async def test_retry_after_may_be_a_date() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    busy = sends(response(b"{}", "429 Too Many Requests", Retry_After=later))
    async with raw_http(busy, sends(response(ISSUE))) as server, jira(server.url, attempts=2) as get:
        report = await get()
    assert report.result.outcome is Outcome.SUCCEEDED
    assert 0.9 < report.seconds < 3


async def test_cancelling_closes_the_systems_connection_at_once() -> None:
    async with raw_http(sends(30.0)) as server, jira(server.url, timeout_seconds=20) as get:
        task = asyncio.ensure_future(get())
        await asyncio.sleep(0.1)
        task.cancel()
        async with asyncio.timeout(0.2):
            await server.gone.wait()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("acted", [True, False], ids=["cut after it acted", "cut before it acted"])
@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("create", {"project": "it", "summary": "A new laptop"}),
        ("comment", {"key": "IT-3", "body": "On it."}),
        ("transition", {"key": "IT-3", "status": "Done"}),
    ],
)
async def test_a_write_whose_response_was_cut_is_found_or_sent_again_and_never_doubled(
    verb: str, arguments: dict[str, Any], acted: bool
) -> None:
    writes = []

    @web.middleware
    async def cut(request: web.Request, handler: Any) -> web.StreamResponse:
        write = request.method == "POST" and not request.path.endswith("/jql")
        first = write and not writes
        if write:
            writes.append(request.path)
        if first and not acted:
            assert request.transport is not None
            request.transport.abort()
        answer: web.StreamResponse = web.Response() if first and not acted else await handler(request)
        if first and request.transport is not None:
            request.transport.abort()
        return answer

    # search sees nothing of what happens here
    app = make_app(faults=Faults(index_delay_seconds=600))
    app.middlewares.append(cut)
    async with TestServer(app) as server, tools(str(server.make_url("/")).rstrip("/"), attempts=2) as toolset:
        report = await use(toolset, verb, arguments)
        if acted:
            assert (report.result.outcome, len(writes)) == (Outcome.SUCCEEDED, 1)
        elif verb == "create":  # search may lag: nothing proves that it did not happen
            assert (report.result.outcome, len(writes)) == (Outcome.UNKNOWN, 1)
            assert "please check in Jira" in report.result.summary
        else:
            assert (report.result.outcome, len(writes)) == (Outcome.SUCCEEDED, 2)
        read = await use(toolset, "get", {"key": "IT-3"})
        assert isinstance(read.result.data, dict)
        if verb == "comment":
            assert [comment["body"] for comment in read.result.data["comments"]].count("On it.") == 1
        if verb == "transition":
            assert read.result.data["status"] == "Done"
