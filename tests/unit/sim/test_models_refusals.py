"""What the model stand-in refuses, as the vendors do; what goes wrong on request; and scripted answers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse_sim.faults import Faults
from pilothouse_sim.models import anthropic, openai, responses
from pilothouse_sim.models.app import make_app
from pilothouse_sim.models.exchange import BadRequest

Json = dict[str, Any]
PATHS = {openai: "/v1/chat/completions", responses: "/v1/responses", anthropic: "/v1/messages"}
VERSION = {"anthropic-version": "2023-06-01"}
HELLO = [{"role": "user", "content": "hello"}]
CALL = {"id": "c1", "type": "function", "function": {"name": "x", "arguments": "{}"}}
USE = {"type": "tool_use", "id": "c1", "name": "x", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "c1", "content": "ok"}
MARK = {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}


def chat(**more: Any) -> Json:
    return {"model": "m", "messages": HELLO, **more}


def response(**more: Any) -> Json:
    return {"model": "m", "input": "hello", **more}


def message(**more: Any) -> Json:
    return {"model": "m", "max_tokens": 2000, "messages": HELLO, **more}


def function(name: str = "x", **more: Any) -> Json:
    return {"type": "function", "function": {"name": name, **more}}


def turns(*entries: Any) -> list[Any]:
    return [*HELLO, *entries]


@asynccontextmanager
async def server(**faults: Any) -> AsyncIterator[TestClient[Any, Any]]:
    app = make_app(faults=Faults(ttft_ms=(0, 0), tokens_per_second=0).changed(faults), rng=random.Random(1))
    async with TestClient(TestServer(app)) as client:
        yield client


CHAT_REFUSED = {
    "no model": {"messages": HELLO},
    "model is no text": chat(model=7),
    "unknown field": chat(reasoning={"effort": "low"}),
    "no messages": {"model": "m"},
    "messages are no list": chat(messages="hello"),
    "empty messages": chat(messages=[]),
    "a message is no object": chat(messages=[1]),
    "unknown role": chat(messages=[{"role": "boss", "content": "x"}]),
    "content is null": chat(messages=[{"role": "user", "content": None}]),
    "assistant without anything": chat(messages=turns({"role": "assistant", "content": None})),
    "a result without a call": chat(messages=turns({"role": "tool", "tool_call_id": "c1", "content": "x"})),
    "a call without a result": chat(messages=turns({"role": "assistant", "tool_calls": [CALL]}, *HELLO)),
    "a call without a result at the end": chat(messages=turns({"role": "assistant", "tool_calls": [CALL]})),
    "another call's result": chat(
        messages=turns(
            {"role": "assistant", "tool_calls": [CALL]}, {"role": "tool", "tool_call_id": "c2", "content": ""}
        )
    ),
    "a call without a type": chat(messages=turns({"role": "assistant", "tool_calls": [{**CALL, "type": None}]})),
    "arguments are an object": chat(
        messages=turns({"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "x", "arguments": {}}}]})
    ),
    "a tool's name with a dot": chat(tools=[function("a.b")]),
    "a tool's name is too long": chat(tools=[function("a" * 65)]),
    "a tool of no type": chat(tools=[{"function": {"name": "x"}}]),
    "parameters of no object": chat(tools=[function(parameters={"type": "string"})]),
    "no tools in tools": chat(tools=[]),
    "too many tools": chat(tools=[function(f"t{n}") for n in range(129)]),
    "a choice without tools": chat(tool_choice="none"),
    "stream options without a stream": chat(stream_options={"include_usage": True}),
    "two bounds": chat(max_tokens=5, max_completion_tokens=5),
    "a bound of zero": chat(max_tokens=0),
    "the older bound for a model that thinks": chat(model="o4-mini", max_tokens=5),
    "unknown effort": chat(reasoning_effort="much"),
    "a format of no kind": chat(response_format={"type": "xml"}),
    "a schema without a name": chat(response_format={"type": "json_schema", "json_schema": {"schema": {}}}),
    "a strict schema that is open": chat(
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "a", "strict": True, "schema": {"type": "object"}},
        }
    ),
}
RESPONSES_REFUSED = {
    "no model": {"input": "hello"},
    "unknown field": response(messages=HELLO),
    "chat's effort": response(reasoning_effort="low"),
    "no input": {"model": "m"},
    "an unknown item": response(input=[{"type": "telegram"}]),
    "unknown role": response(input=[{"role": "tool", "content": "x"}]),
    "a part of chat's kind": response(input=[{"role": "user", "content": [{"type": "text", "text": "x"}]}]),
    "an answer's part of the user's kind": response(
        input=[{"role": "assistant", "content": [{"type": "input_text", "text": "x"}]}]
    ),
    "an output without a call": response(input=[{"type": "function_call_output", "call_id": "c1", "output": ""}]),
    "a call without an output": response(
        input=[{"type": "function_call", "call_id": "c1", "name": "x", "arguments": "{}"}]
    ),
    "chat's tools": response(tools=[function()]),
    "a small bound": response(max_output_tokens=5),
    "a response that is not stored": response(previous_response_id="resp_1"),
    "unknown summary": response(reasoning={"summary": "long"}),
}
ANTHROPIC_REFUSED = {
    "no bound": {"model": "m", "messages": HELLO},
    "no model": {"max_tokens": 5, "messages": HELLO},
    "a bound of zero": message(max_tokens=0),
    "unknown field": message(stream_options={}),
    "a system message": message(messages=[{"role": "system", "content": "x"}, *HELLO]),
    "the assistant begins": message(messages=[{"role": "assistant", "content": "x"}]),
    "empty content": message(messages=[{"role": "user", "content": ""}]),
    "an empty block": message(messages=[{"role": "user", "content": [{"type": "text", "text": ""}]}]),
    "unknown block": message(messages=[{"role": "user", "content": [{"type": "input_text", "text": "x"}]}]),
    "a result without a use": message(messages=turns({"role": "user", "content": [RESULT]})),
    "a use without a result": message(messages=turns({"role": "assistant", "content": [USE]}, *HELLO)),
    "a use without a result at the end": message(messages=turns({"role": "assistant", "content": [USE]})),
    "a result after the text": message(
        messages=turns(
            {"role": "assistant", "content": [USE]},
            {"role": "user", "content": [{"type": "text", "text": "well"}, RESULT]},
        )
    ),
    "an id with a dot": message(messages=turns({"role": "assistant", "content": [{**USE, "id": "a.b"}]})),
    "a call's own fields": message(messages=[{**HELLO[0], "tool_calls": []}]),
    "chat's tools": message(tools=[function()]),
    "a schema of no type": message(tools=[{"name": "x", "input_schema": {}}]),
    "a name twice": message(tools=[{"name": "x", "input_schema": {"type": "object"}}] * 2),
    "a choice without tools": message(tool_choice={"type": "none"}),
    "little thinking": message(thinking={"type": "enabled", "budget_tokens": 100}),
    "more thinking than answer": message(thinking={"type": "enabled", "budget_tokens": 2000}),
    "cool thinking": message(thinking={"type": "enabled", "budget_tokens": 1024}, temperature=0.2),
    "five marks": message(system=[MARK] * 5),
    "unknown effort": message(output_config={"effort": "much"}),
}
CASES = [
    pytest.param(module, body, id=f"{module.__name__.rpartition('.')[2]}: {name}")
    for module, refused in ((openai, CHAT_REFUSED), (responses, RESPONSES_REFUSED), (anthropic, ANTHROPIC_REFUSED))
    for name, body in refused.items()
]


@pytest.mark.parametrize(("module", "body"), CASES)
def test_what_a_vendor_refuses_is_refused(module: Any, body: Json) -> None:
    with pytest.raises(BadRequest) as refused:
        module.read(body)
    assert len(str(refused.value)) > 10


ANSWERED = {"role": "tool", "tool_call_id": "c1", "content": ""}
ITEMS = [
    *HELLO,
    {"type": "reasoning", "id": "rs_1", "summary": []},
    {"type": "function_call", "call_id": "c1", "name": "x", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c1", "output": "ok"},
]
BACK = turns(
    {"role": "assistant", "content": [USE]}, {"role": "user", "content": [RESULT, {"type": "text", "text": "and?"}]}
)
THINKING = {"max_completion_tokens": 5, "reasoning_effort": "high", "stream_options": {"include_usage": True}}
ACCEPTED: list[tuple[Any, Json]] = [
    (openai, chat()),
    (openai, chat(messages=[{"role": "developer", "content": [{"type": "text", "text": "x"}]}, *HELLO])),
    (openai, chat(messages=turns({"role": "assistant", "tool_calls": [CALL]}, ANSWERED), tools=[function()])),
    (openai, chat(tools=[function()], tool_choice="none", parallel_tool_calls=True)),
    (openai, chat(model="o4-mini", stream=True, **THINKING)),
    (responses, response(instructions="Help.", reasoning={"effort": "low", "summary": "auto"}, store=False)),
    (responses, response(input=ITEMS, include=["reasoning.encrypted_content"])),
    (anthropic, message(system=[MARK], tools=[{"name": "x", "input_schema": {"type": "object"}}])),
    (anthropic, message(messages=BACK)),
    (anthropic, message(messages=[*HELLO, *HELLO])),  # the same role twice is joined
]


@pytest.mark.parametrize(("module", "body"), ACCEPTED)
async def test_what_a_vendor_takes_is_answered(module: Any, body: Json) -> None:
    async with server() as client, client.post(PATHS[module], json=body, headers=VERSION) as answer:
        assert answer.status == 200, await answer.text()


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 100_000, '"x"', "{"])
async def test_bodies_that_are_none_are_refused_in_each_dialect(text: str) -> None:
    async with server() as client:
        for path in PATHS.values():
            async with client.post(path, data=text, headers=VERSION) as answer:
                assert answer.status == 400
                assert (await answer.json())["error"]["message"]
        async with client.post("/v1/messages", json=message()) as answer:
            assert "anthropic-version" in await answer.text()


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.sampled_from(["", "x", "user", "function", "message", "enabled"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "role",
                    "content",
                    "type",
                    "text",
                    "tool_calls",
                    "id",
                    "function",
                    "name",
                    "arguments",
                    "tool_use_id",
                    "input",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


NAMES = ["messages", "input", "tools", "system", "thinking", "reasoning", "text", "response_format", "tool_choice",
         "output_config", "stream_options", "max_tokens", "metadata"]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(json_values, st.sampled_from(NAMES))
def test_a_request_of_any_shape_is_read_or_refused_never_more(value: Any, name: str) -> None:
    for module, body in ((openai, chat()), (responses, response()), (anthropic, message())):
        with contextlib.suppress(BadRequest):
            module.read({**body, name: value})
        with contextlib.suppress(BadRequest):
            module.read({**body, name: [value]})


async def streamed(client: TestClient[Any, Any], path: str, body: Json) -> str:
    async with client.post(path, json={**body, "stream": True}, headers=VERSION) as answer:
        return await answer.text()


TOOL = function("jira__issue__search", parameters={"type": "object", "properties": {"text": {}, "mine": {}}})
VPN = chat(messages=[{"role": "user", "content": "Which open issues do I have about VPN?"}], tools=[TOOL])


async def test_streams_go_wrong_on_request() -> None:
    async with server(error="half_tool_call") as client:
        text = await streamed(client, "/v1/chat/completions", VPN)
        assert "arguments" in text
        assert 'finish_reason":"tool_calls' not in text
        assert "[DONE]" not in text

        async def fault(**what: Any) -> None:
            async with client.post("/__sim/faults", json=what) as answer:
                assert answer.status == 200, await answer.text()

        await fault(error="broken_event")
        text = await streamed(client, "/v1/chat/completions", VPN)
        assert text.endswith("[DONE]\n\n")
        with pytest.raises(json.JSONDecodeError):
            [json.loads(line[6:]) for line in text.split("\n\n") if line and line != "data: [DONE]"]
        await fault(error="unknown_tool")
        assert "no__such__tool" in await streamed(client, "/v1/chat/completions", VPN)
        await fault(error="lying_usage")
        text = await streamed(client, "/v1/chat/completions", {**VPN, "stream_options": {"include_usage": True}})
        assert "1000000000000000" in text
        await fault(error="no_usage")
        assert "usage" not in await streamed(client, "/v1/messages", message())
        await fault(error="content_filter")
        assert '"stop_reason": "refusal"' in await streamed(client, "/v1/messages", message())
        await fault(error="html_in_200")
        async with client.post("/v1/responses", json=response(stream=True)) as answer:
            assert (answer.status, answer.content_type) == (200, "text/html")
        await fault(error="stall")
        async with client.post("/v1/chat/completions", json={**VPN, "stream": True}) as answer:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(answer.text(), 0.3)
        await fault(error="endless")
        async with client.post("/v1/messages", json=message(stream=True), headers=VERSION) as answer:
            assert len(await answer.content.readexactly(50_000)) == 50_000
        async with client.post("/__sim/faults", json={"error": "bad_weather"}) as answer:
            assert answer.status == 400
            assert "overloaded" in await answer.text()


async def test_faults_concern_the_models_that_are_named_and_long_prompts() -> None:
    async with server(error="overloaded", models="weak-*") as client:
        for model, status in (("weak-1", 503), ("strong-1", 200)):
            async with client.post("/v1/chat/completions", json=chat(model=model)) as answer:
                assert answer.status == status
        async with client.post("/__sim/faults", json={"error": "", "context_tokens": 50}) as answer:
            assert answer.status == 200
        long = [{"role": "user", "content": "word " * 200}]
        for model, status in (("weak-1", 400), ("strong-1", 200)):
            async with client.post("/v1/chat/completions", json=chat(model=model, messages=long)) as answer:
                assert answer.status == status
    with pytest.raises(ValueError, match="known are"):
        make_app(faults=Faults(error="bad_weather"))


async def test_a_script_is_played_in_order_and_then_the_planner_answers() -> None:
    script = {
        "answers": [
            {"match": "vpn", "models": "weak-*", "calls": [{"name": "no__such", "arguments": '{"a": '}]},
            {"match": "VPN", "results": True, "text": "It is broken.", "usage": {"prompt": 7, "completion": 3}},
            {"match": "vpn", "error": "rate_limit", "times": 2},
            {"match": "raw", "raw": ['data: {"choices":[]}', "data: [DONE]"]},
        ]
    }
    asked = VPN["messages"]
    after = [
        *asked,
        {"role": "assistant", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "{}"},
    ]
    async with server() as client:
        async with client.post("/__sim/script", json=script) as answer:
            assert len((await answer.json())["left"]) == 4

        async def ask(**more: Any) -> Json:
            async with client.post("/v1/chat/completions", json={**VPN, **more}) as answer:
                said: Json = await answer.json()
                return {"status": answer.status, **said}

        weak = await ask(model="weak-1")
        assert weak["choices"][0]["message"]["tool_calls"][0]["function"] == {"name": "no__such", "arguments": '{"a": '}
        told = await ask(messages=after)
        assert told["choices"][0]["message"]["content"] == "It is broken."
        assert (told["usage"]["prompt_tokens"], told["usage"]["completion_tokens"]) == (7, 3)
        assert [(await ask())["status"] for _ in range(3)] == [429, 429, 200]
        assert await streamed(client, "/v1/chat/completions", chat(messages=[{"role": "user", "content": "raw"}])) == (
            'data: {"choices":[]}\n\ndata: [DONE]\n\n'
        )
        async with client.get("/__sim/script") as answer:
            shown = await answer.json()
            assert (shown["left"], len(shown["played"])) == ([], 5)
        async with client.get("/__sim/requests") as answer:
            last = (await answer.json())["requests"][-1]
            assert last["body"]["messages"] == [{"role": "user", "content": "raw"}]
        async with client.delete("/__sim/script") as answer:
            assert (await answer.json())["played"] == []


@pytest.mark.parametrize(
    "given",
    [
        [],
        {},
        {"answers": [1]},
        {"answers": [{"txt": "a"}]},
        {"answers": [{"text": 1}]},
        {"answers": [{"error": "bad_weather"}]},
        {"answers": [{"finish": "well"}]},
        {"answers": [{"usage": {"prompt": "many"}}]},
        {"answers": [{"calls": [{"arguments": {}}]}]},
        {"answers": [{"text": "good"}, {"raw": [1]}]},
    ],
)
async def test_a_bad_script_is_refused_as_a_whole(given: Any) -> None:
    async with server() as client:
        async with client.post("/__sim/script", json=given) as answer:
            assert answer.status == 400
            assert (await answer.json())["error"]
        async with client.get("/__sim/script") as answer:
            assert (await answer.json())["left"] == []


async def test_a_cut_connection_is_seen_as_one() -> None:
    async with server(error="cut") as client:
        with pytest.raises(aiohttp.ClientError):
            await streamed(client, "/v1/responses", response())
