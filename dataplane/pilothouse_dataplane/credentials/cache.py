"""What one worker keeps in memory of its users' credentials: bounded, and fetched once however many ask."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable, Iterator
from typing import Any, Generic, TypeVar

MAX_USERS = 2000
_Value = TypeVar("_Value")


class UserCache(Generic[_Value]):
    """Values by user and name; the user who was looked at longest ago is forgotten first."""

    def __init__(self, max_users: int = MAX_USERS) -> None:
        self._users: OrderedDict[str, dict[str, _Value]] = OrderedDict()
        self._max = max_users

    def get(self, user: str, name: str) -> _Value | None:
        if (found := self._users.get(user)) is None:
            return None
        self._users.move_to_end(user)
        return found.get(name)

    def put(self, user: str, name: str, value: _Value) -> None:
        self._users.setdefault(user, {})[name] = value
        self._users.move_to_end(user)
        while len(self._users) > self._max:
            self._users.popitem(last=False)

    def drop(self, user: str, name: str) -> None:
        if (found := self._users.get(user)) is not None:
            found.pop(name, None)
            if not found:
                del self._users[user]

    def values(self) -> Iterator[_Value]:
        for found in self._users.values():
            yield from found.values()

    def __len__(self) -> int:
        return len(self._users)


class Flights(Generic[_Value]):
    """One task a key: who asks while it is under way waits for the same result. A caller that is cancelled does not
    cancel it: a token that was rotated must be kept."""

    def __init__(self) -> None:
        self._tasks: dict[Hashable, asyncio.Task[_Value]] = {}

    async def join(self, key: Hashable, work: Callable[[], Coroutine[Any, Any, _Value]]) -> _Value:
        """The result of the flight with this key, which is begun where there is none."""
        task = self._tasks.get(key)
        if task is None:
            task = asyncio.create_task(work())
            self._tasks[key] = task

            def ended(done: asyncio.Task[_Value]) -> None:
                if self._tasks.get(key) is done:
                    del self._tasks[key]
                if not done.cancelled():
                    done.exception()  # seen, also where nobody waits any more

            task.add_done_callback(ended)
        return await asyncio.shield(task)

    async def land(self, seconds: float) -> None:
        """Wait for those under way, at most this long."""
        if self._tasks:
            await asyncio.wait(tuple(self._tasks.values()), timeout=seconds)
