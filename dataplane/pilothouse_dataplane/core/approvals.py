"""Which writes wait for a person, and who may answer. Pure.

Two reasons to ask: the connector's policy names the tool, or a value of the arguments comes from what a tool returned
(``core.provenance``). Policy decides who is asked; where it is silent, the asking user is.

An approval is bound to the hash of exactly these arguments, is used once, and counts as refused after its expiry.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from pilothouse_api.workerconfig import ApprovalRule, EffectRule
from pilothouse_dataplane.core.messages import Approver, By, Effect, JsonObject, Tool
from pilothouse_dataplane.core.provenance import ArgumentOrigin


@dataclass(frozen=True, slots=True)
class ApprovalRequest:
    """One question about one write."""

    step_id: str
    tool: str
    summary: str
    """One sentence: what would be done."""
    arguments: JsonObject
    arguments_hash: str
    by: By
    approver: str
    """E-mail (user, manager) or the group's name."""
    reason: str
    """Why somebody is asked, a sentence."""
    origins: tuple[ArgumentOrigin, ...]
    """The values that the user did not write."""
    expires_in: float
    """Seconds."""


def under_policy(tool: Tool, short: str, effects: Iterable[EffectRule], approvals: Iterable[ApprovalRule]) -> Tool:
    """The tool with what its connector's policy says of it. ``short`` is its name without the connector's.

    Of the rules of a kind, the first that matches counts. A destructive tool without a rule waits for the asking user.
    """
    effect = next((Effect(rule.effect.lower()) for rule in effects if fnmatchcase(short, rule.match)), tool.effect)
    approver = Approver(By.USER) if effect is Effect.DESTRUCTIVE else None
    for rule in approvals:
        if fnmatchcase(short, rule.match):
            approver = None if rule.by == "Nobody" else Approver(By(rule.by), rule.group)
            break
    return replace(tool, effect=effect, approver=approver)


def arguments_hash(tool: str, arguments: JsonObject) -> str:
    """``sha256:`` and 64 hex digits over the tool's name and the canonical JSON of its arguments."""
    text = json.dumps([tool, arguments], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"sha256:{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()}"


def may_decide(by: By, approver: str, asker_email: str, decider_email: str, decider_groups: Collection[str]) -> bool:
    """Whether this person may answer. Nobody decides for a group about their own request."""
    if by is By.GROUP:
        return approver in decider_groups and decider_email.casefold() != asker_email.casefold()
    return bool(approver) and decider_email.casefold() == approver.casefold()
