"""Words for people and bounded results for models. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite

from pilothouse_dataplane.core.messages import Outcome, ToolResult

_SHOWN_ARGUMENT_CHARS = 60
_REFERENCE = re.compile(r"\{\{\s*s(\d{1,4})[^{}]{0,200}\}\}")
_SAID = {
    "comment": "comment on",
    "transition": "move",
    "work_note": "add a work note to",
    "decide": "decide on",
    "order": "order from",
    "me": "show your own",
    "issue_types": "list what can be created in",
    "manager": "find the manager of",
    "members": "list the members of",
    "add_user": "add somebody to",
    "remove_user": "remove somebody from",
    "expire_password": "expire the password of",
    "reset_password": "reset the password of",
    "reset_all": "reset every",
}
"""Verbs of tools that are not an English verb with its object."""
_NAMES = {"servicenow": "ServiceNow"}
"""Systems that are not written with one capital."""
_MAX_DEPTH = 24


@dataclass(frozen=True, slots=True)
class StepReport:
    """How one step ended."""

    tool: str
    outcome: Outcome
    summary: str


def step_title(name: str) -> str:
    """A tool's name for a person: ``jira.issue.comment`` is "Jira: comment on issue"."""
    system, _, what = name.partition(".")
    noun, _, verb = what.rpartition(".")
    said = _SAID.get(verb, verb.replace("_", " "))
    return f"{_NAMES.get(system) or system[:1].upper() + system[1:]}: {said} {noun.replace('.', ' ')}".rstrip(" :")


def step_summary(name: str, arguments: Mapping[str, object]) -> str:
    """One sentence for a person: what a call would do."""
    shown = ", ".join(
        # a person knows no {{s1.key}}: the value stands there as soon as the step has it
        field if value is True else f"{field}: {_REFERENCE.sub(_from_step, str(value))[:_SHOWN_ARGUMENT_CHARS]}"
        for field, value in arguments.items()
        if value is not False
    )
    return step_title(name) + (f" ({shown})" if shown else "")


def _from_step(reference: re.Match[str]) -> str:
    return f"from step {reference[1]}"


def partial_answer(written: str, why: str, steps: Sequence[StepReport]) -> str:
    """An honest answer of a run that a bound ended: what was written, why it ended, what was done, what was not."""
    parts = [written.rstrip()] if written.strip() else []
    parts.append(f"{why.rstrip('.')}, so this answer is not complete.")
    done = [step.summary for step in steps if step.outcome is Outcome.SUCCEEDED]
    unknown = [step.summary for step in steps if step.outcome is Outcome.UNKNOWN]
    missed = [step.summary for step in steps if step.outcome in (Outcome.FAILED, Outcome.REFUSED)]
    for title, lines in (("Done", done), ("Not known, please check", unknown), ("Not done", missed)):
        if lines:
            shown = [*dict.fromkeys(lines)][:8]
            parts.append("\n".join([f"{title}:", *(f"- {line}" for line in shown)]))
    if not steps:
        parts.append("Nothing was changed in any system.")
    return "\n\n".join(parts)


def plain_result(result: ToolResult) -> ToolResult:
    """The result with data that every store and model can take: nested at most 24 deep, no NUL, finite numbers."""
    if result.data is None and "\x00" not in result.summary:
        return result
    return replace(result, summary=result.summary.replace("\x00", ""), data=_plain(result.data, 0))


def _plain(value: object, depth: int) -> object:
    if isinstance(value, str):
        return value.replace("\x00", "") if "\x00" in value else value
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if isfinite(value) else None
    if depth >= _MAX_DEPTH:
        return "…"
    if isinstance(value, Mapping):
        return {str(name).replace("\x00", ""): _plain(item, depth + 1) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, depth + 1) for item in value]
    return str(value)


def bounded_data(result: ToolResult | None, limit: int, step_id: str = "") -> str:
    """A tool's result as JSON text of at most ``limit`` bytes, the outside data under ``data``.

    The JSON quoting is the fence: nothing in ``data`` can end it. The system prompt says that it is no instruction.
    """
    if result is None:
        return "{}"
    envelope: dict[str, object] = {"step": step_id} if step_id else {}
    envelope |= {"outcome": result.outcome.value, "summary": result.summary[:2000]}
    if result.data is not None:
        envelope["data"] = result.data
    text = _dump(envelope)
    if len(text.encode()) <= limit:
        return text
    envelope["truncated"] = True
    data = result.data
    if isinstance(data, dict):
        for name, items in data.items():
            if isinstance(items, list):
                kept = list(items)
                while len(kept) > 1:
                    kept = kept[: len(kept) // 2]
                    envelope["data"] = {**data, name: kept}
                    text = _dump(envelope)
                    if len(text.encode()) <= limit:
                        return text
    raw = _dump(data)
    # escaping and UTF-8 can make a character up to six times as long: shrink until it fits
    size = limit
    while size > 16:
        size //= 2
        envelope["data"] = raw[:size]
        text = _dump(envelope)
        if len(text.encode()) <= limit:
            return text
    return _dump({**({"step": step_id} if step_id else {}), "outcome": result.outcome.value, "truncated": True})


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
