"""What a model thought before its tool calls, to be sent back unchanged with the results of these calls.

Both vendors want it: Anthropic signs thinking blocks and refuses a turn (or thinks worse) without them, OpenAI's
reasoning items are sealed. They belong to one model of one provider and to one loop of tool calls, so they are kept
here, in the process that made the call, and not in the run. A run that another worker takes over, or that another
model goes on with, has none: then the request must do without, see each protocol's ``request_body``.

Sources: https://docs.anthropic.com/en/docs/build-with-claude/extended-thinking#preserving-thinking-blocks,
https://platform.openai.com/docs/guides/reasoning#keeping-reasoning-items-in-context
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Literal

from pilothouse_dataplane.core.messages import Message, ToolCall

Part = dict[str, Any] | Literal["text", "call"]
"""A block as the vendor gave it, or the place of the turn's text, or of its next call."""
Recalled = dict[str, Any] | ToolCall | Literal["text"]

_MAX_TURNS = 512
_MAX_CHARACTERS = 2 << 20
"""Of all turns together."""


class Thoughts:
    """The turns of one provider that had thoughts, the latest ones."""

    def __init__(self) -> None:
        self._turns: OrderedDict[tuple[str, str], tuple[tuple[str, ...], list[Part], int]] = OrderedDict()
        self._characters = 0

    def keep(self, model: str, parts: Sequence[Part], calls: Sequence[ToolCall]) -> None:
        """Keep a turn's parts in their order; nothing where it had no thoughts or no calls."""
        blocks = [part for part in parts if isinstance(part, dict)]
        if not calls or not blocks or parts.count("call") != len(calls):
            return
        size = sum(len(value) for block in blocks for value in block.values() if isinstance(value, str))
        if size > _MAX_CHARACTERS // 4:
            return
        if (model, calls[0].id) in self._turns:
            return
        self._turns[model, calls[0].id] = (tuple(call.id for call in calls), list(parts), size)
        self._characters += size
        while len(self._turns) > _MAX_TURNS or self._characters > _MAX_CHARACTERS:
            _, (_, _, gone) = self._turns.popitem(last=False)
            self._characters -= gone

    def recall(self, model: str, message: Message) -> list[Recalled] | None:
        """An assistant's message with its thoughts in their places; None where they aren't known, or where the message
        is no longer the turn that the model wrote."""
        if not message.tool_calls:
            return None
        kept = self._turns.get((model, message.tool_calls[0].id))
        if kept is None or kept[0] != tuple(call.id for call in message.tool_calls):
            return None
        calls = iter(message.tool_calls)
        told = False
        recalled: list[Recalled] = []
        for part in kept[1]:
            if part == "call":
                recalled.append(next(calls))
            elif part == "text":
                if not told and message.content:
                    recalled.append("text")
                told = True
            else:
                recalled.append(part)
        return None if message.content and not told else recalled
