"""The journal's text: how a run begins and what was decided, as JSON. Pure; ``replay`` makes the state again.

Version 1. A reader refuses a later version (``JournalError``): a worker of an older release must not guess.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from pilothouse_dataplane.core import run
from pilothouse_dataplane.core.catalog import Catalog
from pilothouse_dataplane.core.messages import Citation, Message, Outcome, ToolCall, ToolResult, Usage
from pilothouse_dataplane.core.state import (
    Asking,
    Decided,
    Entry,
    Limits,
    ModelFinished,
    RunState,
    ToolFinished,
)

VERSION = 1


class JournalError(ValueError):
    """The journal can't be read: it is damaged, or of a later release. The operator must act."""


@dataclass(frozen=True, slots=True)
class Opening:
    """How a run begins."""

    messages: tuple[Message, ...]


def encode_opening(opening: Opening) -> bytes:
    """As JSON."""
    return _dump({"v": VERSION, "messages": [_message(message) for message in opening.messages]})


def decode_opening(text: bytes) -> Opening:
    """Raises JournalError."""
    body = _load(text)
    return Opening(tuple(_read_message(entry) for entry in body["messages"]))


def encode(entry: Entry) -> bytes:
    """One entry as JSON."""
    body: dict[str, Any]
    match entry:
        case ModelFinished():
            calls = [[call.id, call.name, call.arguments] for call in entry.tool_calls]
            usage = [entry.usage.input_tokens, entry.usage.output_tokens, entry.usage.cost_micros]
            observed = [_finished(finished) for finished in entry.observed]
            body = {"k": "model", "text": entry.text, "calls": calls, "usage": usage, "observed": observed}
        case ToolFinished():
            body = {"k": "tool", **_finished(entry)}
        case Decided():
            body = {"k": "decided", "step": entry.step_id, "approved": entry.approved, "why": entry.why}
    return _dump({"v": VERSION, **body})


def decode(text: bytes) -> Entry:
    """One entry. Raises JournalError."""
    body = _load(text)
    try:
        match body["k"]:
            case "model":
                calls = tuple(ToolCall(*call) for call in body["calls"])
                observed = tuple(_read_finished(entry) for entry in body["observed"])
                return ModelFinished(calls, Usage(*body["usage"]), body["text"], observed)
            case "tool":
                return _read_finished(body)
            case "decided":
                return Decided(body["step"], body["approved"], body["why"])
    except (KeyError, TypeError, ValueError) as error:
        raise JournalError(f"an entry of the journal is damaged: {error!r}") from error
    raise JournalError(f"an entry of an unknown kind: {str(body['k'])[:20]}")


def _finished(entry: ToolFinished) -> dict[str, Any]:
    return {"step": entry.step_id, **result_json(entry.result)}


def _read_finished(body: dict[str, Any]) -> ToolFinished:
    return ToolFinished(body["step"], read_result(body))


def result_json(result: ToolResult) -> dict[str, Any]:
    """A result as JSON-able data."""
    return {
        "outcome": result.outcome.value,
        "summary": result.summary,
        "data": result.data,
        "citations": [[citation.title, citation.url] for citation in result.citations],
        **({"account": result.account} if result.account else {}),
    }


def read_result(body: dict[str, Any]) -> ToolResult:
    """What ``result_json`` made. Raises KeyError, ValueError."""
    citations = tuple(Citation(*pair) for pair in body["citations"])
    account = body.get("account", "")  # entries of an older worker have none
    return ToolResult(Outcome(body["outcome"]), body["summary"], body["data"], citations, account)


def replay(
    run_id: str,
    opening: Opening,
    entries: Iterable[bytes],
    catalog: Catalog,
    limits: Limits,
    asking: Asking,
    deadline: float,
) -> RunState:
    """The state that these entries led to. Raises JournalError."""
    state, _ = run.start(run_id, opening.messages, catalog, limits, asking, deadline)
    for entry in entries:
        state, _ = run.advance(state, decode(entry), 0.0)
    return state


def _dump(body: dict[str, Any]) -> bytes:
    # What a connector returns may hold what JSON doesn't know: the model got it as text, too. orjson is fast and
    # refuses half surrogate pairs and numbers beyond 64 bits, which the standard library takes.
    try:
        return orjson.dumps(body, default=str, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:
        return json.dumps(body, default=str).encode()


def _load(text: bytes) -> dict[str, Any]:
    try:
        body = json.loads(text)
        version = body["v"]
    except (ValueError, KeyError, TypeError) as error:
        raise JournalError("an entry of the journal is not readable") from error
    if version != VERSION or not isinstance(body, dict):
        raise JournalError(f"the journal is of version {version}; this worker reads version {VERSION}")
    return body


def _message(message: Message) -> list[Any]:
    calls = [[call.id, call.name, call.arguments] for call in message.tool_calls]
    return [message.role, message.content, calls, message.tool_call_id]


def _read_message(entry: list[Any]) -> Message:
    try:
        role, content, calls, tool_call_id = entry
        return Message(role, content, tuple(ToolCall(*call) for call in calls), tool_call_id)
    except (TypeError, ValueError) as error:
        raise JournalError("a message of the journal is damaged") from error
