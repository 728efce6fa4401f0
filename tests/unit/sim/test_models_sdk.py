"""The vendors' own SDKs read what the model stand-in writes: it speaks the protocols, not our client's part of them."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from aiohttp.test_utils import TestClient, TestServer
from pydantic import BaseModel, ConfigDict, TypeAdapter

from pilothouse_sim.faults import Faults
from pilothouse_sim.models.app import make_app

QUESTION = "Which open issues do I have about VPN?"
PARAMETERS = {"type": "object", "properties": {name: {} for name in ("text", "mine", "open")}}
SEARCH = {"text": "VPN", "mine": True, "open": True}
CITY: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "size": {"type": "integer"}},
    "required": ["city", "size"],
    "additionalProperties": False,
}


@asynccontextmanager
async def vendors(**faults: Any) -> AsyncIterator[tuple[openai.AsyncOpenAI, anthropic.AsyncAnthropic]]:
    app = make_app(faults=Faults(ttft_ms=(0, 0), tokens_per_second=0).changed(faults), rng=random.Random(1))
    async with TestClient(TestServer(app)) as client:
        url = str(client.make_url("")).rstrip("/")
        async with (
            httpx2.AsyncClient(verify=False) as http,  # without certificates to load: it is the slowest part
            openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, http_client=http) as one,
            anthropic.AsyncAnthropic(base_url=url, api_key="none", max_retries=0, http_client=http) as other,
        ):
            yield one, other


def strict(value: BaseModel) -> None:
    """The SDKs build their objects without a look at the types; here all of them are checked."""
    kind = type(value)
    TypeAdapter(kind, config=None).validate_python(value.model_dump(mode="json", warnings="error"))


async def test_chat_completions() -> None:
    tool: Any = {"type": "function", "function": {"name": "jira__issue__search", "parameters": PARAMETERS}}
    asked: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": QUESTION}], "tools": [tool]}
    async with vendors() as (client, _):
        whole = await client.chat.completions.create(**asked)
        strict(whole)
        call: Any = whole.choices[0].message.tool_calls[0]
        assert json.loads(call.function.arguments) == SEARCH
        assert whole.usage is not None
        async with client.chat.completions.stream(
            **asked, reasoning_effort="high", stream_options={"include_usage": True}
        ) as stream:
            final = await stream.get_final_completion()
        streamed: Any = final.choices[0].message.tool_calls[0]  # type: ignore[index]
        assert json.loads(streamed.function.arguments) == SEARCH
        assert final.usage is not None
        assert final.usage.completion_tokens_details is not None
        thought = final.usage.completion_tokens_details.reasoning_tokens
        assert thought
        assert final.usage.completion_tokens == whole.usage.completion_tokens + thought


async def test_responses() -> None:
    tool: Any = {"type": "function", "name": "jira__issue__search", "parameters": PARAMETERS, "strict": False}
    asked: dict[str, Any] = {"model": "m", "input": QUESTION, "tools": [tool], "instructions": "Help."}
    async with vendors() as (client, _):
        whole = await client.responses.create(**asked)
        strict(whole)
        kinds = []
        stream = await client.responses.create(**asked, stream=True, reasoning={"effort": "low", "summary": "auto"})
        numbers = []
        final: Any = None
        async for event in stream:
            strict(event)
            kinds.append(event.type)
            numbers.append(event.sequence_number)
            if event.type == "response.completed":
                final = event.response
        assert numbers == list(range(len(numbers)))
        assert kinds[0] == "response.created"
        assert {"response.reasoning_summary_text.delta", "response.function_call_arguments.delta"} <= set(kinds)
        assert [item.type for item in final.output] == ["reasoning", "function_call"]
        call = final.output[1]
        assert json.loads(call.arguments) == SEARCH
        assert final.usage.output_tokens_details.reasoning_tokens > 0
        back = [
            {"role": "user", "content": QUESTION},
            {"type": "function_call", "call_id": call.call_id, "name": call.name, "arguments": call.arguments},
            {"type": "function_call_output", "call_id": call.call_id, "output": '{"issues":[{"key":"IT-1"}]}'},
        ]
        told = await client.responses.create(**{**asked, "input": back})
        assert "IT-1" in told.output_text


async def test_messages() -> None:
    tool: Any = {"name": "jira__issue__search", "input_schema": PARAMETERS}
    asked: dict[str, Any] = {
        "model": "m", "max_tokens": 2000, "messages": [{"role": "user", "content": QUESTION}], "tools": [tool],
    }  # fmt: skip
    async with vendors() as (_, client):
        whole = await client.messages.create(**asked)
        strict(whole)
        assert whole.content[0].type == "tool_use"
        assert whole.content[0].input == SEARCH
        thinking: Any = {"type": "enabled", "budget_tokens": 1024}
        async with client.messages.stream(**asked, thinking=thinking) as stream:
            kinds = [event.type async for event in stream]
            final = await stream.get_final_message()
        assert {"thinking", "signature", "input_json"} <= set(kinds)
        assert [block.type for block in final.content] == ["thinking", "tool_use"]
        assert final.usage.output_tokens > whole.usage.output_tokens


async def test_structured_output_fits_its_schema_everywhere() -> None:
    class City(BaseModel):
        model_config = ConfigDict(extra="forbid", strict=True)
        city: str
        size: int

    named: Any = {"name": "city", "schema": CITY, "strict": True}
    hello: Any = [{"role": "user", "content": "hello"}]
    async with vendors() as (one, other):
        chat = await one.chat.completions.create(
            model="m", messages=hello, response_format={"type": "json_schema", "json_schema": named}
        )
        City.model_validate_json(str(chat.choices[0].message.content))
        text: Any = {"format": {"type": "json_schema", **named}}
        response = await one.responses.create(model="m", input="hello", text=text)
        City.model_validate_json(response.output_text)
        output: Any = {"format": {"type": "json_schema", "schema": CITY}}
        message: Any = await other.messages.create(model="m", max_tokens=999, messages=hello, output_config=output)
        City.model_validate_json(message.content[0].text)


async def test_a_bound_of_tokens_cuts_the_answer_and_says_so() -> None:
    hello: Any = [{"role": "user", "content": "hello"}]
    async with vendors() as (one, other):
        chat = await one.chat.completions.create(model="m", messages=hello, max_completion_tokens=16)
        assert (chat.choices[0].finish_reason, chat.usage.completion_tokens) == ("length", 16)  # type: ignore[union-attr]
        response = await one.responses.create(model="m", input="hello", max_output_tokens=16)
        assert response.status == "incomplete"
        message = await other.messages.create(model="m", max_tokens=16, messages=hello)
        assert (message.stop_reason, message.usage.output_tokens) == ("max_tokens", 16)


@pytest.mark.parametrize(
    ("fault", "by_openai", "by_anthropic"),
    [
        ("rate_limit", openai.RateLimitError, anthropic.RateLimitError),
        ("insufficient_quota", openai.RateLimitError, anthropic.BadRequestError),
        ("billing", openai.APIStatusError, anthropic.PaymentRequiredError),
        ("invalid_key", openai.AuthenticationError, anthropic.AuthenticationError),
        ("permission", openai.PermissionDeniedError, anthropic.PermissionDeniedError),
        ("model_not_found", openai.NotFoundError, anthropic.NotFoundError),
        ("context_length", openai.BadRequestError, anthropic.BadRequestError),
        ("too_large", openai.APIStatusError, anthropic.APIStatusError),
        ("overloaded", openai.InternalServerError, anthropic.APIStatusError),
        ("server_error", openai.InternalServerError, anthropic.InternalServerError),
        ("error_in_200", openai.APIError, anthropic.APIStatusError),
        ("error_mid_stream", openai.APIError, anthropic.APIStatusError),
        ("cut", openai.APIError, httpx2.RemoteProtocolError),
    ],
)
async def test_faults_raise_the_vendors_own_errors(
    fault: str, by_openai: type[Exception], by_anthropic: type[Exception]
) -> None:
    hello: Any = [{"role": "user", "content": "hello"}]
    async with vendors(error=fault) as (one, other):
        with pytest.raises(by_openai):
            async for _ in await one.chat.completions.create(model="m", messages=hello, stream=True):
                pass
        if fault == "error_mid_stream":  # the SDK hands this on as events
            kinds = [event.type async for event in await one.responses.create(model="m", input="hello", stream=True)]
            assert kinds[-2:] == ["error", "response.failed"]
        else:
            with pytest.raises(by_openai):
                async for _ in await one.responses.create(model="m", input="hello", stream=True):
                    pass
        with pytest.raises(by_anthropic):
            async for _ in await other.messages.create(model="m", messages=hello, max_tokens=9, stream=True):
                pass
