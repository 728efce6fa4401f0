"""Turns tool results into sentences. Pure; reads any text leniently, since the client may wrap results as it likes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pilothouse_sim.models.types import Call

_PERMISSION_KEY = re.compile(
    r"\b(?:BROWSE|CREATE|EDIT|ADD|TRANSITION|ASSIGN|DELETE|MODIFY|RESOLVE|CLOSE)_[A-Z_]{3,40}\b"
)
_PERMISSION_OF = {"create": "CREATE_ISSUES", "comment": "ADD_COMMENTS", "transition": "TRANSITION_ISSUES",
                  "search": "BROWSE_PROJECTS", "get": "BROWSE_PROJECTS"}  # fmt: skip
_REFUSED = re.compile(r"(?i)\bpermission|not\s+(?:allowed|permitted|authori[sz]ed)|forbidden|denied|may\s+not\b")
_NOT_LINKED = re.compile(r"(?i)\b(?:link|connect)\b.{0,40}\baccount|account.{0,30}\bnot\s+(?:linked|connected)")
_FAILED = re.compile(
    r"(?i)\b(?:error|failed|failure|refused|unavailable|timed?\s*out|does not exist|breaker|unknown)\b"
)
_ERROR_KEYS = ("error", "errors", "errorMessages", "refused", "refusal", "failure", "detail", "message", "reason")
_REFERENCE = re.compile(r"\{\{s(\d{1,4})((?:\.\w+|\[\d+\])*)\}\}")
_NOT_BEGUN = re.compile(r"[\w.]+ was not (?:done|called): (.+)", re.DOTALL)
"""What the agent itself says of a call that it did not make: somebody refused it, say."""
_LIST_KEYS = ("issues", "results", "items", "values")
_MAX_LISTED = 20


def find_json(text: str) -> Any:
    """The largest JSON object or list that stands anywhere in ``text``; None where there is none."""
    decoder, best, size, at = json.JSONDecoder(), None, 1, 0
    while found := re.compile(r"[\[{]").search(text, at):
        try:
            value, end = decoder.raw_decode(text, found.start())
        except (ValueError, RecursionError):
            at = found.start() + 1
            continue
        if end - found.start() > size and value:
            best, size = value, end - found.start()
        at = end
    return best


def is_empty(content: str) -> bool:
    """Whether a search went well and found nothing."""
    value = find_json(content)
    return isinstance(value, dict) and value.get("outcome") == "succeeded" and not list(_issues(value))


def verb_of(name: str) -> str:
    """``jira__issue__create`` → ``create``."""
    return re.split(r"[_.\-]+", name)[-1].lower()


def describe(call: Call, content: str) -> str:
    """What a call came to, for the person who asked."""
    value, verb = find_json(content), verb_of(call.name)
    if not _of_issues(call.name):
        return _other(call, value, content)
    if problem := _problem(value, content):
        if isinstance(value, dict) and value.get("outcome") == "unknown":
            return f"I don't know whether I managed to {_doing(call, verb)}. {problem}"
        return _refusal(call, verb, problem, content)
    issues = list(_issues(value))
    if verb == "search":
        return _listing(call.arguments, issues)
    first = issues[0] if issues else {}
    key = str(first.get("key") or call.arguments.get("key") or "")
    if verb == "create":
        if not key:
            return f"The issue was filed: {_short(content)}"
        link = f" ({first['url']})" if isinstance(first.get("url"), str) else ""
        return f"I filed {key}: {first.get('summary') or call.arguments.get('summary', '')}{link}."
    if verb == "comment":
        return f"I commented on {call.arguments.get('key', key)}: “{_short(str(call.arguments.get('body', '')))}”"
    if verb == "transition":
        status = _name(first.get("status")) or call.arguments.get("status", "")
        return f"{call.arguments.get('key', key)} is now in status {status}."
    if verb == "get" and first:
        return _details(first)
    return f"{call.name} answered: {_short(content)}"


def _of_issues(name: str) -> bool:
    return "issue" in re.split(r"[_.\-]+", name.lower())


def _other(call: Call, value: Any, content: str) -> str:
    """Any other system's result: its own sentence, and the first rows of a list."""
    said = _sentence(value.get("summary")) if isinstance(value, dict) else ""
    if problem := _problem(value, content):
        system, *what = [part for part in re.split(r"__|\.", call.name) if part]
        doing = f"{' '.join(reversed(what)).replace('_', ' ')} in {_SYSTEMS.get(system, system.title())}"
        if "{{" in problem or _NOT_BEGUN.match(problem):
            problem = problem if "{{" not in problem else "What it needs was not found"
            return f"I did not do this: {doing}. {problem.rstrip('.')}. Nothing was changed there."
        return f"This could not be done: {doing}. {said or problem}"
    data = value.get("data") if isinstance(value, dict) else None
    rows = next((v for v in data.values() if isinstance(v, list)), []) if isinstance(data, dict) else []
    lines = [f"- {row}" for row in (_row(row) for row in rows[:_MAX_ROWS] if isinstance(row, dict)) if row]
    return "\n".join([said or _short(content), *lines])


def _row(row: Mapping[str, Any]) -> str:
    """A few words of one thing in a list."""
    name = next((row[k] for k in _NAMES if isinstance(row.get(k), str) and row[k]), "")
    more = [f"{k.replace('_', ' ')} {row[k]}" for k in _TOLD if isinstance(row.get(k), str) and row[k]]
    return f"{name}: {', '.join(more)}" if more else name


_SYSTEMS = {"okta": "Okta", "servicenow": "ServiceNow", "salesforce": "Salesforce", "jira": "Jira"}
_MAX_ROWS = 5
_NAMES = ("number", "name", "title", "subject", "label", "type", "id")
_TOLD = ("short_description", "status", "state", "owner", "owner_email", "email", "price", "provider")


def confirmation(calls: Sequence[Call]) -> str:
    """The answer that can be written before the calls are made, with references to their results; "" where somebody has
    to read the results first: a search for its own sake, or an issue's details."""
    told: list[str] = []
    for number, call in enumerate(calls, 1):
        verb, arguments = verb_of(call.name), call.arguments
        key = arguments.get("key", "")
        if verb == "create":
            told.append(f"I filed {{{{s{number}.key}}}}: {arguments.get('summary', '')} ({{{{s{number}.url}}}}).")
        elif verb == "comment":
            told.append(f"I commented on {_with_summary(key, calls)}: “{_short(str(arguments.get('body', '')))}”")
        elif verb == "transition":
            told.append(f"I moved {_with_summary(key, calls)} to {arguments.get('status', '')}.")
        elif verb != "search" or not any(f"{{{{s{number}." in str(c.arguments.get("key")) for c in calls):
            return ""
    return "\n\n".join(told)


def _with_summary(key: str, calls: Sequence[Call]) -> str:
    """An issue that only a search knows is named with its summary: the person did not say which it is."""
    found = _REFERENCE.fullmatch(key)
    searched = found is not None and verb_of(calls[int(found[1]) - 1].name) == "search"
    return f"{key} ({key.replace('.key}}', '.summary}}')})" if searched else key


def by_step(texts: Iterable[str]) -> dict[str, Any]:
    """The ``data`` of each result that names its ``step``, by that name."""
    found = (find_json(text) for text in texts)
    return {str(v["step"]): v.get("data") for v in found if isinstance(v, dict) and v.get("step")}


def fill(call: Call, steps: Mapping[str, Any]) -> Call:
    """The call with results in the place of references; one that leads nowhere is left out."""

    def look_up(match: re.Match[str]) -> str:
        value = steps.get(f"s{match[1]}")
        for part in re.findall(r"\w+", match[2]):
            if isinstance(value, dict):
                value = value.get(part)
            elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
                value = value[int(part)]
            else:
                return ""
        return str(value) if isinstance(value, str | int) else ""

    filled = {n: _REFERENCE.sub(look_up, v) if isinstance(v, str) else v for n, v in call.arguments.items()}
    return Call(call.name, {name: value for name, value in filled.items() if value != ""})


def _listing(arguments: Mapping[str, Any], issues: list[dict[str, Any]]) -> str:
    what = ("open " if arguments.get("open") else "") + "issue"
    about = f" about {arguments['text']}" if arguments.get("text") else ""
    where = f" in {arguments['project']}" if arguments.get("project") else ""
    if not issues:
        return f"You have no {what}s{about}{where}." if arguments.get("mine") else f"I found no {what}s{about}{where}."
    count = f"{len(issues)} {what}{'' if len(issues) == 1 else 's'}{about}{where}"
    lines = [f"- {i.get('key', '?')}: {i.get('summary', '')}{_in_status(i)}" for i in issues[:_MAX_LISTED]]
    more = [f"- and {len(issues) - _MAX_LISTED} more"] if len(issues) > _MAX_LISTED else []
    return "\n".join([f"You have {count}:" if arguments.get("mine") else f"I found {count}:", *lines, *more])


def _details(issue: Mapping[str, Any]) -> str:
    parts = [f"{issue.get('key')}: {issue.get('summary', '')}{_in_status(issue)}"]
    for name in ("assignee", "reporter", "priority"):
        if text := _name(issue.get(name)):
            parts.append(f"{name.title()}: {text}")
    description = issue.get("description")
    if isinstance(description, str) and description:
        parts.append(_short(description, 500))
    return "\n".join(parts)


def _in_status(issue: Mapping[str, Any]) -> str:
    status = _name(issue.get("status"))
    return f" ({status})" if status else ""


def _name(value: object) -> str:
    if isinstance(value, Mapping):
        value = value.get("name") or value.get("displayName") or value.get("display_name")
    return value if isinstance(value, str) else ""


def _issues(value: Any) -> Iterator[dict[str, Any]]:
    """Flat issues out of Jira's shape, a connector's shape, or a list of either."""
    if isinstance(value, list):
        for entry in value:
            yield from _issues(entry)
    elif isinstance(value, dict):
        for name in (*_LIST_KEYS, "issue", "result", "data"):
            if isinstance(value.get(name), list | dict):
                yield from _issues(value[name])
                return
        if "key" in value:
            nested = value.get("fields")
            yield {**(nested if isinstance(nested, dict) else {}), **{k: v for k, v in value.items() if k != "fields"}}


def _problem(value: Any, content: str) -> str:
    """The sentence that says why a call did not do what it should; "" where it did."""
    if isinstance(value, dict):
        outcome = str(value.get("outcome") or value.get("status") or "").lower()
        bad = outcome.rpartition("_")[2] in ("refused", "failed", "error", "unknown", "denied")
        for name in _ERROR_KEYS:
            if value.get(name) and (
                bad or name in ("error", "errors", "errorMessages", "refused", "refusal", "failure")
            ):
                return _sentence(value[name])
        return (_sentence(value.get("summary")) or _short(content)) if bad else ""
    if value is None and (_REFUSED.search(content) or _FAILED.search(content)):
        return _short(content)
    return ""


def _sentence(value: Any) -> str:
    if isinstance(value, Mapping):
        parts = [_sentence(value[n]) for n in ("message", *_ERROR_KEYS, "what", "user_action") if value.get(n)]
        return " ".join(dict.fromkeys(p for p in parts if p)) or " ".join(_sentence(v) for v in value.values())
    if isinstance(value, list):
        return " ".join(_sentence(v) for v in value)
    return value.strip() if isinstance(value, str) else ""


def _doing(call: Call, verb: str) -> str:
    return {
        "create": f"file the issue “{call.arguments.get('summary', '')}” in {call.arguments.get('project', 'Jira')}",
        "comment": f"comment on {call.arguments.get('key', 'the issue')}",
        "transition": f"move {call.arguments.get('key', 'the issue')} to {call.arguments.get('status', 'that status')}",
        "search": "search for issues",
        "get": f"read {call.arguments.get('key', 'the issue')}",
    }.get(verb, f"run {call.name}")


def _refusal(call: Call, verb: str, problem: str, content: str) -> str:
    doing = _doing(call, verb)
    if "{{" in problem:
        return f"I could not {doing}: no such issue was found. Nothing was changed."
    if stopped := _NOT_BEGUN.match(problem):
        return f"I did not {doing}: {stopped[1].rstrip('.')}. Nothing was changed."
    reason = f"I could not {doing}. {problem.rstrip('.')}."
    if _NOT_LINKED.search(problem):
        return f"{reason} Nothing was changed. Connect your account, then ask again."
    if _REFUSED.search(problem) or _PERMISSION_KEY.search(content):
        named = _PERMISSION_KEY.search(content)
        permission = named[0] if named else _PERMISSION_OF.get(verb, "")
        words = permission.replace("_", " ").title()
        named_already = words in problem or permission in problem
        told = "" if named_already else f" The permission that you lack is {words} ({permission})."
        advice = (
            "" if "administrator" in problem else " Ask an administrator of the project to grant it, then ask again."
        )
        return f"{reason}{told} Nothing was changed.{advice}"
    again = (
        " Please try again later."
        if "again" not in problem and re.search(r"(?i)unavailable|timed?\s*out|breaker|limit|50\d", problem)
        else ""
    )
    return f"{reason}{again}"


def _short(text: str, limit: int = 300) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
