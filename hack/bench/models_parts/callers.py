"""One model call in four ways, each in a process of its own: what the model gateway's price is measured by.

``python callers.py KIND``: reads one JSON object a line and answers with one. The first line is the ``work``; each
further ``{"calls": N, "at_a_time": M, "spread": seconds}`` is answered with
``{"cpu": seconds, "walls": [seconds, …]}``. At its input's end ``pilothouse`` tells which tiers its router chose.

``pilothouse``: the worker's own model gateway as ``build_runtime`` makes it, with everything that a route may ask for.
``sdk``: the official OpenAI SDK, streamed, its typed chunks joined. ``litellm``: LiteLLM's Router, likewise (it runs in
an environment of its own: nothing but the standard library is imported outside of the kinds).
``aiohttp``: a bare call; the answer is read to its end, and nothing is made of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import resource
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

Json = dict[str, Any]
CallOnce = Callable[[int], Awaitable[int]]
"""Makes the call of that number; gives the characters of text and arguments that came, to see that all did."""
_LEAST_CHARACTERS = 30


def body(work: Json, number: int) -> Json:
    """The request's JSON. Each has other words, so that nothing answers it but the server."""
    asked = work["texts"][number % len(work["texts"])]
    return {
        "model": work["model"],
        "messages": [
            {"role": "system", "content": work["system"]},
            {"role": "user", "content": f"{asked} This is request {number}."},
        ],
        "tools": work["tools"],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def joined(chunk: Any, text: list[str], calls: dict[int, list[str]]) -> None:
    """Takes a typed chunk in, as a client of the SDK must."""
    for choice in chunk.choices:
        if choice.delta.content:
            text.append(choice.delta.content)
        for part in choice.delta.tool_calls or ():
            call = calls.setdefault(part.index, [part.id or "", "", ""])
            call[1] += part.function.name or ""
            call[2] += part.function.arguments or ""


def size(text: list[str], calls: dict[int, list[str]]) -> int:
    return len("".join(text)) + sum(len(call[1] + call[2]) for call in calls.values() if json.loads(call[2]))


@contextlib.asynccontextmanager
async def sdk(work: Json) -> AsyncIterator[CallOnce]:
    from openai import AsyncOpenAI

    client = AsyncOpenAI(base_url=f"{work['url']}/v1", api_key="none", max_retries=0)
    create: Any = client.chat.completions.create

    async def call(number: int) -> int:
        text: list[str] = []
        calls: dict[int, list[str]] = {}
        async for chunk in await create(**body(work, number)):
            joined(chunk, text, calls)
        return size(text, calls)

    async with client:
        yield call


@contextlib.asynccontextmanager
async def litellm(work: Json) -> AsyncIterator[CallOnce]:
    import litellm as library

    library.suppress_debug_info = True
    named = {"model": f"openai/{work['model']}", "api_base": f"{work['url']}/v1", "api_key": "none"}
    router = library.Router(model_list=[{"model_name": work["model"], "litellm_params": named}], num_retries=0)
    complete: Any = router.acompletion

    async def call(number: int) -> int:
        text: list[str] = []
        calls: dict[int, list[str]] = {}
        async for chunk in await complete(**body(work, number)):
            joined(chunk, text, calls)
        return size(text, calls)

    yield call


@contextlib.asynccontextmanager
async def aiohttp(work: Json) -> AsyncIterator[CallOnce]:
    import aiohttp as http
    import orjson

    headers = {"Content-Type": "application/json", "Authorization": "Bearer none"}
    async with http.ClientSession(connector=http.TCPConnector(limit=0), headers=headers) as client:

        async def call(number: int) -> int:
            total = 0
            async with client.post(
                f"{work['url']}/v1/chat/completions", data=orjson.dumps(body(work, number))
            ) as answer:
                async for chunk in answer.content.iter_any():
                    total += len(chunk)
            return total

        yield call


@contextlib.asynccontextmanager
async def pilothouse(work: Json) -> AsyncIterator[CallOnce]:
    from pilothouse_api.workerconfig import WorkerConfig
    from pilothouse_dataplane.connectors.jira.tools import jira_tools
    from pilothouse_dataplane.core.guard import GuardRegistry
    from pilothouse_dataplane.core.messages import Effect, Message, ModelRequest, Situation
    from pilothouse_dataplane.models.base import ModelDone, ModelText, ModelToolCall
    from pilothouse_dataplane.worker.config import LoadedConfig
    from pilothouse_dataplane.worker.runtime import StoreKeeper, build_runtime

    config = WorkerConfig.model_validate(work["config"])
    guards = GuardRegistry(time.monotonic)
    nowhere = "postgresql://nobody@127.0.0.1:9/none"  # the ledger connects when it is first used: here it is not
    loaded = LoadedConfig(config, {"key": b"none"}, "bench", work["redis"], nowhere)
    runtime = build_runtime(loaded, guards, StoreKeeper("bench", guards))
    await runtime.start(None)
    tools = tuple(jira_tools("jira"))
    records: list[Any] = []
    routed: set[str] = set()

    async def call(number: int) -> int:
        asked = work["texts"][number % len(work["texts"])]
        words = f"{asked} This is request {number}."
        situation = Situation(
            words,
            user_email=f"user{number % 50}@acme.example",
            systems=("jira",),
            effects=(Effect.READ, Effect.WRITE),
            permissions="bench",
        )
        request = ModelRequest((Message("system", work["system"]), Message("user", words)), tools, situation=situation)
        total = 0
        stream = runtime.models.stream(request, deadline=time.monotonic() + 60, on_call=records.append)
        async with contextlib.aclosing(stream) as events:
            async for event in events:
                if isinstance(event, ModelText):
                    total += len(event.text)
                elif isinstance(event, ModelToolCall):
                    total += len(event.call.name) + len(event.call.arguments)
                else:
                    assert isinstance(event, ModelDone)
        made = records.pop()
        if made.cached or made.usage.cost_micros <= 0:
            raise RuntimeError("an answer came from the cache, or cost nothing: it would not be measured")
        if made.reason:
            routed.add(made.tier)
        return total

    try:
        yield call
        print(json.dumps({"routed": sorted(routed)}), flush=True)
    finally:
        await runtime.aclose()


_KINDS: dict[str, Callable[[Json], contextlib.AbstractAsyncContextManager[CallOnce]]] = {
    "pilothouse": pilothouse,
    "sdk": sdk,
    "litellm": litellm,
    "aiohttp": aiohttp,
}


async def measured(call: CallOnce, numbers: Any, calls: int, at_a_time: int, spread: float) -> Json:
    """Makes the calls; raises where an answer is not whole."""
    walls: list[float] = []
    left = iter(range(calls))

    async def lane(place: int) -> None:
        await asyncio.sleep(spread * place / at_a_time)
        for _ in left:
            number = next(numbers)
            began = time.perf_counter()
            came = await call(number)
            walls.append(time.perf_counter() - began)
            if came < _LEAST_CHARACTERS:
                raise RuntimeError(f"an answer of {came} characters is not whole")

    before = _cpu()
    await asyncio.gather(*(lane(place) for place in range(at_a_time)))
    return {"cpu": _cpu() - before, "walls": walls}


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def main() -> None:
    loop = asyncio.get_running_loop()
    work = json.loads(await loop.run_in_executor(None, sys.stdin.readline))
    numbers = itertools.count(1)
    async with _KINDS[sys.argv[1]](work) as call:
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            print(json.dumps(await measured(call, numbers, **json.loads(line))), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
