"""The same bytes through the vendors' own SDKs and through ours give the same."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anthropic
import openai
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from pilothouse_api.workerconfig import TargetConfig
from pilothouse_dataplane.core.messages import Message, ModelRequest
from pilothouse_dataplane.models.anthropic import AnthropicProvider
from pilothouse_dataplane.models.base import (
    ModelDone,
    ModelError,
    ModelNonsense,
    ModelProvider,
    ModelRateLimited,
    ModelText,
    ModelToolCall,
    ModelUnavailable,
)
from pilothouse_dataplane.models.openai import OpenAIProvider
from pilothouse_dataplane.models.responses import ResponsesProvider
from pilothouse_testing.fakes import ECHO
from pilothouse_testing.replay import Replay, recorded, recorded_errors, replaying

TARGET = TargetConfig(provider="p", model="claude-opus-4-8")
REQUEST = ModelRequest((Message("system", "Be brief."), Message("user", "hello")), (ECHO,))
BROKEN = {"error_in_the_middle", "rate_limit_in_the_middle"}


@dataclass(slots=True)
class Said:
    """What a reader made of a stream."""

    text: str = ""
    calls: list[tuple[str, str, Any]] = field(default_factory=list)
    """Id, name, and arguments as JSON (``"…"`` where they are cut)."""
    usage: tuple[int, int, int] = (0, 0, 0)
    """Input, output, cached."""
    stop: str = ""


def arguments(text: str) -> Any:
    try:
        return json.loads(text or "{}")
    except json.JSONDecodeError:
        return "…"


async def chat_of_sdk(client: openai.AsyncOpenAI) -> Said:
    said = Said()
    async with client.chat.completions.stream(
        model="m", messages=[{"role": "user", "content": "hello"}], stream_options={"include_usage": True}
    ) as stream:
        async for _ in stream:
            pass
        answer = stream.current_completion_snapshot
    (choice,) = answer.choices
    said.text = (choice.message.content or "") + (choice.message.refusal or "")
    for call in choice.message.tool_calls or ():
        said.calls.append((call.id, call.function.name, arguments(call.function.arguments)))
    if answer.usage:
        details = answer.usage.prompt_tokens_details
        cached = (details.cached_tokens if details else 0) or 0
        said.usage = (answer.usage.prompt_tokens, answer.usage.completion_tokens, cached)
    said.stop = {"length": "length", "content_filter": "filter"}.get(choice.finish_reason, "")
    if choice.message.refusal:
        said.stop = "refusal"
    return said


async def responses_of_sdk(client: openai.AsyncOpenAI) -> Said:
    said = Said()
    response: Any = None
    async for event in await client.responses.create(model="m", input="hello", stream=True):
        if event.type in ("response.completed", "response.incomplete", "response.failed"):
            response = event.response
            if response.error:
                raise openai.APIError(response.error.message, request=None, body=None)  # type: ignore[arg-type]
        elif event.type == "error":
            raise openai.APIError(event.message, request=None, body=None)  # type: ignore[arg-type]
    for item in response.output:
        if item.type == "message":
            for part in item.content:
                said.text += part.text if part.type == "output_text" else part.refusal
                said.stop = "" if part.type == "output_text" else "refusal"
        elif item.type == "function_call":
            said.calls.append((item.call_id, item.name, arguments(item.arguments)))
    usage = response.usage
    said.usage = (usage.input_tokens, usage.output_tokens, usage.input_tokens_details.cached_tokens)
    if response.incomplete_details:
        said.stop = {"max_output_tokens": "length"}.get(response.incomplete_details.reason, "filter")
    return said


async def messages_of_sdk(client: anthropic.AsyncAnthropic) -> Said:
    said = Said()
    async with client.messages.stream(
        model="m", max_tokens=9, messages=[{"role": "user", "content": "hello"}]
    ) as stream:
        answer = await stream.get_final_message()
    for block in answer.content:
        if block.type == "text":
            said.text += block.text
        elif block.type == "tool_use":
            whole = answer.stop_reason != "max_tokens"
            said.calls.append((block.id, block.name, block.input if whole else "…"))
    usage = answer.usage
    cached = usage.cache_read_input_tokens or 0
    read = usage.input_tokens + (usage.cache_creation_input_tokens or 0) + cached
    said.usage = (read, usage.output_tokens, cached)
    said.stop = {"max_tokens": "length", "refusal": "refusal"}.get(answer.stop_reason or "", "")
    return said


async def ours(provider: ModelProvider) -> Said:
    said = Said()
    async for event in provider.stream(TARGET, REQUEST):
        if isinstance(event, ModelText):
            said.text += event.text
        elif isinstance(event, ModelToolCall):
            said.calls.append((event.call.id, event.call.name, arguments(event.call.arguments)))
        elif isinstance(event, ModelDone):
            assert not event.estimated
            said.usage = (event.input_tokens, event.output_tokens, event.cached_input_tokens)
            said.stop = event.stop
    return said


@dataclass(slots=True)
class Pair:
    """One protocol: the SDK's reader and ours against the same server."""

    replay: Replay
    sdk: Callable[[], Awaitable[Said]]
    provider: ModelProvider
    client: Any


@asynccontextmanager
async def pair(protocol: str) -> AsyncIterator[Pair]:
    async with replaying() as replay:
        provider: ModelProvider
        if protocol == "messages":
            anthropics = anthropic.AsyncAnthropic(base_url=replay.url, api_key="k", max_retries=0)
            provider = AnthropicProvider("p", replay.url, "k")
            made = Pair(replay, lambda: messages_of_sdk(anthropics), provider, anthropics)
        else:
            client = openai.AsyncOpenAI(base_url=f"{replay.url}/v1", api_key="k", max_retries=0)
            if protocol == "chat":
                provider = OpenAIProvider("p", f"{replay.url}/v1", "k")
                made = Pair(replay, lambda: chat_of_sdk(client), provider, client)
            else:
                provider = ResponsesProvider("p", f"{replay.url}/v1", "k")
                made = Pair(replay, lambda: responses_of_sdk(client), provider, client)
        try:
            yield made
        finally:
            await made.provider.aclose()
            await made.client.close()


Run = Callable[[str, Callable[[Pair], Coroutine[Any, Any, None]]], None]


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Runs a coroutine with a protocol's pair. All examples share a loop, clients and connections."""
    loop = asyncio.new_event_loop()
    stack = AsyncExitStack()
    pairs: dict[str, Pair] = {}

    async def each(protocol: str, example: Callable[[Pair], Coroutine[Any, Any, None]]) -> None:
        if protocol not in pairs:
            pairs[protocol] = await stack.enter_async_context(pair(protocol))
        await example(pairs[protocol])

    yield lambda protocol, example: loop.run_until_complete(each(protocol, example))
    loop.run_until_complete(stack.aclose())
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


STREAMS = [
    pytest.param(protocol, name, id=f"{protocol}-{name}")
    for protocol in ("chat", "responses", "messages")
    for name in recorded(protocol)
]


@pytest.mark.parametrize(("protocol", "name"), STREAMS)
def test_a_stream_says_the_same_to_both_however_it_is_cut(run: Run, protocol: str, name: str) -> None:
    body = recorded(protocol)[name]

    async def same(both: Pair, cuts: list[int]) -> None:
        both.replay.stream(body, cuts)
        if name in BROKEN:
            with pytest.raises((openai.APIError, anthropic.APIError)) as theirs:
                await both.sdk()
            with pytest.raises(ModelUnavailable) as error:
                await ours(both.provider)
            assert isinstance(error.value, ModelRateLimited) == name.startswith("rate_limit"), theirs.value
            assert error.value.spent is not None
            return
        expected = await both.sdk()
        if name == "half_a_call":
            assert [call[2] for call in expected.calls] == ["…"]
            with pytest.raises(ModelNonsense, match="the call was not made") as half:
                await ours(both.provider)
            assert half.value.spent is not None
            return
        assert await ours(both.provider) == expected
        assert expected.text or expected.calls

    async def our_own_at_every_byte(both: Pair) -> None:
        if name in BROKEN or name == "half_a_call":
            return
        both.replay.stream(body)
        whole = await ours(both.provider)
        both.replay.stream(body, range(0, len(body), 1 + len(body) // 1500))
        assert await ours(both.provider) == whole

    @settings(
        max_examples=4,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],
        database=None,
    )
    @given(st.lists(st.integers(0, len(body)), max_size=12).map(sorted))
    @example([])
    def examples(cuts: list[int]) -> None:
        run(protocol, lambda both: same(both, cuts))

    examples()
    run(protocol, our_own_at_every_byte)


@pytest.mark.parametrize("vendor", ["openai", "anthropic"])
async def test_a_refusal_is_of_the_same_class_and_comes_with_the_same_wait(vendor: str) -> None:
    async with pair("messages" if vendor == "anthropic" else "chat") as both:
        for error in recorded_errors(vendor):
            both.replay.refuse(error["status"], error["headers"], error["body"])
            with pytest.raises((openai.APIStatusError, anthropic.APIStatusError)) as theirs:
                await both.sdk()
            with pytest.raises(ModelError) as mine:
                await ours(both.provider)
            name, response = f"{error['name']}: {mine.value}", theirs.value.response  # type: ignore[attr-defined]
            assert error["sdk"] in [cls.__name__ for cls in type(theirs.value).__mro__], name
            assert type(mine.value).__name__ == error["ours"], name
            assert "sk-abcd" not in str(mine.value)
            wait = both.client._parse_retry_after_header(response.headers)
            assert getattr(mine.value, "retry_after", None) == wait == error["retry_after"], name
            again = isinstance(mine.value, ModelUnavailable) and mine.value.again
            assert (again == both.client._should_retry(response)) == error["sdk_retries_as_we_do"], name
            assert mine.value.spent is None, "nothing is charged"
