"""Cuts replies into the pieces that a streaming model server sends, at its speed."""

from __future__ import annotations

import asyncio
import random
import re

from pilothouse_sim.faults import Faults
from pilothouse_sim.models.types import approximate_tokens

ARGUMENT_FRAGMENT = 12
"""Characters of a call's arguments in one chunk: a client must join many, and no fragment is JSON by itself."""


def words(text: str) -> list[str]:
    """The text in pieces of one word with the space after it; joined they are the text."""
    return re.findall(r"\s*\S+\s?|\s+", text)


def fragments(arguments: str) -> list[str]:
    """The arguments' JSON in pieces of ``ARGUMENT_FRAGMENT`` characters."""
    return [arguments[i : i + ARGUMENT_FRAGMENT] for i in range(0, len(arguments), ARGUMENT_FRAGMENT)]


class Pace:
    """Waits as the model would: before the first token, then for each piece by its tokens."""

    def __init__(self, faults: Faults, rng: random.Random) -> None:
        self._faults = faults
        self._rng = rng
        self._debt = 0.0

    async def first(self, delay_ms: float | None = None) -> None:
        """Waits for the time to the first token; ``delay_ms`` in place of the faults' own."""
        await asyncio.sleep((self._rng.uniform(*self._faults.ttft_ms) if delay_ms is None else delay_ms) / 1000)

    async def piece(self, text: str) -> None:
        """Waits for the time that the text's tokens take; short waits are summed up to 10 ms, to save wake-ups."""
        if self._faults.tokens_per_second:
            self._debt += approximate_tokens(text) / self._faults.tokens_per_second
        if self._debt >= 0.01:
            debt, self._debt = self._debt, 0.0
            await asyncio.sleep(debt)
