"""Looks every few seconds for runs that nobody drives, so that none stays without an end.

A run is found here when its worker died and no front door asked for it again, when the answer to an approval came while
its run was being parked, or when its approvals lapsed. It is driven without a client; what it says at its end is kept.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import structlog

from pilothouse_dataplane.ledger.base import Ledger, LedgerError

SWEEP_SECONDS = 5.0
_MOST_AT_ONCE = 16
_log = structlog.get_logger()


class Sweeper:
    """One worker's sweeps."""

    def __init__(
        self, ledger: Callable[[], Ledger | None], free: Callable[[], int], drive: Callable[[str], None]
    ) -> None:
        """``free`` says how many runs this worker may take; ``drive`` begins one by its id."""
        self._ledger = ledger
        self._free = free
        self._drive = drive
        self._away = False

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            # workers that were started together must not look together
            await asyncio.sleep(SWEEP_SECONDS * (0.8 + 0.4 * random.random()))  # noqa: S311
            try:
                await self.look()
            except Exception:
                _log.exception("sweep failed")

    async def look(self) -> None:
        """Look once. LedgerUnavailable is logged once."""
        ledger, free = self._ledger(), self._free()
        if ledger is None or free <= 0:
            return
        try:
            found = await ledger.abandoned(min(free, _MOST_AT_ONCE))
        except LedgerError as error:
            if not self._away:
                _log.warning("the ledger can't be asked for abandoned runs", error=str(error))
            self._away = True
            return
        self._away = False
        for run_id in found:
            self._drive(run_id)
