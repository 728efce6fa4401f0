"""What the scripted model says, read from the user's words. Pure.

The words are plain English, and each thing in them is one call: an issue's key (``IT-3``) is read, a text in quotation
marks (“Laptop is slow”) is filed as an issue in IT. ``Briefly`` asks for a confirmation: where the built-in tool
``reply`` is offered, the plan brings the answer along. After a tool's result comes the answer.

A plan has 60 tokens in chunks of five, spread evenly over its calls; a reply adds 25 tokens after them; an answer has
150.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

from pilothouse_sim.script.http import framed

TOKENS_PER_CHUNK = 5
PLAN_TOKENS = 60
REPLY_TOKENS = 25
ANSWER_TOKENS = 150
_KEY = re.compile(r"\b[A-Z]{2,10}-\d{1,9}\b")
_QUOTED = re.compile("“([^”]{1,200})”")
_SENTENCE = "The issue is open, its owner was told on Monday and will look at it. "
_FRAME = {"id": "chatcmpl-script", "object": "chat.completion.chunk", "created": 1_790_000_000, "model": "script"}


@dataclass(frozen=True, slots=True)
class Script:
    """What one model call says: server-sent events, and how many of its tokens are out after each."""

    frames: tuple[bytes, ...]
    tokens: tuple[int, ...]
    budget: int
    """Tokens that the call's time is meant for; a plan's reply comes on top, at the same speed."""
    plan: bool


def script(messages: Sequence[Mapping[str, Any]], offered: frozenset[str]) -> Script:
    """What the model says to this conversation, with these functions offered."""
    words = next((str(m.get("content") or "") for m in reversed(messages) if m.get("role") == "user"), "")
    if not offered or (messages and messages[-1].get("role") == "tool"):
        return answer()
    calls = wished(words)
    if not calls:
        return answer()
    confirmation = confirming(calls) if "reply" in offered and "riefly" in words else None
    return plan(calls, confirmation)


def wished(words: str) -> tuple[tuple[str, str], ...]:
    """(function, arguments as JSON) of each call, in the order of the words; reads first."""
    reads = [("jira__issue__get", json.dumps({"key": key})) for key in _KEY.findall(words)]
    writes = [
        ("jira__issue__create", json.dumps({"project": "IT", "summary": summary}, ensure_ascii=False))
        for summary in _QUOTED.findall(words)
    ]
    return (*reads, *writes)


def confirming(calls: Sequence[tuple[str, str]]) -> str:
    """Arguments of a ``reply`` that confirms these calls, with references to their results."""
    said = [
        f"I filed {{{{s{number}.key}}}}"
        if name.endswith("create")
        else f"{{{{s{number}.key}}}}: {{{{s{number}.status}}}}"
        for number, (name, _) in enumerate(calls, 1)
    ]
    return json.dumps({"text": "; ".join(said) + "."})


@lru_cache(maxsize=1)
def answer() -> Script:
    """An answer in words."""
    text = (_SENTENCE * 20)[: ANSWER_TOKENS * 4]
    size = TOKENS_PER_CHUNK * 4
    deltas: list[dict[str, Any]] = [{"content": text[at : at + size]} for at in range(0, len(text), size)]
    return _script(deltas, ANSWER_TOKENS, ANSWER_TOKENS, plan=False)


@lru_cache(maxsize=256)
def plan(calls: tuple[tuple[str, str], ...], confirmation: str | None) -> Script:
    """Calls, and a ``reply`` after them where the plan brings the answer along."""
    chunks = PLAN_TOKENS // TOKENS_PER_CHUNK
    deltas: list[dict[str, Any]] = []
    for index, (name, arguments) in enumerate(calls):
        share = chunks * (index + 1) // len(calls) - chunks * index // len(calls)
        deltas += _call(index, name, arguments, max(2, share))
    total = PLAN_TOKENS
    if confirmation is not None:
        deltas += _call(len(calls), "reply", confirmation, REPLY_TOKENS // TOKENS_PER_CHUNK)
        total += REPLY_TOKENS
    return _script(deltas, total, PLAN_TOKENS, plan=True)


def _call(index: int, name: str, arguments: str, chunks: int) -> list[dict[str, Any]]:
    """A call in so many chunks (2 or more): its name, then its arguments in pieces."""
    cuts = [len(arguments) * number // (chunks - 1) for number in range(chunks)]
    pieces = [arguments[start:end] for start, end in pairwise(cuts)]
    head = {"index": index, "id": f"call_{index}", "type": "function", "function": {"name": name, "arguments": ""}}
    return [
        {"tool_calls": [head]},
        *({"tool_calls": [{"index": index, "function": {"arguments": piece}}]} for piece in pieces),
    ]


def _script(deltas: Sequence[Mapping[str, Any]], total: int, budget: int, *, plan: bool) -> Script:
    """Role, deltas, finish reason, usage, end; the tokens are spread evenly over the deltas."""
    chunks: list[Mapping[str, Any]] = [_chunk({"role": "assistant", "content": None if plan else ""})]
    chunks += [_chunk(delta) for delta in deltas]
    chunks.append(_chunk({}, "tool_calls" if plan else "stop"))
    usage = {"prompt_tokens": 900, "completion_tokens": total, "total_tokens": 900 + total}
    chunks.append({**_FRAME, "choices": [], "usage": usage})
    frames = [framed(json.dumps(chunk, ensure_ascii=False, separators=(",", ":")).encode()) for chunk in chunks]
    # the end marker shares the usage's packet, as servers that flush once at the end send it
    frames[-1] += framed(b"[DONE]")
    tokens = [1, *(round(total * (number + 1) / len(deltas)) for number in range(len(deltas))), total, total]
    return Script(tuple(frames), tuple(tokens), budget, plan)


def _chunk(delta: Mapping[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {**_FRAME, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]}
