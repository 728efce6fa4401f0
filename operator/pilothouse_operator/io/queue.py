"""A level-triggered work queue: a set of keys that are due, each worked on by one worker at a time.

A key that becomes dirty while it is worked on is due again right after. A key has at most one timer, the earliest.
"""

from __future__ import annotations

import asyncio

from pilothouse_operator.core.resources import Key


class DirtyQueue:
    """Keys that are due now or later; used from one event loop."""

    def __init__(self) -> None:
        self._due: asyncio.Queue[Key] = asyncio.Queue()
        self._queued: set[Key] = set()
        self._busy: set[Key] = set()
        self._again: set[Key] = set()
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._tries: dict[Key, int] = {}

    def add(self, key: Key) -> None:
        """Something about the key has changed: it is due now, and its back-off begins anew."""
        self._tries.pop(key, None)
        self._make_due(key)

    def add_after(self, key: Key, seconds: float) -> None:
        """Look at the key again in ``seconds``, unless it is due earlier anyway."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= loop.time() + seconds:
                return
            timer.cancel()
        self._timers[key] = loop.call_later(seconds, self._make_due, key)

    def retry(self, key: Key) -> int:
        """Count one more look at a key that is not settled; gives how many there were since it last changed."""
        self._tries[key] = self._tries.get(key, 0) + 1
        return self._tries[key]

    def settled(self, key: Key) -> None:
        """The key needs no further look until something changes."""
        self._tries.pop(key, None)

    async def get(self) -> Key:
        """The next key that is due; the caller must call ``done`` with it."""
        key = await self._due.get()
        self._queued.discard(key)
        self._busy.add(key)
        return key

    def done(self, key: Key) -> None:
        """The key is no longer worked on."""
        self._busy.discard(key)
        if key in self._again:
            self._again.discard(key)
            self._make_due(key)

    def depth(self) -> int:
        """Keys that are due or worked on."""
        return len(self._queued) + len(self._busy)

    def close(self) -> None:
        """Cancel all timers."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _make_due(self, key: Key) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        if key in self._busy:
            self._again.add(key)
        elif key not in self._queued:
            self._queued.add(key)
            self._due.put_nowait(key)
