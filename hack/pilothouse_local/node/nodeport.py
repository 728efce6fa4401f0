"""NodePorts on 127.0.0.1: connections are passed to ready Pods in turn."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable, Sequence

log = logging.getLogger(__name__)

Targets = Callable[[int], Sequence[tuple[str, int]]]
"""nodePort -> the (address, port) pairs that serve it now."""

_CONNECT_SECONDS = 5.0
_HIGH_WATER_BYTES = 256 * 1024


class _Half(asyncio.Protocol):
    """One side of a proxied connection; what it reads goes to `other`, and the reading pauses while the other side is
    full."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: _Half | None = None
        self.early: list[bytes] = []
        self.ended = False
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(high=_HIGH_WATER_BYTES)

    def data_received(self, data: bytes) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)
        else:
            self.early.append(data)

    def eof_received(self) -> bool:
        self.ended = True
        if self.other is not None and self.other.transport is not None and self.other.transport.can_write_eof():
            with contextlib.suppress(OSError):
                self.other.transport.write_eof()
        return True

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()


class _Front(_Half):
    """The client's side: finds a target when it is connected."""

    def __init__(self, connect: Callable[[_Front], None]) -> None:
        super().__init__()
        self._connect = connect

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._connect(self)


class NodePorts:
    """Keeps one listener for each wanted nodePort."""

    def __init__(self, targets: Targets, trouble: Callable[[int, str], None]) -> None:
        self._targets = targets
        self._trouble = trouble
        self._servers: dict[int, asyncio.Server] = {}
        self._turn = itertools.count()
        self._tasks: set[asyncio.Task[None]] = set()

    async def sync(self, wanted: set[int]) -> bool:
        """Open and close listeners; False where a port could not be opened (another program has it), to be tried
        again."""
        for port in set(self._servers) - wanted:
            self._servers.pop(port).close()
        complete = True
        for port in sorted(wanted - set(self._servers)):
            try:
                self._servers[port] = await asyncio.get_running_loop().create_server(
                    self._front(port), "127.0.0.1", port
                )
            except OSError as error:
                complete = False
                way_out = "end the program that uses it, or set another nodePort"
                self._trouble(port, f"nodePort {port} is not served on 127.0.0.1 ({error.strerror}): {way_out}")
        return complete

    def close(self) -> None:
        """Close every listener."""
        for server in self._servers.values():
            server.close()
        self._servers.clear()

    def _front(self, port: int) -> Callable[[], _Front]:
        return lambda: _Front(lambda front: self._accept(front, port))

    def _accept(self, front: _Front, port: int) -> None:
        task = asyncio.get_running_loop().create_task(self._join(front, port))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _join(self, front: _Front, port: int) -> None:
        assert front.transport is not None
        found = list(self._targets(port))
        start = next(self._turn)
        for offset in range(len(found)):
            address, number = found[(start + offset) % len(found)]
            try:
                async with asyncio.timeout(_CONNECT_SECONDS):
                    _, back = await asyncio.get_running_loop().create_connection(_Half, address, number)
            except (OSError, TimeoutError):
                continue
            if front.closed:
                if back.transport is not None:
                    back.transport.close()
                return
            back.other, front.other = front, back
            if back.transport is not None:
                back.transport.writelines(front.early)
                if front.ended:
                    front.eof_received()
            for data in back.early:
                front.transport.write(data)
            if back.ended:
                back.eof_received()
            return
        front.transport.abort()  # a refused connection says "nobody is ready" sooner than a closed one
