"""OpenAI's Responses: items in, items out, and the events of a stream. Nothing is stored: each request brings its whole
conversation.

Sources: https://platform.openai.com/docs/api-reference/responses/create and …/responses-streaming
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from pilothouse_sim.models.exchange import Answer, Asked, Frame, Tokens, dump, require, schema_names
from pilothouse_sim.models.openai import (
    EFFORTS,
    NAME,
    PROMPT_OVERHEAD,
    THINKING_MODEL,
    read_call,
    structured,
    text_of,
)
from pilothouse_sim.models.stream import fragments, words
from pilothouse_sim.models.types import Call, Message, Tool, approximate_tokens

_WORDS = (
    "background conversation include input instructions max_output_tokens max_tool_calls metadata model moderation "
    "parallel_tool_calls previous_response_id prompt prompt_cache_key prompt_cache_options prompt_cache_retention "
    "reasoning safety_identifier service_tier store stream stream_options temperature text tool_choice tools "
    "top_logprobs top_p truncation user verbosity"
)
_FIELDS = frozenset(_WORDS.split())
_ROLES = ("assistant", "system", "developer", "user")
_LEAST_OUTPUT = 16
_ECHOED = ("instructions", "max_output_tokens", "metadata", "parallel_tool_calls", "temperature", "tool_choice",
           "tools", "top_p", "truncation", "store")  # fmt: skip


def read(body: Mapping[str, Any]) -> Asked:
    """A request. Raises BadRequest in OpenAI's words."""
    for name in body:
        require(name in _FIELDS, f"Unknown parameter: '{name}'.", name, "unknown_parameter")
    model = body.get("model")
    require(
        isinstance(model, str) and model, "Missing required parameter: 'model'.", "model", "missing_required_parameter"
    )
    previous = body.get("previous_response_id")
    require(
        previous is None,
        f"Previous response with id '{previous}' not found.",
        "previous_response_id",
        "previous_response_not_found",
    )
    most = body.get("max_output_tokens")
    require(
        most is None or (isinstance(most, int) and not isinstance(most, bool) and most >= _LEAST_OUTPUT),
        f"Invalid 'max_output_tokens': integer below minimum value. Expected a value >= {_LEAST_OUTPUT}, but got "
        f"{most} instead.",
        "max_output_tokens",
        "integer_below_min_value",
    )
    thinks, tells = _reasoning(body.get("reasoning"), str(model))
    messages = _messages(body)
    prompt = sum(approximate_tokens(dump(body[name])) for name in ("instructions", "input", "tools") if body.get(name))
    return Asked(
        model=str(model),
        messages=messages,
        tools=_tools(body),
        prompt=prompt + PROMPT_OVERHEAD * len(messages),
        parts=(dump([body.get("tools"), body.get("instructions"), body["input"]]),),
        stream=bool(body.get("stream")),
        max_tokens=most or 0,
        thinks=thinks,
        tells_thoughts=tells,
        schema=_schema(body.get("text")),
        echo={name: body[name] for name in _ECHOED if body.get(name) is not None},
    )


def _reasoning(given: object, model: str) -> tuple[bool, bool]:
    if given is None:
        return THINKING_MODEL.match(model) is not None, False
    require(isinstance(given, dict), "Invalid type for 'reasoning': expected an object.", "reasoning", "invalid_type")
    assert isinstance(given, dict)
    effort, summary = given.get("effort"), given.get("summary")
    supported = ", ".join(repr(one) for one in EFFORTS)
    require(
        effort is None or effort in EFFORTS,
        f"Invalid value: '{effort}'. Supported values are: {supported}.",
        "reasoning.effort",
        "invalid_value",
    )
    require(summary in (None, "auto", "concise", "detailed"), f"Invalid value: '{summary}'.", "reasoning.summary")
    return effort != "none", summary is not None


def _messages(body: Mapping[str, Any]) -> list[Message]:
    given = body.get("input")
    require(given is not None, "Missing required parameter: 'input'.", "input", "missing_required_parameter")
    messages: list[Message] = []
    if isinstance(body.get("instructions"), str):
        messages.append(Message("system", body["instructions"]))
    if isinstance(given, str):
        return [*messages, Message("user", given)]
    require(isinstance(given, list) and given, "Invalid type for 'input': expected a string or an array.", "input")
    called: set[str] = set()
    answered: set[str] = set()
    for number, item in enumerate(given or ()):
        at = f"input[{number}]"
        require(isinstance(item, dict), f"Invalid type for '{at}': expected an object.", at, "invalid_type")
        kind = item.get("type", "message")
        if kind == "message":
            role, content = item.get("role"), item.get("content")
            require(role in _ROLES, f"Invalid value: '{role}'.", f"{at}.role", "invalid_value")
            require(isinstance(content, str | list), f"Missing required parameter: '{at}.content'.", f"{at}.content")
            _check_parts(content, str(role), at)
            messages.append(Message("system" if role == "developer" else str(role), text_of(content)))
        elif kind == "function_call":
            call_id, name, arguments = item.get("call_id"), item.get("name"), item.get("arguments")
            require(isinstance(call_id, str) and call_id, f"Missing required parameter: '{at}.call_id'.", at)
            require(isinstance(name, str) and NAME.fullmatch(name), f"Invalid '{at}.name'.", f"{at}.name")
            require(isinstance(arguments, str), f"Missing required parameter: '{at}.arguments'.", at)
            called.add(str(call_id))
            _add_call(messages, str(call_id), read_call(str(name), str(arguments)))
        elif kind == "function_call_output":
            call_id, output = item.get("call_id"), item.get("output")
            require(
                call_id in called,
                f"No tool call found for function call output with call_id {call_id}.",
                "input",
            )
            require(isinstance(output, str | list), f"Missing required parameter: '{at}.output'.", f"{at}.output")
            answered.add(str(call_id))
            messages.append(Message("tool", text_of(output), (), str(call_id)))
        else:
            require(kind in ("reasoning", "item_reference"), f"Invalid value: '{kind}'.", f"{at}.type", "invalid_value")
    for call_id in sorted(called - answered):
        require(False, f"No tool output found for function call {call_id}.", "input")
    return messages


def _check_parts(content: object, role: str, at: str) -> None:
    """What a person said is ``input_text``, what the model said ``output_text``."""
    supported = ("output_text", "refusal") if role == "assistant" else ("input_text", "input_image", "input_file")
    for number, part in enumerate(content if isinstance(content, list) else ()):
        kind = part.get("type") if isinstance(part, dict) else None
        require(
            kind in supported,
            f"Invalid value: '{kind}'. Supported values are: {', '.join(repr(one) for one in supported)}.",
            f"{at}.content[{number}]",
            "invalid_value",
        )


def _add_call(messages: list[Message], call_id: str, call: Call) -> None:
    """Calls that follow each other are one turn of the model."""
    if messages and messages[-1].role == "assistant":
        before = messages.pop()
        messages.append(Message("assistant", before.text, (*before.calls, (call_id, call))))
    else:
        messages.append(Message("assistant", "", ((call_id, call),)))


def _tools(body: Mapping[str, Any]) -> list[Tool]:
    given = body.get("tools")
    require(given is None or isinstance(given, list), "Invalid type for 'tools': expected an array.", "tools")
    tools = []
    for number, entry in enumerate(given or ()):
        at = f"tools[{number}]"
        require(isinstance(entry, dict), f"Invalid type for '{at}': expected an object.", at, "invalid_type")
        require(entry.get("type") == "function", f"Invalid value: '{entry.get('type')}'.", f"{at}.type")
        name = entry.get("name")
        require(
            name is not None, f"Missing required parameter: '{at}.name'.", f"{at}.name", "missing_required_parameter"
        )
        require(isinstance(name, str) and NAME.fullmatch(name), f"Invalid '{at}.name'.", f"{at}.name", "invalid_value")
        tools.append(Tool(str(name), schema_names(entry.get("parameters"))))
    return [] if body.get("tool_choice") == "none" else tools


def _schema(text: object) -> Mapping[str, Any] | None:
    given = text.get("format") if isinstance(text, dict) else None
    if not isinstance(given, dict) or given.get("type") in (None, "text"):
        return None
    if given["type"] == "json_object":
        return {"type": "object", "properties": {"answer": {"type": "string"}}}
    require(given["type"] == "json_schema", f"Invalid value: '{given['type']}'.", "text.format.type", "invalid_value")
    return structured(given, "text.format")


_BLANK: dict[str, dict[str, Any]] = {
    "message": {"content": []},
    "function_call": {"arguments": ""},
    "reasoning": {"summary": []},
}


def _id(kind: str) -> str:
    return f"{kind}_{uuid.uuid4().hex}"


def _items(asked: Asked, answer: Answer) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    if answer.thoughts:
        summary = [{"type": "summary_text", "text": answer.thoughts}] if asked.tells_thoughts else []
        items.append({"id": _id("rs"), "type": "reasoning", "summary": summary})
    status = "incomplete" if answer.finish else "completed"
    if answer.text:
        part = {"type": "output_text", "text": answer.text, "annotations": [], "logprobs": []}
        items.append({"id": _id("msg"), "type": "message", "status": status, "role": "assistant", "content": [part]})
    items += [
        {
            "id": _id("fc"),
            "type": "function_call",
            "status": status,
            "call_id": f"call_{uuid.uuid4().hex[:24]}",
            "name": call.name,
            "arguments": call.arguments,
        }
        for call in answer.calls
    ]
    return items


def _head(asked: Asked) -> dict[str, Any]:
    return {
        "id": _id("resp"),
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "model": asked.model,
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": None,
        "user": None,
        "metadata": {},
        **asked.echo,
    }


def _ended(head: Mapping[str, Any], items: list[dict[str, Any]], answer: Answer, tokens: Tokens) -> dict[str, Any]:
    reason = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(answer.finish)
    usage = {
        "input_tokens": tokens.prompt,
        "input_tokens_details": {"cached_tokens": tokens.cached, "cache_write_tokens": tokens.stored},
        "output_tokens": tokens.completion,
        "output_tokens_details": {"reasoning_tokens": tokens.thoughts},
        "total_tokens": tokens.prompt + tokens.completion,
    }
    return {
        **head,
        "status": "incomplete" if reason else "completed",
        "incomplete_details": {"reason": reason} if reason else None,
        "output": items,
        "usage": usage if tokens.told else None,
    }


def completion(asked: Asked, answer: Answer, tokens: Tokens) -> dict[str, Any]:
    """The body of an answer that is not streamed."""
    return _ended(_head(asked), _items(asked, answer), answer, tokens)


def frames(asked: Asked, answer: Answer, tokens: Tokens) -> Iterator[Frame]:
    """The events, numbered."""
    for number, frame in enumerate(_frames(asked, answer, tokens)):
        yield Frame({**frame.event, "sequence_number": number}, frame.text, frame.kind)


def _frames(asked: Asked, answer: Answer, tokens: Tokens) -> Iterator[Frame]:
    head, items = _head(asked), _items(asked, answer)
    yield Frame({"type": "response.created", "response": head})
    yield Frame({"type": "response.in_progress", "response": head}, "" if asked.tells_thoughts else answer.thoughts)
    for index, item in enumerate(items):
        where = {"item_id": item["id"], "output_index": index}
        begun = {**item, "status": "in_progress"} if "status" in item else dict(item)
        begun.update(_BLANK[item["type"]])
        yield Frame({"type": "response.output_item.added", "output_index": index, "item": begun})
        yield from {"message": _message, "function_call": _call}.get(item["type"], _thoughts)(item, where)
        yield Frame({"type": "response.output_item.done", "output_index": index, "item": item})
    whole = _ended(head, items, answer, tokens)
    yield Frame({"type": f"response.{whole['status']}", "response": whole})


def _message(item: Mapping[str, Any], where: Mapping[str, Any]) -> Iterator[Frame]:
    part = item["content"][0]
    at = {**where, "content_index": 0}
    yield Frame({"type": "response.content_part.added", **at, "part": {**part, "text": ""}})
    for piece in words(part["text"]):
        yield Frame({"type": "response.output_text.delta", **at, "delta": piece, "logprobs": []}, piece, "text")
    yield Frame({"type": "response.output_text.done", **at, "text": part["text"], "logprobs": []})
    yield Frame({"type": "response.content_part.done", **at, "part": part})


def _call(item: Mapping[str, Any], where: Mapping[str, Any]) -> Iterator[Frame]:
    kind = "response.function_call_arguments"
    for piece in fragments(item["arguments"]):
        yield Frame({"type": f"{kind}.delta", **where, "delta": piece}, piece, "arguments")
    yield Frame({"type": f"{kind}.done", **where, "name": item["name"], "arguments": item["arguments"]})


def _thoughts(item: Mapping[str, Any], where: Mapping[str, Any]) -> Iterator[Frame]:
    for index, part in enumerate(item["summary"]):
        at = {**where, "summary_index": index}
        yield Frame({"type": "response.reasoning_summary_part.added", **at, "part": {**part, "text": ""}})
        for piece in words(part["text"]):
            yield Frame({"type": "response.reasoning_summary_text.delta", **at, "delta": piece}, piece)
        yield Frame({"type": "response.reasoning_summary_text.done", **at, "text": part["text"]})
        yield Frame({"type": "response.reasoning_summary_part.done", **at, "part": part})


def failed(asked: Asked, error: Mapping[str, Any], number: int) -> Iterator[dict[str, Any]]:
    """The events that end a broken stream, from ``number`` on; ``error`` is the error's JSON as chat completions have
    it."""
    inner = error["error"]
    plain = {"code": "server_error", "message": inner["message"], "param": None}
    yield {"type": "error", **plain, "sequence_number": number}
    response = {**_head(asked), "status": "failed", "error": {"code": plain["code"], "message": plain["message"]}}
    yield {"type": "response.failed", "response": response, "sequence_number": number + 1}


def encode(event: Mapping[str, Any]) -> str:
    """One event as a server-sent event."""
    return f"event: {event['type']}\ndata: {dump(event)}\n\n"
