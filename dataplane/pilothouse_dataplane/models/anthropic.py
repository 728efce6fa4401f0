"""Anthropic's messages protocol, streamed, with tool use.

Source: https://docs.anthropic.com/en/api/messages-streaming
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import orjson

from pilothouse_dataplane.core.messages import Message, ModelRequest, ToolCall
from pilothouse_dataplane.models.base import (
    ModelDone,
    ModelEvent,
    ModelText,
    ModelTimeouts,
    ModelToolCall,
    ModelUnavailable,
)
from pilothouse_dataplane.models.sse import SseClient, parse_event

DEFAULT_BASE_URL = "https://api.anthropic.com"
_MAX_TOKENS = 4096
"""The protocol wants a bound; an answer in a chat is far shorter."""
_MAX_ARGUMENT_CHARS = 65_536


def _is_last(data: bytes) -> bool:
    return b'"message_stop"' in data  # inside a text its quotes would be escaped


def _blocks(message: Message) -> list[dict[str, Any]]:
    if message.role == "tool":
        return [{"type": "tool_result", "tool_use_id": message.tool_call_id, "content": message.content}]
    blocks: list[dict[str, Any]] = [{"type": "text", "text": message.content}] if message.content else []
    for call in message.tool_calls:
        try:
            given = orjson.loads(call.arguments or "{}")
        except orjson.JSONDecodeError:
            given = {}  # the protocol takes objects only; the tool's result says that the arguments were broken
        given = given if isinstance(given, dict) else {}
        blocks.append({"type": "tool_use", "id": call.id, "name": call.name, "input": given})
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

    async def stream(self, model: str, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        read = written = 0
        finished = False
        tool: tuple[str, str] | None = None
        parts: list[str] = []
        body = request_body(model, request)
        async with aclosing(self._client.post(self._url, self._headers, body, _is_last)) as events:
            async for data in events:
                event = parse_event(self.name, data)
                kind = event.get("type")
                if kind == "message_start":
                    usage = (event.get("message") or {}).get("usage") or {}
                    read = sum(
                        int(usage.get(part) or 0)
                        for part in ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
                    )
                elif kind == "content_block_start":
                    block = event.get("content_block") or {}
                    tool = (block.get("id", ""), block.get("name", "")) if block.get("type") == "tool_use" else None
                    parts = []
                elif kind == "content_block_delta":
                    delta = event.get("delta") or {}
                    if text := delta.get("text"):
                        yield ModelText(text)
                    parts.append(delta.get("partial_json") or "")
                    if sum(map(len, parts)) > _MAX_ARGUMENT_CHARS:
                        raise ModelUnavailable(f"The model provider {self.name} sent arguments without end")
                elif kind == "content_block_stop" and tool is not None:
                    yield ModelToolCall(ToolCall(*tool, "".join(parts)))
                    tool = None
                elif kind == "message_delta":
                    written = int((event.get("usage") or {}).get("output_tokens") or written)
                elif kind == "message_stop":
                    finished = True
        if not finished:
            raise ModelUnavailable(f"The model provider {self.name} broke off its answer")
        yield ModelDone(read, written)
