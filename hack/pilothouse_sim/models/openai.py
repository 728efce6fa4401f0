"""OpenAI's chat completions: reads requests leniently where OpenAI is lenient, and writes its chunks exactly."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from aiohttp import web

from pilothouse_sim.models.stream import fragments, words
from pilothouse_sim.models.types import Call, Message, Reply, Tool, approximate_tokens

PROMPT_OVERHEAD = 4
"""Tokens that the chat template adds to each message, approximately."""


class BadRequest(Exception):
    """A request that no model server would accept; the sentence names the field."""


def error_response(status: int, sentence: str) -> web.Response:
    """An error in OpenAI's shape."""
    kind = {400: "invalid_request_error", 404: "invalid_request_error", 429: "rate_limit_error"}.get(
        status, "server_error"
    )
    body = {"error": {"message": sentence, "type": kind, "param": None, "code": None}}
    return web.json_response(body, status=status)


def text_of(content: object) -> str:
    """The text of a message's content: a string, a list of parts, or nothing."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(str(p.get("text", "")) for p in content if isinstance(p, dict) and p.get("type") == "text")
    return ""


def read_messages(body: Mapping[str, Any]) -> list[Message]:
    """The conversation. Raises ``BadRequest``."""
    given = body.get("messages")
    if not isinstance(given, list) or not given:
        raise BadRequest("'messages' must be a non-empty array.")
    messages = []
    for number, entry in enumerate(given):
        if not isinstance(entry, dict) or not isinstance(entry.get("role"), str):
            raise BadRequest(f"'messages[{number}].role' must be a string.")
        calls = [read_call(call) for call in entry.get("tool_calls") or [] if isinstance(call, dict)]
        messages.append(
            Message(entry["role"], text_of(entry.get("content")), tuple(calls), str(entry.get("tool_call_id", "")))
        )
    return messages


def read_call(call: Mapping[str, Any]) -> tuple[str, Call]:
    """Id and call of an assistant message's tool call; arguments that are not a JSON object are read as none."""
    function = call.get("function")
    function = function if isinstance(function, dict) else {}
    try:
        arguments = json.loads(function.get("arguments") or "{}")
    except (ValueError, TypeError):
        arguments = {}
    return str(call.get("id", "")), Call(
        str(function.get("name", "")), arguments if isinstance(arguments, dict) else {}
    )


def read_tools(body: Mapping[str, Any]) -> list[Tool]:
    """The offered functions; none where ``tool_choice`` is "none"."""
    if body.get("tool_choice") == "none":
        return []
    tools = []
    for entry in body.get("tools") or []:
        function = entry.get("function") if isinstance(entry, dict) else None
        if isinstance(function, dict) and isinstance(function.get("name"), str):
            tools.append(Tool(function["name"], schema_names(function.get("parameters"))))
    return tools


def schema_names(schema: object) -> frozenset[str]:
    """The property names of a JSON Schema object."""
    properties = schema.get("properties") if isinstance(schema, dict) else None
    return frozenset(properties) if isinstance(properties, dict) else frozenset()


def prompt_tokens(body: Mapping[str, Any]) -> int:
    """Tokens of messages and tools, approximately (four characters of their JSON text a token)."""
    messages = body.get("messages") or []
    tools = json.dumps(body.get("tools")) if body.get("tools") else ""
    text = sum(approximate_tokens(text_of(m.get("content")) + json.dumps(m.get("tool_calls") or "")) for m in messages)
    return text + PROMPT_OVERHEAD * len(messages) + approximate_tokens(tools)


def completion_tokens(reply: Reply) -> int:
    """Tokens of a reply, its calls' names and arguments included."""
    calls = sum(approximate_tokens(call.name + json.dumps(dict(call.arguments))) for call in reply.calls)
    return approximate_tokens(reply.text) + calls


def _usage(prompt: int, reply: Reply) -> dict[str, int]:
    completion = completion_tokens(reply)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _tool_calls(reply: Reply) -> list[dict[str, Any]]:
    return [
        {
            "id": f"call_{uuid.uuid4().hex[:24]}",
            "type": "function",
            "function": {"name": call.name, "arguments": json.dumps(dict(call.arguments))},
        }
        for call in reply.calls
    ]


def completion(reply: Reply, model: str, prompt: int) -> dict[str, Any]:
    """The body of an answer that is not streamed."""
    message: dict[str, Any] = {"role": "assistant", "content": reply.text or None, "refusal": None}
    if reply.calls:
        message["tool_calls"] = _tool_calls(reply)
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex[:24]}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [
            {"index": 0, "message": message, "logprobs": None, "finish_reason": "tool_calls" if reply.calls else "stop"}
        ],
        "usage": _usage(prompt, reply),
    }


def chunks(reply: Reply, model: str, prompt: int, *, include_usage: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """(text that the chunk carries, chunk): role, content or calls, finish_reason, and usage where asked for."""
    frame: dict[str, Any] = {
        "id": f"chatcmpl-{uuid.uuid4().hex[:24]}",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": model,
    }

    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        body = {**frame, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]}
        return {**body, "usage": None} if include_usage else body

    yield "", chunk({"role": "assistant", "content": None if reply.calls else ""})
    for piece in words(reply.text):
        yield piece, chunk({"content": piece})
    for index, call in enumerate(_tool_calls(reply)):
        function = call["function"]
        start = {"index": index, **call, "function": {"name": function["name"], "arguments": ""}}
        yield function["name"], chunk({"tool_calls": [start]})
        for piece in fragments(function["arguments"]):
            yield piece, chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    yield "", chunk({}, "tool_calls" if reply.calls else "stop")
    if include_usage:
        yield "", {**frame, "choices": [], "usage": _usage(prompt, reply)}
