"""Decides what a model would say next: calls, or an answer from the calls' results. Pure; README.md lists the requests.

It is a table of rules, not a language model: the same conversation gives the same reply. It never raises on odd input.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pilothouse_sim.models import intents, results
from pilothouse_sim.models.types import Call, Message, Reply, Tool

HELP = (
    "I am a stand-in for a language model and plan a fixed set of requests. Try: “Which open issues do I have about "
    "VPN?”, “File an issue in IT: my laptop is slow”, “Show IT-3”, “Comment on IT-3: solved by a restart”, "
    "“Move IT-3 to Done”. Set OPENAI_API_KEY or OPENAI_BASE_URL and run the demo again to use a real model."
)
ASK_PROJECT = "In which project should I file it? Answer with the project's key, for example IT."
ASK_SUMMARY = "What should the issue say? Write for example: file an issue in IT: my laptop is slow."


def reply(messages: Sequence[Message], tools: Sequence[Tool]) -> Reply:
    """The next assistant message of a conversation."""
    asked = max((i for i, message in enumerate(messages) if message.role == "user"), default=-1)
    if asked < 0:
        return Reply(HELP)
    turn = messages[asked + 1 :]
    answered = [message for message in turn if message.role == "tool"]
    if answered:
        calls = {call_id: call for message in turn for call_id, call in message.calls}
        told = [results.describe(calls.get(m.call_id, Call("tool", {})), m.text) for m in answered]
        return Reply("\n\n".join(text for text in told if text) or "That is done.")
    return _plan(_wish(messages, asked), messages[:asked], tools)


def _wish(messages: Sequence[Message], asked: int) -> str:
    """The user's words; after our question for a project, those of the request before it with the project added."""
    text = messages[asked].text
    before = [m for m in messages[:asked] if m.role in ("user", "assistant")]
    if len(before) >= 2 and before[-1].role == "assistant" and ASK_PROJECT in before[-1].text:
        project, earlier = intents.project_named(text), before[-2].text
        if project:
            return re.sub(r"(?i)\b(issue|ticket|task|bug|incident|request)\b", rf"\1 in {project}", earlier, count=1)
    return text


def _plan(text: str, before: Sequence[Message], tools: Sequence[Tool]) -> Reply:
    wishes = intents.read(text)
    if not wishes:
        return Reply(HELP)
    calls, notes = [], []
    for wish in wishes:
        arguments = dict(wish.arguments)
        if wish.verb == "create":
            if not arguments["summary"]:
                notes.append(ASK_SUMMARY)
                continue
            arguments["project"] = arguments["project"] or _recent_project(text, before)
            if not arguments["project"]:
                notes.append(ASK_PROJECT)
                continue
        tool = _tool(wish.verb, tools)
        if tool is None:
            notes.append(f"I was given no tool to {_SAYS[wish.verb]}, so I did not.")
            continue
        if tool.parameters:
            arguments = {name: value for name, value in arguments.items() if name in tool.parameters}
        calls.append(Call(tool.name, arguments))
    return Reply(" ".join(notes) if not calls else "", tuple(calls))


_SAYS = {
    "search": "search for issues",
    "get": "read an issue",
    "create": "file an issue",
    "comment": "comment on an issue",
    "transition": "move an issue",
}


def _recent_project(text: str, before: Sequence[Message]) -> str | None:
    for said in (text, *(m.text for m in reversed(before) if m.role == "user")):
        if project := intents.project_named(said):
            return project
    return None


def _tool(verb: str, tools: Sequence[Tool]) -> Tool | None:
    """The offered function for an issue's verb: ``jira__issue__create``, or another name that ends in issue, create."""
    for tool in tools:
        parts = [part for part in re.split(r"[_.\-]+", tool.name.lower()) if part]
        if parts[-2:] == ["issue", verb]:
            return tool
    return None
