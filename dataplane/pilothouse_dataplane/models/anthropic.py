"""Anthropic's messages protocol, streamed, with tool use.

Thinking: newer models take ``adaptive`` thinking and an ``effort``; those up to 4.5 a budget of tokens. With a budget,
a turn whose thinking blocks are not known (another worker or another model made it) is refused, so such a request is
sent without thinking; adaptive thinking takes it as it is. Known blocks are sent back unchanged (``thoughts.py``).

Prompt caching: a mark after the tools and one after the instructions, which stay the same from call to call.

Sources: https://docs.anthropic.com/en/api/messages-streaming,
https://platform.claude.com/docs/en/build-with-claude/adaptive-thinking,
https://platform.claude.com/docs/en/build-with-claude/structured-outputs
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Any

import orjson

from pilothouse_api.workerconfig import TargetConfig
from pilothouse_dataplane.core.messages import Message, ModelRequest, ToolCall
from pilothouse_dataplane.models.answer import Answer, as_count, as_object, as_text, sent_arguments, sent_name
from pilothouse_dataplane.models.base import (
    ModelError,
    ModelEvent,
    ModelTimeouts,
    ModelToolCall,
    ModelUnavailable,
    Stop,
)
from pilothouse_dataplane.models.openai import endpoint
from pilothouse_dataplane.models.sse import SseClient
from pilothouse_dataplane.models.thoughts import Part, Thoughts

DEFAULT_BASE_URL = "https://api.anthropic.com"
_LAST = re.compile(rb'"type"\s*:\s*"message_stop"')  # inside a text its quotes would be escaped
_BUDGETED = re.compile(r"claude-3|claude-(?:opus|sonnet|haiku)-4(?:-[015])?(?:-\d{8}|-latest|@|$|-v\d)")
"""Models that think by a budget: Claude 3.7 to 4.5, under their names at Anthropic and at clouds."""
_BUDGETS = {"low": 1024, "medium": 4096, "high": 16384}
"""Tokens; at most half of the answer's bound, which holds both."""
_MIN_BUDGET = 1024
_CACHED = {"type": "ephemeral"}
_STOPS: dict[str, Stop] = {"max_tokens": "length", "refusal": "refusal", "model_context_window_exceeded": "length"}


def _is_last(data: bytes) -> object:
    return _LAST.search(data)


def _call(call: ToolCall) -> dict[str, Any]:
    return {
        "type": "tool_use",
        "id": call.id,
        "name": sent_name(call.name),
        "input": sent_arguments(call.arguments),
    }


def _blocks(model: str, message: Message, thoughts: Thoughts | None) -> list[dict[str, Any]]:
    if message.role == "tool":
        return [{"type": "tool_result", "tool_use_id": message.tool_call_id, "content": message.content}]
    text: dict[str, Any] = {"type": "text", "text": message.content}
    recalled = thoughts.recall(model, message) if thoughts else None
    if recalled is None:
        return ([text] if message.content else []) + [_call(call) for call in message.tool_calls]
    return [text if each == "text" else _call(each) if isinstance(each, ToolCall) else each for each in recalled]


def _thinking(target: TargetConfig, turns: list[dict[str, Any]]) -> dict[str, Any]:
    """The fields of a target's reasoning; ``turns`` are the messages as they are sent."""
    if not target.reasoning:
        return {}
    if not _BUDGETED.search(target.model):
        return {"thinking": {"type": "adaptive"}, "output_config": {"effort": target.reasoning}}
    budget = min(_BUDGETS[target.reasoning], target.max_output_tokens // 2)
    last: list[dict[str, Any]] = next((turn["content"] for turn in reversed(turns) if turn["role"] == "assistant"), [])
    has_calls = any(block["type"] == "tool_use" for block in last)
    if budget < _MIN_BUDGET or (has_calls and last[0]["type"] not in ("thinking", "redacted_thinking")):
        return {}
    return {"thinking": {"type": "enabled", "budget_tokens": budget}}


def request_body(target: TargetConfig, request: ModelRequest, *, thoughts: Thoughts | None = None) -> dict[str, Any]:
    """The request's JSON: system apart, roles alternating, tool results as a user's blocks."""
    turns: list[dict[str, Any]] = []
    for message in request.messages:
        blocks = [] if message.role == "system" else _blocks(target.model, message, thoughts)
        if not blocks:
            continue
        role = "assistant" if message.role == "assistant" else "user"
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"].extend(blocks)
        else:
            turns.append({"role": role, "content": blocks})
    body: dict[str, Any] = {
        "model": target.model,
        "max_tokens": target.max_output_tokens,
        "stream": True,
        **_thinking(target, turns),
    }
    if request.response_schema is not None:
        body["output_config"] = {
            **body.get("output_config", {}),
            "format": {"type": "json_schema", "schema": request.response_schema},
        }
    # a conversation that holds tool blocks is refused without the tools' definitions
    if request.tools:
        tools: list[dict[str, Any]] = [
            {"name": tool.model_name, "description": tool.description, "input_schema": tool.parameters}
            for tool in request.tools
        ]
        tools[-1]["cache_control"] = _CACHED
        body["tools"] = tools
        if not request.allow_tools:
            body["tool_choice"] = {"type": "none"}
    system = [{"type": "text", "text": m.content} for m in request.messages if m.role == "system" and m.content]
    if system:
        body["system"] = [*system[:-1], {**system[-1], "cache_control": _CACHED}]
    body["messages"] = turns
    return body


class AnthropicProvider:
    """One endpoint that speaks the messages protocol."""

    def __init__(
        self, name: str, base_url: str | None, api_key: str | None, timeouts: ModelTimeouts | None = None
    ) -> None:
        """Raises ProviderConfigError."""
        self.name = name
        base = (base_url or DEFAULT_BASE_URL).rstrip("/").removesuffix("/v1")
        self._url = endpoint(name, base, "/v1/messages")
        headers = {"anthropic-version": "2023-06-01", **({"x-api-key": api_key} if api_key else {})}
        self._client = SseClient(name, timeouts or ModelTimeouts(), headers, api_key)
        self._thoughts = Thoughts()

    async def aclose(self) -> None:
        await self._client.aclose()

    async def stream(self, target: TargetConfig, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        body = orjson.dumps(request_body(target, request, thoughts=self._thoughts))
        answer = Answer(self.name, len(body), target.max_output_tokens)
        reader = _Reader(answer)
        stream = self._client.post(self._url, body, _is_last)
        del body
        began = False
        try:
            async with aclosing(stream) as batches:
                async for batch in batches:
                    began = True
                    for data in batch:
                        for event in reader.take(self._client.parse(data)):
                            yield event
            if not answer.finished:
                raise ModelUnavailable(f"The model provider {self.name} broke off its answer")
            last = answer.end()
            self._thoughts.keep(target.model, reader.parts, answer.calls.given)
            for event in last:
                yield event
        except ModelError as error:
            if began:
                error.spent = answer.spent()
            raise


class _Reader:
    """Fills an answer, event by event."""

    def __init__(self, answer: Answer) -> None:
        self.parts: list[Part] = []
        self._answer = answer
        self._inputs: dict[int, object] = {}
        """Of the blocks that are tool calls: the input that came with their start, by index."""
        self._thought: dict[str, Any] = {}
        """The thinking block that is being written."""
        self._usage: dict[str, int] = {}

    def take(self, event: dict[str, Any]) -> Iterable[ModelEvent]:
        """What an event brings; an unknown one brings nothing. Raises ModelNonsense."""
        kind = event.get("type")
        if kind == "content_block_delta":
            delta = as_object(event.get("delta"))
            if text := as_text(delta.get("text")):
                return (self._answer.text(text),)
            if piece := as_text(delta.get("partial_json")):
                index = as_count(event.get("index"))
                if index in self._inputs:
                    return map(ModelToolCall, self._answer.calls.add(index, piece))
            for name in ("thinking", "signature"):
                if piece := as_text(delta.get(name)):
                    self._thought[name] = self._thought.get(name, "") + piece
        elif kind == "content_block_start":
            return self._start(as_count(event.get("index")), as_object(event.get("content_block")))
        elif kind == "content_block_stop":
            index = as_count(event.get("index"))
            if index in self._inputs:
                given = self._inputs[index]
                spare = orjson.dumps(given).decode() if given and isinstance(given, dict) else ""
                return map(ModelToolCall, self._answer.calls.stop(index, spare))
        elif kind == "message_start":
            self._count(as_object(as_object(event.get("message")).get("usage")))
        elif kind == "message_delta":
            self._count(as_object(event.get("usage")))
            reason = as_text(as_object(event.get("delta")).get("stop_reason"))
            self._answer.stop = _STOPS.get(reason, self._answer.stop)
            self._answer.overflowed = reason == "model_context_window_exceeded"
        elif kind == "message_stop":
            self._answer.finished = True
        return ()

    def _start(self, index: int, block: dict[str, Any]) -> Iterable[ModelEvent]:
        kind = block.get("type")
        self._inputs.pop(index, None)
        if kind == "tool_use":
            self._inputs[index] = block.get("input")
            self.parts.append("call")
            begun = self._answer.calls.begin(index, as_text(block.get("id")), as_text(block.get("name")))
            return map(ModelToolCall, begun)
        if kind in ("thinking", "redacted_thinking"):
            self._thought = dict(block)
            self.parts.append(self._thought)
        elif kind == "text":
            self.parts.append("text")
            if text := as_text(block.get("text")):
                return (self._answer.text(text),)
        return ()

    def _count(self, usage: dict[str, Any]) -> None:
        """Counts are sums so far, and the last word counts; input that was read from or written to the cache is told
        apart from the rest."""
        self._usage.update({name: as_count(value) for name, value in usage.items() if as_count(value)})
        cached = self._usage.get("cache_read_input_tokens", 0)
        self._answer.cached = cached
        self._answer.read = (
            self._usage.get("input_tokens", 0) + self._usage.get("cache_creation_input_tokens", 0) + cached
        )
        self._answer.written = self._usage.get("output_tokens", 0)
