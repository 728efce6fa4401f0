"""The part of JQL that integrations use, as a parser and an evaluator; both pure.

Grammar: ``clause ((AND|OR) clause)* [ORDER BY field [ASC|DESC], …]`` with NOT and parentheses. Fields: project, key,
assignee, reporter, creator, status, statusCategory, resolution, summary, description, text, labels, issuetype,
priority, created, updated. Operators: = != ~ !~ > >= < <= IN, NOT IN, IS, IS NOT. Functions: currentUser().
``issue.property[…]`` is refused as Jira refuses a property that no app has declared for indexing. An unbounded query
(no clause) is refused, as ``/search/jql`` does. Errors are ``JiraError`` 400 in Jira's words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from pilothouse_sim.jira import adf
from pilothouse_sim.jira.errors import JiraError
from pilothouse_sim.jira.store import CATEGORIES, PRIORITIES, STATUSES, Issue, Store, User, status_named

_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|(?P<op>!=|!~|>=|<=|=|~|>|<|\(|\)|,)"""
    r"""|(?P<word>issue\.property\[[^\]]*\][\w.]*|[^\s()=!~<>,"']+))"""
)
_FIELDS = {
    "project", "key", "assignee", "reporter", "creator", "status", "statuscategory", "resolution", "summary",
    "description", "text", "labels", "issuetype", "priority", "created", "updated",
}  # fmt: skip
_ALIASES = {"issuekey": "key", "issue": "key", "id": "key", "type": "issuetype", "createddate": "created",
            "updateddate": "updated"}  # fmt: skip
_TEXT_FIELDS = {"summary", "description", "text"}
_ORDERED = {"created", "updated", "key", "priority"}
_RELATIVE = re.compile(r"^(-?)(\d+)([mhdw])$")
_UNITS = {"m": 60, "h": 3600, "d": 86400, "w": 604800}


@dataclass(frozen=True)
class Value:
    """A literal, EMPTY, or a function call."""

    text: str
    kind: str = "literal"


@dataclass(frozen=True)
class Clause:
    """``field operator values``."""

    field: str
    operator: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Not:
    """NOT."""

    inner: Node


@dataclass(frozen=True)
class Group:
    """AND or OR of its parts."""

    word: str
    parts: tuple[Node, ...]


Node = Clause | Not | Group


@dataclass(frozen=True)
class Query:
    """A parsed query; ``order`` holds (field, descending)."""

    where: Node
    order: tuple[tuple[str, bool], ...]


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    at: int


class _Parser:
    def __init__(self, source: str) -> None:
        self.tokens: list[_Token] = []
        self.index = 0
        at = 0
        while source[at:].strip():
            match = _TOKEN.match(source, at)
            if not match:
                bad = source[at:].strip()[0]
                raise JiraError(
                    400, f"Error in the JQL Query: The character {bad!r} is not expected. (line 1, character {at + 1})"
                )
            kind = match.lastgroup or "word"
            text = match.group(kind)
            if kind == "string":
                text = re.sub(r"\\(.)", r"\1", text[1:-1])
            self.tokens.append(_Token(kind, text, match.start(kind) + 1))
            at = match.end()

    def peek(self, *words: str) -> bool:
        if self.index >= len(self.tokens):
            return False
        token = self.tokens[self.index]
        return token.kind != "string" and token.text.upper() in words

    def accept(self, *words: str) -> bool:
        found = self.peek(*words)
        self.index += found
        return found

    def next(self, expected: str) -> _Token:
        if self.index >= len(self.tokens):
            raise JiraError(400, f"Error in the JQL Query: Expecting {expected} before the end of the query.")
        self.index += 1
        return self.tokens[self.index - 1]

    def fail(self, expected: str) -> JiraError:
        if self.index >= len(self.tokens):
            return JiraError(400, f"Error in the JQL Query: Expecting {expected} before the end of the query.")
        token = self.tokens[self.index]
        return JiraError(400, f"Error in the JQL Query: Expecting {expected} but got '{token.text}'."
                              f" (line 1, character {token.at})")  # fmt: skip

    def query(self) -> Query:
        if not self.tokens or self.peek("ORDER"):
            raise JiraError(
                400, "Unbounded JQL queries are not allowed here. Please add a search restriction to your query."
            )
        where = self.either()
        order: list[tuple[str, bool]] = []
        if self.accept("ORDER"):
            if not self.accept("BY"):
                raise self.fail("'BY'")
            while True:
                name = _field(self.next("a field name").text)
                descending = self.peek("DESC")
                self.accept("ASC", "DESC")
                order.append((name, descending))
                if not self.accept(","):
                    break
        if self.index < len(self.tokens):
            raise self.fail("either 'OR' or 'AND'")
        return Query(where, tuple(order))

    def either(self) -> Node:
        parts = [self.both()]
        while self.accept("OR", "||"):
            parts.append(self.both())
        return parts[0] if len(parts) == 1 else Group("OR", tuple(parts))

    def both(self) -> Node:
        parts = [self.unary()]
        while self.accept("AND", "&&"):
            parts.append(self.unary())
        return parts[0] if len(parts) == 1 else Group("AND", tuple(parts))

    def unary(self) -> Node:
        if self.accept("NOT", "!"):
            return Not(self.unary())
        if self.accept("("):
            inner = self.either()
            if not self.accept(")"):
                raise self.fail("')'")
            return inner
        return self.clause()

    def clause(self) -> Clause:
        if self.peek("=", "!=", "~", "!~", ")", ",", "AND", "OR"):
            raise self.fail("a field name")
        name = _field(self.next("a field name").text)
        if self.accept("IS"):
            operator = "IS NOT" if self.accept("NOT") else "IS"
            value = self.value()
            if value.kind != "empty":
                raise JiraError(400, f"The operator '{operator.lower()}' only supports EMPTY or NULL as value.")
            return Clause(name, operator, (value,))
        negated = self.accept("NOT")
        if self.accept("IN"):
            return Clause(name, "NOT IN" if negated else "IN", self.values())
        if negated or not self.peek("=", "!=", "~", "!~", ">", ">=", "<", "<="):
            raise self.fail("operator before the value; valid operators are '=', '!=', '<', '>', '<=', '>=', '~', '!~',"
                            " 'IN', 'NOT IN', 'IS' and 'IS NOT'")  # fmt: skip
        operator = self.next("an operator").text
        if operator in ("~", "!~") and name not in _TEXT_FIELDS:
            raise JiraError(400, f"The operator '{operator}' is not supported by the '{name}' field.")
        if operator not in ("~", "!~") and name in _TEXT_FIELDS:
            raise JiraError(400, f"The operator '{operator}' is not supported by the '{name}' field.")
        if operator in (">", ">=", "<", "<=") and name not in _ORDERED:
            raise JiraError(400, f"The operator '{operator}' is not supported by the '{name}' field.")
        return Clause(name, operator, (self.value(),))

    def values(self) -> tuple[Value, ...]:
        if not self.accept("("):
            raise self.fail("'('")
        values = [self.value()]
        while self.accept(","):
            values.append(self.value())
        if not self.accept(")"):
            raise self.fail("')'")
        return tuple(values)

    def value(self) -> Value:
        if self.peek("(", ")", ",", "=", "AND", "OR", "NOT", "ORDER"):
            raise self.fail("either a value, list or function")
        token = self.next("either a value, list or function")
        if token.kind == "string":
            return Value(token.text)
        if self.accept("("):
            if not self.accept(")"):
                raise self.fail("')'")
            if token.text.lower() != "currentuser":
                raise JiraError(400, f"Unable to find JQL function '{token.text}()'.")
            return Value(token.text, "current-user")
        if token.text.upper() in ("EMPTY", "NULL"):
            return Value("", "empty")
        return Value(token.text)


def _field(text: str) -> str:
    name = _ALIASES.get(text.lower(), text.lower())
    if name not in _FIELDS:
        raise JiraError(400, f"Field '{text}' does not exist or you do not have permission to view it.")
    return name


def parse(source: str) -> Query:
    """Parses a query. Raises ``JiraError`` (400) with Jira's sentence."""
    return _Parser(source).query()


def search(query: Query, issues: list[Issue], store: Store, user: User, now: float) -> list[Issue]:
    """The matching issues in the query's order (newest first where it has none). Raises ``JiraError``."""
    # Built once before matching: a value that does not exist is an error even where there is no issue to match.
    matches = _matcher(query.where, store, user, now)
    found = sorted((issue for issue in issues if matches(issue)), key=lambda i: (i.project, i.number), reverse=True)
    for name, descending in reversed(query.order):
        found.sort(key=partial(_sort_key, name, store), reverse=descending)
    return found


def _sort_key(name: str, store: Store, issue: Issue) -> tuple[str, float]:
    if name in ("created", "updated"):
        return "", issue.created if name == "created" else issue.updated
    if name == "key":
        return issue.project, issue.number
    if name == "priority":
        return "", -PRIORITIES.index(issue.priority)
    if name in ("assignee", "reporter", "creator"):
        person = store.user_by_id(getattr(issue, name))
        return (person.name if person else "", 0)
    return ",".join(sorted(_values_of(name, issue))), 0


def _matcher(node: Node, store: Store, user: User, now: float) -> Callable[[Issue], bool]:
    if isinstance(node, Not):
        inner = _matcher(node.inner, store, user, now)
        return lambda issue: not inner(issue)
    if isinstance(node, Group):
        parts = [_matcher(part, store, user, now) for part in node.parts]
        combine = all if node.word == "AND" else any
        return lambda issue: combine(part(issue) for part in parts)
    return _clause(node, store, user, now)


def _clause(clause: Clause, store: Store, user: User, now: float) -> Callable[[Issue], bool]:
    operator = clause.operator
    if operator in ("~", "!~"):
        test = _text_test(clause.values[0].text)
        read = _TEXT_OF[clause.field]
        return lambda issue: test(read(issue)) == (operator == "~")
    if clause.field in ("created", "updated"):
        return _date_test(clause, now)
    if operator in (">", ">=", "<", "<="):
        return _compare_test(clause)
    wanted = {_resolve(clause.field, value, store, user) for value in clause.values}
    negative = operator in ("!=", "NOT IN", "IS NOT")
    # As in JQL, `!=` and `NOT IN` don't match an issue where the field is empty, unless EMPTY itself is compared.
    skip_empty = operator in ("!=", "NOT IN") and "" not in wanted and clause.field != "resolution"

    def matches(issue: Issue) -> bool:
        have = _values_of(clause.field, issue) or {""}
        if skip_empty and have == {""}:
            return False
        return bool(have & wanted) != negative

    return matches


def _values_of(name: str, issue: Issue) -> set[str]:
    status = status_named(issue.status)
    values: Mapping[str, set[str]] = {
        "project": {issue.project.lower()},
        "key": {issue.key.lower()},
        "assignee": {issue.assignee or ""},
        "reporter": {issue.reporter},
        "creator": {issue.creator},
        "status": {status.name.lower()},
        "statuscategory": {status.category},
        "resolution": {"done" if issue.resolved else ""},
        "labels": {label.lower() for label in issue.labels},
        "issuetype": {issue.issue_type.lower()},
        "priority": {issue.priority.lower()},
    }
    return values.get(name, set())


def _resolve(name: str, value: Value, store: Store, user: User) -> str:
    if value.kind == "empty":
        return ""
    if value.kind == "current-user":
        if name not in ("assignee", "reporter", "creator"):
            raise JiraError(400, f"A value provided by the function 'currentUser' is invalid for the field '{name}'.")
        return user.account_id
    text = value.text.lower()
    missing = JiraError(400, f"The value '{value.text}' does not exist for the field '{name}'.")
    if name == "project":
        for project in store.projects.values():
            if text in (project.key.lower(), project.name.lower(), project.id):
                if not store.allowed(user, project.key, "BROWSE_PROJECTS"):
                    raise missing
                return project.key.lower()
        raise missing
    if name == "key":
        issue = store.find(user, value.text)
        if issue is None:
            raise JiraError(400, f"An issue with key '{value.text}' does not exist for field 'key'.")
        return issue.key.lower()
    if name in ("assignee", "reporter", "creator"):
        for person in store.users.values():
            if text in (person.account_id.lower(), person.email.lower(), person.name.lower()):
                return person.account_id
        raise missing
    if name == "resolution":
        if text in ("unresolved", "done"):
            return "" if text == "unresolved" else "done"
        raise missing
    if name == "statuscategory":
        for key, (number, label) in CATEGORIES.items():
            if text in (key, label.lower(), str(number)):
                return key
        raise missing
    known: set[str] | None = {
        "status": {status.name.lower() for status in STATUSES},
        "issuetype": {kind.lower() for project in store.projects.values() for kind in project.issue_types},
        "priority": {priority.lower() for priority in PRIORITIES},
    }.get(name)
    if known is not None and text not in known:
        raise missing
    return text


_TEXT_OF: Mapping[str, Callable[[Issue], str]] = {
    "summary": lambda issue: issue.summary,
    "description": lambda issue: adf.plain(issue.description),
    "text": lambda issue: issue.text(),
}


def _words(text: str) -> list[str]:
    # A plural s is the only inflection that this index knows; Jira's stemmer knows more.
    return [w[:-1] if len(w) > 3 and w.endswith("s") else w for w in re.findall(r"\w+", text.lower())]


def _text_test(wanted: str) -> Callable[[str], bool]:
    """All words somewhere in the text; ``"…"`` within the value: in that order; a trailing ``*``: a prefix."""
    phrase = len(wanted) > 2 and wanted[0] == wanted[-1] == '"'
    if not wanted.strip():
        raise JiraError(400, "The text query must not be empty.")
    prefixes = [word.lower() for word in re.findall(r"(\w+)\*", wanted)]
    exact = _words(re.sub(r"\w+\*", " ", wanted))

    def test(text: str) -> bool:
        have = _words(text)
        if phrase:
            return any(have[i : i + len(exact)] == exact for i in range(len(have)))
        return all(word in have for word in exact) and all(any(w.startswith(p) for w in have) for p in prefixes)

    return test


def _date_test(clause: Clause, now: float) -> Callable[[Issue], bool]:
    text = clause.values[0].text
    if relative := _RELATIVE.match(text):
        offset = int(relative[2]) * _UNITS[relative[3]]
        limit = now - offset if relative[1] else now + offset
    else:
        try:
            limit = datetime.fromisoformat(text.replace("/", "-")).replace(tzinfo=UTC).timestamp()
        except ValueError:
            raise JiraError(
                400,
                f"Date value '{text}' for field '{clause.field}' is invalid. Valid formats include: "
                "'yyyy/MM/dd HH:mm', 'yyyy-MM-dd HH:mm', 'yyyy/MM/dd', 'yyyy-MM-dd', "
                "or a period format e.g. '-5d', '4w 2d'.",
            ) from None
    compare = _COMPARISONS.get(clause.operator)
    if compare is None:
        raise JiraError(400, f"The operator '{clause.operator}' is not supported by the '{clause.field}' field.")
    return lambda issue: compare(issue.created if clause.field == "created" else issue.updated, limit)


def _compare_test(clause: Clause) -> Callable[[Issue], bool]:
    compare, text = _COMPARISONS[clause.operator], clause.values[0].text
    if clause.field == "priority":
        if text.title() not in PRIORITIES:
            raise JiraError(400, f"The value '{text}' does not exist for the field 'priority'.")
        rank = -PRIORITIES.index(text.title())
        return lambda issue: compare(-PRIORITIES.index(issue.priority), rank)
    project, _, number = text.upper().rpartition("-")
    if not number.isdigit():
        raise JiraError(400, f"The issue key '{text}' for field 'key' is invalid.")
    return lambda issue: issue.project == project and compare(issue.number, int(number))


_COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
}
