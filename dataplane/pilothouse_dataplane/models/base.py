"""What a model provider is: one streaming call.

Errors, and who must act::

    ModelError                  message is a sentence for the user; it holds no key and no prompt
    ├─ ModelUnavailable         no connection, 5xx, the stream broke; retry or another target
    │  ├─ ModelUnreachable      no connection: nothing was sent, so nothing is charged
    │  ├─ ModelTimeout          connect, first token, between tokens, or the whole
    │  ├─ ModelRateLimited      429; ``retry_after`` seconds where the provider said so
    │  └─ ModelNonsense         the model wrote without end; the endpoint is well, another try may do better
    ├─ ModelDenied              401, 403, 404: key or model's name; the platform operator; another target
    │  └─ ModelExhausted        the account's quota or credit is used up (402, or the vendors' 400s and 429s for it)
    ├─ ModelRejected            400, 413, 422: this request; another target may take it, the same one won't
    │  └─ ModelOverflow         longer than the model's window: a target with a larger one
    ├─ ModelOverBudget          what one request may cost is spent, or the next target's price goes beyond it
    ├─ ModelLimited             the tenant's or the user's own limit; ``retry_after`` seconds; nothing was asked
    └─ ModelInterrupted         broke after text was shown, and no other target could answer
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Literal, Protocol

from pilothouse_api.workerconfig import TargetConfig
from pilothouse_dataplane.core.messages import ModelRequest, ToolCall


class ProviderConfigError(ValueError):
    """A platform operator must correct the ModelRoute or its Secret. The message holds no key."""


class ModelError(Exception):
    """Base of the tree above."""

    spent: ModelDone | None = None
    """What the call had used when it failed, as far as it is known; None: no answer had begun."""


class ModelUnavailable(ModelError):
    """Try again, or another target."""

    def __init__(self, message: str, retry_after: float | None = None, *, again: bool = True) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds, where the provider said so."""
        self.again = again
        """False: the provider said that the same request is not to be sent again."""


class ModelUnreachable(ModelUnavailable):
    """No connection was made, so nothing was sent."""


class ModelTimeout(ModelUnavailable):
    """The provider was too slow."""


class ModelRateLimited(ModelUnavailable):
    """The provider wants fewer requests."""


class ModelNonsense(ModelUnavailable):
    """What the model wrote breaks a bound. The provider is well: its breaker doesn't count it as a failure."""


class ModelDenied(ModelError):
    """The platform operator must act: key, budget or model's name."""


class ModelExhausted(ModelDenied):
    """Quota or credit is used up: its breaker opens at once, since the next call would fail in the same way."""


class ModelRejected(ModelError):
    """The provider won't take this request."""


class ModelOverflow(ModelRejected):
    """The request is longer than the model's window."""


class ModelLimited(ModelError):
    """The tenant's or the user's limit is reached. No provider was asked."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds until it is worth asking again."""


class ModelOverBudget(ModelError):
    """The run's budget does not reach for another try."""


class ModelInterrupted(ModelError):
    """The stream broke after text had been shown, and no other target could answer."""


@dataclass(frozen=True, slots=True)
class ModelText:
    """A piece of text, as it streams."""

    text: str


@dataclass(frozen=True, slots=True)
class ModelToolCall:
    """A tool call whose arguments are complete. It comes as soon as they are, often before the stream's end."""

    call: ToolCall


Stop = Literal["", "length", "refusal", "filter"]


@dataclass(frozen=True, slots=True)
class ModelDone:
    """The stream's end."""

    input_tokens: int
    output_tokens: int
    estimated: bool = False
    """The provider sent no usage: the tokens are a guess from characters."""
    cached_input_tokens: int = 0
    """Of ``input_tokens``: served from the provider's prompt cache."""
    stop: Stop = ""
    """Why the text is not whole: its bound of tokens was reached, the model declined, or the provider's filter cut it.
    ``""``: it is whole."""


@dataclass(frozen=True, slots=True)
class ModelRestarted:
    """The target failed after it had handed out calls or text, and another is asked: what came before is void.

    Only the model gateway sends it, right before the other target's first event.
    """

    after_text: bool = False
    """The user has read a part of the void answer: she must be told that it begins anew."""


ModelEvent = ModelText | ModelToolCall | ModelRestarted | ModelDone


@dataclass(frozen=True, slots=True)
class ModelTimeouts:
    """Bounds of one streaming call, seconds."""

    connect: float = 2.0
    first_token: float = 15.0
    """From the request to the first whole event of the body."""
    between_tokens: float = 10.0
    """From one whole event to the next: a server that drips bytes without end of an event is as good as silent."""
    whole: float = 120.0
    """From the request to the last event."""


class ModelProvider(Protocol):
    """One endpoint that serves models."""

    def stream(self, target: TargetConfig, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """Stream one answer: texts and tool calls, then exactly one ModelDone. Raises ModelError.

        ``target`` names the model, its bound of output tokens and its reasoning.

        Cancelling it, or closing it, ends the request at once.
        """
        ...

    async def aclose(self) -> None:
        """Close its connections."""
        ...


def estimate_tokens(characters: int) -> int:
    """Tokens of a text of that many characters, roughly (4 a token in English)."""
    return (characters + 3) // 4
