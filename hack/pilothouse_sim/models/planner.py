"""Decides what a model would say next: calls, or an answer from the calls' results. Pure; README.md lists the requests.

It is a table of rules, not a language model: the same conversation gives the same reply. It never raises on odd input.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from pilothouse_sim.models import intents, results
from pilothouse_sim.models import wishes as wishes_of
from pilothouse_sim.models.types import Call, Message, Reply, Tool

HELP = (
    "I am a stand-in for a language model and plan a fixed set of requests. Try: “Which open issues do I have about "
    "VPN?”, “File an issue in IT: my laptop is slow”, “Show IT-3”, “Comment on IT-3: solved by a restart”, "
    "“Move IT-3 to Done”, “Find my open VPN issue and comment on it: any news?”, “Who is my manager?”, “Reset my VPN "
    "token”, “Open an incident: my screen flickers”, “Order a laptop”, “Who owns the account Globex?”, or “My VPN "
    "token is broken and my manager needs to know”. "
    "Set OPENAI_API_KEY or OPENAI_BASE_URL and run the demo again to use a real model."
)
ASK_PROJECT = "In which project should I file it? Answer with the project's key, for example IT."
ASK_WHICH = "Which issue do you mean? Say its key, for example IT-3."
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
        if again := _again(calls, answered):
            return again
        steps = results.by_step(message.text for message in answered)
        told = [
            results.describe(results.fill(call, steps), message.text)
            for message in answered
            if (call := calls.get(message.call_id, Call("tool", {}))).name != REPLY
        ]
        return Reply("\n\n".join(text for text in told if text) or "That is done.")
    system = "\n".join(message.text for message in messages if message.role == "system")
    return _plan(_wish(messages, asked), messages[:asked], tools, system)


def _again(calls: Mapping[str, Call], answered: Sequence[Message]) -> Reply | None:
    """The story's plan anew where it could not be done as thought: an incident without an address that nobody told, and
    a new issue where there is none to comment on."""
    texts = {call.name: message.text for message in answered if (call := calls.get(message.call_id)) is not None}
    made = [call for call in calls.values() if call.name.endswith("incident__create")]
    more: list[Call] = []
    if len(made) == 1 and "watch_list" in made[0].arguments and "not an e-mail address" in texts.get(made[0].name, ""):
        more.append(Call(made[0].name, {k: v for k, v in made[0].arguments.items() if k != "watch_list"}))
        searched = next((name for name in texts if name.endswith("issue__search")), "")
        commented = any(call.name.endswith("issue__comment") for call in calls.values())
        if commented and searched and results.is_empty(texts[searched]):
            create = searched.removesuffix("search") + "create"
            more.append(Call(create, {"project": "IT", "summary": made[0].arguments["short_description"]}))
    return Reply(calls=tuple(more)) if more else None


def _wish(messages: Sequence[Message], asked: int) -> str:
    """The user's words; after our question for a project, those of the request before it with the project added."""
    text = messages[asked].text
    before = [m for m in messages[:asked] if m.role in ("user", "assistant")]
    if len(before) >= 2 and before[-1].role == "assistant" and ASK_PROJECT in before[-1].text:
        project, earlier = intents.project_named(text), before[-2].text
        if project:
            return re.sub(r"(?i)\b(issue|ticket|task|bug|incident|request)\b", rf"\1 in {project}", earlier, count=1)
    return text


def _plan(text: str, before: Sequence[Message], tools: Sequence[Tool], system: str) -> Reply:
    if planned := wishes_of.story(text, system):
        return _labelled(planned, tools)
    planned = wishes_of.read(text)
    wishes = intents.read(text) if not planned or re.search(r"(?i)\bjira\b", text) else []
    if planned and not wishes:
        return _labelled(planned, tools)
    if not wishes:
        return Reply(HELP)
    if any(wish.arguments.get("key") == intents.IT for wish in wishes):
        wishes.sort(key=lambda wish: wish.verb in ("comment", "transition"))  # after what they refer to
    calls: list[Call] = []
    notes: list[str] = []
    that = ""  # what "it" is
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
        if arguments.get("key") == intents.IT:
            arguments["key"] = that or _recent_key(before)
            if not arguments["key"]:
                notes.append(ASK_WHICH)
                continue
        tool = _tool(wish.verb, tools)
        if tool is None:
            notes.append(f"I was given no tool to {_SAYS[wish.verb]}, so I did not.")
            continue
        if tool.parameters:
            arguments = {name: value for name, value in arguments.items() if name in tool.parameters}
        calls.append(Call(tool.name, arguments))
        if not that and wish.verb in _LEADS_TO:
            that = f"{{{{s{len(calls)}.{_LEADS_TO[wish.verb]}}}}}"
    offered = any(tool.name == REPLY for tool in tools)
    if offered and not notes and not intents.wants_list(text) and (told := results.confirmation(calls)):
        calls.append(Call(REPLY, {"text": told}))
    return Reply(" ".join(notes) if not calls else "", tuple(calls))


def _labelled(planned: Sequence[wishes_of.Planned], tools: Sequence[Tool]) -> Reply:
    """Calls of any system's functions; labels become the steps' numbers. A function that is not offered is told."""
    calls: list[Call] = []
    notes: list[str] = []
    steps: dict[str, str] = {}
    for one in planned:
        tool = _named(one.tool, tools)
        if tool is None or any(label not in steps for label in _labels(one.arguments)):
            notes.append(f"I was given no tool for {one.tool}, so I left that out.")
            continue
        arguments = {name: _numbered(value, steps) for name, value in one.arguments.items()}
        calls.append(
            Call(tool.name, {k: v for k, v in arguments.items() if not tool.parameters or k in tool.parameters})
        )
        if one.label:
            steps[one.label] = f"s{len(calls)}"
    return Reply("" if calls else " ".join(notes), tuple(calls))


_LABEL = re.compile(r"\{\{([a-z]+)(?=[.\[])")


def _labels(value: object) -> set[str]:
    if isinstance(value, dict):
        return {label for item in value.values() for label in _labels(item)}
    if isinstance(value, list):
        return {label for item in value for label in _labels(item)}
    return set(_LABEL.findall(value)) if isinstance(value, str) else set()


def _numbered(value: object, steps: dict[str, str]) -> object:
    if isinstance(value, list):
        return [_numbered(item, steps) for item in value]
    if isinstance(value, str):
        return _LABEL.sub(lambda match: "{{" + steps[match[1]], value)
    return value


def _named(end: str, tools: Sequence[Tool]) -> Tool | None:
    """The offered function whose name ends so: ``okta__user__manager`` for ``okta.user.manager``; a connector may have
    another name than its system's, then noun and verb decide."""
    parts = end.split(".")
    for length in (3, 2):
        for tool in tools:
            if tool.name.lower().split("__")[-length:] == parts[-length:]:
                return tool
    return None


REPLY = "reply"
"""The function by which a client takes the answer together with the calls; it may hold references to their results."""
_LEADS_TO = {"search": "issues[0].key", "create": "key", "get": "key"}
"""Where an issue's key stands in a result."""
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


def _recent_key(before: Sequence[Message]) -> str:
    """The first key in the last message that holds one; "" where none does."""
    said = (re.search(intents.KEY, message.text) for message in reversed(before) if message.role != "system")
    return next((match[0] for match in said if match), "")


def _tool(verb: str, tools: Sequence[Tool]) -> Tool | None:
    """The offered function for an issue's verb: ``jira__issue__create``, or another name that ends in issue, create."""
    for tool in tools:
        parts = [part for part in re.split(r"[_.\-]+", tool.name.lower()) if part]
        if parts[-2:] == ["issue", verb]:
            return tool
    return None
