"""What a model provider is: one streaming call.

Errors, and who must act::

    ModelError                  message is a sentence for the user; it holds no key and no prompt
    ├─ ModelUnavailable         no connection, 5xx, the stream broke; retry or another target
    │  ├─ ModelTimeout          connect, first token, or between tokens
    │  └─ ModelRateLimited      429; ``retry_after`` seconds where the provider said so
    ├─ ModelDenied              401, 402, 403, 404: key, budget or model's name; the platform operator; another target
    ├─ ModelRejected            400, 413, 422: this request; another target may take it, the same one won't
    └─ ModelInterrupted         broke after text was shown; not tried again, since the user has read half of it
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from pilothouse_dataplane.core.messages import ModelRequest, ToolCall


class ModelError(Exception):
    """Base of the tree above."""


class ModelUnavailable(ModelError):
    """Try again, or another target."""


class ModelTimeout(ModelUnavailable):
    """The provider was too slow."""


class ModelRateLimited(ModelUnavailable):
    """The provider wants fewer requests."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds."""


class ModelDenied(ModelError):
    """The platform operator must act: key, budget or model's name."""


class ModelRejected(ModelError):
    """The provider won't take this request."""


class ModelInterrupted(ModelError):
    """The stream broke after text had been shown."""


@dataclass(frozen=True, slots=True)
class ModelText:
    """A piece of text, as it streams."""

    text: str


@dataclass(frozen=True, slots=True)
class ModelToolCall:
    """A tool call whose arguments are complete. It may come before the stream's end (seam for early start)."""

    call: ToolCall


@dataclass(frozen=True, slots=True)
class ModelDone:
    """The stream's end."""

    input_tokens: int
    output_tokens: int
    estimated: bool = False
    """The provider sent no usage: the tokens are a guess from characters."""


ModelEvent = ModelText | ModelToolCall | ModelDone


@dataclass(frozen=True, slots=True)
class ModelTimeouts:
    """Bounds of one streaming call, seconds."""

    connect: float = 2.0
    first_token: float = 15.0
    """From the request to the first event of the body."""
    between_tokens: float = 10.0


class ModelProvider(Protocol):
    """One endpoint that serves models."""

    def stream(self, model: str, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Stream one answer: texts and tool calls, then exactly one ModelDone. Raises ModelError."""
        ...

    async def aclose(self) -> None:
        """Close its connections."""
        ...


def estimate_tokens(characters: int) -> int:
    """Tokens of a text of that many characters, roughly (4 a token in English)."""
    return (characters + 3) // 4
