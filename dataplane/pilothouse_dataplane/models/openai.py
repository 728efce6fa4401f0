"""OpenAI's chat completions protocol, streamed, with tool calls: OpenAI, Azure, vLLM, Ollama, Groq and others.

Source: https://platform.openai.com/docs/api-reference/chat-streaming

Where servers differ, by address:

- OpenAI and Azure get ``max_completion_tokens``; others ``max_tokens``, the only name that Ollama and LM Studio obey
  (they pass over the newer one without a word) and that vLLM still takes. A target with ``reasoning`` gets the newer
  name in any case, since reasoning models refuse the older one.
- OpenAI and Azure get ``prompt_cache_key``, and keep the tools with ``tool_choice`` none where the model must answer
  now, so that the prompt's start stays the same and is served from their cache. Others get neither: some refuse fields
  that they don't know, and some call tools in spite of ``none``.
- Azure takes the key in ``api-key``. Its base URL is ``https://NAME.openai.azure.com/openai/v1``, or that of one
  deployment with its query: ``…/openai/deployments/NAME?api-version=…``.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

import orjson
from yarl import URL

from pilothouse_api.workerconfig import TargetConfig
from pilothouse_dataplane.core.messages import Message, ModelRequest, ToolCall
from pilothouse_dataplane.models.answer import (
    Answer,
    Calls,
    as_count,
    as_object,
    as_text,
    sent_arguments,
    sent_name,
)
from pilothouse_dataplane.models.base import (
    ModelError,
    ModelEvent,
    ModelTimeouts,
    ModelToolCall,
    ModelUnavailable,
    ProviderConfigError,
    Stop,
)
from pilothouse_dataplane.models.sse import SseClient

DEFAULT_BASE_URL = "https://api.openai.com/v1"
_AZURE_HOSTS = (".azure.com", ".azure.us", ".azure.cn")
_STOPS: dict[str, Stop] = {"length": "length", "content_filter": "filter"}


def endpoint(provider: str, base_url: str, path: str) -> URL:
    """The address of a call; the base URL's query stays. Raises ProviderConfigError."""
    try:
        url = URL(base_url)
    except ValueError:
        url = URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise ProviderConfigError(
            f"The base URL of the model provider {provider} is no http or https address, so it can't be asked; a "
            "platform operator must correct it"
        )
    return url.with_path(url.path.rstrip("/") + path).with_query(url.query)


def is_azure(url: URL) -> bool:
    """Whether it is one of Microsoft's addresses."""
    return (url.host or "").endswith(_AZURE_HOSTS)


def is_vendor(url: URL) -> bool:
    """Whether it is OpenAI's own service, or Azure's."""
    host = url.host or ""
    return host == "api.openai.com" or host.endswith(".api.openai.com") or is_azure(url)


def key_headers(url: URL, api_key: str | None) -> dict[str, str]:
    """The key as that address wants it."""
    if not api_key:
        return {}
    return {"api-key": api_key} if is_azure(url) else {"Authorization": f"Bearer {api_key}"}


def cache_key(request: ModelRequest) -> str:
    """What routes a user's calls to the same cache of prompts: one user stays under the vendor's rate for one key."""
    user = request.situation.user_email if request.situation else ""
    return hashlib.sha256(user.encode()).hexdigest()[:32] if user else ""


def fits_strict(schema: object) -> bool:
    """Whether the vendor's strict mode takes a schema: every object lists all its properties and allows no others."""
    if isinstance(schema, list):
        return all(fits_strict(each) for each in schema)
    if not isinstance(schema, Mapping):
        return True
    if schema.get("type") == "object" or "properties" in schema:
        properties = schema.get("properties") or {}
        if schema.get("additionalProperties") is not False or set(schema.get("required") or ()) != set(properties):
            return False
        if not all(fits_strict(each) for each in properties.values()):
            return False
    return all(fits_strict(value) for name, value in schema.items() if name in ("items", "anyOf", "$defs")) and all(
        fits_strict(each) for each in (schema.get("$defs") or {}).values()
    )


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


def request_body(target: TargetConfig, request: ModelRequest, *, vendor: bool = False) -> dict[str, Any]:
    """The request's JSON. What differs from call to call comes last, so that the start can be served from a cache.

    ``vendor``: it goes to OpenAI or Azure.
    """
    body: dict[str, Any] = {
        "model": target.model,
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_completion_tokens" if vendor or target.reasoning else "max_tokens": target.max_output_tokens,
    }
    if target.reasoning:
        body["reasoning_effort"] = target.reasoning
    if vendor and (key := cache_key(request)):
        body["prompt_cache_key"] = key
    if request.response_schema is not None:
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {
                "name": "answer",
                "schema": request.response_schema,
                "strict": fits_strict(request.response_schema),
            },
        }
    if request.tools and (request.allow_tools or vendor):
        body["tools"] = [
            {
                "type": "function",
                "function": {"name": tool.model_name, "description": tool.description, "parameters": tool.parameters},
            }
            for tool in request.tools
        ]
        if not request.allow_tools:
            body["tool_choice"] = "none"
    body["messages"] = [message_body(message) for message in request.messages]
    return body


def _is_last(data: bytes) -> bool:
    return data.startswith(b"[DONE]")


class OpenAIProvider:
    """One endpoint that speaks chat completions."""

    def __init__(
        self, name: str, base_url: str | None, api_key: str | None, timeouts: ModelTimeouts | None = None
    ) -> None:
        """Raises ProviderConfigError."""
        self.name = name
        self._url = endpoint(name, base_url or DEFAULT_BASE_URL, "/chat/completions")
        self._vendor = is_vendor(self._url)
        self._client = SseClient(name, timeouts or ModelTimeouts(), key_headers(self._url, api_key), api_key)

    async def aclose(self) -> None:
        await self._client.aclose()

    async def stream(self, target: TargetConfig, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        body = orjson.dumps(request_body(target, request, vendor=self._vendor))
        answer = Answer(self.name, len(body), target.max_output_tokens)
        stream = self._client.post(self._url, body, _is_last)
        del body  # it is large, and the answer may take minutes
        began = False
        try:
            async with aclosing(stream) as batches:
                async for batch in batches:
                    began = True
                    for data in batch:
                        if data.startswith(b"[DONE]"):
                            answer.finished = True
                            continue
                        event = self._client.parse(data)
                        if usage := event.get("usage"):
                            _count(answer, as_object(usage))
                        choices = event.get("choices")
                        choice = as_object(choices[0]) if isinstance(choices, list) and choices else {}
                        delta = as_object(choice.get("delta"))
                        if text := as_text(delta.get("content")):
                            yield answer.text(text)
                        if refusal := as_text(delta.get("refusal")):
                            answer.stop = "refusal"
                            yield answer.text(refusal)
                        if pieces := delta.get("tool_calls"):
                            for call in _take(answer.calls, pieces):
                                yield ModelToolCall(call)
                        if reason := choice.get("finish_reason"):
                            answer.finished = True
                            answer.stop = _STOPS.get(as_text(reason), answer.stop)
            if not answer.finished:
                raise ModelUnavailable(f"The model provider {self.name} broke off its answer")
            for last in answer.end():
                yield last
        except ModelError as error:
            if began:
                error.spent = answer.spent()
            raise


def _take(calls: Calls, pieces: object) -> list[ToolCall]:
    """Take the pieces of a chunk in; the calls that can be handed out now."""
    ready: list[ToolCall] = []
    for entry in pieces if isinstance(pieces, list) else ():
        piece = as_object(entry)
        function = as_object(piece.get("function"))
        index = as_count(piece.get("index"))
        call_id, name = as_text(piece.get("id")), as_text(function.get("name"))
        if calls.begins(index, call_id, name):
            ready += calls.begin(index, call_id, name)
        ready += calls.add(index, as_text(function.get("arguments")), call_id, name)
    return ready


def _count(answer: Answer, usage: dict[str, Any]) -> None:
    answer.read = as_count(usage.get("prompt_tokens")) or answer.read
    answer.written = as_count(usage.get("completion_tokens")) or answer.written
    details = as_object(usage.get("prompt_tokens_details"))
    # DeepSeek names it apart
    answer.cached = as_count(details.get("cached_tokens")) or as_count(usage.get("prompt_cache_hit_tokens"))
