"""Whether each connector's system can be reached: asked now and then, cheaply, without anybody's credential.

::

    at once ──▶ reachable: again after 30 s, or not at all while calls are answered
          └───▶ not reachable: again after 30 s, 60 s, … 5 min

The answer of any call counts as well, at once: a system that has come back is not called away for five minutes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import structlog

from pilothouse_dataplane.connectors.base import Connector, ConnectorError, Refused

_EVERY = 30.0
"""Seconds."""
_LONGEST = 300.0
_PROBE_SECONDS = 15.0
_FIRST_SECONDS = 0.5
"""Within which the first probes are spread."""
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Reached:
    """What is known of one system. Its words stay the same as long as the finding does."""

    reachable: bool | None = None
    """None: not probed yet."""
    message: str = ""
    at: float | None = None
    """Unix seconds of the last look."""


class Prober:
    """Probes the connectors of one configuration."""

    def __init__(
        self,
        connectors: Mapping[str, Connector],
        addresses: Mapping[str, str],
        answered: Callable[[str], float | None],
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        random: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """``addresses``: each connector's URL, by which a finding outlives a reload. ``answered``: when a connector's
        system last answered a call, on ``clock``; ``wall`` is Unix seconds."""
        self._connectors = connectors
        self._addresses = dict(addresses)
        self._answered = answered
        self._clock = clock
        self._wall = wall
        self._random = random
        self._sleep = sleep
        self._found: dict[str, tuple[Reached, float]] = {}
        """With the time on ``clock``."""
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, before: Prober | None = None) -> None:
        """Begin; what an earlier configuration found of the same address still holds."""
        if before is not None:
            for name, found in before._found.items():
                if name in self._addresses and before._addresses.get(name) == self._addresses[name]:
                    self._found.setdefault(name, found)
        if not self._tasks:
            self._tasks = [
                asyncio.create_task(self._keep(name, connector), name=f"probe {name}")
                for name, connector in self._connectors.items()
            ]

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def of(self, name: str) -> Reached:
        """What is known of a connector's system."""
        found, at = self._found.get(name, (Reached(), float("-inf")))
        answered = self._answered(name)
        if answered is not None and answered > at and found.reachable is not True:
            return Reached(True, "It answers.", self._wall() - (self._clock() - answered))
        return found

    async def _keep(self, name: str, connector: Connector) -> None:
        failures = 0
        await self._sleep(_FIRST_SECONDS * self._random())
        while True:
            answered = self._answered(name)
            if answered is not None and self._clock() - answered < _EVERY:
                self._note(name, Reached(True, "It answers.", self._wall()))
            else:
                self._note(name, await self._probe(name, connector))
            found, _ = self._found[name]
            failures = 0 if found.reachable else failures + 1
            wait = min(_LONGEST, _EVERY * 2 ** max(0, min(failures, 10) - 1))
            await self._sleep(wait * (0.8 + 0.4 * self._random()))

    async def _probe(self, name: str, connector: Connector) -> Reached:
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                await connector.probe()
        except Refused as refusal:  # it says no, so it is there
            if refusal.asked:
                return Reached(True, "It answers.", self._wall())
            return Reached(False, str(refusal), self._wall())
        except ConnectorError as error:
            return Reached(False, str(error), self._wall())
        except TimeoutError:
            return Reached(False, f"It did not answer within {_PROBE_SECONDS:g} s.", self._wall())
        except Exception:
            _log.exception("probe failed", connector=name)
            return Reached(False, "It sent an answer that can't be read.", self._wall())
        return Reached(True, "It answers.", self._wall())

    def _note(self, name: str, found: Reached) -> None:
        before, _ = self._found.get(name, (Reached(), 0.0))
        if before.reachable is not found.reachable:
            _log.info("connector probed", connector=name, reachable=found.reachable, why=found.message)
        self._found[name] = (found, self._clock())
