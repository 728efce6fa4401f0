"""The connection for scripts against a server that answers what it likes, byte by byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from pilothouse_dataplane.memory.short_term import connect
from pilothouse_dataplane.models.script_pipe import Reply, Script, ScriptPipe

SCRIPT = Script("return 1", keys=1)
Server = Callable[[list[bytes], asyncio.StreamWriter], None]


@asynccontextmanager
async def serving(answer: Server) -> AsyncIterator[tuple[ScriptPipe, list[list[bytes]]]]:
    """A server that hands each script's call to ``answer``, and what it was called with; what redis-py says at the
    connection's beginning is answered well."""
    seen: list[list[bytes]] = []
    writers: list[asyncio.StreamWriter] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        while line := await reader.readline():
            parts = []
            for _ in range(int(line[1:])):
                size = int((await reader.readline())[1:])
                parts.append((await reader.readexactly(size + 2))[:-2])
            if parts[0].startswith(b"EVAL"):
                seen.append(parts)
                answer(parts, writer)
            else:
                writer.write(b"+OK\r\n")

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    client: Redis = connect(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0")
    pipe = ScriptPipe(client)
    try:
        yield pipe, seen
    finally:
        pipe.drop()
        await client.aclose()
        server.close()
        for writer in writers:
            writer.close()


def echo(parts: list[bytes], writer: asyncio.StreamWriter) -> None:
    writer.write(b"$%d\r\n%b\r\n" % (len(parts[-1]), parts[-1]))


async def test_many_calls_at_a_time_get_their_own_answers() -> None:
    odd = b"\r\n$-1\r\n:7\r\n\x00\xff"
    async with serving(echo) as (pipe, seen):
        told = await asyncio.gather(*(pipe.call(SCRIPT, b"key", odd + b"%d" % n) for n in range(50)))
    assert told == [odd + b"%d" % n for n in range(50)]
    assert len(seen) == 50
    assert seen[0][:3] == [b"EVALSHA", seen[0][1], b"1"]


@pytest.mark.parametrize(
    ("raw", "value"),
    [(b":0\r\n", 0), (b":-12\r\n", -12), (b"$-1\r\n", None), (b"$0\r\n\r\n", b""), (b"$2\r\n\r\n\r\n", b"\r\n")],
)
async def test_what_a_script_may_return(raw: bytes, value: Reply) -> None:
    async with serving(lambda _, writer: writer.write(raw)) as (pipe, _):
        assert await pipe.call(SCRIPT, b"key") == value


async def test_an_answer_in_single_bytes_and_one_of_megabytes() -> None:
    large = b"x" * 3_000_000

    async def drip(writer: asyncio.StreamWriter) -> None:
        for byte in b"$5\r\nhe\r\nl\r\n:4\r\n":
            writer.write(bytes([byte]))
            await asyncio.sleep(0)

    tasks = []

    def answer(parts: list[bytes], writer: asyncio.StreamWriter) -> None:
        if parts[-1] == b"large":
            writer.write(b"$%d\r\n%b\r\n" % (len(large), large))
        elif parts[-1] == b"drip":
            tasks.append(asyncio.ensure_future(drip(writer)))

    async with serving(answer) as (pipe, _):
        first, second = asyncio.create_task(pipe.call(SCRIPT, b"drip")), asyncio.create_task(pipe.call(SCRIPT, b"-"))
        assert (await first, await second) == (b"he\r\nl", 4)
        assert await pipe.call(SCRIPT, b"large") == large


async def test_an_unknown_script_is_sent_whole_once() -> None:
    def answer(parts: list[bytes], writer: asyncio.StreamWriter) -> None:
        if parts[0] == b"EVALSHA" or parts[-1] == b"never":
            writer.write(b"-NOSCRIPT No matching script\r\n")
        else:
            echo(parts, writer)

    async with serving(answer) as (pipe, seen):
        both = asyncio.gather(pipe.call(SCRIPT, b"a"), pipe.call(SCRIPT, b"b"))
        assert list(await both) == [b"a", b"b"]
        assert [parts[1] for parts in seen if parts[0] == b"EVAL"] == [b"return 1"] * 2
        with pytest.raises(ResponseError, match="NOSCRIPT"):
            await pipe.call(SCRIPT, b"never")


async def test_a_refusal_fails_its_own_call_only() -> None:
    def answer(parts: list[bytes], writer: asyncio.StreamWriter) -> None:
        if parts[-1] == b"bad":
            writer.write(b"-ERR it is wrong\r\n")
        else:
            echo(parts, writer)

    async with serving(answer) as (pipe, _):
        told = await asyncio.gather(*(pipe.call(SCRIPT, part) for part in (b"a", b"bad", b"c")), return_exceptions=True)
    assert [told[0], told[2]] == [b"a", b"c"]
    assert isinstance(told[1], ResponseError)


@pytest.mark.parametrize(
    "nonsense",
    [b"*1\r\n", b"+OK\r\n", b"$x\r\n", b"$99999999\r\n", b":x\r\n", b"?\r\n", b"\r\n", b"x" * 5000, b":1\r\n:2\r\n"],
)
async def test_nonsense_fails_who_waits_and_the_next_call_connects_anew(nonsense: bytes) -> None:
    answers = [lambda writer: writer.write(nonsense)]

    def answer(parts: list[bytes], writer: asyncio.StreamWriter) -> None:
        answers.pop()(writer) if answers else echo(parts, writer)

    async with serving(answer) as (pipe, _):
        told = await asyncio.wait_for(asyncio.gather(pipe.call(SCRIPT, b"a"), return_exceptions=True), 2)
        assert isinstance(told[0], RedisError) or told[0] == 1
        await asyncio.sleep(0.02)
        assert await asyncio.wait_for(pipe.call(SCRIPT, b"b"), 2) == b"b"


async def test_who_goes_away_leaves_the_others_their_answers() -> None:
    hold: list[Callable[[], None]] = []
    both = asyncio.Event()

    def answer(parts: list[bytes], writer: asyncio.StreamWriter) -> None:
        hold.append(lambda: echo(parts, writer))
        if len(hold) == 2:
            both.set()

    async with serving(answer) as (pipe, _):
        first, second = asyncio.create_task(pipe.call(SCRIPT, b"a")), asyncio.create_task(pipe.call(SCRIPT, b"b"))
        await asyncio.wait_for(both.wait(), 2)
        first.cancel()
        for say in hold:
            say()
        assert await second == b"b"


async def test_a_connection_that_ends_fails_all_who_wait() -> None:
    async with serving(lambda _, writer: writer.close()) as (pipe, _):
        told = await asyncio.gather(*(pipe.call(SCRIPT, b"a") for _ in range(3)), return_exceptions=True)
    assert all(isinstance(each, RedisError | OSError) for each in told)


async def test_nobody_there_is_an_error_and_not_for_good() -> None:
    client: Redis = connect("redis://127.0.0.1:1/0")
    pipe = ScriptPipe(client)
    for _ in range(2):
        with pytest.raises((RedisError, OSError)):
            await pipe.call(SCRIPT, b"a")
    await client.aclose()
