"""OpenAI's responses protocol, streamed, with function calls. Spoken by OpenAI, Azure and some others.

Nothing is stored at the vendor (``store`` false): each request carries the whole conversation, and the sealed reasoning
items of the loop of tool calls under way, where they are known (``thoughts.py``). A call is sent back without its
item's id, so the vendor doesn't look for a reasoning item that belongs to it.

Source: https://platform.openai.com/docs/api-reference/responses-streaming
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
from pilothouse_dataplane.models.errors import Fault, event_error, read_fault
from pilothouse_dataplane.models.openai import (
    DEFAULT_BASE_URL,
    cache_key,
    endpoint,
    fits_strict,
    is_vendor,
    key_headers,
)
from pilothouse_dataplane.models.sse import SseClient
from pilothouse_dataplane.models.thoughts import Part, Thoughts

_LAST = re.compile(rb'"type"\s*:\s*"response\.(?:completed|incomplete|failed)"')
_STOPS: dict[str, Stop] = {"max_output_tokens": "length", "content_filter": "filter"}


def _is_last(data: bytes) -> object:
    return _LAST.search(data) if data.startswith(b"{") else data.startswith(b"[DONE]")


def _call(call: ToolCall) -> dict[str, Any]:
    return {
        "type": "function_call",
        "call_id": call.id,
        "name": sent_name(call.name),
        "arguments": orjson.dumps(sent_arguments(call.arguments)).decode(),
    }


def items(model: str, message: Message, thoughts: Thoughts | None = None) -> list[dict[str, Any]]:
    """A message as items of the protocol."""
    if message.role == "tool":
        return [{"type": "function_call_output", "call_id": message.tool_call_id, "output": message.content}]
    text: dict[str, Any] = {"role": message.role, "content": message.content}
    recalled = thoughts.recall(model, message) if thoughts else None
    if recalled is None:
        made = [text] if message.content or not message.tool_calls else []
        return made + [_call(call) for call in message.tool_calls]
    return [text if each == "text" else _call(each) if isinstance(each, ToolCall) else each for each in recalled]


def request_body(
    target: TargetConfig, request: ModelRequest, *, vendor: bool = False, thoughts: Thoughts | None = None
) -> dict[str, Any]:
    """The request's JSON. ``vendor``: it goes to OpenAI or Azure."""
    body: dict[str, Any] = {
        "model": target.model,
        "stream": True,
        "store": False,
        "max_output_tokens": target.max_output_tokens,
    }
    if vendor:
        body["include"] = ["reasoning.encrypted_content"]
        if key := cache_key(request):
            body["prompt_cache_key"] = key
    if target.reasoning:
        body["reasoning"] = {"effort": target.reasoning}
    if (schema := request.response_schema) is not None:
        body["text"] = {
            "format": {"type": "json_schema", "name": "answer", "schema": schema, "strict": fits_strict(schema)}
        }
    if request.tools and (request.allow_tools or vendor):
        body["tools"] = [
            {
                "type": "function",
                "name": tool.model_name,
                "description": tool.description,
                "parameters": tool.parameters,
                "strict": False,  # else the vendor makes every argument a required one
            }
            for tool in request.tools
        ]
        if not request.allow_tools:
            body["tool_choice"] = "none"
    body["input"] = [item for message in request.messages for item in items(target.model, message, thoughts)]
    return body


class ResponsesProvider:
    """One endpoint that speaks responses."""

    def __init__(
        self, name: str, base_url: str | None, api_key: str | None, timeouts: ModelTimeouts | None = None
    ) -> None:
        """Raises ProviderConfigError."""
        self.name = name
        self._url = endpoint(name, base_url or DEFAULT_BASE_URL, "/responses")
        self._vendor = is_vendor(self._url)
        self._client = SseClient(name, timeouts or ModelTimeouts(), key_headers(self._url, api_key), api_key)
        self._thoughts = Thoughts()

    async def aclose(self) -> None:
        await self._client.aclose()

    async def stream(self, target: TargetConfig, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        body = orjson.dumps(request_body(target, request, vendor=self._vendor, thoughts=self._thoughts))
        answer = Answer(self.name, len(body), target.max_output_tokens)
        reader = _Reader(self.name, answer)
        stream = self._client.post(self._url, body, _is_last)
        del body
        began = False
        try:
            async with aclosing(stream) as batches:
                async for batch in batches:
                    began = True
                    for data in batch:
                        if not data.startswith(b"[DONE]"):
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

    def __init__(self, provider: str, answer: Answer) -> None:
        self.parts: list[Part] = []
        self._provider = provider
        self._answer = answer
        self._said: set[int] = set()
        """Items whose text came in deltas."""

    def take(self, event: dict[str, Any]) -> Iterable[ModelEvent]:
        """What an event brings; an unknown one brings nothing. Raises ModelError."""
        kind = as_text(event.get("type"))
        index = as_count(event.get("output_index"))
        calls = self._answer.calls
        if kind == "response.output_text.delta" or kind == "response.refusal.delta":
            if kind == "response.refusal.delta":
                self._answer.stop = "refusal"
            self._said.add(index)
            if text := as_text(event.get("delta")):
                return (self._answer.text(text),)
        elif kind == "response.function_call_arguments.delta":
            if not calls.begins(index, "", ""):
                return map(ModelToolCall, calls.add(index, as_text(event.get("delta"))))
        elif kind == "response.function_call_arguments.done":
            return map(ModelToolCall, calls.stop(index, as_text(event.get("arguments"))))
        elif kind == "response.output_item.added":
            item = as_object(event.get("item"))
            if item.get("type") == "function_call":
                return map(ModelToolCall, self._begin(index, item))
        elif kind == "response.output_item.done":
            return self._item(index, as_object(event.get("item")))
        elif kind in ("response.completed", "response.incomplete", "response.failed"):
            self._end(kind, as_object(event.get("response")))
        elif kind == "error":
            raise event_error(self._provider, read_fault({"error": event}) or Fault())
        return ()

    def _begin(self, index: int, item: dict[str, Any]) -> list[ToolCall]:
        self.parts.append("call")
        return self._answer.calls.begin(index, as_text(item.get("call_id")), as_text(item.get("name")))

    def _item(self, index: int, item: dict[str, Any]) -> Iterable[ModelEvent]:
        """An item is whole."""
        kind = item.get("type")
        if kind == "reasoning":
            if item.get("encrypted_content"):
                self.parts.append(
                    {name: item[name] for name in ("type", "id", "summary", "encrypted_content") if name in item}
                )
        elif kind == "function_call":
            ready = self._begin(index, item) if self._answer.calls.begins(index, "", "") else []
            ready += self._answer.calls.stop(index, as_text(item.get("arguments")))
            return map(ModelToolCall, ready)
        elif kind == "message":
            self.parts.append("text")
            if index not in self._said:  # a server that sends no deltas
                content = item.get("content")
                parts = [as_object(part) for part in content] if isinstance(content, list) else []
                texts = [as_text(part.get("text")) or as_text(part.get("refusal")) for part in parts]
                if any(part.get("type") == "refusal" for part in parts):
                    self._answer.stop = "refusal"
                return [self._answer.text(text) for text in texts if text]
        return ()

    def _end(self, kind: str, response: dict[str, Any]) -> None:
        answer = self._answer
        usage = as_object(response.get("usage"))
        answer.read, answer.written = as_count(usage.get("input_tokens")), as_count(usage.get("output_tokens"))
        answer.cached = as_count(as_object(usage.get("input_tokens_details")).get("cached_tokens"))
        if kind == "response.failed":
            raise event_error(self._provider, read_fault({"error": response.get("error")}) or Fault())
        reason = as_text(as_object(response.get("incomplete_details")).get("reason"))
        answer.stop = _STOPS.get(reason, answer.stop)
        answer.finished = True
