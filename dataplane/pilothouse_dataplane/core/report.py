"""Words for people and bounded results for models. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pilothouse_dataplane.core.messages import Outcome, ToolResult

_SHOWN_ARGUMENT_CHARS = 60


@dataclass(frozen=True, slots=True)
class StepReport:
    """How one step ended."""

    tool: str
    outcome: Outcome
    summary: str


def step_summary(name: str, arguments: Mapping[str, object]) -> str:
    """One sentence for a person: what a call would do."""
    system, _, what = name.partition(".")
    noun, _, verb = what.partition(".")
    shown = ", ".join(
        field if value is True else f"{field}: {str(value)[:_SHOWN_ARGUMENT_CHARS]}"
        for field, value in arguments.items()
        if value is not False
    )
    return f"{system.capitalize()}: {verb} {noun}".rstrip() + (f" ({shown})" if shown else "")


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
    return _dump({"outcome": result.outcome.value, "truncated": True})


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
