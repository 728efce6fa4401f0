"""Okta's ``search`` and ``filter`` expressions built from typed arguments, so that no text of a user or a model is ever
read as one. Pure.

Source: https://developer.okta.com/docs/api/#filter (strings in double quotes, escaped as in JSON)
"""

from __future__ import annotations

_MAX_WORDS = 6
_NAMES = ("profile.firstName", "profile.lastName", "profile.email", "profile.login")


def quote(value: str) -> str:
    """A string: backslash and quote escaped, control characters gone."""
    clean = "".join(c if c.isprintable() else " " for c in value)
    return '"' + clean.replace("\\", "\\\\").replace('"', '\\"') + '"'


def equals(attribute: str, value: str) -> str:
    return f"{attribute} eq {quote(value)}"


def people(words: str, department: str = "", status: str = "") -> str:
    """Users each of whose words begins the first name, last name, e-mail or login; "" where nothing is asked for."""
    clauses = [
        "(" + " or ".join(f"{name} sw {quote(word)}" for name in _NAMES) + ")" for word in words.split()[:_MAX_WORDS]
    ]
    if department:
        clauses.append(equals("profile.department", department))
    if status:
        clauses.append(equals("status", status))
    return " and ".join(clauses)


def events(user: str = "", event_type: str = "", outcome: str = "") -> str:
    """The system log's filter: events that the user (by login) caused or that were about her."""
    clauses = []
    if user:
        clauses.append(f"({equals('actor.alternateId', user)} or {equals('target.alternateId', user)})")
    if event_type:
        clauses.append(equals("eventType", event_type))
    if outcome:
        clauses.append(equals("outcome.result", outcome))
    return " and ".join(clauses)
