"""A chat's events as lines of a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pilothouse_api.names import PLAN_STEP
from pilothouse_tui.model import Approval, DecideOutcome, Decision, StepOutcome, TimeSplit
from pilothouse_tui.render.approvals import RESULTS, approval_lines, asks_me, who_decides
from pilothouse_tui.render.style import BAD, BUSY, DIM, GOOD, PLAIN, STRONG, WARN, step_mark
from pilothouse_tui.render.text import count, duration, money, one_line, time_split, until


@dataclass(frozen=True, slots=True)
class Line:
    """Text with a style name; ``inline`` text goes on where the last one ended (the streamed answer)."""

    text: str
    style: str = PLAIN
    inline: bool = False


def printable(text: str) -> str:
    """Text that can't move the cursor or change colours: what a tool returned is data."""
    return "".join(c for c in text if c.isprintable() or c in "\n\t")


def lines(event: Mapping[str, Any], *, streamed: bool = False, verbose: bool = False) -> list[Line]:
    """The lines of one event; ``streamed`` says that the answer's text has been shown as deltas already."""
    match event.get("type"):
        case "accepted" if verbose:
            return [Line(f"worker {_word(event, 'worker')} · revision {_word(event, 'revision')}", DIM)]
        case "plan":
            # Each plan holds the steps that are new; what has been told already is not told again.
            return [Line(f"· {_step(step)}", DIM) for step in event.get("steps") or ()]
        case "step_started" if event.get("step_id") == PLAN_STEP:
            return [Line(f"· {one_line(str(event.get('summary') or 'Working out what to do'))}…", DIM)]
        case "step_finished" if event.get("step_id") == PLAN_STEP:
            return [Line(f"· The plan took {duration(_number(event, 'duration_ms'))}.", DIM)] if verbose else []
        case "step_started":
            return [Line(f"▶ {_step(event)}", BUSY)]
        case "step_finished":
            mark = step_mark(outcome(event.get("outcome")))
            word = "" if mark.word == "done" else f" – {mark.word}"
            ms = _number(event, "duration_ms")
            took = f" ({duration(ms)})" if ms or not word else ""  # what was not begun took no time
            return [Line(f"{mark.symbol} {_step(event)}{word}{took}", mark.style)]
        case "approval_decided":
            return [_decided(event)]
        case "resumed":
            return _resumed(event, streamed, verbose)
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


def approval_question(approval: Approval, me: str, now: datetime) -> list[Line]:
    """What would be done, why somebody is asked, and who. ``me`` is the asking user's e-mail."""
    shown = [Line("! Approval needed", WARN)]
    for cells in approval_lines(approval, now, me=me):
        style = next((c.style for c in cells if c.style not in (DIM, PLAIN)), PLAIN)
        shown.append(Line(f"  {''.join(c.text for c in cells)}".rstrip(), style))
    if not asks_me(approval, me):
        shown.append(Line(f"  {who_decides(approval)} was asked; the write waits for the answer.", STRONG))
    return shown


def parked_line(waiting: Iterable[Approval], session_id: str, now: datetime, me: str = "") -> Line:
    """A run that waits for people; ``me`` is the reader's e-mail."""
    pending = list(waiting)
    who = ", ".join(dict.fromkeys(who_decides(a, me) for a in pending)) or "somebody's decision"
    ends = min((a.expires for a in pending if a.expires), default=None)
    left = f" Without an answer in {until(ends, now)} it counts as refused." if ends else ""
    return Line(f"‖ Waiting for {who}.{left} Your question rests until then. (session {session_id})", WARN)


def decision_line(decision: Decision) -> Line:
    """What became of this side's answer."""
    good = decision.outcome is DecideOutcome.DECIDED
    text = one_line(decision.message) or RESULTS[decision.outcome] or "Your decision is recorded."
    return Line(f"{'✓' if good else '!'} {text}", GOOD if good else WARN)


def split_line(split: TimeSplit) -> Line:
    """What the run's time went to."""
    return Line(f"{duration(split.total_ms)}: {time_split(split)}", DIM)


def error_lines(message: str, to_do: str) -> list[Line]:
    """An error and what to do about it."""
    return [Line(f"✗ {message}", BAD), *([Line(f"  → {to_do}", STRONG)] if to_do else [])]


def outcome(name: object) -> StepOutcome:
    """A step's outcome out of its proto enum name."""
    try:
        return StepOutcome(str(name).removeprefix("STEP_OUTCOME_").lower())
    except ValueError:
        return StepOutcome.UNSPECIFIED


def _decided(event: Mapping[str, Any]) -> Line:
    by, reason = _word(event, "decided_by", ""), one_line(str(event.get("reason") or ""))
    if by and by in reason:
        reason = ""  # it says who, and the step's own line says what
    if by.startswith("system:serviceaccount:"):
        by = f"an operator ({by.rpartition(':')[2]})"
    if event.get("approved"):
        return Line(f"✓ Approved{f' by {by}' if by else ''}.{f' {reason}' if reason else ''}", GOOD)
    what = f"Refused by {by}." if by else "Nobody answered in time, which counts as a refusal."
    return Line(f"⊘ {what}{f' {reason}' if reason else ''}", WARN)


def _resumed(event: Mapping[str, Any], streamed: bool, verbose: bool) -> list[Line]:
    reason = one_line(str(event.get("reason") or "")) or "Another worker goes on."
    void = " The answer's text above is void; it starts again." if streamed else ""
    where = f" ({_word(event, 'worker')})" if verbose else ""
    return [Line(f"▶ {reason}{void}{where}", WARN if streamed else BUSY)]


def _word(event: Mapping[str, Any], key: str, otherwise: str = "–") -> str:
    return one_line(str(event.get(key) or "")) or otherwise


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
    summary = summary.removeprefix(f"{tool} ")
    return f"{tool}  {summary}" if summary else tool


def _number(event: Mapping[str, Any], key: str) -> int:
    # proto3's JSON writes 64-bit numbers as strings
    try:
        return int(event.get(key) or 0)
    except (TypeError, ValueError):
        return 0
