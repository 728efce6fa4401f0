"""Reads wishes that concern Okta, ServiceNow and Salesforce, and the one story that takes all systems together. Pure.

A rule is a pattern and the calls that it plans: the end of a function's name (``factor.reset``) and its arguments. The
table is short on purpose: it is a stand-in's, and whoever wants more takes a real model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Arguments = dict[str, Any]


@dataclass(frozen=True)
class Planned:
    """A call to make; ``label`` names it for references of others: ``{{label.email}}``."""

    tool: str
    """The end of the function's name: ``okta.user.manager``."""
    arguments: Arguments
    label: str = ""


_TOTP = "token:software:totp"
_FACTORS = (
    (re.compile(r"(?i)\bsms|text\s+message|phone\s+number"), "sms"),
    (re.compile(r"(?i)\bpush|okta\s+verify"), "push"),
    (re.compile(r"(?i)\byubikey|hardware"), "token:hardware"),
)
_VPN_BROKEN = re.compile(
    r"(?is)\b(?:vpn|token|authenticator|mfa)\b.{0,60}\b(?:broken|broke|not\s+work\w*|stopped|dead|lost|stolen|expired|fails?)\b"
)
_TELL_MANAGER = re.compile(
    r"(?is)\b(?:manager|boss)\b.{0,40}\b(?:know|told|informed|aware)|\b(?:tell|inform|notify|let)\b.{0,20}\b(?:manager|boss)"
)
_SUPPLIER = re.compile(r"\bVPN\b[^.\n]{0,40}?\b(?:from|by|supplied\s+by)\s+([A-Z][\w&-]+)")
"""What the system message says of who supplies the VPN."""
_PERSON = r"(?P<person>[\w.+-]+@[\w.-]+\w|[A-Z]\w+(?:\s+[A-Z]\w+)?)"
_NUMBER = r"(?P<number>(?:INC|REQ|RITM|CHG)\d{5,10})"


def story(text: str, system: str) -> list[Planned]:
    """A broken VPN token that the manager shall know of; [] where that is not what is wished.

    What can run side by side does: only the comment waits, for what it tells of. ``system`` is the system message, from
    which the supplier's name comes.
    """
    if not (_VPN_BROKEN.search(text) and _TELL_MANAGER.search(text)):
        return []
    said = " ".join(text.split())
    supplier = _SUPPLIER.search(system)
    planned = [
        Planned("okta.user.manager", {}, "manager"),
        Planned("jira.issue.search", {"text": "VPN", "mine": True, "open": True}, "issues"),
    ]
    if supplier:
        planned.append(Planned("salesforce.account.search", {"name": supplier[1]}, "account"))
    return [
        *planned,
        Planned(
            "servicenow.incident.create",
            {
                "short_description": "VPN token is broken",
                "description": said[:2000],
                "category": "network",
                "urgency": "2",
                "watch_list": ["{{manager.email}}"],
            },
            "incident",
        ),
        Planned("okta.factor.reset", {"type": _factor(text)}, "reset"),
        Planned(
            "jira.issue.comment",
            {
                "key": "{{issues.issues[0].key}}",
                "body": "The VPN token is broken; incident {{incident.number}} is open. The sign-in factor was reset "
                "({{reset.type}}).",
            },
        ),
    ]


def read(text: str) -> list[Planned]:
    """The wishes in a message that are about these systems."""
    found: list[Planned] = []
    for pattern, make in _RULES:
        if (match := pattern.search(text)) is not None:
            found.extend(make(match, text))
    return found


def _factor(text: str) -> str:
    return next((kind for pattern, kind in _FACTORS if pattern.search(text)), _TOTP)


def _one(tool: str, **fixed: Any) -> Callable[[re.Match[str], str], Sequence[Planned]]:
    """Named groups of the pattern are arguments of the same name."""

    def make(match: re.Match[str], _: str) -> Sequence[Planned]:
        given = {name: value.strip(" \"“”'.?!") for name, value in match.groupdict().items() if value}
        return [Planned(tool, {**fixed, **given})]

    return make


def _order(match: re.Match[str], _: str) -> Sequence[Planned]:
    what = match["text"].strip(" \"“”'.?!")
    return [
        Planned("servicenow.catalog.search", {"text": what, "max_results": 1}, "item"),
        Planned("servicenow.catalog.order", {"sys_id": "{{item.items[0].sys_id}}"}),
    ]


def _reset(match: re.Match[str], text: str) -> Sequence[Planned]:
    return [Planned("okta.factor.reset", {"type": _factor(text)})]


def _person(tool: str) -> Callable[[re.Match[str], str], Sequence[Planned]]:
    def make(match: re.Match[str], _: str) -> Sequence[Planned]:
        person = match["person"]
        return [Planned(tool, {} if person.lower() in ("my", "me", "mine") else {"user": person})]

    return make


def _numbered(match: re.Match[str], text: str) -> Sequence[Planned]:
    number, rest = match["number"], text[match.end() :]
    if number.startswith("INC") and (said := re.match(r"\s*[:,–-]\s*(?P<text>.{2,1000})", rest, re.DOTALL)):
        return [Planned("servicenow.incident.comment", {"number": number, "text": said["text"].strip()})]
    kind = {"INC": "incident", "CHG": "change"}.get(number[:3], "request")
    return [Planned(f"servicenow.{kind}.get", {"number": number})]


_Rule = tuple[re.Pattern[str], Callable[[re.Match[str], str], Sequence[Planned]]]
_RULES: tuple[_Rule, ...] = (
    (re.compile(r"(?i)\bwho(?:\s+is|'s)\s+my\s+(?:manager|boss)\b"), _one("okta.user.manager")),
    (
        re.compile(r"(?i)\bwho(?:\s+is|'s)\s+the\s+manager\s+of\s+(?-i:" + _PERSON + ")"),
        _person("okta.user.manager"),
    ),
    (
        re.compile(r"(?i)\b(?:which|what|list|show)\b[^.?!]*\b(?:factors|authenticators|sign-in\s+methods)\b"),
        _one("okta.factor.list"),
    ),
    (
        re.compile(r"(?i)\breset\s+my\s+(?:\w+\s+){0,3}(?:factor|token|authenticator|mfa|2fa)\b"),
        _reset,
    ),
    (
        re.compile(r"\b(?i:unlock)\s+(?i:(?:the\s+)?account\s+of\s+)?" + _PERSON),
        _person("okta.user.unlock"),
    ),
    (
        re.compile(
            r"(?i)\b(?:open|create|file|raise|report)\s+(?:an?\s+)?(?:new\s+)?(?:service\s*now\s+)?incident"
            r"(?:\s+in\s+service\s*now)?\s*(?::|about|because|that\s+says)\s*(?P<short_description>[^\n.?!]{3,150})"
        ),
        _one("servicenow.incident.create"),
    ),
    (re.compile(_NUMBER), _numbered),
    (
        re.compile(r"(?i)\b(?:which|what|list|show)\b[^.?!]*\bmy\b[^.?!]*\bincidents\b|\bmy\s+(?:open\s+)?incidents\b"),
        _one("servicenow.incident.search", mine=True, open=True),
    ),
    (
        re.compile(r"(?i)\border\s+(?:me\s+)?(?:an?\s+|the\s+)?(?:new\s+)?(?P<text>[^\n.?!,]{3,60})"),
        _order,
    ),
    (
        re.compile(
            r"(?i)\b(?:search\s+the\s+)?(?:knowledge(?:\s+base)?|kb)\s+(?:articles?\s+)?(?:for|about|on)\s+(?P<text>[^\n.?!]{3,80})"
        ),
        _one("servicenow.knowledge.search"),
    ),
    (
        re.compile(
            r"(?i)\b(?:approvals?)\b[^.?!]*\b(?:wait|pending|open)|\bwhat\s+(?:must|can|should)\s+i\s+approve\b"
        ),
        _one("servicenow.approval.list"),
    ),
    (
        re.compile(
            r"(?i)\bwho\s+(?:owns|looks\s+after|is\s+the\s+(?:account\s+)?owner\s+of)\s+(?:the\s+)?(?:account\s+)?"
            r"(?P<name>[^\n.?!]{2,60})"
        ),
        _one("salesforce.account.search"),
    ),
)
