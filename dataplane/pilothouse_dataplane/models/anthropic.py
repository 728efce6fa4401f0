"""Anthropic's messages protocol, streamed, with tool use.

Source: https://docs.anthropic.com/en/api/messages-streaming
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Any

from pilothouse_api.workerconfig import TargetConfig
from pilothouse_dataplane.core.messages import Message, ModelRequest
from pilothouse_dataplane.models.answer import (
    Calls,
    TextBound,
    as_count,
    as_object,
    as_text,
    sent_arguments,
    sent_name,
)
from pilothouse_dataplane.models.base import (
    ModelDone,
    ModelEvent,
    ModelText,
    ModelTimeouts,
    ModelToolCall,
    ModelUnavailable,
    estimate_tokens,
)
from pilothouse_dataplane.models.sse import SseClient, parse_event

DEFAULT_BASE_URL = "https://api.anthropic.com"
_MAX_TOKENS = 4096
"""The protocol wants a bound; an answer in a chat is far shorter."""
_READ_TOKENS = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")


def _is_last(data: bytes) -> bool:
    return b'"message_stop"' in data  # inside a text its quotes would be escaped


def _blocks(message: Message) -> list[dict[str, Any]]:
    if message.role == "tool":
        return [{"type": "tool_result", "tool_use_id": message.tool_call_id, "content": message.content}]
    blocks: list[dict[str, Any]] = [{"type": "text", "text": message.content}] if message.content else []
    for call in message.tool_calls:
        given = sent_arguments(call.arguments)
        blocks.append({"type": "tool_use", "id": call.id, "name": sent_name(call.name), "input": given})
    return blocks


def request_body(model: str, request: ModelRequest) -> dict[str, Any]:
    """The request's JSON: system apart, roles alternating, tool results as a user's blocks."""
    system = "\n\n".join(m.content for m in request.messages if m.role == "system")
    turns: list[dict[str, Any]] = []
    for message in request.messages:
        blocks = [] if message.role == "system" else _blocks(message)
        if not blocks:
            continue
        role = "assistant" if message.role == "assistant" else "user"
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"].extend(blocks)
        else:
            turns.append({"role": role, "content": blocks})
    body: dict[str, Any] = {"model": model, "max_tokens": _MAX_TOKENS, "stream": True, "messages": turns}
    if system:
        body["system"] = system
    # a conversation that holds tool blocks is refused without the tools' definitions
    if request.tools:
        body["tools"] = [
            {"name": tool.model_name, "description": tool.description, "input_schema": tool.parameters}
            for tool in request.tools
        ]
        if not request.allow_tools:
            body["tool_choice"] = {"type": "none"}
    return body


class AnthropicProvider:
    """One endpoint that speaks the messages protocol."""

    def __init__(
        self, name: str, base_url: str | None, api_key: str | None, timeouts: ModelTimeouts | None = None
    ) -> None:
        self.name = name
        self._url = f"{(base_url or DEFAULT_BASE_URL).rstrip('/').removesuffix('/v1')}/v1/messages"
        self._headers = {"anthropic-version": "2023-06-01", **({"x-api-key": api_key} if api_key else {})}
        self._client = SseClient(name, timeouts or ModelTimeouts())

    async def aclose(self) -> None:
        await self._client.aclose()

    async def stream(self, target: TargetConfig, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        answer = _Answer(self.name)
        stream = self._client.post(self._url, self._headers, request_body(target.model, request), _is_last)
        async with aclosing(stream) as batches:
            async for batch in batches:
                for data in batch:
                    for event in answer.take(parse_event(self.name, data)):
                        yield event
        if not answer.finished:
            raise ModelUnavailable(f"The model provider {self.name} broke off its answer")
        for call in answer.calls.rest():
            yield ModelToolCall(call)
        yield answer.done(request)


class _Answer:
    """One answer, event by event."""

    def __init__(self, provider: str) -> None:
        self.calls = Calls(provider)
        self.finished = False
        self._bound = TextBound(provider)
        self._tools: set[int] = set()
        """Indexes of the blocks that are tool calls."""
        self._read = self._written = 0

    def take(self, event: dict[str, Any]) -> Iterable[ModelEvent]:
        """What an event brings; an unknown one brings nothing. Raises ModelNonsense."""
        kind = event.get("type")
        index = as_count(event.get("index"))
        if kind == "content_block_delta":
            delta = as_object(event.get("delta"))
            if text := as_text(delta.get("text")):
                self._bound.add(text)
                return (ModelText(text),)
            if index in self._tools:
                self.calls.add(index, as_text(delta.get("partial_json")))
        elif kind == "content_block_start":
            block = as_object(event.get("content_block"))
            if block.get("type") != "tool_use":
                self._tools.discard(index)
                return ()
            # a block that was never stopped ends where the next one begins
            self._tools.add(index)
            before = self.calls.begin(index, as_text(block.get("id")), as_text(block.get("name")))
            return [ModelToolCall(call) for call in before]
        elif kind == "content_block_stop":
            if index in self._tools and (call := self.calls.give(index)):
                return (ModelToolCall(call),)
        elif kind == "message_start":
            usage = as_object(as_object(event.get("message")).get("usage"))
            self._read = sum(as_count(usage.get(part)) for part in _READ_TOKENS)
        elif kind == "message_delta":
            self._written = as_count(as_object(event.get("usage")).get("output_tokens")) or self._written
        elif kind == "message_stop":
            self.finished = True
        return ()

    def done(self, request: ModelRequest) -> ModelDone:
        """The end, with tokens that are guessed where the server sent none."""
        if self._read:
            return ModelDone(self._read, self._written)
        read = sum(len(message.content) for message in request.messages)
        written = self._written or estimate_tokens(self._bound.characters + self.calls.characters)
        return ModelDone(estimate_tokens(read), written, estimated=True)
