"""The model stand-in's protocols: what it answers joins to what was planned, streamed or not."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer

from pilothouse_sim.faults import Faults
from pilothouse_sim.models.app import make_app

QUESTION = "Which open issues do I have about VPN? Also file an issue in IT: token expired"
SCHEMAS = {
    "jira__issue__search": ["text", "project", "mine", "open"],
    "jira__issue__create": ["project", "summary"],
}
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": n, "parameters": {"type": "object", "properties": {p: {} for p in ps}}}}
    for n, ps in SCHEMAS.items()
]
VERSION = {"anthropic-version": "2023-06-01"}


@asynccontextmanager
async def server(**faults: Any) -> AsyncIterator[TestClient[Any, Any]]:
    quick = Faults(ttft_ms=(0, 0), tokens_per_second=0)
    app = make_app(faults=quick.changed(faults), rng=random.Random(1))
    async with TestClient(TestServer(app)) as client:
        yield client


async def sse(client: TestClient[Any, Any], path: str, body: dict[str, Any]) -> list[str]:
    async with client.post(path, json=body, headers=VERSION) as response:
        assert response.status == 200, await response.text()
        assert response.content_type == "text/event-stream"
        return [line[6:] for line in (await response.text()).splitlines() if line.startswith("data: ")]


async def test_openai_streams_parallel_calls_in_fragments_and_usage() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": QUESTION}], "tools": TOOLS, "stream": True,
            "stream_options": {"include_usage": True}}  # fmt: skip
    async with server() as client:
        lines = await sse(client, "/v1/chat/completions", body)
    assert lines[-1] == "[DONE]"
    chunks = [json.loads(line) for line in lines[:-1]]
    calls: dict[int, dict[str, str]] = {}
    pieces = 0
    for chunk in chunks[:-1]:
        for part in chunk["choices"][0]["delta"].get("tool_calls", []):
            call = calls.setdefault(part["index"], {"name": "", "arguments": ""})
            call["name"] += part["function"].get("name", "")
            call["arguments"] += part["function"]["arguments"]
            pieces += 1
    assert {call["name"]: json.loads(call["arguments"]) for call in calls.values()} == {
        "jira__issue__search": {"mine": True, "open": True, "text": "VPN"},
        "jira__issue__create": {"project": "IT", "summary": "token expired"},
    }
    assert pieces > 4
    assert chunks[-2]["choices"][0]["finish_reason"] == "tool_calls"
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["prompt_tokens"] > 0
    assert chunks[-1]["usage"]["completion_tokens"] > 0


async def test_openai_answers_text_streamed_and_whole_alike() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "tools": TOOLS}
    async with server() as client:
        async with client.post("/v1/chat/completions", json=body) as response:
            whole = await response.json()
        lines = await sse(client, "/v1/chat/completions", {**body, "stream": True})
        async with client.get("/v1/models") as response:
            assert (await response.json())["data"]
    streamed = "".join(json.loads(line)["choices"][0]["delta"].get("content") or "" for line in lines[:-1])
    assert streamed == whole["choices"][0]["message"]["content"]
    assert whole["choices"][0]["finish_reason"] == "stop"


async def test_anthropic_streams_tool_use_and_reads_results() -> None:
    tools = [{"name": t["function"]["name"], "input_schema": t["function"]["parameters"]} for t in TOOLS]
    body: dict[str, Any] = {"model": "c", "max_tokens": 100, "tools": tools, "stream": True,
                            "messages": [{"role": "user", "content": QUESTION}]}  # fmt: skip
    async with server() as client:
        events = [json.loads(line) for line in await sse(client, "/v1/messages", body)]
        assert [events[0]["type"], events[-1]["type"]] == ["message_start", "message_stop"]
        fragments = [e["delta"]["partial_json"] for e in events if e.get("delta", {}).get("type") == "input_json_delta"]
        assert json.loads("".join(fragments).split("}")[0] + "}") == {"mine": True, "open": True, "text": "VPN"}
        assert events[-2]["delta"]["stop_reason"] == "tool_use"
        result = {"type": "tool_result", "tool_use_id": "t1", "content": '{"issues":[{"key":"IT-1","summary":"A"}]}'}
        use = {"type": "tool_use", "id": "t1", "name": "jira__issue__search", "input": {}}
        body["messages"] += [{"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
        async with client.post("/v1/messages", json={**body, "stream": False}, headers=VERSION) as response:
            answer = await response.json()
    assert "IT-1: A" in answer["content"][0]["text"]
    assert answer["stop_reason"] == "end_turn"


async def test_faults_fail_and_cut_streams() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "stream": True}
    failing = server(error_rate=1, status=500)
    async with failing as client:
        async with client.post("/v1/chat/completions", json=body) as response:
            assert response.status == 500
            assert (await response.json())["error"]["type"] == "server_error"
        async with client.post("/v1/messages", json=body) as response:
            assert (await response.json())["error"]["type"] == "api_error"
    async with server(abort_after_chunks=2) as client:
        with pytest.raises(aiohttp.ClientError):
            await sse(client, "/v1/chat/completions", body)


async def test_each_answer_says_what_is_left_and_a_limit_says_when_to_come_back() -> None:
    chat: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
    async with server(rate_limit_per_minute=8) as client:
        async with client.post("/v1/chat/completions", json=chat) as response:
            assert response.headers["x-ratelimit-limit-requests"] == "8"
            assert response.headers["x-ratelimit-remaining-requests"] == "7"
            assert response.headers["x-request-id"]
        async with client.post("/v1/messages", json={**chat, "max_tokens": 9}, headers=VERSION) as response:
            assert response.headers["anthropic-ratelimit-requests-remaining"] == "6"
            assert response.headers["request-id"]
        async with client.post("/v1/messages", json={**chat, "max_tokens": 9}, headers=VERSION) as response:
            assert response.status == 429
            assert int(response.headers["retry-after"]) >= 1
            assert (await response.json())["error"]["type"] == "rate_limit_error"


async def test_a_prompts_beginning_that_was_sent_before_is_cached() -> None:
    long = "All of the rules. " * 400
    chat: dict[str, Any] = {
        "model": "m",
        "messages": [{"role": "system", "content": long}, {"role": "user", "content": "hello"}],
    }
    seen = []
    async with server() as client:
        for question in ("hello", "show IT-1"):
            chat["messages"][1] = {"role": "user", "content": question}
            async with client.post("/v1/chat/completions", json=chat) as response:
                seen.append((await response.json())["usage"]["prompt_tokens_details"]["cached_tokens"])
        message = {
            "model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "hello"}],
            "system": [{"type": "text", "text": long, "cache_control": {"type": "ephemeral"}}],
        }  # fmt: skip
        for _ in range(2):
            async with client.post("/v1/messages", json=message, headers=VERSION) as response:
                usage = (await response.json())["usage"]
                seen.append((usage["cache_creation_input_tokens"], usage["cache_read_input_tokens"]))
                assert 0 < usage["input_tokens"] < 50
    assert seen[0] == 0
    assert seen[1] % 128 == 0
    assert seen[1] >= 1024
    assert seen[2][0] > 1024
    assert seen[3] == (0, seen[2][0])
