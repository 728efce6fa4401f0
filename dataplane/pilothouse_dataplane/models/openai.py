"""OpenAI's chat completions protocol, streamed, with tool calls. Spoken by OpenAI, vLLM, llama.cpp, Ollama and others.

Source: https://platform.openai.com/docs/api-reference/chat-streaming
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from pilothouse_dataplane.core.messages import Message, ModelRequest, ToolCall
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

DEFAULT_BASE_URL = "https://api.openai.com/v1"
_MAX_TOOL_CALLS = 64
_MAX_ARGUMENT_CHARS = 65_536


def _is_last(data: bytes) -> bool:
    return data == b"[DONE]"


def message_body(message: Message) -> dict[str, Any]:
    """A message in the protocol's shape."""
    body: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        body["content"] = message.content or None
        body["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.role == "tool":
        body["tool_call_id"] = message.tool_call_id
    return body


def request_body(model: str, request: ModelRequest) -> dict[str, Any]:
    """The request's JSON."""
    body: dict[str, Any] = {
        "model": model,
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [message_body(message) for message in request.messages],
    }
    if request.tools and request.allow_tools:
        body["tools"] = [
            {
                "type": "function",
                "function": {"name": tool.model_name, "description": tool.description, "parameters": tool.parameters},
            }
            for tool in request.tools
        ]
    return body


class _Calls:
    """Tool calls that arrive in pieces, by index."""

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._parts: dict[int, list[str]] = {}
        self._names: dict[int, tuple[str, str]] = {}
        self._sizes: dict[int, int] = {}
        self.characters = 0

    def add(self, deltas: object) -> list[ToolCall]:
        """Take pieces in; the calls that are complete because a later one began."""
        complete = []
        for delta in deltas if isinstance(deltas, list) else ():
            index = int(delta.get("index") or 0)
            if index not in self._parts:
                if len(self._names) >= _MAX_TOOL_CALLS:
                    raise ModelUnavailable(f"The model provider {self._provider} sent too many tool calls")
                complete.extend(self.rest())
                self._parts[index] = []
                self._names[index] = ("", "")
                self._sizes[index] = 0
            function = delta.get("function") or {}
            known_id, known_name = self._names[index]
            self._names[index] = (delta.get("id") or known_id, function.get("name") or known_name)
            piece = function.get("arguments") or ""
            self._sizes[index] += len(piece)
            self.characters += len(piece)
            if self._sizes[index] > _MAX_ARGUMENT_CHARS:
                raise ModelUnavailable(f"The model provider {self._provider} sent arguments without end")
            self._parts[index].append(piece)
        return complete

    def rest(self) -> list[ToolCall]:
        """The calls that are not handed out yet."""
        calls = [ToolCall(*self._names[index], "".join(parts)) for index, parts in sorted(self._parts.items())]
        self._parts = {}
        return calls


class OpenAIProvider:
    """One endpoint that speaks chat completions."""

    def __init__(
        self, name: str, base_url: str | None, api_key: str | None, timeouts: ModelTimeouts | None = None
    ) -> None:
        self.name = name
        self._url = f"{(base_url or DEFAULT_BASE_URL).rstrip('/')}/chat/completions"
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._client = SseClient(name, timeouts or ModelTimeouts())

    async def aclose(self) -> None:
        await self._client.aclose()

    async def stream(self, model: str, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        calls = _Calls(self.name)
        written = 0
        usage: dict[str, Any] | None = None
        finished = False
        body = request_body(model, request)
        async with aclosing(self._client.post(self._url, self._headers, body, _is_last)) as events:
            async for data in events:
                if data == b"[DONE]":
                    finished = True
                    continue
                event = parse_event(self.name, data)
                usage = event.get("usage") or usage
                for choice in event.get("choices") or ():
                    delta = choice.get("delta") or {}
                    finished = finished or bool(choice.get("finish_reason"))
                    if text := delta.get("content"):
                        written += len(text)
                        yield ModelText(text)
                    for call in calls.add(delta.get("tool_calls")):
                        yield ModelToolCall(call)
        if not finished:
            raise ModelUnavailable(f"The model provider {self.name} broke off its answer")
        for call in calls.rest():
            yield ModelToolCall(call)
        if usage is not None:
            yield ModelDone(int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0))
        else:
            read = sum(len(message.content) for message in request.messages)
            yield ModelDone(estimate_tokens(read), estimate_tokens(written + calls.characters), estimated=True)
