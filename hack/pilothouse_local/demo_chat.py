"""Asks the demo's agent, prints what it does as it does it, and answers what it asks for as the employee would."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pilothouse_api.names import PLAN_STEP
from pilothouse_tui.data.chat import ChatConnection

_MARKS = {
    "STEP_OUTCOME_SUCCEEDED": "done",
    "STEP_OUTCOME_REFUSED": "refused",
    "STEP_OUTCOME_FAILED": "failed",
    "STEP_OUTCOME_UNKNOWN": "outcome unknown",
}


@dataclass
class Answer:
    """What came back for one question."""

    text: str = ""
    error: str = ""
    steps: dict[str, str] = field(default_factory=dict)
    """Tool → how it ended: done, refused, failed."""
    sentences: dict[str, str] = field(default_factory=dict)
    """Tool → what was told of it."""
    accounts: dict[str, str] = field(default_factory=dict)
    """Tool → as whom its system was asked."""
    asked: list[str] = field(default_factory=list)
    """Tools whose calls waited for a yes."""
    seconds: float = 0
    first_text_seconds: float | None = None


async def ask(url: str, token: str, text: str, say: Callable[[str], None]) -> Answer:
    """Asks, approves what the asking user is asked, and prints it all, text by whole lines. Raises ``ToolError``."""

    async def given() -> str:
        return token

    answer, began = Answer(), time.monotonic()
    async with ChatConnection(url, given, None) as connection:
        await connection.connect()
        printer = _Printer(answer, say, began)
        async for event in connection.ask(text):
            printer.take(event)
            if event.get("type") == "approval_required":
                if event.get("by") not in (None, "APPROVER_USER", "APPROVER_UNSPECIFIED"):
                    answer.error = f"it waits for {event.get('approver')}, whom this demo does not have at hand"
                    break
                await connection.decide(str(event["approval_id"]), True)
    printer.end()
    answer.seconds = time.monotonic() - began
    return answer


class _Printer:
    def __init__(self, answer: Answer, say: Callable[[str], None], began: float) -> None:
        self._answer = answer
        self._say = say
        self._began = began
        self._planned: set[object] = set()
        self._ended: set[object] = set()
        self._line = ""

    def take(self, event: Mapping[str, Any]) -> None:
        """Print an event of a run."""
        kind, tool = event.get("type"), str(event.get("tool", ""))
        summary = str(event.get("summary") or tool)
        if event.get("step_id") == PLAN_STEP:
            if kind == "step_started":
                self._say(f"   .. {summary}")
        elif kind == "plan":
            steps = event.get("steps")
            for step in steps if isinstance(steps, list) else ():
                if step.get("step_id") not in self._planned:
                    self._planned.add(step.get("step_id"))
                    self._say(f"   planned: {step.get('summary') or step.get('tool')}")
        elif kind == "step_started":
            if event.get("step_id") not in self._planned:
                self._say(f"   -> {summary}")
        elif kind == "step_finished":
            self._finished(event)
        elif kind == "resumed":  # a step may have ended before this conversation heard of the run's going on
            steps = event.get("steps")
            for step in steps if isinstance(steps, list) else ():
                if step.get("step_id") not in self._ended:
                    self._finished(step)
        elif kind == "approval_required":
            self._approval(event, tool, summary)
        elif kind == "text_delta":
            self._text(str(event.get("text", "")))
        elif kind == "final":
            self._answer.text = str(event.get("text", ""))
        elif kind == "error":
            self._answer.error = f"{event.get('message', '')} {event.get('user_action', '')}".strip()

    def _finished(self, step: Mapping[str, Any]) -> None:
        tool, mark = str(step.get("tool", "")), _MARKS.get(str(step.get("outcome")), str(step.get("outcome")))
        summary, account = str(step.get("summary") or tool), str(step.get("account", ""))
        self._ended.add(step.get("step_id"))
        self._answer.steps[tool] = mark
        self._answer.sentences[tool] = summary
        self._answer.accounts[tool] = account
        whom = f" as {account}" if account else ""
        self._say(f"   <- {tool} {mark}{whom} in {step.get('duration_ms', 0)} ms: {summary}")

    def _approval(self, event: Mapping[str, Any], tool: str, summary: str) -> None:
        self._answer.asked.append(tool)
        self._say(f"   ?? May I do this? {summary}")
        self._say(f"      {event.get('reason', '')}")
        origins = event.get("origins")
        for origin in origins if isinstance(origins, list) else ():
            self._say(f"      {origin.get('path')}: {str(origin.get('value'))[:80]!r}, from {origin.get('source')}")
        self._say("      The employee says yes.")

    def _text(self, text: str) -> None:
        if self._answer.first_text_seconds is None:
            self._answer.first_text_seconds = time.monotonic() - self._began
        *lines, self._line = (self._line + text).split("\n")
        for complete in lines:
            self._say(f"   | {complete}")

    def end(self) -> None:
        """Print the line that was begun."""
        if self._line:
            self._say(f"   | {self._line}")
