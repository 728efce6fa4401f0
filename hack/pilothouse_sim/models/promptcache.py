"""A prompt cache as the vendors' behave: the beginning of a prompt that was sent before costs less.

OpenAI: by itself, from 1,024 tokens on, in steps of 128. Anthropic: up to the client's marks, from 1,024 tokens on.

Sources: https://platform.openai.com/docs/guides/prompt-caching,
https://docs.anthropic.com/en/docs/build-with-claude/prompt-caching
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable

from pilothouse_sim.models.exchange import Asked
from pilothouse_sim.models.types import approximate_tokens

LEAST_TOKENS = 1024
STEP_TOKENS = 128
KEPT_SECONDS = 300.0
_ENTRIES = 20_000


class PromptCache:
    """What was sent in the last five minutes, by hash; a model's entries are its own."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen: OrderedDict[bytes, float] = OrderedDict()

    def steps(self, asked: Asked) -> int:
        """OpenAI: how many of the prompt's tokens are in the cache; the prompt is, from now on."""
        text = "\x00".join(asked.parts).encode()
        hashed = hashlib.sha256(asked.model.encode())
        size, found, unbroken = STEP_TOKENS * 4, 0, True
        for number in range(1, len(text) // size + 1):
            hashed.update(text[(number - 1) * size : number * size])
            tokens = number * STEP_TOKENS
            if tokens < LEAST_TOKENS:
                continue
            unbroken = self._known(hashed.digest()) and unbroken
            found = tokens if unbroken else found
        return min(found, asked.prompt // STEP_TOKENS * STEP_TOKENS)

    def marked(self, asked: Asked) -> tuple[int, int]:
        """Anthropic: (read, written) tokens up to the client's marks."""
        hashed = hashlib.sha256(asked.model.encode())
        read = last = tokens = 0
        for number, part in enumerate(asked.parts, 1):
            hashed.update(part.encode() + b"\x00")
            tokens += approximate_tokens(part)
            if number not in asked.marks or tokens < LEAST_TOKENS:
                continue
            if self._known(hashed.digest()):
                read = tokens
            last = tokens
        read, last = min(read, asked.prompt), min(last, asked.prompt)
        return read, last - read

    def _known(self, digest: bytes) -> bool:
        """Whether it is there; it is, from now on."""
        now = self._clock()
        then = self._seen.pop(digest, None)
        self._seen[digest] = now
        if len(self._seen) > _ENTRIES:
            self._seen.popitem(last=False)
        return then is not None and now - then <= KEPT_SECONDS
