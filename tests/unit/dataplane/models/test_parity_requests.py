"""What is sent: it fits the types that the vendors' SDKs declare for it, and keeps what the vendors ask to be kept."""

from __future__ import annotations

import functools
from typing import Any, cast

import pytest
from anthropic.types.message_create_params import MessageCreateParamsStreaming
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming
from openai.types.responses.response_create_params import ResponseCreateParamsStreaming
from pydantic import TypeAdapter, ValidationError

from pilothouse_api.workerconfig import ProviderConfig, TargetConfig
from pilothouse_dataplane.core.messages import Message, ModelRequest, Situation, ToolCall
from pilothouse_dataplane.models import anthropic, openai, responses
from pilothouse_dataplane.models.base import (
    ModelDenied,
    ModelEvent,
    ModelProvider,
    ModelTimeout,
    ModelToolCall,
    ProviderConfigError,
)
from pilothouse_dataplane.models.providers import api_key, make_provider, make_providers
from pilothouse_dataplane.models.thoughts import Thoughts
from pilothouse_testing.fakes import ECHO
from pilothouse_testing.replay import recorded, replaying

CALL = ToolCall("call_a", "jira__issue__get", '{"key": "IT-1"}')
SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}
TALK = (
    Message("system", "Be brief."),
    Message("user", "what is IT-1?"),
    Message("assistant", "One moment.", (CALL,)),
    Message("tool", '{"status": "open"}', tool_call_id="call_a"),
)
WHOLE = ModelRequest(
    TALK, (ECHO,), situation=Situation("what is IT-1?", user_email="a@example.com"), response_schema=SCHEMA
)
LAST = ModelRequest(TALK, (ECHO,), allow_tools=False)


def target(model: str = "m", **rest: Any) -> TargetConfig:
    return TargetConfig(provider="p", model=model, **rest)


@functools.cache
def adapter(kind: Any) -> TypeAdapter[Any]:
    """Kept: pydantic checks an Iterable's items later, and its validator must be alive then."""
    return TypeAdapter(kind)


def checked(kind: Any, body: dict[str, Any]) -> dict[str, Any]:
    """Raises ValidationError where the SDK's type does not take a body, down to the last item."""

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            for each in value.values():
                walk(each)
        elif not isinstance(value, (str, bytes)) and hasattr(value, "__iter__"):
            for each in value:
                walk(each)

    walk(adapter(kind).validate_python(body))
    annotations = {name for cls in kind.__mro__ if cls is not dict for name in getattr(cls, "__annotations__", {})}
    assert set(body) <= annotations | set(kind.__annotations__)
    return body


def chat(request: ModelRequest, to: TargetConfig, *, vendor: bool = False) -> dict[str, Any]:
    return checked(CompletionCreateParamsStreaming, openai.request_body(to, request, vendor=vendor))


def respond(request: ModelRequest, to: TargetConfig, *, vendor: bool = False) -> dict[str, Any]:
    return checked(ResponseCreateParamsStreaming, responses.request_body(to, request, vendor=vendor))


def message(request: ModelRequest, to: TargetConfig, thoughts: Thoughts | None = None) -> dict[str, Any]:
    return checked(MessageCreateParamsStreaming, anthropic.request_body(to, request, thoughts=thoughts))


def test_the_check_itself_finds_a_wrong_item() -> None:
    with pytest.raises(ValidationError):
        checked(MessageCreateParamsStreaming, {**message(WHOLE, target()), "messages": [{"role": "nobody"}]})


@pytest.mark.parametrize("request_", [WHOLE, LAST, ModelRequest((Message("user", "hi"),))])
@pytest.mark.parametrize("reasoning", ["", "low", "high"])
@pytest.mark.parametrize("vendor", [False, True])
def test_bodies_fit_the_vendors_types(request_: ModelRequest, reasoning: Any, vendor: bool) -> None:
    for model in ("m", "claude-opus-4-8", "claude-sonnet-4-5-20250929"):
        to = target(model, reasoning=reasoning)
        chat(request_, to, vendor=vendor)
        respond(request_, to, vendor=vendor)
        message(request_, to)


def test_the_bound_of_tokens_has_the_name_that_the_server_obeys() -> None:
    assert chat(WHOLE, target(max_output_tokens=99), vendor=True)["max_completion_tokens"] == 99
    assert chat(WHOLE, target(max_output_tokens=99))["max_tokens"] == 99
    body = chat(WHOLE, target(reasoning="low"))
    assert "max_tokens" not in body, "reasoning models refuse it"
    assert body["reasoning_effort"] == "low"
    assert respond(WHOLE, target(max_output_tokens=99))["max_output_tokens"] == 99
    assert message(WHOLE, target(max_output_tokens=99))["max_tokens"] == 99


def test_the_prompts_start_stays_the_same_from_call_to_call() -> None:
    first = ModelRequest(TALK[:2], (ECHO,), situation=WHOLE.situation)
    for make in (chat, respond):
        plan, last = make(first, target(), vendor=True), make(LAST, target(), vendor=True)
        assert plan["tools"] == last["tools"]
        assert last["tool_choice"] == "none"
        assert plan["prompt_cache_key"] == make(WHOLE, target(), vendor=True)["prompt_cache_key"]
        assert "a@example.com" not in str(plan)
        assert "prompt_cache_key" not in make(first, target())
        assert "tools" not in make(LAST, target()), "some servers call tools in spite of none"
    plan, last = message(first, target()), message(LAST, target())
    assert (plan["tools"], plan["system"]) == (last["tools"], last["system"])
    assert plan["tools"][-1]["cache_control"] == plan["system"][-1]["cache_control"] == {"type": "ephemeral"}
    assert last["tool_choice"] == {"type": "none"}


def test_structured_output() -> None:
    form = chat(WHOLE, target())["response_format"]["json_schema"]
    assert (form["schema"], form["strict"]) == (SCHEMA, True)
    assert respond(WHOLE, target())["text"]["format"]["schema"] == SCHEMA
    body = message(WHOLE, target("claude-opus-4-8", reasoning="low"))
    assert body["output_config"] == {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}}


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        (SCHEMA, True),
        ({**SCHEMA, "required": []}, False),
        ({**SCHEMA, "additionalProperties": True}, False),
        ({**SCHEMA, "properties": {"ok": {"type": "object"}}}, False),
        ({**SCHEMA, "properties": {"ok": {"type": "array", "items": SCHEMA}}}, True),
        ({**SCHEMA, "properties": {"ok": {"anyOf": [{"type": "object", "properties": {}}, {"type": "null"}]}}}, False),
        ({**SCHEMA, "$defs": {"x": {"type": "object"}}}, False),
    ],
)
def test_strict_is_asked_for_only_where_the_schema_allows_it(schema: dict[str, Any], strict: bool) -> None:
    assert openai.fits_strict(schema) is strict


@pytest.mark.parametrize(
    ("model", "most", "thinking"),
    [
        ("claude-opus-4-8", 4096, {"type": "adaptive"}),
        ("claude-sonnet-5-5", 4096, {"type": "adaptive"}),
        ("claude-opus-4-6", 4096, {"type": "adaptive"}),
        ("claude-sonnet-4-5-20250929", 8192, {"type": "enabled", "budget_tokens": 4096}),
        ("claude-haiku-4-5", 4096, {"type": "enabled", "budget_tokens": 2048}),
        ("claude-sonnet-4-20250514", 4096, {"type": "enabled", "budget_tokens": 2048}),
        ("us.anthropic.claude-opus-4-1-20250805-v1:0", 4096, {"type": "enabled", "budget_tokens": 2048}),
        ("claude-3-7-sonnet-latest", 4096, {"type": "enabled", "budget_tokens": 2048}),
        ("claude-haiku-4-5", 2000, None),
    ],
)
def test_thinking_by_model(model: str, most: int, thinking: object) -> None:
    first = ModelRequest(TALK[:2], (ECHO,))
    assert message(first, target(model, max_output_tokens=most, reasoning="medium")).get("thinking") == thinking
    assert "thinking" not in message(first, target(model, max_output_tokens=most))


async def answers(provider: ModelProvider, to: TargetConfig, request: ModelRequest) -> list[ModelEvent]:
    return [event async for event in provider.stream(to, request)]


async def test_thoughts_go_back_unchanged_with_the_results_of_their_calls() -> None:
    async with replaying() as replay:
        provider = anthropic.AnthropicProvider("p", replay.url, "k")
        to = target("claude-sonnet-4-5", reasoning="low")
        replay.stream(recorded("messages")["thinking"])
        got = await answers(provider, to, ModelRequest(TALK[:2], (ECHO,)))
        (call,) = (event.call for event in got if isinstance(event, ModelToolCall))
        talk = (*TALK[:2], Message("assistant", "One moment.", (call,)), Message("tool", "{}", tool_call_id=call.id))
        await answers(provider, to, ModelRequest(talk, (ECHO,)))
        body = checked(MessageCreateParamsStreaming, replay.asked[-1])
        assert body["thinking"]["type"] == "enabled"
        assert body["messages"][1]["content"] == [
            {
                "type": "thinking",
                "thinking": "I have to look the ticket up.",
                "signature": "EqQBCgIYAhIM1gbcDa9GJwZA2b3hGgxBdjrkzLoky3dl1pkiMOYds",
            },
            {"type": "redacted_thinking", "data": "EmwKAhgBEgy3va3pzix"},
            {"type": "text", "text": "One moment."},
            {"type": "tool_use", "id": "toolu_a", "name": "jira__issue__get", "input": {"key": "IT-1"}},
        ]
        # another model's thoughts are not this one's, and a budget without them is refused: it goes without
        await answers(provider, target("claude-haiku-4-5", reasoning="low"), ModelRequest(talk, (ECHO,)))
        assert "thinking" not in replay.asked[-1]
        assert [block["type"] for block in replay.asked[-1]["messages"][1]["content"]] == ["text", "tool_use"]
        # nor are they those of a turn that the run has changed
        other = (*TALK[:2], Message("assistant", "", (call, CALL)), talk[-1])
        await answers(provider, to, ModelRequest(other, (ECHO,)))
        assert "thinking" not in replay.asked[-1]
        await provider.aclose()


async def test_sealed_reasoning_goes_back_before_its_call() -> None:
    async with replaying() as replay:
        provider = responses.ResponsesProvider("p", f"{replay.url}/v1/", "k")
        replay.stream(recorded("responses")["thinking"])
        await answers(provider, target(), ModelRequest(TALK[:2], (ECHO,)))
        await answers(provider, target(), ModelRequest(TALK, (ECHO,)))
        await provider.aclose()
    items = checked(ResponseCreateParamsStreaming, replay.asked[-1])["input"]
    assert items[2:] == [
        {"type": "reasoning", "id": "rs_0", "summary": [], "encrypted_content": "gAAAAABo1sealed"},
        {"role": "assistant", "content": "One moment."},
        {"type": "function_call", "call_id": "call_a", "name": "jira__issue__get", "arguments": '{"key":"IT-1"}'},
        {"type": "function_call_output", "call_id": "call_a", "output": '{"status": "open"}'},
    ]
    assert replay.asked[-1]["store"] is False
    assert replay.targets[-1] == "/v1/responses"


def test_thoughts_are_bounded() -> None:
    thoughts = Thoughts()
    for number in range(2000):
        block = {"type": "thinking", "thinking": "a" * 10_000, "signature": "s"}
        thoughts.keep("m", [block, "call"], [ToolCall(f"c{number}", "x", "{}")])
    assert thoughts.recall("m", Message("assistant", "", (ToolCall("c1", "x", "{}"),))) is None
    assert thoughts.recall("m", Message("assistant", "", (ToolCall("c1999", "x", "{}"),))) is not None
    assert thoughts._characters <= 2 << 20
    thoughts.keep("m", [{"thinking": "a" * (1 << 20)}, "call"], [ToolCall("huge", "x", "{}")])
    assert thoughts.recall("m", Message("assistant", "", (ToolCall("huge", "x", "{}"),))) is None


def test_addresses_and_keys() -> None:
    azure = "https://x.openai.azure.com/openai/deployments/gpt/?api-version=2024-10-21"
    url = openai.endpoint("p", azure, "/chat/completions")
    assert str(url) == "https://x.openai.azure.com/openai/deployments/gpt/chat/completions?api-version=2024-10-21"
    assert openai.key_headers(url, "k") == {"api-key": "k"}
    vllm = openai.endpoint("p", "http://vllm.ai.svc:8000/v1", "/responses")
    assert (str(vllm), openai.is_vendor(vllm)) == ("http://vllm.ai.svc:8000/v1/responses", False)
    assert openai.key_headers(vllm, "k") == {"Authorization": "Bearer k"}
    assert openai.is_vendor(openai.endpoint("p", openai.DEFAULT_BASE_URL, ""))
    assert not openai.is_vendor(openai.endpoint("p", "https://api.openai.com.evil.test/v1", ""))


@pytest.mark.parametrize("base_url", ["", "vllm:8000", "ftp://x.test", "http://", "http://[", "file:///etc/passwd"])
def test_a_base_url_that_is_none(base_url: str) -> None:
    with pytest.raises(ProviderConfigError, match="base URL of the model provider p"):
        openai.endpoint("p", base_url, "/x")


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"sk-abc\nsk-def", "a line break"),
        (b"sk-abc\r\nX-Injected: 1", "a line break"),
        (b"sk-abc def", "blanks"),
        (b"sk-\x00abc", "blanks or control"),
        (b"sk-\xc3\xa4", "characters that no key has"),
        (b"sk-\xff", "characters that no key has"),
        (b" \n", "is empty"),
    ],
)
def test_a_key_that_is_none_is_refused_without_being_told(raw: bytes, said: str) -> None:
    with pytest.raises(ProviderConfigError, match=said) as raised:
        api_key("vendor", raw)
    assert "sk-" not in str(raised.value)
    assert "model provider vendor" in str(raised.value)


async def test_a_route_goes_on_without_a_provider_that_can_not_be_made() -> None:
    assert api_key("p", b"sk-abc\n") == "sk-abc"
    good = ProviderConfig(name="good", type="OpenAI", api_key_file="a")
    bad = ProviderConfig(name="bad", type="Anthropic", api_key_file="b")
    lost = ProviderConfig(name="lost", type="OpenAI", protocol="Responses", api_key_file="c")
    made, problems = make_providers((good, bad, lost), {"a": b"sk-abc\n", "b": b"sk\nabc"})
    assert [problem.split(",")[0] for problem in problems] == [
        "The API key of the model provider bad holds a line break in its middle",
        "The API key of the model provider lost is missing",
    ]
    with pytest.raises(ModelDenied, match="bad holds a line break"):
        await answers(made["bad"], target(), WHOLE)
    assert isinstance(made["good"], openai.OpenAIProvider)
    for provider in made.values():
        await provider.aclose()


async def test_the_configurations_timeouts_and_protocol_count() -> None:
    async with replaying() as replay:
        config = ProviderConfig.model_validate(
            {
                "name": "p",
                "type": "OpenAI",
                "protocol": "Responses",
                "base_url": f"{replay.url}/v1",
                "timeouts": {"first_token": 0.2},
            }
        )
        provider = make_provider(config, {})
        assert isinstance(provider, responses.ResponsesProvider)
        replay.stream(recorded("responses")["plain_text"])
        assert len(await answers(provider, target(), WHOLE)) == 4
        replay.delay = 5
        with pytest.raises(ModelTimeout):
            await answers(provider, target(), WHOLE)
        await provider.aclose()


@pytest.mark.parametrize(
    ("kind", "body", "error", "said"),
    [
        ("application/json", b'{"error": {"message": "No quota", "code": "insufficient_quota"}}', "Exhausted", "No"),
        ("application/json", b'{"error": {"message": "Slow down", "code": 429}}', "RateLimited", "Slow down"),
        ("application/json", b'{"error": {"message": "prompt is too long", "code": 400}}', "Overflow", "too long"),
        ("application/json", b'{"type": "error", "error": {"type": "overloaded_error"}}', "Unavailable", "no reason"),
        ("application/json", b'{"id": "x", "choices": []}', "Unavailable", "did not answer with a stream"),
        ("application/json", b'{"error', "Unavailable", "did not answer with a stream"),
        ("text/html", b"<html>", "Unavailable", "did not answer with a stream"),
        ("text/event-stream", b'data: {"error": {"type": "billing_error", "message": "Pay"}}\n\n', "Exhausted", "Pay"),
        ("text/event-stream", b"data: {\n\n", "Unavailable", "broken event"),
        ("text/event-stream", b"data: [1]\n\n", "Unavailable", "broken event"),
        ("text/event-stream", b"", "Unavailable", "broke off its answer"),
    ],
)
async def test_a_200_with_an_error_inside(kind: str, body: bytes, error: str, said: str) -> None:
    makes: tuple[Any, ...] = (openai.OpenAIProvider, responses.ResponsesProvider, anthropic.AnthropicProvider)
    async with replaying() as replay:
        for make in makes:
            replay.stream(body)
            replay.headers["Content-Type"] = kind
            provider = make("p", replay.url, "k")
            with pytest.raises(Exception, match=said) as raised:
                await answers(cast(ModelProvider, provider), target(), WHOLE)
            assert type(raised.value).__name__ == f"Model{error}"
            await provider.aclose()


async def test_keys_and_connections() -> None:
    async with replaying() as replay:
        provider = anthropic.AnthropicProvider("p", f"{replay.url}/v1", "key")
        replay.stream(recorded("messages")["plain_text"])
        for _ in range(3):
            await answers(provider, target(), WHOLE)
        await provider.aclose()
    assert {headers["x-api-key"] for headers in replay.asked_headers} == {"key"}
    assert {headers["anthropic-version"] for headers in replay.asked_headers} == {"2023-06-01"}
    assert replay.targets == ["/v1/messages"] * 3
    assert replay.connections == 1
