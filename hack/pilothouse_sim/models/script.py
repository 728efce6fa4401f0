"""Answers that a test writes down, and that are played instead of the planner's.

``POST /__sim/script`` takes ``{"answers": [{…}, …]}`` and adds them; ``GET`` shows what is left and what was played;
``DELETE`` forgets both. The first answer that fits a request and has plays left is played. An answer's fields::

    match       words in the last user message, in any case; "": any
    models      glob over the model's name; "": any
    results     true: only after tools have answered; false: only before; null: either
    times       plays; -1: without end (default 1)
    text        what the model says
    calls       [{"name": …, "arguments": {…} or "text that may be broken"}]
    thoughts    what it thinks, where the request lets it
    finish      "length" or "content_filter"
    error       a name of ``errors.NAMES``: it fails so instead, or with this answer
    usage       {"prompt": …, "completion": …, "cached": …, "stored": …, "thoughts": …}
    raw         lines that are streamed as they are, instead of everything else
    delay_ms    before the first token, in place of the faults' own
"""

from __future__ import annotations

import dataclasses
import fnmatch
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pilothouse_sim.models.errors import checked
from pilothouse_sim.models.exchange import Answer, Asked, SaidCall

_USAGE = frozenset(("prompt", "completion", "cached", "stored", "thoughts"))
_TYPES: dict[str, tuple[type, ...]] = {
    "match": (str,), "models": (str,), "results": (bool, type(None)), "times": (int,), "text": (str,),
    "calls": (list,), "thoughts": (str,), "finish": (str,), "error": (str,), "usage": (dict,), "raw": (list,),
    "delay_ms": (int, float, type(None)),
}  # fmt: skip


@dataclass
class Scripted:
    """One answer of a script; the fields are the module's."""

    match: str = ""
    models: str = ""
    results: bool | None = None
    times: int = 1
    text: str = ""
    calls: list[Mapping[str, Any]] = field(default_factory=list)
    thoughts: str = ""
    finish: str = ""
    error: str = ""
    usage: Mapping[str, int] = field(default_factory=dict)
    raw: list[str] = field(default_factory=list)
    delay_ms: float | None = None

    @classmethod
    def read(cls, given: object) -> Scripted:
        """Raises ValueError with a sentence."""
        if not isinstance(given, dict):
            raise ValueError("an answer is a JSON object")  # noqa: TRY004 - one error type for the caller
        for name, value in given.items():
            if name not in _TYPES:
                raise ValueError(f"unknown field {name!r} of an answer; known are {', '.join(_TYPES)}")
            if not isinstance(value, _TYPES[name]):
                raise ValueError(f"{name} of an answer has a wrong type")  # noqa: TRY004 - one error type
        one = cls(**given)
        checked(one.error)
        if one.finish not in ("", "length", "content_filter"):
            raise ValueError('finish must be "", "length" or "content_filter"')
        if not _USAGE.issuperset(one.usage) or not all(isinstance(value, int) for value in one.usage.values()):
            raise ValueError(f"usage holds whole numbers of {', '.join(sorted(_USAGE))}")
        if not all(isinstance(call, dict) and isinstance(call.get("name"), str) for call in one.calls):
            raise ValueError('each call is {"name": …, "arguments": …}')
        if not all(isinstance(line, str) for line in one.raw):
            raise ValueError("raw holds lines of text")
        return one

    def fits(self, asked: Asked) -> bool:
        """Whether it is to be played now."""
        return (
            self.times != 0
            and self.match.lower() in asked.question.lower()
            and (not self.models or fnmatch.fnmatchcase(asked.model, self.models))
            and (self.results is None or self.results == asked.has_results)
        )

    @property
    def says(self) -> bool:
        """Whether it holds an answer of its own, beside what goes wrong."""
        return bool(self.text or self.calls or self.finish or not self.error)

    def answer(self) -> Answer:
        """As the protocols write it."""
        calls = []
        for call in self.calls:
            given = call.get("arguments", {})
            calls.append(SaidCall(call["name"], given if isinstance(given, str) else json.dumps(given)))
        finish = self.finish if self.finish in ("length", "content_filter") else ""
        return Answer(self.text, tuple(calls), self.thoughts, finish)  # type: ignore[arg-type]


class Script:
    """The answers that are left, and what was played."""

    def __init__(self) -> None:
        self.answers: list[Scripted] = []
        self.played: list[dict[str, str]] = []

    def add(self, given: object) -> None:
        """Adds a request's answers. Raises ValueError; then none was added."""
        answers = given.get("answers") if isinstance(given, dict) else None
        if not isinstance(answers, list):
            raise ValueError('a script is {"answers": [ … ]}')  # noqa: TRY004 - one error type for the caller
        self.answers += [Scripted.read(one) for one in answers]

    def play(self, asked: Asked) -> Scripted | None:
        """The next answer for a request; None where the planner answers."""
        for one in self.answers:
            if one.fits(asked):
                one.times -= one.times > 0
                self.played.append({"model": asked.model, "question": asked.question[:200], "match": one.match})
                return one
        return None

    def clear(self) -> None:
        self.answers.clear()
        self.played.clear()

    def shown(self) -> dict[str, Any]:
        """For ``GET``."""
        left = [dataclasses.asdict(one) for one in self.answers if one.times]
        return {"left": left, "played": self.played[-1000:]}
