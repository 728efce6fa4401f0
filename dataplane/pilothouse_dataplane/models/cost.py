"""What a call of a model costs, and the record of it that every sum is made of.

Prices are Decimal USD per 1,000 tokens; a call's cost is rounded once, half up, to whole micro-dollars (1 USD =
1,000,000) after its parts are added. From then on costs are only added: the run's, the tenant's, Prometheus' and
PostgreSQL's sums are sums of the same integers.

Tokens are the provider's own where it tells them and they can be true; else they are counted here from characters, and
the record says so (``estimated``). A stream that was cut off is charged for what was received: the whole request, and
the answer so far, or more where the provider had already told of more.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

import orjson

from pilothouse_api.workerconfig import TargetConfig, Tier
from pilothouse_dataplane.core.messages import ModelRequest, Tool, Usage
from pilothouse_dataplane.models.base import ModelDone, ModelEvent, ModelText, ModelToolCall, estimate_tokens

_LEAST = 40
"""Characters that one token stands for at most: below a fortieth of the text a reported count can't be true. Long runs
of one character or of blanks do reach 20 and more."""
_MOST = 8
"""Tokens that one character stands for at most: emoji and rare scripts take up to four, a chat's template some more."""
_TEMPLATE = 4_000
"""Tokens that a provider may add of its own to any request (its instructions for tools, a schema's wrapping)."""


@dataclass(frozen=True, slots=True)
class ModelCallRecord:
    """One call of a provider, or one answer that was used again: for events, costs and the ledger.

    Every call that reached a provider gives exactly one, those that were cut off, too.
    """

    provider: str
    model: str
    tier: Tier
    usage: Usage
    """What is charged. Of a cached answer: nothing, and no tokens."""
    duration_seconds: float
    reason: str = ""
    """Why this tier, a few words."""
    cached: bool = False
    """An earlier answer was used again; no provider was asked."""
    fallback: str = ""
    """Why another target, which came before this one, did not answer; "": this was the first."""
    aborted: bool = False
    """The stream was cut off: by the user, a deadline, an error."""
    escalated: bool = False
    """Of a cheaper tier's plan that could not be carried out."""
    first_token_seconds: float = 0.0
    """0: none came, or nothing was asked."""
    estimated: bool = False
    """The tokens were counted here."""
    saved_micros: int = 0
    """Of a cached answer: what it would have cost."""


def cost_micros(target: TargetConfig, input_tokens: int, output_tokens: int, cached_input_tokens: int = 0) -> int:
    """Micro-dollars of a call, rounded half up once, after the sum.

    ``cached_input_tokens`` are part of ``input_tokens``: served from the provider's prompt cache, at a price of their
    own where the target has one.
    """
    cached = min(max(0, cached_input_tokens), input_tokens)
    cached_price = target.cached_input_price_per_1k
    if cached_price is None:
        cached_price = target.input_price_per_1k
    price = (
        target.input_price_per_1k * (input_tokens - cached)
        + cached_price * cached
        + target.output_price_per_1k * output_tokens
    )
    return int((price * 1000).quantize(Decimal(1), rounding=ROUND_HALF_UP))


def usage_of(target: TargetConfig, input_tokens: int, output_tokens: int, cached_input_tokens: int = 0) -> Usage:
    """Tokens with what they cost."""
    cached = min(max(0, cached_input_tokens), input_tokens)
    return Usage(input_tokens, output_tokens, cost_micros(target, input_tokens, output_tokens, cached), cached)


def request_characters(request: ModelRequest) -> int:
    """Characters that a provider reads: messages, earlier calls, and the tools' descriptions and schemas."""
    messages = sum(
        len(message.content) + sum(len(call.name) + len(call.arguments) for call in message.tool_calls)
        for message in request.messages
    )
    return messages + _tools_characters(request.tools)


def request_tokens(request: ModelRequest) -> int:
    """Tokens of a request, counted here (about a quarter of its characters)."""
    return estimate_tokens(request_characters(request))


_known_tools: dict[int, tuple[Tool, int]] = {}
"""Characters of each tool by its identity: a schema is written as JSON once, not at each call. Kept alive by the tool
that stands beside it, so that no other can have its identity."""
_MAX_KNOWN = 4_096


def _tools_characters(tools: Iterable[Tool]) -> int:
    total = 0
    for tool in tools:
        known = _known_tools.get(id(tool))
        if known is None:
            schema = orjson.dumps(tool.parameters, default=dict, option=orjson.OPT_NON_STR_KEYS)
            known = (tool, len(tool.name) + len(tool.description) + len(schema))
            if len(_known_tools) >= _MAX_KNOWN:
                _known_tools.clear()
            _known_tools[id(tool)] = known
        total += known[1]
    return total


class Meter:
    """Counts one call while it streams, and says at any moment what it costs so far.

    ``problem`` is a sentence once the provider's own count can't be true: the count made here is charged then.
    """

    def __init__(self, target: TargetConfig, request: ModelRequest) -> None:
        self._target = target
        self._request = request
        self._characters = 0
        self._done: ModelDone | None = None
        self.estimated = False
        """What ``usage`` gave last was counted here."""
        self.problem = ""

    def saw(self, event: ModelEvent) -> None:
        """Take an event of the stream."""
        if isinstance(event, ModelText):
            self._characters += len(event.text)
        elif isinstance(event, ModelToolCall):
            self._characters += len(event.call.name) + len(event.call.arguments)
        elif isinstance(event, ModelDone):
            self._done = event

    def usage(self) -> Usage:
        """What is charged for what has been received; of a finished stream for all of it."""
        done = self._done
        if done is None:
            self.estimated = True
            return usage_of(self._target, request_tokens(self._request), estimate_tokens(self._characters))
        self.estimated = done.estimated
        if not done.estimated and (why := self._untrue(done)):
            self.estimated = True
            self.problem = (
                f"{self._target.provider} told {why} for {self._target.model}, which can't be true; the tokens "
                "counted here were charged. Look at what stands between the workers and the model."
            )
            return usage_of(self._target, request_tokens(self._request), estimate_tokens(self._characters))
        return usage_of(self._target, done.input_tokens, done.output_tokens, done.cached_input_tokens)

    def _untrue(self, done: ModelDone) -> str:
        sent = sum(len(message.content) for message in self._request.messages)
        told, wrote = done.input_tokens, done.output_tokens
        if told * _LEAST < sent or told > request_characters(self._request) * _MOST + _TEMPLATE:
            return f"{told:,} input tokens of a request of {sent:,} characters"
        # What a model thinks without showing it counts as output, too, up to its bound.
        if wrote * _LEAST < self._characters or wrote > max(self._target.max_output_tokens, 1) * 4 + _TEMPLATE:
            return f"{wrote:,} output tokens of an answer of {self._characters:,} characters"
        if not 0 <= done.cached_input_tokens <= told:
            return f"{done.cached_input_tokens:,} cached of {told:,} input tokens"
        return ""
