"""Anthropic's messages: refuses what Anthropic refuses, and writes an answer or its stream's events.

Sources: https://docs.anthropic.com/en/api/messages and …/messages-streaming
"""

from __future__ import annotations

import base64
import json
import re
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from pilothouse_sim.models.exchange import Answer, Asked, Frame, Tokens, dump, require, schema_names
from pilothouse_sim.models.openai import read_call, text_of
from pilothouse_sim.models.stream import fragments, words
from pilothouse_sim.models.types import Call, Message, Tool, approximate_tokens

LEAST_THINKING = 1024
MOST_MARKS = 4
_WORDS = (
    "cache_control container inference_geo max_tokens mcp_servers messages metadata model output_config "
    "service_tier stop_sequences stream system temperature thinking tool_choice tools top_k top_p"
)
_FIELDS = frozenset(_WORDS.split())
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_ID = re.compile(r"[a-zA-Z0-9_-]+")
_BLOCKS = ("text", "tool_use", "tool_result", "image", "document", "thinking", "redacted_thinking")
_STOP = {"": "end_turn", "length": "max_tokens", "content_filter": "refusal"}


def read(body: Mapping[str, Any]) -> Asked:
    """A request. Raises BadRequest in Anthropic's words."""
    for name in body:
        require(name in _FIELDS, f"{name}: Extra inputs are not permitted")
    for name, kind in (("model", str), ("max_tokens", int), ("messages", list)):
        require(name in body, f"{name}: Field required")
        require(isinstance(body[name], kind), f"{name}: Input should be a valid {kind.__name__}")
    most = body["max_tokens"]
    require(most >= 1, "max_tokens: Input should be greater than or equal to 1")
    thinks = _thinking(body, most)
    messages = _messages(body["messages"])
    system = body.get("system")
    if system is not None:
        require(isinstance(system, str | list), "system: Input should be a valid string")
        messages.insert(0, Message("system", text_of(system)))
    tools = _tools(body)
    parts, marks = _parts(body)
    return Asked(
        model=body["model"],
        messages=messages,
        tools=tools,
        prompt=sum(approximate_tokens(dump(body[n])) for n in ("system", "messages", "tools") if body.get(n)),
        parts=parts,
        marks=marks,
        stream=bool(body.get("stream")),
        max_tokens=most,
        thinks=thinks,
        tells_thoughts=thinks,
        schema=_schema(body.get("output_config")),
    )


def _thinking(body: Mapping[str, Any], most: int) -> bool:
    given = body.get("thinking")
    if given is None:
        return False
    kind = given.get("type") if isinstance(given, dict) else None
    require(kind in ("enabled", "disabled", "adaptive"), "thinking: Input tag does not match any of the expected tags")
    assert isinstance(given, dict)
    if kind == "disabled":
        return False
    if kind == "enabled":
        budget = given.get("budget_tokens")
        require(isinstance(budget, int), "thinking.enabled.budget_tokens: Field required")
        assert isinstance(budget, int)
        least = "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024"
        require(budget >= LEAST_THINKING, least)
        require(most > budget, "`max_tokens` must be greater than `thinking.budget_tokens`.")
    temperature = body.get("temperature")
    require(temperature in (None, 1), "`temperature` may only be set to 1 when thinking is enabled.")
    choice = body.get("tool_choice")
    forced = isinstance(choice, dict) and choice.get("type") in ("any", "tool")
    require(not forced, "Thinking may not be enabled when tool_choice forces tool use.")
    return True


def _messages(given: list[Any]) -> list[Message]:
    """The conversation; a user's tool_result blocks become messages of role tool."""
    require(given, "messages: at least one message is required")
    messages: list[Message] = []
    used: list[str] = []
    for number, entry in enumerate(given):
        at = f"messages.{number}"
        require(isinstance(entry, dict), f"{at}: Input should be a valid dictionary or object")
        for name in entry:
            require(name in ("role", "content"), f"{at}.{name}: Extra inputs are not permitted")
        role, content = entry.get("role"), entry.get("content")
        require(
            role != "system",
            'messages: Unexpected role "system". The Messages API accepts a top-level `system` parameter, not "system" '
            "as an input message role.",
        )
        require(role in ("user", "assistant"), f"{at}.role: Input should be 'user' or 'assistant'")
        require(number or role == "user", 'messages: first message must use the "user" role')
        require(isinstance(content, str | list), f"{at}.content: Input should be a valid list")
        require(
            content or (role == "assistant" and number == len(given) - 1),
            f"{at}: all messages must have non-empty content except for the optional final assistant message",
        )
        blocks = _blocks_of(content, at)
        if role == "user":
            _results(blocks, used, number, messages)
            used = []
        else:
            _none_waits(used, number)
            used = [str(block["id"]) for block in blocks if block["type"] == "tool_use"]
        calls = tuple(
            (str(block["id"]), Call(str(block["name"]), block["input"]))
            for block in blocks
            if block["type"] == "tool_use"
        )
        if (text := text_of(content)) or calls:
            messages.append(Message(str(role), text, calls))
    _none_waits(used, len(given))
    return messages


def _none_waits(used: list[str], number: int) -> None:
    require(
        not used,
        f"messages.{number - 1}: `tool_use` ids were found without `tool_result` blocks immediately after: "
        f"{', '.join(used)}. Each `tool_use` block must have a corresponding `tool_result` block in the next message.",
    )


def _blocks_of(content: object, at: str) -> list[dict[str, Any]]:
    blocks = content if isinstance(content, list) else []
    for number, block in enumerate(blocks):
        where = f"{at}.content.{number}"
        require(isinstance(block, dict), f"{where}: Input should be a valid dictionary or object")
        kind = block.get("type")
        require(
            kind in _BLOCKS, f"{where}: Input tag '{kind}' found using 'type' does not match any of the expected tags"
        )
        if kind == "text":
            require(isinstance(block.get("text"), str), f"{where}.text.text: Field required")
            require(block["text"], "messages: text content blocks must be non-empty")
            require(block["text"].strip(), "messages: text content blocks must contain non-whitespace text")
        if kind == "tool_use":
            _check_id(block.get("id"), f"{where}.tool_use.id")
            name = block.get("name")
            pattern = f"{where}.tool_use.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'"
            require(isinstance(name, str) and _NAME.fullmatch(name), pattern)
            require(isinstance(block.get("input"), dict), f"{where}.tool_use.input: Input should be a valid dictionary")
        if kind == "tool_result":
            _check_id(block.get("tool_use_id"), f"{where}.tool_result.tool_use_id")
    return blocks


def _check_id(value: object, at: str) -> None:
    require(isinstance(value, str), f"{at}: Field required")
    require(_ID.fullmatch(str(value)), f"{at}: String should match pattern '^[a-zA-Z0-9_-]+$'")


def _results(blocks: list[dict[str, Any]], used: list[str], number: int, messages: list[Message]) -> None:
    """A user's message answers each call of the one before, and begins with that."""
    waiting = set(used)
    results_over = False
    for index, block in enumerate(blocks):
        if block["type"] != "tool_result":
            results_over = True
            continue
        named = str(block["tool_use_id"])
        require(
            named in waiting,
            f"messages.{number}.content.{index}: unexpected `tool_use_id` found in `tool_result` blocks: {named}. Each "
            "`tool_result` block must have a corresponding `tool_use` block in the previous message.",
        )
        if results_over:
            break
        waiting.discard(named)
        messages.append(Message("tool", text_of(block.get("content")), (), named))
    _none_waits([one for one in used if one in waiting], number)


def _tools(body: Mapping[str, Any]) -> list[Tool]:
    given, choice = body.get("tools"), body.get("tool_choice")
    require(given is None or isinstance(given, list), "tools: Input should be a valid list")
    tools = []
    for number, tool in enumerate(given or ()):
        require(isinstance(tool, dict), f"tools.{number}: Input should be a valid dictionary or object")
        name = tool.get("name")
        require(name is not None, f"tools.{number}.custom.name: Field required")
        pattern = f"tools.{number}.custom.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'"
        require(isinstance(name, str) and _NAME.fullmatch(name), pattern)
        schema = tool.get("input_schema")
        require(isinstance(schema, dict), f"tools.{number}.custom.input_schema: Field required")
        require(schema.get("type") == "object", f"tools.{number}.custom.input_schema.type: Input should be 'object'")
        tools.append(Tool(str(name), schema_names(schema)))
    require(len({tool.name for tool in tools}) == len(tools), "tools: Tool names must be unique.")
    require(choice is None or tools, "tool_choice: may only be specified while providing `tools`.")
    return [] if isinstance(choice, dict) and choice.get("type") == "none" else tools


def _schema(given: object) -> Mapping[str, Any] | None:
    if given is None:
        return None
    require(isinstance(given, dict), "output_config: Input should be a valid dictionary or object")
    assert isinstance(given, dict)
    for name in given:
        require(name in ("effort", "format"), f"output_config.{name}: Extra inputs are not permitted")
    efforts = ("low", "medium", "high", "xhigh", "max", None)
    require(given.get("effort") in efforts, "output_config.effort: Input should be 'low', 'medium' or 'high'")
    wanted = given.get("format")
    if wanted is None:
        return None
    require(isinstance(wanted, dict) and wanted.get("type") == "json_schema", "output_config.format.type: unknown")
    require(isinstance(wanted.get("schema"), dict), "output_config.format.json_schema.schema: Field required")
    schema: Mapping[str, Any] = wanted["schema"]
    return schema


def _parts(body: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The prompt's text in the order in which it is cached (tools, system, messages), and where it is marked."""
    system = body.get("system")
    blocks: list[Any] = [*(body.get("tools") or ())]
    blocks += system if isinstance(system, list) else [system] if system else []
    for message in body["messages"]:
        content = message["content"]
        blocks += content if isinstance(content, list) else [content]
    marks = [number for number, one in enumerate(blocks, 1) if isinstance(one, dict) and one.get("cache_control")]
    require(
        len(marks) <= MOST_MARKS,
        f"A maximum of {MOST_MARKS} blocks with cache_control may be provided. Found {len(marks)}.",
    )
    if body.get("cache_control"):
        marks.append(len(blocks))
    plain = (
        {name: value for name, value in one.items() if name != "cache_control"} if isinstance(one, dict) else one
        for one in blocks
    )
    return tuple(dump(one) for one in plain), tuple(marks)


_BLANK: dict[str, dict[str, Any]] = {
    "thinking": {"thinking": "", "signature": ""},
    "text": {"text": ""},
    "tool_use": {"input": {}},
}


def _input(arguments: str) -> Mapping[str, Any]:
    return read_call("", arguments).arguments


def _blocks(answer: Answer) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if answer.thoughts:
        signature = base64.b64encode(answer.thoughts.encode()[:48]).decode()
        blocks.append({"type": "thinking", "thinking": answer.thoughts, "signature": signature})
    if answer.text:
        blocks.append({"type": "text", "text": answer.text})
    for call in answer.calls:
        tool_id = f"toolu_{uuid.uuid4().hex[:24]}"
        blocks.append({"type": "tool_use", "id": tool_id, "name": call.name, "input": _input(call.arguments)})
    return blocks


def _usage(tokens: Tokens, output: int) -> dict[str, Any]:
    """Anthropic counts what was cached apart."""
    return {
        "input_tokens": tokens.prompt - tokens.cached - tokens.stored,
        "cache_creation_input_tokens": tokens.stored,
        "cache_read_input_tokens": tokens.cached,
        "cache_creation": {"ephemeral_5m_input_tokens": tokens.stored, "ephemeral_1h_input_tokens": 0},
        "output_tokens": output,
        "service_tier": "standard",
    }


def completion(asked: Asked, answer: Answer, tokens: Tokens) -> dict[str, Any]:
    """The body of an answer that is not streamed."""
    body: dict[str, Any] = {
        "id": f"msg_{uuid.uuid4().hex[:24]}",
        "type": "message",
        "role": "assistant",
        "model": asked.model,
        "content": _blocks(answer),
        "stop_reason": "tool_use" if answer.calls and not answer.finish else _STOP[answer.finish],
        "stop_sequence": None,
    }
    return {**body, "usage": _usage(tokens, tokens.completion)} if tokens.told else body


def frames(asked: Asked, answer: Answer, tokens: Tokens) -> Iterator[Frame]:
    """The events, message_start to message_stop; a ping comes early, as from Anthropic."""
    message = completion(asked, answer, tokens)
    empty = {**message, "content": [], "stop_reason": None}
    if tokens.told:
        empty["usage"] = _usage(tokens, min(1, tokens.completion))
    yield Frame({"type": "message_start", "message": empty})
    calls = iter(answer.calls)
    for index, block in enumerate(message["content"]):
        kind = block["type"]
        yield Frame({"type": "content_block_start", "index": index, "content_block": {**block, **_BLANK[kind]}})
        if index == 0:
            yield Frame({"type": "ping"})

        def delta(given: dict[str, Any], at: int = index) -> dict[str, Any]:
            return {"type": "content_block_delta", "index": at, "delta": given}

        if kind == "tool_use":
            yield Frame(delta({"type": "input_json_delta", "partial_json": ""}), block["name"])
            for piece in fragments(next(calls).arguments):
                yield Frame(delta({"type": "input_json_delta", "partial_json": piece}), piece, "arguments")
        elif kind == "thinking":
            for piece in words(block["thinking"]):
                yield Frame(delta({"type": "thinking_delta", "thinking": piece}), piece)
            yield Frame(delta({"type": "signature_delta", "signature": block["signature"]}))
        else:
            for piece in words(block["text"]):
                yield Frame(delta({"type": "text_delta", "text": piece}), piece, "text")
        yield Frame({"type": "content_block_stop", "index": index})
    end = {"type": "message_delta", "delta": {"stop_reason": message["stop_reason"], "stop_sequence": None}}
    # without usage the field is missing, which Anthropic's own stream never is
    yield Frame({**end, "usage": {"output_tokens": tokens.completion}} if tokens.told else end)
    yield Frame({"type": "message_stop"})


def encode(event: Mapping[str, Any]) -> str:
    """One event as a server-sent event."""
    return f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n"
