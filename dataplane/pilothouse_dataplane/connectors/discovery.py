"""Asks connectors for tools that only the system itself knows: an OpenAPI document behind a URL, an MCP server.

::

    start ──▶ as nobody ──▶ learnt: asked again now and then, as a system's tools change
                │  └─ the system did not answer: again, with back-off (1 s … 5 min)
                └─ nobody may ask: with the credential of the user whose run begins (``prepare``)

What was learnt with one user's credential is described to all users of the tenant: tools are no secret among
colleagues, and each call is still made as its own user.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import cast

import structlog

from pilothouse_dataplane.connectors.base import CallContext, Connector, ConnectorError, Discovering, Refused
from pilothouse_dataplane.credentials.base import CredentialSource

_FIRST_WAIT = 0.5
"""Seconds; doubled before its first use."""
_LAST_WAIT = 300.0
_AGAIN = 600.0
"""Seconds after which known tools are asked for again."""
_ATTEMPT_SECONDS = 30.0
_PREPARE_SECONDS = 1.5
_SAME_USER_SECONDS = 30.0
"""A user whose credential did not do is not tried again before."""
_MAX_USERS = 1000
_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _One:
    connector: Discovering
    source: CredentialSource | None
    known: bool = False
    stale_at: float = math.inf
    """With needs_user: from when on the next user's credential asks again."""
    needs_user: bool = False
    tried: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once it was asked as nobody."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: OrderedDict[str, float] = field(default_factory=OrderedDict)
    """When a user's credential last did not do."""


class Discovery:
    """The discovering connectors of one toolset."""

    def __init__(
        self,
        connectors: Mapping[str, Connector],
        sources: Mapping[str, CredentialSource],
        changed: Callable[[], None],
        *,
        clock: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        """``changed`` is called when a connector's tools have changed."""
        self._all = {
            name: _One(cast(Discovering, connector), sources.get(name))
            for name, connector in connectors.items()
            if hasattr(connector, "discover")
        }
        self._changed = changed
        self._clock = clock
        self._random = random
        self._tasks: list[asyncio.Task[None]] = []
        self.problems: dict[str, str] = {}
        """By connector: why its tools are not known, a sentence."""

    async def start(self, wait: float) -> None:
        """Begin in the background; wait at most so many seconds until each was asked once."""
        if self._tasks:
            return
        self._tasks = [
            asyncio.create_task(self._keep(name, one), name=f"discover {name}") for name, one in self._all.items()
        ]
        if wait > 0 and self._tasks:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    for one in self._all.values():
                        await one.tried.wait()

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def complete(self) -> bool:
        """All tools are known, and fresh."""
        return not self._all or not self._wanting()

    def _wanting(self) -> list[tuple[str, _One]]:
        now = self._clock()
        return [(name, one) for name, one in self._all.items() if not one.known or now >= one.stale_at]

    async def prepare(self, context: CallContext) -> None:
        """Ask with this user's credential where nobody may ask. Never longer than 1.5 s; raises nothing."""
        unknown = self._wanting()
        if unknown and self._tasks:
            try:
                async with asyncio.timeout(_PREPARE_SECONDS):
                    await asyncio.gather(*(self._as_user(name, one, context) for name, one in unknown))
            except TimeoutError:
                _log.warning(
                    "tools not discovered in time", connectors=[name for name, one in unknown if not one.known]
                )

    async def _as_user(self, name: str, one: _One, context: CallContext) -> None:
        await one.tried.wait()
        async with one.lock:
            if not one.needs_user or one.source is None or (one.known and self._clock() < one.stale_at):
                return
            failed = one.users.get(context.user_email)
            if failed is not None and self._clock() - failed < _SAME_USER_SECONDS:
                return
            try:
                credential = await one.source.get(context)
                await self._learn(name, one, replace(context, credential=credential))
            except ConnectorError as error:
                one.users[context.user_email] = self._clock()
                if len(one.users) > _MAX_USERS:
                    one.users.popitem(last=False)
                self.problems.setdefault(name, str(error))
            except Exception:
                _log.exception("tools not discovered", connector=name)

    async def _keep(self, name: str, one: _One) -> None:
        wait = _FIRST_WAIT
        while True:
            try:
                async with asyncio.timeout(_ATTEMPT_SECONDS):
                    await self._learn(name, one, None)
                wait = _AGAIN
            except Refused as error:
                one.needs_user = True  # it may answer a user
                self._failed(name, one, str(error))
                wait = min(_LAST_WAIT, 2 * wait)
            except ConnectorError as error:
                self._failed(name, one, str(error))
                wait = min(_LAST_WAIT, 2 * wait)
            except TimeoutError:
                self._failed(name, one, "The system did not tell its tools in time.")
                wait = min(_LAST_WAIT, 2 * wait)
            except Exception:  # a defect, or an answer that nobody expected: one connector must not take others along
                _log.exception("tools not discovered", connector=name)
                self._failed(name, one, "What the system told of its tools can't be read.")
                wait = min(_LAST_WAIT, 2 * wait)
            one.tried.set()
            await asyncio.sleep(wait * (0.75 + self._random() / 2))

    async def _learn(self, name: str, one: _One, context: CallContext | None) -> None:
        changed = await one.connector.discover(context)
        one.known = True
        one.stale_at = math.inf if context is None else self._clock() + _AGAIN
        self.problems.pop(name, None)
        if changed:
            self._changed()

    def _failed(self, name: str, one: _One, why: str) -> None:
        if one.known:  # what is known goes on to be used
            return
        if self.problems.get(name) != why:
            _log.warning("tools not discovered", connector=name, error=why)
        self.problems[name] = why
