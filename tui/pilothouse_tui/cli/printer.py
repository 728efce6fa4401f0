"""A chat's events on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import click
import orjson

from pilothouse_tui.data import convert
from pilothouse_tui.errors import ToolError
from pilothouse_tui.model import Approval
from pilothouse_tui.render.chat import (
    Line,
    approval_question,
    decision_line,
    error_lines,
    lines,
    parked_line,
    split_line,
)
from pilothouse_tui.render.style import BAD, BUSY, DIM, GOOD, STRONG, WARN

_ANSI = {GOOD: "green", WARN: "yellow", BAD: "red", BUSY: "cyan", DIM: "bright_black"}
Event = Mapping[str, Any]


class Printer:
    """Writes lines to the terminal and knows whether the cursor stands at a line's start."""

    def __init__(self, clock: Callable[[], datetime], *, as_json: bool = False, verbose: bool = False) -> None:
        self._clock = clock
        self._as_json = as_json
        self._verbose = verbose
        self._inline = False
        self._asking = False
        """A prompt stands at the cursor, and somebody may be typing behind it."""
        self._streamed = False
        self._planned: set[object] = set()
        """Steps that a plan has told: that one of them starts is not told once more."""
        self._ended: set[tuple[object, object]] = set()
        """Run and step of what has been told to have ended."""

    def event(self, event: Event) -> None:
        """Print one event."""
        if self._as_json:
            click.echo(orjson.dumps(event).decode())
            return
        kind = event.get("type")
        if kind == "accepted":
            self._streamed = False
            self._planned.clear()
        elif kind == "plan":
            self._planned |= {step.get("step_id") for step in event.get("steps") or ()}
        if kind == "decision_result":
            self.line(decision_line(convert.decision(event)))
        elif kind != "step_started" or self._verbose or event.get("step_id") not in self._planned:
            for line in lines(event, streamed=self._streamed, verbose=self._verbose):
                self.line(line)
        if kind == "text_delta":
            self._streamed = True
        elif kind == "step_finished":
            self._ended.add((event.get("run_id"), event.get("step_id")))
        elif kind == "resumed":
            self._streamed = False
            # a step may end before this terminal hears that the run goes on
            for step in event.get("steps") or ():
                if (event.get("run_id"), step.get("step_id")) not in self._ended:
                    self.event({"type": "step_finished", "run_id": event.get("run_id"), **step})
        elif kind == "final" and self._verbose and (split := convert.time_split(event.get("time"))).total_ms:
            self.line(split_line(split))

    def approval(self, approval: Approval, me: str) -> None:
        """Print what is asked; ``me`` is the asking user's e-mail."""
        if not self._as_json:
            for line in approval_question(approval, me, self._clock()):
                self.line(line)

    def parked(self, waiting: list[Approval], session_id: str, me: str) -> None:
        """Say whom the run waits for."""
        if not self._as_json:
            self.line(parked_line(waiting, session_id, self._clock(), me))

    def line(self, line: Line) -> None:
        """Print one line, or text that goes on."""
        if self._asking or (self._inline and not line.inline):
            click.echo()
        self._inline, self._asking = line.inline, False
        click.secho(line.text, fg=_ANSI.get(line.style), bold=line.style == STRONG or None, nl=not line.inline)

    def ask(self, prompt: str) -> None:
        """Print a prompt whose answer is typed behind it, where it does not stand there already."""
        if not self._asking:
            self.end()
            self.line(Line(prompt, STRONG, inline=True))
            self._inline, self._asking = False, True

    def asks(self) -> None:
        """Somebody else has printed a prompt (``input`` does)."""
        self._asking = True

    def answered(self) -> None:
        """The person's Enter has ended the prompt's line."""
        self._asking = False

    def end(self) -> None:
        """End the line that a prompt or a streamed answer stands on."""
        if self._inline or self._asking:
            click.echo()
        self._inline = self._asking = False

    def note(self, text: str) -> None:
        """A remark of the tool's own, to standard error so that it never mixes with an answer in a pipe."""
        self.end()
        click.secho(text, fg="bright_black", err=True)

    def error(self, error: ToolError) -> None:
        """An error of the tool's own."""
        for line in error_lines(f"{error.happened} {error.not_done}", error.to_do):
            self.note(line.text)
