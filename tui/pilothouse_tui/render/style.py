"""Symbols and style names. A state is never told by colour alone: each has a symbol of its own shape.

The colours are Okabe and Ito's (2008), which people with the common kinds of colour-blindness can tell apart.
"""

from __future__ import annotations

from typing import NamedTuple

from pilothouse_tui.model import BreakerState, Condition, DeadLetterState, KubeObject, RunOutcome, Session, StepOutcome

GOOD, WARN, BAD, BUSY, DIM, PLAIN, STRONG = "good", "warn", "bad", "busy", "dim", "plain", "strong"

COLOURS = {GOOD: "#2bb58a", WARN: "#e69f00", BAD: "#f0764a", BUSY: "#56b4e9", DIM: "#8b95a1", PLAIN: "", STRONG: ""}
"""Hex colours on a dark ground; vermillion and bluish green are a little lightened for contrast (over 4.5:1)."""


class Mark(NamedTuple):
    """A symbol, a word and the style of both."""

    symbol: str
    word: str
    style: str


WAITING = Mark("‖", "waiting", WARN)
"""A parked run: nothing goes on until somebody decides."""


def breaker_mark(state: BreakerState) -> Mark:
    """Mark of a breaker's state."""
    return {
        BreakerState.CLOSED: Mark("●", "closed", GOOD),
        BreakerState.OPEN: Mark("✗", "open", BAD),
        BreakerState.HALF_OPEN: Mark("◐", "half-open", WARN),
        BreakerState.FORCED_OPEN: Mark("⊗", "forced", BAD),
        BreakerState.DISABLED: Mark("○", "disabled", WARN),
        BreakerState.UNKNOWN: Mark("?", "unknown", DIM),
    }[state]


def run_mark(outcome: RunOutcome, running: bool = False) -> Mark:
    """Mark of a run."""
    if running:
        return Mark("▶", "running", BUSY)
    return {
        RunOutcome.ANSWERED: Mark("✓", "answered", GOOD),
        RunOutcome.PARTIAL: Mark("◑", "partial", WARN),
        RunOutcome.FAILED: Mark("✗", "failed", BAD),
        RunOutcome.STOPPED: Mark("■", "stopped", WARN),
        RunOutcome.UNKNOWN: Mark("·", "idle", DIM),
    }[outcome]


def session_mark(session: Session) -> Mark:
    """Mark of a session: what it waits for or does now, else how its last run ended."""
    if session.waiting_approvals and not session.current_step:
        return WAITING
    return run_mark(session.last_outcome, running=session.active)


def step_mark(outcome: StepOutcome, running: bool = False) -> Mark:
    """Mark of a step."""
    if running:
        return Mark("▶", "running", BUSY)
    return {
        StepOutcome.SUCCEEDED: Mark("✓", "done", GOOD),
        StepOutcome.REFUSED: Mark("⊘", "refused", WARN),
        StepOutcome.FAILED: Mark("✗", "failed", BAD),
        StepOutcome.UNKNOWN: Mark("?", "outcome unknown", BAD),
        StepOutcome.UNSPECIFIED: Mark("·", "planned", DIM),
    }[outcome]


def condition_mark(condition: Condition) -> Mark:
    """Mark of a condition; all of ours are good when True."""
    if condition.status == "True":
        return Mark("✓", "True", GOOD)
    if condition.status == "False":
        return Mark("✗", "False", BAD)
    return Mark("?", condition.status or "Unknown", WARN)


def object_mark(item: KubeObject) -> Mark:
    """Mark of an object: Ready for this generation, on its way, or not Ready and why (the reason is the word)."""
    ready = item.condition("Ready")
    if ready is None:
        return Mark("…", "new", BUSY)
    if item.observed_generation < item.generation:
        return Mark("…", "updating", BUSY)
    if ready.status == "True":
        return Mark("✓", "Ready", GOOD)
    blamed = next((c for c in item.conditions if c.status == "False" and c.type != "Ready"), ready)
    word = blamed.reason or ready.reason or "not Ready"
    return Mark("✗", word, BAD) if ready.status == "False" else Mark("?", word, WARN)


def letter_mark(state: DeadLetterState) -> Mark:
    """Mark of a dead letter."""
    return {
        DeadLetterState.OPEN: Mark("✗", "open", BAD),
        DeadLetterState.REPLAYED: Mark("✓", "replayed", GOOD),
        DeadLetterState.DISCARDED: Mark("■", "discarded", DIM),
        DeadLetterState.UNKNOWN: Mark("?", "unknown", DIM),
    }[state]
