"""Where the values of a write's arguments come from: the user, a tool's output, or the model. Pure.

What a tool returns may have been written by anybody, so a value that it brought must not reach a write unseen. A value
is the *user's* where the user wrote it in this conversation (whole, apart from case and white space). It is a *tool's*
where it is a reference to a result, or where tool output that the model has read contains it. Everything else was
written by the *model*: harmless as long as the model had read nothing but the user's words, and a tool's as soon as it
had, for nobody can tell a summary of tool output from the model's own words.

Values that can't carry a message are left out: booleans, null, and those that the tool's schema enumerates. The names
of an object's fields are values, too, where the tool's schema does not name them itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pilothouse_dataplane.core.messages import JsonObject

_SHOWN_CHARS = 500
_SPACE = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class ArgumentOrigin:
    """One value that is not the user's own."""

    path: str
    """``summary``, ``labels[0]``, ``fields.owner``."""
    value: str
    """As text, at most 500 characters."""
    source: str
    """``jira.issue.get (s1)``, or that the model wrote it after reading such a thing."""


@dataclass(frozen=True, slots=True)
class ToolOutput:
    """What a tool returned, as text that the model has read."""

    step_id: str
    tool: str
    text: str


def leaves(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Every value that is not a container, with its path."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from leaves(item, f"{path}.{name}" if path else str(name))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from leaves(item, f"{path}[{index}]")
    else:
        yield path, value


def free_names(value: object, schema: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Every name of an object's field that the schema does not give, with the path of its value."""
    part = schema if isinstance(schema, Mapping) else {}
    if isinstance(value, Mapping):
        given = part.get("properties")
        known: Mapping[str, Any] = given if isinstance(given, Mapping) else {}
        for name, item in value.items():
            inside = f"{path}.{name}" if path else str(name)
            if name not in known:
                yield f"{inside} (name)", str(name)
            yield from free_names(item, known.get(name), inside)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from free_names(item, part.get("items"), f"{path}[{index}]")


def normal(text: str) -> str:
    """Case and white space don't make another value."""
    return _SPACE.sub(" ", text).strip().casefold()


def foreign_values(
    arguments: JsonObject,
    schema: JsonObject,
    user_texts: Sequence[str],
    read: Sequence[ToolOutput],
    earlier_answers: Sequence[str],
    references: Mapping[str, ToolOutput],
) -> tuple[ArgumentOrigin, ...]:
    """The values that a tool brought.

    ``read`` is what tools returned in this run before the model wrote the call; ``earlier_answers`` what the assistant
    said in earlier runs of the session (it may quote tools); ``references`` maps the path of an argument that was
    filled from a result to that result.
    """
    said = [normal(text) for text in user_texts]
    outputs = [(output, normal(output.text)) for output in read]
    answers = [normal(text) for text in earlier_answers]
    found = []
    for path, value in (*leaves(arguments), *free_names(arguments, schema)):
        if value is None or isinstance(value, bool) or _enumerated(schema, path):
            continue
        shown = str(value)[:_SHOWN_CHARS]
        text = normal(str(value))
        if path in references:
            output = references[path]
            if not _wrote(text, said):
                found.append(ArgumentOrigin(path, shown, f"{output.tool} ({output.step_id})"))
            continue
        if not text or _wrote(text, said):
            continue
        quoted = next((output for output, content in outputs if text in content), None)
        if quoted is not None:
            found.append(ArgumentOrigin(path, shown, f"{quoted.tool} ({quoted.step_id})"))
        elif any(text in answer for answer in answers):
            found.append(ArgumentOrigin(path, shown, "an earlier answer"))
        elif outputs:
            names = ", ".join(dict.fromkeys(f"{output.tool} ({output.step_id})" for output, _ in outputs[:3]))
            found.append(ArgumentOrigin(path, shown, f"written by the model after reading {names}"))
    return tuple(found)


def _wrote(text: str, said: Sequence[str]) -> bool:
    """Whether the user wrote the value: as words of their own, not as a part of a longer one."""
    for own in said:
        start = own.find(text)
        while start != -1:
            before = own[start - 1] if start else " "
            end = start + len(text)
            after = own[end] if end < len(own) else " "
            if not (before.isalnum() and text[:1].isalnum()) and not (after.isalnum() and text[-1:].isalnum()):
                return True
            start = own.find(text, start + 1)
    return False


def _enumerated(schema: JsonObject, path: str) -> bool:
    """Whether the tool's schema allows only listed values at the path."""
    part: Any = schema
    for name in re.split(r"\.|(?=\[)", path):
        if not isinstance(part, Mapping):
            return False
        part = part.get("items") if name.startswith("[") else (part.get("properties") or {}).get(name)
    return isinstance(part, Mapping) and ("enum" in part or "const" in part)
