"""What comes back to a run: one queue of the machine's events and of a few words for its driver alone."""

from __future__ import annotations

import asyncio

from pilothouse_dataplane.core.state import Event, TextArrived


class HandOver:
    """The worker is draining: give the run up as soon as its writes are back."""


class Lost:
    """A task of the run has learnt that another worker has it."""


class Again:
    """Try again to park."""


Item = Event | HandOver | Lost | Again


class Inbox:
    """Read by the run's driver alone."""

    def __init__(self) -> None:
        self._items: list[Item] = []  # short, and an empty deque takes 0.8 KB
        self._reader: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: Item) -> None:
        """Add one; never waits."""
        self._items.append(item)
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def take(self) -> Item:
        """The next one, which must be there. Text that has come meanwhile is one event with it: a model may send
        faster than it is worth to look."""
        pieces: list[str] = []
        for item in self._items:
            if not isinstance(item, TextArrived):
                break
            pieces.append(item.text)
        if len(pieces) > 1:
            del self._items[: len(pieces)]
            return TextArrived("".join(pieces))
        return self._items.pop(0)

    async def get(self) -> Item:
        """The next one, waited for."""
        while not self._items:
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        return self.take()
