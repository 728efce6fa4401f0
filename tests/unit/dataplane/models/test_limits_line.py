"""The line to Redis, byte by byte: whatever a server says, each call ends exactly once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from pilothouse_dataplane.memory.short_term import connect
from pilothouse_dataplane.models.limits_line import ScriptLine


class Server:
    """Greets redis-py as a Redis would, then says what the test wants."""

    def __init__(self) -> None:
        self.says: list[bytes] = []
        self.heard: list[bytes] = []
        self.close_after = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                count = int((await reader.readuntil(b"\r\n"))[1:])
                parts = []
                for _ in range(count):
                    size = int((await reader.readuntil(b"\r\n"))[1:])
                    parts.append((await reader.readexactly(size + 2))[:-2])
                if not parts[0].startswith(b"EVAL"):
                    writer.write(b"+OK\r\n")
                    continue
                self.heard.append(parts[0])
                for piece in self.says.pop(0).split(b"|") if self.says else ():
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0.001)
                if self.close_after:
                    break
        writer.close()


@pytest.fixture
async def server() -> AsyncIterator[tuple[Server, ScriptLine]]:
    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    client = connect(f"redis://127.0.0.1:{listening.sockets[0].getsockname()[1]}/0")
    line = ScriptLine(client, "return 1", "{t}:x")
    await line.connect()
    yield server, line
    line.drop()
    await client.aclose()
    listening.close()


async def ask(line: ScriptLine, payload: bytes = b"{}") -> bytes | Exception:
    answered: asyncio.Future[bytes | Exception] = asyncio.get_running_loop().create_future()
    line.call(payload, answered.set_result)  # a second time would raise
    return await asyncio.wait_for(answered, 2)


@pytest.mark.parametrize("says", [b"$5\r\nhello\r\n", b"$|5\r|\nhe|llo\r|\n", b"$0\r\n\r\n"])
async def test_answers_come_whole_however_they_are_cut(server: tuple[Server, ScriptLine], says: bytes) -> None:
    server[0].says = [says, says]
    expected = b"" if b"$0" in says else b"hello"
    assert await ask(server[1]) == expected
    assert await ask(server[1]) == expected  # on the same line


async def test_an_unknown_script_is_sent_whole(server: tuple[Server, ScriptLine]) -> None:
    server[0].says = [b"-NOSCRIPT No matching script.\r\n", b"$2\r\nok\r\n", b"$2\r\nok\r\n"]
    assert await ask(server[1]) == b"ok"
    assert await ask(server[1]) == b"ok"
    assert server[0].heard == [b"EVALSHA", b"EVAL", b"EVALSHA"]


@pytest.mark.parametrize(
    "says",
    [
        b"-OOM command not allowed\r\n",
        b"-READONLY You can't write against a read only replica.\r\n",
        b"+OK\r\n",
        b":1\r\n",
        b"$-1\r\n",
        b"$x\r\n",
        b"$99999999999\r\n",
        b"*2\r\n$1\r\na\r\n$1\r\nb\r\n",
        b">2\r\n+message\r\n+x\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ],
)
async def test_anything_else_fails_the_call_and_closes_the_line(server: tuple[Server, ScriptLine], says: bytes) -> None:
    server[0].says = [says, b"$2\r\nok\r\n"]
    assert isinstance(await ask(server[1]), Exception)
    assert not server[1].connected
    await server[1].connect()
    assert await ask(server[1]) == b"ok"


async def test_a_server_that_goes_ends_the_call(server: tuple[Server, ScriptLine]) -> None:
    server[0].says, server[0].close_after = [b"$5\r\nhel"], True
    assert isinstance(await ask(server[1]), Exception)
    assert not server[1].connected


async def test_who_gives_up_hears_no_late_answer(server: tuple[Server, ScriptLine]) -> None:
    server[0].says = [b"|||||||||||||||||||$4\r\nlate\r\n", b"$2\r\nok\r\n"]
    heard: list[bytes | Exception] = []
    server[1].call(b"{}", heard.append)
    await asyncio.sleep(0.005)
    server[1].fail(TimeoutError())
    assert isinstance(heard[0], TimeoutError)
    await server[1].connect()
    assert await ask(server[1]) == b"ok"
    await asyncio.sleep(0.05)
    assert len(heard) == 1
