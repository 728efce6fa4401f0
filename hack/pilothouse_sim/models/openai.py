"""OpenAI's chat completions: refuses what OpenAI refuses, and writes its answers and chunks exactly.

Sources: https://platform.openai.com/docs/api-reference/chat/create and …/chat-streaming
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from pilothouse_sim.models.exchange import Answer, Asked, Frame, Tokens, dump, require, schema_names
from pilothouse_sim.models.stream import fragments, words
from pilothouse_sim.models.types import Call, Message, Reply, Tool, approximate_tokens

PROMPT_OVERHEAD = 4
"""Tokens that the chat template adds to each message, approximately."""
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")
MAX_TOOLS = 128
NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
THINKING_MODEL = re.compile(r"(?:o\d|gpt-5)")
_WORDS = (
    "audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens max_tokens messages "
    "metadata modalities model moderation n parallel_tool_calls prediction presence_penalty prompt_cache_key "
    "prompt_cache_options prompt_cache_retention reasoning_effort response_format safety_identifier seed "
    "service_tier stop store stream stream_options temperature tool_choice tools top_logprobs top_p user verbosity "
    "web_search_options"
)
_FIELDS = frozenset(_WORDS.split())
_ROLES = ("system", "assistant", "user", "function", "tool", "developer")
_FINISH = {"": "stop", "length": "length", "content_filter": "content_filter"}


def text_of(content: object) -> str:
    """The text of a message's content: a string, a list of parts, or nothing."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(
            str(p.get("text", "")) for p in content if isinstance(p, dict) and str(p.get("type", "")).endswith("text")
        )
    return ""


def read(body: Mapping[str, Any]) -> Asked:
    """A request. Raises BadRequest in OpenAI's words."""
    for name in body:
        require(name in _FIELDS, f"Unrecognized request argument supplied: {name}")
    model = body.get("model")
    require(isinstance(model, str) and model, "you must provide a model parameter")
    messages = read_messages(body)
    streamed = bool(body.get("stream"))
    options = body.get("stream_options")
    require(
        options is None or streamed,
        "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
        "stream_options",
    )
    effort = body.get("reasoning_effort")
    require(effort is None or effort in EFFORTS, _not_one_of("reasoning_effort", effort, EFFORTS), "reasoning_effort")
    thinking_model = THINKING_MODEL.match(str(model)) is not None
    return Asked(
        model=str(model),
        messages=messages,
        tools=read_tools(body),
        prompt=prompt_tokens(body),
        parts=(dump([body.get("tools"), body["messages"]]),),
        stream=streamed,
        usage_streamed=isinstance(options, dict) and bool(options.get("include_usage")),
        max_tokens=_max_tokens(body, thinking_model),
        thinks=effort not in ("none", None) or (thinking_model and effort is None),
        schema=_schema(body.get("response_format")),
    )


def _not_one_of(name: str, value: object, supported: tuple[str, ...]) -> str:
    return f"Invalid value: '{value}'. Supported values are: {', '.join(repr(one) for one in supported)}."


def _max_tokens(body: Mapping[str, Any], thinking_model: bool) -> int:
    older, newer = body.get("max_tokens"), body.get("max_completion_tokens")
    require(
        older is None or newer is None,
        "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.",
        "max_tokens",
    )
    require(
        older is None or not thinking_model,
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
        "max_tokens",
        "unsupported_parameter",
    )
    wanted = newer if older is None else older
    if wanted is None:
        return 0
    require(isinstance(wanted, int) and not isinstance(wanted, bool), "Invalid type for 'max_tokens'.", "max_tokens")
    require(wanted >= 1, "Invalid 'max_tokens': integer below minimum value.", "max_tokens", "integer_below_min_value")
    return int(wanted)


def read_messages(body: Mapping[str, Any]) -> list[Message]:
    """The conversation. Raises BadRequest."""
    given = body.get("messages")
    require(given is not None, "Missing required parameter: 'messages'.", "messages", "missing_required_parameter")
    require(isinstance(given, list), "Invalid type for 'messages': expected an array.", "messages", "invalid_type")
    require(given, "Invalid 'messages': empty array. Expected an array with minimum length 1.", "messages")
    messages: list[Message] = []
    waiting: set[str] = set()
    for number, entry in enumerate(given or ()):
        at = f"messages[{number}]"
        require(isinstance(entry, dict), f"Invalid type for '{at}': expected an object.", at, "invalid_type")
        role, content = entry.get("role"), entry.get("content")
        require(role in _ROLES, _not_one_of(at, role, _ROLES), f"{at}.role", "invalid_value")
        calls = _calls(entry, at)
        require(
            isinstance(content, str | list) or (role == "assistant" and content is None and calls),
            f"Invalid value for 'content': expected a string, got {_kind(content)}.",
            f"{at}.content",
        )
        if role == "tool":
            answered = entry.get("tool_call_id")
            require(
                answered in waiting,
                "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with "
                "'tool_calls'.",
                f"messages.[{number}].role",
            )
            waiting.discard(str(answered))
        else:
            _all_answered(waiting)
            waiting = {call_id for call_id, _ in calls}
        messages.append(Message(str(role), text_of(content), calls, str(entry.get("tool_call_id", ""))))
    _all_answered(waiting)
    return messages


def _kind(value: object) -> str:
    return {type(None): "null", dict: "an object", int: "an integer"}.get(type(value), type(value).__name__)


def _all_answered(waiting: set[str]) -> None:
    require(
        not waiting,
        "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. "
        f"The following tool_call_ids did not have response messages: {', '.join(sorted(waiting))}",
        "messages",
    )


def _calls(entry: Mapping[str, Any], at: str) -> tuple[tuple[str, Call], ...]:
    given = entry.get("tool_calls")
    if given is None:
        return ()
    require(isinstance(given, list) and given, f"Invalid '{at}.tool_calls': expected a non-empty array.", at)
    calls = []
    for number, call in enumerate(given):
        where = f"{at}.tool_calls[{number}]"
        require(isinstance(call, dict), f"Invalid type for '{where}': expected an object.", where)
        for name in ("id", "type"):
            require(isinstance(call.get(name), str), f"Missing required parameter: '{where}.{name}'.", where)
        function = call.get("function")
        require(isinstance(function, dict), f"Missing required parameter: '{where}.function'.", where)
        name, arguments = function.get("name"), function.get("arguments")
        _check_name(name, f"{where}.function.name")
        require(isinstance(arguments, str), f"Missing required parameter: '{where}.function.arguments'.", where)
        calls.append((str(call["id"]), read_call(str(name), str(arguments))))
    return tuple(calls)


def _check_name(name: object, at: str) -> None:
    require(
        isinstance(name, str) and NAME.fullmatch(name),
        f"Invalid '{at}': string does not match pattern. Expected a string that matches the pattern "
        "'^[a-zA-Z0-9_-]+$'.",
        at,
        "invalid_value",
    )


def read_call(name: str, arguments: str) -> Call:
    """A call that was made before; arguments that are not a JSON object are read as none."""
    try:
        given = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        given = {}
    return Call(name, given if isinstance(given, dict) else {})


def read_tools(body: Mapping[str, Any]) -> list[Tool]:
    """The offered functions; none where ``tool_choice`` is "none". Raises BadRequest."""
    given, choice = body.get("tools"), body.get("tool_choice")
    require(choice is None or given, "'tool_choice' is only allowed when 'tools' are specified.", "tool_choice")
    if given is None:
        return []
    require(isinstance(given, list) and given, "[] is too short - 'tools'", "tools")
    require(
        len(given) <= MAX_TOOLS,
        f"Invalid 'tools': array too long. Expected an array with maximum length {MAX_TOOLS}.",
        "tools",
        "array_above_max_length",
    )
    tools = []
    for number, entry in enumerate(given):
        at = f"tools[{number}]"
        require(isinstance(entry, dict), f"Invalid type for '{at}': expected an object.", at, "invalid_type")
        require(entry.get("type") == "function", _not_one_of(at, entry.get("type"), ("function",)), f"{at}.type")
        function = entry.get("function")
        require(isinstance(function, dict), f"Missing required parameter: '{at}.function'.", f"{at}.function")
        _check_name(function.get("name"), f"{at}.function.name")
        parameters = function.get("parameters")
        require(
            parameters is None or (isinstance(parameters, dict) and parameters.get("type", "object") == "object"),
            f"Invalid schema for function '{function['name']}': schema must be a JSON Schema of 'type: \"object\"'.",
            f"{at}.function.parameters",
            "invalid_function_parameters",
        )
        tools.append(Tool(function["name"], schema_names(parameters)))
    return [] if choice == "none" else tools


def _schema(given: object) -> Mapping[str, Any] | None:
    if given is None:
        return None
    require(isinstance(given, dict), "Invalid type for 'response_format': expected an object.", "response_format")
    assert isinstance(given, dict)
    kinds = ("json_object", "json_schema", "text")
    require(given.get("type") in kinds, _not_one_of("", given.get("type"), kinds), "response_format.type")
    if given["type"] == "text":
        return None
    if given["type"] == "json_object":
        return {"type": "object", "properties": {"answer": {"type": "string"}}}
    inner = given.get("json_schema")
    require(isinstance(inner, dict), "Missing required parameter: 'response_format.json_schema'.", "response_format")
    assert isinstance(inner, dict)
    return structured(inner, "response_format")


def structured(inner: Mapping[str, Any], at: str) -> Mapping[str, Any]:
    """The schema of ``{"name", "schema", "strict"}``. Raises BadRequest for what structured outputs refuse."""
    _check_name(inner.get("name"), f"{at}.name")
    schema = inner.get("schema")
    require(isinstance(schema, dict), f"Missing required parameter: '{at}.schema'.", f"{at}.schema")
    assert isinstance(schema, dict)
    if inner.get("strict"):
        _strict(schema, str(inner["name"]), (), at)
    return schema


def _strict(schema: object, name: str, path: tuple[str, ...], at: str) -> None:
    """Strict schemas close every object and require all of its properties."""
    if not isinstance(schema, dict):
        return
    if schema.get("type") == "object":
        where = f"Invalid schema for response_format '{name}': In context={path!r}, "
        require(
            schema.get("additionalProperties") is False,
            f"{where}'additionalProperties' is required to be supplied and to be false.",
            at,
        )
        properties = schema.get("properties") or {}
        require(
            set(schema.get("required") or ()) == set(properties),
            f"{where}'required' is required to be supplied and to be an array including every key in properties.",
            at,
        )
        for key, part in properties.items():
            _strict(part, name, (*path, "properties", key), at)
    _strict(schema.get("items"), name, (*path, "items"), at)


def prompt_tokens(body: Mapping[str, Any]) -> int:
    """Tokens of messages and tools, approximately (four characters of their JSON text a token)."""
    messages = body.get("messages") or []
    tools = json.dumps(body.get("tools")) if body.get("tools") else ""
    text = sum(approximate_tokens(text_of(m.get("content")) + json.dumps(m.get("tool_calls") or "")) for m in messages)
    return text + PROMPT_OVERHEAD * len(messages) + approximate_tokens(tools)


def _usage(tokens: Tokens) -> dict[str, Any]:
    return {
        "prompt_tokens": tokens.prompt,
        "completion_tokens": tokens.completion,
        "total_tokens": tokens.prompt + tokens.completion,
        "prompt_tokens_details": {"cached_tokens": tokens.cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": tokens.thoughts,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _tool_calls(answer: Answer) -> list[dict[str, Any]]:
    return [
        {
            "id": f"call_{uuid.uuid4().hex[:24]}",
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for call in answer.calls
    ]


def _finish(answer: Answer) -> str:
    return "tool_calls" if answer.calls and not answer.finish else _FINISH[answer.finish]


def _head(model: str, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex[:24]}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
        "service_tier": "default",
        "system_fingerprint": None,
    }


def completion(asked: Asked, answer: Answer, tokens: Tokens) -> dict[str, Any]:
    """The body of an answer that is not streamed."""
    message: dict[str, Any] = {
        "role": "assistant",
        "content": answer.text or None,
        "refusal": None,
        "annotations": [],
    }
    if answer.calls:
        message["tool_calls"] = _tool_calls(answer)
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(answer)}
    body = {**_head(asked.model, "chat.completion"), "choices": [choice]}
    return {**body, "usage": _usage(tokens)} if tokens.told else body


def frames(asked: Asked, answer: Answer, tokens: Tokens) -> Iterator[Frame]:
    """The chunks: role, content or calls, finish_reason, and usage where asked for."""
    told = asked.usage_streamed and tokens.told
    head = _head(asked.model, "chat.completion.chunk")

    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        body = {**head, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]}
        return {**body, "usage": None} if told else body

    content = None if answer.calls and not answer.text else ""
    yield Frame(chunk({"role": "assistant", "content": content, "refusal": None}), answer.thoughts)
    for piece in words(answer.text):
        yield Frame(chunk({"content": piece}), piece, "text")
    for index, call in enumerate(_tool_calls(answer)):
        function = call["function"]
        start = {"index": index, **call, "function": {"name": function["name"], "arguments": ""}}
        yield Frame(chunk({"tool_calls": [start]}), function["name"])
        for piece in fragments(function["arguments"]):
            part = {"index": index, "function": {"arguments": piece}}
            yield Frame(chunk({"tool_calls": [part]}), piece, "arguments")
    yield Frame(chunk({}, _finish(answer)))
    if told:
        yield Frame({**head, "choices": [], "usage": _usage(tokens)})


def chunks(reply: Reply, model: str, prompt: int, *, include_usage: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """(text that the chunk carries, chunk) of a plan's answer, for other stand-ins."""
    answer = Answer.of(reply)
    asked = Asked(model, (), (), prompt, (), stream=True, usage_streamed=include_usage)
    for frame in frames(asked, answer, Tokens(prompt, answer.tokens)):
        yield frame.text, dict(frame.event)


def encode(event: Mapping[str, Any]) -> str:
    """One chunk as a server-sent event."""
    return f"data: {dump(event)}\n\n"
