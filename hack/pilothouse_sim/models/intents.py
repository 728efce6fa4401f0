"""Reads what a person asks for out of one message. Pure; never raises on any text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

KEY = r"\b[A-Z][A-Z0-9_]{1,9}-\d+\b"
_PROJECT = r"[A-Z][A-Z0-9_]{1,9}"
_THING = r"(?:issue|ticket|task|bug|incident|request)"
_WORD = {"issue": "", "ticket": "", "request": "", "task": "Task", "bug": "Bug", "incident": "Incident"}
_STATUS = {
    "done": "Done", "closed": "Done", "resolved": "Done", "complete": "Done", "completed": "Done",
    "in progress": "In Progress", "progress": "In Progress", "started": "In Progress",
    "to do": "To Do", "todo": "To Do", "open": "To Do", "backlog": "To Do",
}  # fmt: skip
_VERB_STATUS = {"close": "Done", "resolve": "Done", "finish": "Done", "complete": "Done", "reopen": "To Do",
                "start": "In Progress"}  # fmt: skip

_COMMENT = re.compile(
    rf"(?i:\b(?:add\s+(?:a\s+)?|leave\s+(?:a\s+)?|post\s+(?:a\s+)?)?comment\s+(?:on|to|in)\s+(?:the\s+)?(?:{_THING}\s+)?)"
    rf"(?P<key>{KEY})\s*(?:[:,\-–]|(?i:saying|that\s+says|that))?\s*(?P<body>.+)",
    re.DOTALL,
)
_MOVE = re.compile(
    rf"(?i:\b(?P<verb>close|resolve|finish|complete|reopen|start|move|transition|set|mark)\s+(?:the\s+)?(?:{_THING}\s+)?)"
    rf"(?P<key>{KEY})(?:\s+(?i:to|as|into)\s+[\"“]?(?P<status>(?i:in progress|to do|[a-z]+)))?"
)
_THAT = r"(?:it|that|that\s+one|this\s+one|the\s+(?:first|newest|latest)(?:\s+one)?)\b"
_COMMENT_THAT = re.compile(
    rf"\b(?:add\s+(?:a\s+)?|leave\s+(?:a\s+)?|post\s+(?:a\s+)?)?comment\s+(?:on|to|in)\s+(?P<key>{_THAT})"
    rf"\s*(?:[:,\-–]|saying|that\s+says|that)?\s*(?P<body>.+)",
    re.DOTALL | re.IGNORECASE,
)
_MOVE_THAT = re.compile(
    rf"\b(?P<verb>close|resolve|finish|complete|reopen|start|move|transition|set|mark)\s+(?P<key>{_THAT})"
    rf"(?:\s+(?:to|as|into)\s+[\"“]?(?P<status>in progress|to do|[a-z]+))?",
    re.IGNORECASE,
)
_CREATE = re.compile(
    rf"(?i:\b(?:(?P<open>open)\s+(?:an?\s+(?:new\s+)?|new\s+|another\s+)|"
    rf"(?:file|create|raise|log|submit|make|report|add)\s+(?:me\s+)?(?:an?\s+|the\s+)?(?:new\s+|another\s+)?)"
    rf"(?:jira\s+|it\s+)?(?P<kind>{_THING}))\b(?P<rest>.*)",
    re.DOTALL,
)
_LEAD_PROJECT = re.compile(
    rf"^\s*(?i:in|for|to|under)\s+(?i:(?:the\s+)?(?:project\s+)?)(?P<project>{_PROJECT})\b(?i:\s+project)?"
)
_TAIL_PROJECT = re.compile(
    rf"\s+(?i:in|to|under)\s+(?i:(?:the\s+)?(?:project\s+)?)(?P<project>{_PROJECT})(?i:\s+project)?$"
)
_LEAD = re.compile(
    r"^\s*(?:[:,\-–]|(?:about|for|because|that\s+says|saying|that|regarding|titled|called|named|"
    r"with\s+(?:the\s+)?(?:summary|title))\b\s*:?)\s*",
    re.IGNORECASE,
)
_QUOTED = re.compile(r"^[\"“](?P<text>[^\"”]+)[\"”]")
_END = re.compile(
    r"[.!?](?:\s|$)|\n|;|,?\s+(?:and|then|also)\s+(?:also\s+)?(?:then\s+)?"
    r"(?:which|what|show|list|find|tell|search|close|comment|move|file|create|resolve|add)\b",
    re.IGNORECASE,
)
_SEARCH = re.compile(
    rf"(?i)\b(?:which|what|list|show|find|search|any|have|how\s+many|my|are\s+there|give\s+me|see|look)\b[^.?!\n]*?"
    rf"\b{_THING}s\b[^?!\n]*|\b(?:search|find|look\s+up|look|show)\s+(?:me\s+)?(?:for\s+)?(?:[\w'-]+\s+){{0,5}}?{_THING}\b[^?!\n]*"
    rf"|^\s*(?:open\s+)?{_THING}s\b[^?!\n]*"
)
_NAMED = re.compile(rf"(?i)(?P<before>.*?)\b{_THING}s?\b(?P<after>.*)", re.DOTALL)
_NO_TOPIC = re.compile(
    r"a|about|all|an|any|are|current|do|find|first|for|give|have|how|i|is|it|jira|last|latest|list|look|many|me|mine|my|"
    r"new|newest|of|old|older|on|open|our|other|outstanding|pending|recent|search|see|show|that|the|there|these|this|"
    r"those|unfinished|unresolved|up|what|which|with",
    re.IGNORECASE,
)
"""Words before “issue” that say nothing of what it is about."""
_ABOUT = re.compile(
    r"(?i)\b(?:about|regarding|mentioning|related\s+to|concerning|matching|containing|on|with|for)\s+(?:the\s+|our\s+|my\s+)?"
    r"[\"“]?(?P<text>[^?.!,;:\"”\n]+)"
)
_IN_PROJECT = re.compile(rf"\b(?i:in|of|from)\s+(?i:(?:the\s+)?(?:project\s+)?)(?P<project>{_PROJECT})\b")
_NOISE = re.compile(r"(?i)\s+(?:(?:do\s+)?i\s+have|are\s+(?:still\s+)?open|assigned\s+to\s+me|right\s+now|today|please|"
                    r"and(?:\s+.*)?|that\s+.*|in\s+[A-Z][A-Z0-9_]{1,9})$")  # fmt: skip
_MINE = re.compile(
    r"(?i)\b(?:my|mine|i\s+have|do\s+i|i've|have\s+i|assigned\s+to\s+me|for\s+me|i\s+(?:reported|filed))\b"
)
_OPEN = re.compile(
    r"(?i)\b(?:open|unresolved|unfinished|pending|outstanding|still\s+running|not\s+(?:done|closed|resolved))\b"
)
_MAX_SUMMARY = 255


IT = "it"
"""Stands for a key that the person did not name."""


@dataclass(frozen=True)
class Intent:
    """One wish: ``verb`` is search, get, create, comment or transition; ``arguments`` are the tool's.

    ``key`` is ``IT`` where the person said "it": the issue that the same message looks for or files, or the last one
    that was spoken of.
    """

    verb: str
    arguments: dict[str, Any]


def read(text: str) -> list[Intent]:
    """The wishes in a message, in the order: searches and look-ups first, then writes; [] where there is none."""
    rest, writes = text, []
    # "it" comes last: in the summary of a new issue ("… when I start it") it is no wish of its own
    patterns = (
        (_COMMENT, _comment),
        (_MOVE, _move),
        (_CREATE, _create),
        (_COMMENT_THAT, _comment),
        (_MOVE_THAT, _move),
    )
    for pattern, make in patterns:
        while match := pattern.search(rest):
            intent, end = make(match)
            # What was understood is cut out, so that no second rule reads it again.
            rest = rest[: match.start()] + "\n" + rest[end:]
            if intent:
                writes.append(intent)
    reads: list[Intent] = []
    if (match := _SEARCH.search(rest)) and not re.search(KEY, match[0]):
        reads.append(_search(match[0]))
    else:
        keys = list(dict.fromkeys(re.findall(KEY, rest)))[:5]
        reads += [Intent("get", {"key": key}) for key in keys]
    return reads + writes


def wants_list(text: str) -> bool:
    """Whether issues were asked for themselves ("which issues …"), not one to do something with."""
    return re.search(rf"(?i)\b{_THING}s\b", text) is not None


def project_named(text: str) -> str | None:
    """The project in ``IT-3``, ``in IT`` or a message that is only a key; None where there is none."""
    if match := re.fullmatch(rf"\s*(?i:in\s+|project\s+)*(?P<project>{_PROJECT})[\s.!]*", text):
        return match["project"]
    if match := re.search(KEY, text):
        return match[0].rpartition("-")[0]
    found = _IN_PROJECT.search(text)
    return found["project"] if found else None


def _cut(text: str) -> int:
    """Where the sentence that starts at 0 ends."""
    match = _END.search(text)
    return match.start() if match else len(text)


def _comment(match: re.Match[str]) -> tuple[Intent | None, int]:
    text = match["body"]
    if quoted := _QUOTED.match(text):
        body, end = quoted["text"], quoted.end()
    else:
        end = len(text)
        body = text.strip()
    intent = Intent("comment", {"key": _key(match), "body": body}) if body else None
    return intent, match.start("body") + end


def _move(match: re.Match[str]) -> tuple[Intent | None, int]:
    verb, wanted = match["verb"].lower(), (match["status"] or "").lower()
    status = _STATUS.get(wanted, wanted.title()) if wanted else _VERB_STATUS.get(verb, "")
    return (Intent("transition", {"key": _key(match), "status": status}) if status else None), match.end()


def _key(match: re.Match[str]) -> str:
    return match["key"] if re.fullmatch(KEY, match["key"]) else IT


def _create(match: re.Match[str]) -> tuple[Intent | None, int]:
    rest, offset = match["rest"], match.start("rest")
    project = None
    if lead := _LEAD_PROJECT.match(rest):
        project = lead["project"]
        offset += lead.end()
        rest = rest[lead.end() :]
    if lead := _LEAD.match(rest):
        offset += lead.end()
        rest = rest[lead.end() :]
    if quoted := _QUOTED.match(rest):
        summary, end = quoted["text"], quoted.end()
        if after := _LEAD_PROJECT.match(rest[end:]):
            project, end = project or after["project"], end + after.end()
    else:
        end = _cut(rest)
        summary = rest[:end]
    summary = " ".join(summary.split()).strip(' :,-–"“”')
    if project is None and (tail := _TAIL_PROJECT.search(summary)):
        project, summary = tail["project"], summary[: tail.start()]
    arguments: dict[str, Any] = {"project": project, "summary": summary[:_MAX_SUMMARY]}
    if kind := _WORD.get(match["kind"].lower()):
        arguments["issue_type"] = kind
    return Intent("create", arguments), offset + end


def _search(text: str) -> Intent:
    arguments: dict[str, Any] = {}
    if project := _IN_PROJECT.search(text):
        arguments["project"] = project["project"]
        text = text[: project.start()] + text[project.end() :]
    if _MINE.search(text):
        arguments["mine"] = True
    if _OPEN.search(text):
        arguments["open"] = True
    named = _NAMED.match(text)
    if about := _ABOUT.search(named["after"] if named else text):
        topic, before = about["text"].strip(), ""
        while topic != before:
            before, topic = topic, _NOISE.sub("", topic).strip()
        if topic and topic.lower() not in ("me", "us", "today"):
            arguments["text"] = topic
    elif named and (topic := _topic_before(named["before"])):
        arguments["text"] = topic
    return Intent("search", arguments)


def _topic_before(text: str) -> str:
    """``find my open VPN`` (issue) → ``VPN``."""
    words: list[str] = []
    for word in reversed(re.findall(r"[\w-]+", text)):
        if _NO_TOPIC.fullmatch(word):
            break
        words.insert(0, word)
    return " ".join(words[-3:])
