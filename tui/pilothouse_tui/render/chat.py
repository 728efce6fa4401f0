"""A chat's events as lines of a terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pilothouse_tui.model import StepOutcome
from pilothouse_tui.render.style import BAD, BUSY, DIM, PLAIN, STRONG, WARN, step_mark
from pilothouse_tui.render.text import count, duration, money, one_line


@dataclass(frozen=True, slots=True)
class Line:
    """Text with a style name; ``inline`` text goes on where the last one ended (the streamed answer)."""

    text: str
    style: str = PLAIN
    inline: bool = False


def printable(text: str) -> str:
    """Text that can't move the cursor or change colours: what a tool returned is data."""
    return "".join(c for c in text if c.isprintable() or c in "\n\t")


def lines(event: Mapping[str, Any], *, streamed: bool = False) -> list[Line]:
    """The lines of one event; ``streamed`` says that the answer's text has been shown as deltas already."""
    match event.get("type"):
        case "plan":
            steps = event.get("steps") or ()
            return [Line(f"Plan: {len(steps)} step{'s' if len(steps) != 1 else ''}", DIM)] if steps else []
        case "step_started":
            return [Line(f"▶ {_step(event)}", BUSY)]
        case "step_finished":
            mark = step_mark(outcome(event.get("outcome")))
            word = "" if mark.word == "done" else f" – {mark.word}"
            return [Line(f"{mark.symbol} {_step(event)}{word} ({duration(_number(event, 'duration_ms'))})", mark.style)]
        case "approval_required":
            return [
                Line(f"! Approval needed: {_step(event)}", WARN),
                Line(f"  {_arguments(event.get('arguments_json'))}", DIM),
            ]
        case "text_delta":
            return [Line(printable(str(event.get("text", ""))), inline=True)]
        case "final":
            return _final(event, streamed)
        case "error":
            return error_lines(
                one_line(str(event.get("message") or event.get("code") or "The run failed.")),
                one_line(str(event.get("user_action") or "")),
            )
        case _:
            return []


def error_lines(message: str, to_do: str) -> list[Line]:
    """An error and what to do about it."""
    return [Line(f"✗ {message}", BAD), *([Line(f"  → {to_do}", STRONG)] if to_do else [])]


def outcome(name: object) -> StepOutcome:
    """A step's outcome out of its proto enum name."""
    try:
        return StepOutcome(str(name).removeprefix("STEP_OUTCOME_").lower())
    except ValueError:
        return StepOutcome.UNSPECIFIED


def _final(event: Mapping[str, Any], streamed: bool) -> list[Line]:
    shown = [] if streamed else [Line(printable(str(event.get("text", ""))))]
    if event.get("partial"):
        shown.append(Line("◑ The answer is partial: a limit was reached, or it was stopped.", WARN))
    for number, citation in enumerate(event.get("citations") or (), 1):
        shown.append(
            Line(f"[{number}] {one_line(citation.get('title', ''))}  {one_line(citation.get('url', ''))}", DIM)
        )
    usage = event.get("usage") or {}
    if usage:
        tokens = _number(usage, "input_tokens") + _number(usage, "output_tokens")
        shown.append(Line(f"{count(tokens)} tokens · {money(_number(usage, 'cost_micros'))}", DIM))
    return shown


def _step(event: Mapping[str, Any]) -> str:
    tool, summary = one_line(str(event.get("tool", ""))), one_line(str(event.get("summary", "")))
    return f"{tool}  {summary}" if summary else tool


def _number(event: Mapping[str, Any], key: str) -> int:
    # proto3's JSON writes 64-bit numbers as strings
    try:
        return int(event.get(key) or 0)
    except (TypeError, ValueError):
        return 0


def _arguments(raw: object) -> str:
    try:
        return one_line(json.dumps(json.loads(str(raw or "{}")), ensure_ascii=False))
    except ValueError:
        return one_line(str(raw))
