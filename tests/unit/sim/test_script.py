"""The benches' stand-ins: what the scripted model says and when, and their HTTP as a real client sees it."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from pilothouse_sim.script.app import Pace, ScriptedJira, ScriptedModels, controlled, times
from pilothouse_sim.script.http import Connection, Stream
from pilothouse_sim.script.plans import ANSWER_TOKENS, PLAN_TOKENS, REPLY_TOKENS, Script, script

TOOLS = frozenset({"jira__issue__get", "jira__issue__create", "reply"})


def user(text: str) -> list[dict[str, Any]]:
    return [{"role": "system", "content": "Help."}, {"role": "user", "content": text}]


def chunks(said: Script) -> list[dict[str, Any]]:
    lines = [line for frame in said.frames for line in frame.decode().splitlines() if line.startswith("data: ")]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line[6:]) for line in lines[:-1]]


def joined(said: Script) -> dict[str, Any]:
    calls: dict[int, dict[str, str]] = {}
    for chunk in chunks(said)[:-1]:
        for part in chunk["choices"][0]["delta"].get("tool_calls", ()):
            call = calls.setdefault(part["index"], {"name": "", "arguments": ""})
            call["name"] += part["function"].get("name", "")
            call["arguments"] += part["function"]["arguments"]
    return {f"{index} {call['name']}": json.loads(call["arguments"]) for index, call in calls.items()}


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_plan_has_sixty_tokens_in_chunks_of_five_spread_over_its_calls(count: int) -> None:
    said = script(user(" ".join(f"IT-{n}" for n in range(1, count + 1))), TOOLS)
    assert joined(said) == {f"{n - 1} jira__issue__get": {"key": f"IT-{n}"} for n in range(1, count + 1)}
    assert len(said.frames) == 1 + PLAN_TOKENS // 5 + 2
    assert chunks(said)[-1]["usage"]["completion_tokens"] == PLAN_TOKENS


def test_a_confirmation_brings_its_answer_along_and_takes_longer_at_the_same_speed() -> None:
    text = "Briefly: IT-1, and file “Laptop is slow”"
    said = script(user(text), TOOLS)
    assert joined(said) == {
        "0 jira__issue__get": {"key": "IT-1"},
        "1 jira__issue__create": {"project": "IT", "summary": "Laptop is slow"},
        "2 reply": {"text": "{{s1.key}}: {{s1.status}}; I filed {{s2.key}}."},
    }
    assert times(said, 1.0)[-1] == pytest.approx(0.4 + 0.6 * (PLAN_TOKENS + REPLY_TOKENS - 1) / (PLAN_TOKENS - 1))
    without = script(user(text), TOOLS - {"reply"})
    assert list(joined(without)) == ["0 jira__issue__get", "1 jira__issue__create"]
    assert times(without, 1.0)[-1] == pytest.approx(1.0)


def test_after_a_result_and_without_tools_it_answers() -> None:
    for messages, offered in (([*user("IT-1"), {"role": "tool", "content": "{}"}], TOOLS), (user("IT-1"), frozenset())):
        said = script(messages, offered)
        assert len(said.frames) == 1 + ANSWER_TOKENS // 5 + 2
        at = times(said, 2.0)
        assert at[0] == pytest.approx(0.8)
        assert at[-1] == pytest.approx(2.0)
        assert list(at) == sorted(at)
        text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks(said)[:-1])
        assert len(text) == ANSWER_TOKENS * 4


def test_a_tier_is_known_by_the_models_name() -> None:
    server = ScriptedModels(random.Random(1))
    server.pace = Pace(plan=(3, 3))
    ends = {}
    for tier in ("fast", "mid", "power"):
        body = {"model": f"bench-{tier}", "messages": user("IT-1"), "tools": [{"function": {"name": "get"}}]}
        answer = server.handle(_request(body))
        assert isinstance(answer, Stream)
        ends[tier] = round(answer.times[-1], 3)
    assert ends == {"fast": 1.0, "mid": 2.0, "power": 3.0}


def _request(body: dict[str, Any]) -> Any:
    from pilothouse_sim.script.http import Request

    return Request("POST", "/v1/chat/completions", json.dumps(body).encode())


@asynccontextmanager
async def serving(server: ScriptedModels | ScriptedJira) -> AsyncIterator[str]:
    handle = controlled(server)
    running = await asyncio.get_running_loop().create_server(lambda: Connection(handle), "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{running.sockets[0].getsockname()[1]}"
    finally:
        running.close()


@pytest.mark.parametrize("pace", [{}, {"plan": [0.05, 0.05]}])
async def test_streams_and_bodies_over_one_kept_connection(pace: dict[str, Any]) -> None:
    connector = aiohttp.TCPConnector(limit=1)
    async with serving(ScriptedModels(random.Random(1))) as url, aiohttp.ClientSession(connector=connector) as client:
        async with client.post(f"{url}/__sim/pace", json=pace) as answer:
            assert answer.status == 200
        body = {"model": "m", "stream": True, "messages": user("IT-1"), "tools": [{"function": {"name": "x"}}]}
        for _ in range(2):
            async with client.post(f"{url}/v1/chat/completions", json=body) as answer:
                assert answer.content_type == "text/event-stream"
                assert (await answer.text()).endswith("data: [DONE]\n\n")
        async with client.get(f"{url}/__sim/counts") as answer:
            assert await answer.json() == {"plan": 2}
        async with client.post(f"{url}/__sim/pace", json={"plan": "soon"}) as answer:
            assert answer.status == 400


async def test_jira_reads_its_seed_and_counts_what_is_created() -> None:
    async with serving(ScriptedJira(random.Random(1))) as url, aiohttp.ClientSession(url) as client:
        async with client.get("/rest/api/3/issue/IT-1?fields=summary") as answer:
            assert (await answer.json())["fields"]["status"]["name"] == "In Progress"
        async with client.get("/rest/api/3/issue/IT-999") as answer:
            assert answer.status == 404
        keys = []
        for _ in range(2):
            async with client.post("/rest/api/3/issue", json={"fields": {}}) as answer:
                assert answer.status == 201
                keys.append((await answer.json())["key"])
    assert len(set(keys)) == 2
