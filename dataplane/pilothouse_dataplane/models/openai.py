"""OpenAI's chat completions protocol, streamed, with tool calls. Spoken by OpenAI, vLLM, llama.cpp, Ollama and others.

Source: https://platform.openai.com/docs/api-reference/chat-streaming
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import orjson

from pilothouse_api.workerconfig import TargetConfig
from pilothouse_dataplane.core.messages import Message, ModelRequest, ToolCall
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

DEFAULT_BASE_URL = "https://api.openai.com/v1"


def _is_last(data: bytes) -> bool:
    return data == b"[DONE]"


def message_body(message: Message) -> dict[str, Any]:
    """A message in the protocol's shape."""
    body: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        body["content"] = message.content or None
        body["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                # servers parse what they get back into their templates: broken arguments would fail every later call
                "function": {
                    "name": sent_name(call.name),
                    "arguments": orjson.dumps(sent_arguments(call.arguments)).decode(),
                },
            }
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

    async def stream(self, target: TargetConfig, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        calls = Calls(self.name)
        bound = TextBound(self.name)
        usage: dict[str, Any] = {}
        finished = False
        stream = self._client.post(self._url, self._headers, request_body(target.model, request), _is_last)
        async with aclosing(stream) as batches:
            async for batch in batches:
                for data in batch:
                    if data == b"[DONE]":
                        finished = True
                        continue
                    event = parse_event(self.name, data)
                    usage = as_object(event.get("usage")) or usage
                    choices = event.get("choices")
                    choice = as_object(choices[0]) if isinstance(choices, list) and choices else {}
                    delta = as_object(choice.get("delta"))
                    if choice.get("finish_reason"):
                        finished = True
                    if text := as_text(delta.get("content")):
                        bound.add(text)
                        yield ModelText(text)
                    if pieces := delta.get("tool_calls"):
                        for call in _take(calls, pieces):
                            yield ModelToolCall(call)
        if not finished:
            raise ModelUnavailable(f"The model provider {self.name} broke off its answer")
        for call in calls.rest():
            yield ModelToolCall(call)
        yield _done(usage, request, bound.characters + calls.characters)


def _take(calls: Calls, pieces: object) -> list[ToolCall]:
    """Take the pieces of a chunk in; the calls that are whole by themselves, or because a later one began."""
    whole = []
    for entry in pieces if isinstance(pieces, list) else ():
        piece = as_object(entry)
        function = as_object(piece.get("function"))
        index = as_count(piece.get("index"))
        call_id, name = as_text(piece.get("id")), as_text(function.get("name"))
        if calls.begins(index, call_id, name):
            whole.extend(calls.begin(index, call_id, name))
        if calls.add(index, as_text(function.get("arguments")), call_id, name) and (call := calls.give(index)):
            whole.append(call)
    return whole


def _done(usage: dict[str, Any], request: ModelRequest, written: int) -> ModelDone:
    read_tokens, written_tokens = as_count(usage.get("prompt_tokens")), as_count(usage.get("completion_tokens"))
    if read_tokens:
        return ModelDone(read_tokens, written_tokens)
    # a call that is not counted would escape the budget
    read = sum(len(message.content) for message in request.messages)
    return ModelDone(estimate_tokens(read), written_tokens or estimate_tokens(written), estimated=True)
