"""Bare scripts that make a run's calls and nothing else, each in a process of its own: what Pilothouse is measured by.

``python bare.py sdk|lean``: reads one JSON object a line and answers with one. The first line is the ``Work``; each
further ``{"runs": N, "at_a_time": M, "spread": seconds}`` is answered with ``{"cpu": seconds, "walls": [seconds, …]}``.

``sdk``: the official OpenAI SDK, streamed, its typed chunks joined; tools by httpx (the SDK's own HTTP library).
``lean``: aiohttp, chunks parsed by orjson.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

Json = dict[str, Any]
RunOnce = Callable[[], Awaitable[None]]


class Calls:
    """Tool calls that arrive in pieces."""

    def __init__(self) -> None:
        self._calls: dict[int, Json] = {}

    def add(self, index: int, call_id: str | None, name: str | None, piece: str | None) -> None:
        call = self._calls.setdefault(index, {"id": "", "name": "", "arguments": ""})
        call["id"] += call_id or ""
        call["name"] += name or ""
        call["arguments"] += piece or ""

    def message(self) -> Json:
        calls = [
            {"id": c["id"], "type": "function", "function": {"name": c["name"], "arguments": c["arguments"]}}
            for c in self._calls.values()
        ]
        return {"role": "assistant", "content": None, "tool_calls": calls}


async def whole_run(work: Json, plan: Callable[[list[Json]], Awaitable[Json | str]], get: Any) -> None:
    """Plan, the calls side by side, answer."""
    messages: list[Json] = [{"role": "system", "content": work["system"]}, {"role": "user", "content": work["text"]}]
    said = await plan(messages)
    assert isinstance(said, dict)
    keys = [json.loads(call["function"]["arguments"])["key"] for call in said["tool_calls"]]
    issues = await asyncio.gather(*(get(f"{work['jira']}/rest/api/3/issue/{key}") for key in keys))
    messages.append(said)
    for call, issue in zip(said["tool_calls"], issues, strict=True):
        messages.append({"role": "tool", "tool_call_id": call["id"], "content": json.dumps(issue)})
    answer = await plan(messages)
    assert isinstance(answer, str)
    assert len(answer) > 100


@contextlib.asynccontextmanager
async def sdk(work: Json) -> AsyncIterator[RunOnce]:
    """The official SDK."""
    import httpx2
    from openai import AsyncOpenAI

    client = AsyncOpenAI(base_url=f"{work['models']}/v1", api_key="none", max_retries=0)
    http = httpx2.AsyncClient(headers={"Authorization": f"Bearer {work['token']}", "Accept": "application/json"})

    async def model(messages: list[Json]) -> Json | str:
        calls, text, called = Calls(), [], False
        create: Any = client.chat.completions.create
        stream = await create(
            model=work["model"],
            messages=messages,
            tools=work["tools"],
            stream=True,
            stream_options={"include_usage": True},
        )
        async for chunk in stream:
            for choice in chunk.choices:
                if choice.delta.content:
                    text.append(choice.delta.content)
                for part in choice.delta.tool_calls or ():
                    called = True
                    calls.add(part.index, part.id, part.function.name, part.function.arguments)
        return calls.message() if called else "".join(text)

    async def get(url: str) -> Any:
        return (await http.get(url)).json()

    async with client, http:
        yield lambda: whole_run(work, model, get)


@contextlib.asynccontextmanager
async def lean(work: Json) -> AsyncIterator[RunOnce]:
    """aiohttp and orjson."""
    import aiohttp
    import orjson

    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=256))
    headers = {"Authorization": f"Bearer {work['token']}", "Accept": "application/json"}

    async def model(messages: list[Json]) -> Json | str:
        calls, text, called = Calls(), [], False
        body = {
            "model": work["model"],
            "messages": messages,
            "tools": work["tools"],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        url = f"{work['models']}/v1/chat/completions"
        async with session.post(url, data=orjson.dumps(body), headers={"Content-Type": "application/json"}) as answer:
            async for line in answer.content:
                if not line.startswith(b"data: {"):
                    continue
                for choice in orjson.loads(line[6:])["choices"]:
                    delta = choice["delta"]
                    if delta.get("content"):
                        text.append(delta["content"])
                    for part in delta.get("tool_calls") or ():
                        called = True
                        function = part["function"]
                        calls.add(part["index"], part.get("id"), function.get("name"), function.get("arguments"))
        return calls.message() if called else "".join(text)

    async def get(url: str) -> Any:
        async with session.get(url, headers=headers) as answer:
            return orjson.loads(await answer.read())

    async with session:
        yield lambda: whole_run(work, model, get)


async def measured(run: RunOnce, runs: int, at_a_time: int, spread: float) -> Json:
    """So many runs, so many at a time, the first ones spread; CPU of this process, seconds of each run."""
    walls: list[float] = []
    left = iter(range(runs))

    async def lane(number: int) -> None:
        await asyncio.sleep(spread * number / at_a_time)
        for _ in left:
            began = time.perf_counter()
            await run()
            walls.append(time.perf_counter() - began)

    before = _cpu()
    await asyncio.gather(*(lane(number) for number in range(at_a_time)))
    return {"cpu": _cpu() - before, "walls": walls}


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def main() -> None:
    loop = asyncio.get_running_loop()
    work = json.loads(await loop.run_in_executor(None, sys.stdin.readline))
    async with {"sdk": sdk, "lean": lean}[sys.argv[1]](work) as run:
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            wanted = json.loads(line)
            print(json.dumps(await measured(run, **wanted)), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
