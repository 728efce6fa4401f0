from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest
from aiohttp import web

from pilothouse_api.workerconfig import ProviderConfig, RouteConfig, TargetConfig
from pilothouse_dataplane.core.guard import GuardRegistry
from pilothouse_dataplane.core.messages import Message, ModelRequest, ToolCall
from pilothouse_dataplane.models.anthropic import AnthropicProvider
from pilothouse_dataplane.models.anthropic import request_body as anthropic_body
from pilothouse_dataplane.models.base import (
    ModelDenied,
    ModelDone,
    ModelError,
    ModelEvent,
    ModelNonsense,
    ModelRateLimited,
    ModelRestarted,
    ModelText,
    ModelTimeout,
    ModelTimeouts,
    ModelToolCall,
    ModelUnavailable,
)
from pilothouse_dataplane.models.cost import ModelCallRecord, cost_micros
from pilothouse_dataplane.models.gateway import ModelGateway
from pilothouse_dataplane.models.openai import OpenAIProvider
from pilothouse_dataplane.models.openai import request_body as openai_body
from pilothouse_testing.fakes import ECHO, FakeModel

TARGET = TargetConfig(provider="p", model="m")
REQUEST = ModelRequest((Message("system", "Be brief."), Message("user", "hello")), (ECHO,))
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(path: str, handler: Handler) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post(path, handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


def events(*items: Any, pause: float = 0.0) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for item in items:
            data = item if isinstance(item, str) else json.dumps(item)
            await response.write(f"data: {data}\n\n".encode())
            await asyncio.sleep(pause)
        return response

    return handle


async def collect(stream: AsyncIterator[ModelEvent]) -> list[ModelEvent]:
    return [event async for event in stream]


def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def piece(index: int, arguments: str, **rest: Any) -> dict[str, Any]:
    name = {"name": rest["name"]} if "name" in rest else {}
    base = {"id": rest["id"]} if "id" in rest else {}
    return {"tool_calls": [{"index": index, **base, "function": {"arguments": arguments, **name}}]}


async def test_openai_streams_text_and_tool_calls_in_pieces() -> None:
    ports = set()
    handle = events(
        chunk({"role": "assistant", "content": "Let "}),
        chunk({"content": "me see."}),
        chunk(piece(0, '{"na', id="a", name="fake__thing__read")),
        chunk(piece(0, 'me": "x"}')),
        chunk(piece(1, "{}", id="b", name="other")),
        chunk({}, "tool_calls"),
        {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}},
        "[DONE]",
    )

    async def remember(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        ports.add(request.transport.get_extra_info("peername")[1])
        assert request.headers["Authorization"] == "Bearer k"
        return await handle(request)

    async with serving("/v1/chat/completions", remember) as url:
        provider = OpenAIProvider("local", f"{url}/v1", "k")
        for _ in range(2):
            assert await collect(provider.stream(TARGET, REQUEST)) == [
                ModelText("Let "),
                ModelText("me see."),
                ModelToolCall(ToolCall("a", "fake__thing__read", '{"name": "x"}')),
                ModelToolCall(ToolCall("b", "other", "{}")),
                ModelDone(7, 3),
            ]
        await provider.aclose()
    assert len(ports) == 1, "the connection is used again"


@pytest.mark.parametrize(
    ("status", "error"), [(429, ModelRateLimited), (401, ModelDenied), (503, ModelUnavailable), (302, ModelDenied)]
)
async def test_statuses(status: int, error: type[ModelError]) -> None:
    async def refuse(request: web.Request) -> web.StreamResponse:
        headers = {"Retry-After": "3", "Location": "http://127.0.0.1:1/"}
        return web.json_response({"error": {"message": "Because."}}, status=status, headers=headers)

    async with serving("/chat/completions", refuse) as url:
        provider = OpenAIProvider("local", url, None)
        with pytest.raises(error) as raised:
            await collect(provider.stream(TARGET, REQUEST))
        await provider.aclose()
    assert ("redirects" if status == 302 else "Because.") in str(raised.value)
    if isinstance(raised.value, ModelRateLimited):
        assert raised.value.retry_after == 3


async def test_a_stream_that_breaks_stalls_or_isnt_there() -> None:
    timeouts = ModelTimeouts(connect=0.5, first_token=0.5, between_tokens=0.1)
    async with serving("/chat/completions", events(chunk({"content": "a"}))) as url:
        provider = OpenAIProvider("local", url, None, timeouts)
        with pytest.raises(ModelUnavailable, match="broke off"):
            await collect(provider.stream(TARGET, REQUEST))
        await provider.aclose()
    async with serving("/chat/completions", events(chunk({"content": "a"}), chunk({}), pause=0.5)) as url:
        provider = OpenAIProvider("local", url, None, timeouts)
        with pytest.raises(ModelTimeout):
            await collect(provider.stream(TARGET, REQUEST))
        await provider.aclose()
    provider = OpenAIProvider("local", url, None, timeouts)  # nobody listens there any more
    with pytest.raises(ModelUnavailable, match="can't be reached"):
        await collect(provider.stream(TARGET, REQUEST))
    await provider.aclose()


async def test_time_that_the_reader_takes_is_not_the_providers() -> None:
    timeouts = ModelTimeouts(connect=0.5, first_token=0.5, between_tokens=0.4)
    chunks = [chunk({"content": "a"}), chunk({"content": "b"}), "[DONE]"]
    async with serving("/chat/completions", events(*chunks, pause=0.6)) as url:
        provider = OpenAIProvider("local", url, None, timeouts)
        got = []
        async for event in provider.stream(TARGET, REQUEST):
            got.append(event)
            await asyncio.sleep(0.35)
        await provider.aclose()
    assert got[:2] == [ModelText("a"), ModelText("b")]


async def test_anthropic_streams_text_and_tools() -> None:
    handle = events(
        {"type": "message_start", "message": {"usage": {"input_tokens": 5, "cache_read_input_tokens": 2}}},
        {"type": "content_block_start", "content_block": {"type": "text"}},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hm."}},
        {"type": "content_block_stop"},
        {"type": "content_block_start", "content_block": {"type": "tool_use", "id": "t", "name": "x"}},
        {"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": '{"a":1}'}},
        {"type": "content_block_stop"},
        {"type": "message_delta", "usage": {"output_tokens": 9}},
        {"type": "message_stop"},
    )
    async with serving("/v1/messages", handle) as url:
        provider = AnthropicProvider("anthropic", url, "k")
        assert await collect(provider.stream(TARGET, REQUEST)) == [
            ModelText("Hm."),
            ModelToolCall(ToolCall("t", "x", '{"a":1}')),
            ModelDone(7, 9, cached_input_tokens=2),
        ]
        await provider.aclose()


async def test_a_call_is_handed_out_as_soon_as_its_arguments_are_whole() -> None:
    more = asyncio.Event()

    def handler(*first: Any) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            for item in first:
                await response.write(f"data: {json.dumps(item)}\n\n".encode())
            await more.wait()  # the plan goes on, or hangs
            return response

        return handle

    openai = handler(chunk(piece(0, '{"na', id="a", name="x")), chunk(piece(0, 'me": "}"}')))
    anthropic = handler(
        {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "id": "a", "name": "x"}},
        {"type": "content_block_delta", "index": 0, "delta": {"partial_json": '{"name": "}"}'}},
        {"type": "content_block_stop", "index": 0},
    )
    for path, handle, make in (
        ("/chat/completions", openai, OpenAIProvider),
        ("/v1/messages", anthropic, AnthropicProvider),
    ):
        async with serving(path, handle) as url:
            provider = make("local", url, None)
            async with asyncio.timeout(2), aclosing(provider.stream(TARGET, REQUEST)) as stream:
                assert await anext(stream) == ModelToolCall(ToolCall("a", "x", '{"name": "}"}'))
            await provider.aclose()
            more.set()
        more.clear()


def gateway(clock: Callable[[], float] = lambda: 0.0, **models: FakeModel) -> ModelGateway:
    targets = [TargetConfig(provider=name, model="m", input_price_per_1k=Decimal("0.005")) for name in models]
    route = RouteConfig(
        providers=tuple(ProviderConfig(name=name, type="OpenAI") for name in models),
        tiers={"mid": (targets[0],), "fast": tuple(targets[1:])},
        default_tier="mid",
        fallback=("fast", "mid"),
    )
    return ModelGateway(route, models, GuardRegistry(clock), clock=clock, random=lambda: 0.0)


async def test_the_fallback_answers_and_its_cost_is_counted() -> None:
    down, up = FakeModel([ModelUnavailable("down")]), FakeModel([ModelText("hi")])
    records: list[ModelCallRecord] = []
    models = gateway(first=down, second=up)
    for _ in range(6):
        got = await collect(models.stream(REQUEST, deadline=10, on_call=records.append))
        assert got[0] == ModelText("hi")
    assert len(down.requests) == 5, "after five failures its breaker is open"
    assert (records[1].provider, records[1].tier, records[1].usage.cost_micros) == ("second", "fast", 500)


async def test_the_run_is_told_to_drop_the_calls_of_a_target_that_failed() -> None:
    call = ModelToolCall(ToolCall("a", "x", "{}"))
    half, up = FakeModel([call, ModelUnavailable("down")]), FakeModel([ModelText("hi")])
    got = await collect(gateway(first=half, second=up).stream(REQUEST, deadline=10, on_call=lambda _: None))
    assert got[:3] == [call, ModelRestarted(), ModelText("hi")]
    got = await collect(
        gateway(first=FakeModel([ModelUnavailable("down")]), second=up).stream(
            REQUEST, deadline=10, on_call=lambda _: None
        )
    )
    assert ModelRestarted() not in got


async def test_nonsense_of_a_model_does_not_open_its_providers_breaker() -> None:
    wild = FakeModel([ModelNonsense("without end")])
    models = gateway(first=wild)
    for _ in range(10):
        with pytest.raises(ModelNonsense):
            await collect(models.stream(REQUEST, deadline=0, on_call=lambda _: None))
    assert len(wild.requests) == 10


async def test_what_goes_back_to_a_provider_is_what_its_protocol_allows() -> None:
    wrong = Message("assistant", "", (ToolCall("a", "rm -rf /", '{"broken'), ToolCall("b", "", "[1]")))
    calls = openai_body(TARGET, ModelRequest((wrong,)))["messages"][0]["tool_calls"]
    assert [call["function"] for call in calls] == [
        {"name": "rm_-rf__", "arguments": "{}"},
        {"name": "unknown", "arguments": "{}"},
    ]
    blocks = anthropic_body(TARGET, ModelRequest((wrong,)))["messages"][0]["content"]
    assert [(block["name"], block["input"]) for block in blocks] == [("rm_-rf__", {}), ("unknown", {})]


async def test_a_second_pass_follows_when_all_are_down_for_a_moment() -> None:
    flaky = FakeModel([ModelRateLimited("slow down", 0.01)], [ModelText("hi")])
    got = await collect(gateway(first=flaky).stream(REQUEST, deadline=10, on_call=lambda _: None))
    assert got[0] == ModelText("hi")


def test_cost_is_integer_micro_dollars() -> None:
    target = TargetConfig(
        provider="p", model="m", input_price_per_1k=Decimal("0.0025"), output_price_per_1k=Decimal("0.01")
    )
    assert cost_micros(target, 1001, 3) == 2533  # 2502.5 + 30, half up
