"""Anthropic's messages: reads a request, and writes an answer or its stream's events."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from aiohttp import web

from pilothouse_sim.models.openai import BadRequest, completion_tokens, schema_names, text_of
from pilothouse_sim.models.stream import fragments, words
from pilothouse_sim.models.types import Call, Message, Reply, Tool, approximate_tokens


def error_response(status: int, sentence: str) -> web.Response:
    """An error in Anthropic's shape."""
    kinds = {400: "invalid_request_error", 404: "not_found_error", 429: "rate_limit_error", 529: "overloaded_error"}
    body = {"type": "error", "error": {"type": kinds.get(status, "api_error"), "message": sentence}}
    return web.json_response(body, status=status)


def read_messages(body: Mapping[str, Any]) -> list[Message]:
    """The conversation; a user's tool_result blocks become messages of role tool. Raises ``BadRequest``."""
    given = body.get("messages")
    if not isinstance(given, list) or not given:
        raise BadRequest("messages: at least one message is required")
    if not isinstance(body.get("max_tokens"), int):
        raise BadRequest("max_tokens: Field required")
    messages: list[Message] = []
    for number, entry in enumerate(given):
        if not isinstance(entry, dict) or entry.get("role") not in ("user", "assistant"):
            raise BadRequest(f"messages.{number}.role: must be user or assistant")
        content = entry.get("content")
        blocks = [b for b in content if isinstance(b, dict)] if isinstance(content, list) else []
        for block in blocks:
            if block.get("type") == "tool_result":
                messages.append(Message("tool", text_of(block.get("content")), (), str(block.get("tool_use_id", ""))))
        calls = tuple(
            (str(b.get("id", "")), Call(str(b.get("name", "")), b["input"] if isinstance(b.get("input"), dict) else {}))
            for b in blocks
            if b.get("type") == "tool_use"
        )
        text = text_of(content)
        if text or calls:
            messages.append(Message(entry["role"], text, calls))
    return messages


def read_tools(body: Mapping[str, Any]) -> list[Tool]:
    """The offered tools; none where ``tool_choice`` says so."""
    choice = body.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") == "none":
        return []
    return [
        Tool(tool["name"], schema_names(tool.get("input_schema")))
        for tool in body.get("tools") or []
        if isinstance(tool, dict) and isinstance(tool.get("name"), str)
    ]


def prompt_tokens(body: Mapping[str, Any]) -> int:
    """Tokens of system prompt, messages and tools, approximately."""
    return sum(approximate_tokens(json.dumps(body[n])) for n in ("system", "messages", "tools") if body.get(n))


def _blocks(reply: Reply) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = [{"type": "text", "text": reply.text}] if reply.text else []
    for call in reply.calls:
        tool_id = f"toolu_{uuid.uuid4().hex[:24]}"
        blocks.append({"type": "tool_use", "id": tool_id, "name": call.name, "input": dict(call.arguments)})
    return blocks


def _message(reply: Reply, model: str, prompt: int) -> dict[str, Any]:
    return {
        "id": f"msg_{uuid.uuid4().hex[:24]}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": _blocks(reply),
        "stop_reason": "tool_use" if reply.calls else "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": prompt, "output_tokens": completion_tokens(reply)},
    }


def completion(reply: Reply, model: str, prompt: int) -> dict[str, Any]:
    """The body of an answer that is not streamed."""
    return _message(reply, model, prompt)


def events(reply: Reply, model: str, prompt: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """(text that the event carries, event) of a streamed answer, message_start to message_stop."""
    message = _message(reply, model, prompt)
    empty = {**message, "content": [], "stop_reason": None, "usage": {"input_tokens": prompt, "output_tokens": 1}}
    yield "", {"type": "message_start", "message": empty}
    for index, block in enumerate(message["content"]):
        tool = block["type"] == "tool_use"
        start = {**block, "input": {}} if tool else {**block, "text": ""}
        yield "", {"type": "content_block_start", "index": index, "content_block": start}
        for piece in fragments(json.dumps(block["input"])) if tool else words(block["text"]):
            delta = (
                {"type": "input_json_delta", "partial_json": piece} if tool else {"type": "text_delta", "text": piece}
            )
            yield piece, {"type": "content_block_delta", "index": index, "delta": delta}
        yield "", {"type": "content_block_stop", "index": index}
    yield (
        "",
        {
            "type": "message_delta",
            "delta": {"stop_reason": message["stop_reason"], "stop_sequence": None},
            "usage": {"output_tokens": message["usage"]["output_tokens"]},
        },
    )
    yield "", {"type": "message_stop"}
