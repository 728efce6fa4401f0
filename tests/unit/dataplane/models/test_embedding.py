"""Embedders against a real HTTP server, with hostile answers; examples; the bound in time."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from aiohttp import web

from pilothouse_dataplane.models.base import ModelUnavailable, ProviderConfigError
from pilothouse_dataplane.models.embedding import (
    EndpointEmbedder,
    LocalEmbedder,
    bounded,
    make_examples,
    read_examples,
    unit,
)


class Server:
    def __init__(self) -> None:
        self.url = ""
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.answer: Any = None
        self.status = 200

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.asked.append(body)
        self.keys.append(request.headers.get("authorization", ""))
        if self.answer is not None:
            text = self.answer if isinstance(self.answer, str) else json.dumps(self.answer)
            return web.Response(text=text, status=self.status, headers={"location": "http://127.0.0.1:1/"})
        rows = [{"index": i, "embedding": [len(text), 1.0, 0.0]} for i, text in enumerate(body["input"])]
        return web.json_response({"data": rows[::-1], "model": body["model"]})


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    app = web.Application()
    app.router.add_post("/v1/embeddings", made.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    yield made
    await runner.cleanup()


@pytest.fixture
async def embedder(server: Server) -> AsyncIterator[EndpointEmbedder]:
    made = EndpointEmbedder("local", "mini", base_url=server.url, api_key="k-1", seconds=2)
    yield made
    await made.aclose()


async def test_vectors_come_in_the_order_of_the_texts_at_length_one(server: Server, embedder: EndpointEmbedder) -> None:
    short, long = await embedder.embed(["a", "a" * 9])
    assert short == pytest.approx(unit([1.0, 1.0, 0.0]))
    assert long == pytest.approx(unit([9.0, 1.0, 0.0]))
    assert server.asked == [{"model": "mini", "input": ["a", "a" * 9]}]
    assert server.keys == ["Bearer k-1"]


async def test_many_texts_go_in_several_calls(server: Server, embedder: EndpointEmbedder) -> None:
    assert len(await embedder.embed(["x"] * 150)) == 150
    assert [len(body["input"]) for body in server.asked] == [64, 64, 22]


@pytest.mark.parametrize(
    "answer",
    [
        "not json",
        "[]",
        {"error": {"message": "no"}},
        {"data": []},
        {"data": [{"index": 1, "embedding": [1.0]}]},
        {"data": [{"index": 0, "embedding": []}]},
        {"data": [{"index": 0, "embedding": [0.0, 0.0]}]},
        {"data": [{"index": 0, "embedding": ["x"]}]},
        {"data": [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [1.0, 2.0]}]},
        {"data": [{"index": 0, "embedding": "AAAA"}]},
        {"data": [{"index": 0, "embedding": [1e308, 1e308]}]},
        {"data": "x" * 9_000_000},
    ],
    ids=["text", "list", "error", "none", "index", "empty", "zero", "words", "uneven", "base64", "huge", "long"],
)
async def test_an_answer_that_is_no_vectors_is_a_clear_error(
    server: Server, embedder: EndpointEmbedder, answer: Any
) -> None:
    server.answer = answer
    with pytest.raises(ModelUnavailable, match="local"):
        await embedder.embed(["a"])


@pytest.mark.parametrize("status", [302, 401, 429, 500])
async def test_a_refusal_is_a_clear_error_and_no_redirect_is_followed(
    server: Server, embedder: EndpointEmbedder, status: int
) -> None:
    server.answer, server.status = {}, status
    with pytest.raises(ModelUnavailable, match=str(status)) as caught:
        await embedder.embed(["a"])
    assert "k-1" not in str(caught.value)


def test_an_address_that_is_none_is_told() -> None:
    with pytest.raises(ProviderConfigError):
        EndpointEmbedder("local", "mini", base_url="ftp://x")


class Fake:
    def __init__(self, *, seconds: float = 0.0, error: Exception | None = None) -> None:
        self.seconds, self.error, self.calls = seconds, error, 0

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        self.calls += 1
        await asyncio.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        return [[1.0, 0.0] for _ in texts]

    async def aclose(self) -> None: ...


async def test_no_vector_in_time_or_an_error_is_none() -> None:
    assert await bounded(Fake(seconds=5), seconds=0.02)("a") is None
    assert await bounded(Fake(error=ModelUnavailable("down")), seconds=1)("a") is None
    assert await bounded(Fake(error=RuntimeError("bug")), seconds=1)("a") is None


async def test_equal_texts_are_asked_for_once_and_failures_again() -> None:
    fake = Fake()
    embed = bounded(fake, seconds=1)
    assert await embed("a") == await embed("a") == [1.0, 0.0]
    assert fake.calls == 1
    failing = Fake(error=ModelUnavailable("down"))
    embed = bounded(failing, seconds=1)
    await embed("a")
    await embed("a")
    assert failing.calls == 2


async def test_being_cancelled_is_not_swallowed() -> None:
    task = asyncio.create_task(bounded(Fake(seconds=5), seconds=5)("a"))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_examples_become_vectors_with_their_tier() -> None:
    labelled = read_examples(b'{"text": "hello", "tier": "fast"}\n\n{"text": "compare", "tier": "power"}\n')
    examples = await make_examples(labelled, Fake())
    assert [one.tier for one in examples] == ["fast", "power"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'{"text": "a", "tier": "fast"}\n{"text": "b", "tier": "huge"}', "Line 2"),
        (b'{"text": "", "tier": "fast"}', "Line 1"),
        (b"[]", "Line 1"),
        (b"\xff\xfe", "Line 1"),
        (b"", "0 labelled examples"),
        (b'{"text": "a", "tier": "fast"}\n' * 501, "501 labelled examples"),
    ],
)
def test_examples_that_cannot_be_read_say_where(content: bytes, told: str) -> None:
    with pytest.raises(ProviderConfigError, match=told):
        read_examples(content)


async def test_the_local_model_tells_likeness_or_says_what_is_missing() -> None:
    try:
        local = LocalEmbedder()
    except ProviderConfigError as error:
        assert "group embedding" in str(error)  # noqa: PT017
        return
    one, same, other = await local.embed(["show my open tickets", "list my open tickets", "who wrote Faust?"])
    assert math.fsum(value * value for value in one) == pytest.approx(1.0)
    likeness = [sum(a * b for a, b in zip(one, them, strict=True)) for them in (same, other)]
    assert likeness[0] > likeness[1] + 0.2
    assert len((await local.embed(["\ud800", "", "x" * 16_000]))[2]) == 384
