"""What comes back to a run: one queue of the machine's events and of a few words for its driver alone."""

from __future__ import annotations

import asyncio
from collections import deque

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
        self._items: deque[Item] = deque()
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
        item = self._items.popleft()
        if isinstance(item, TextArrived) and self._items and isinstance(self._items[0], TextArrived):
            pieces = [item.text]
            while self._items and isinstance(following := self._items[0], TextArrived):
                pieces.append(following.text)
                self._items.popleft()
            return TextArrived("".join(pieces))
        return item

    async def get(self) -> Item:
        """The next one, waited for."""
        while not self._items:
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        return self.take()
