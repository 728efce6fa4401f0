"""Dead letters: the table, and all of one."""

from __future__ import annotations

from datetime import datetime

from pilothouse_tui.model import DeadLetter, DeadLetterState, Replay, StepOutcome
from pilothouse_tui.render.lines import Line, block, field, fields, shortened
from pilothouse_tui.render.style import BAD, DIM, PLAIN, STRONG, WARN, letter_mark, step_mark
from pilothouse_tui.render.table import Cell, Column, Table
from pilothouse_tui.render.text import age, count, json_lines, one_line, visible

_ROOM = 20_000
_OLD = float("-inf")
_RANK = {
    DeadLetterState.OPEN: 0,
    DeadLetterState.UNKNOWN: 1,
    DeadLetterState.REPLAYED: 2,
    DeadLetterState.DISCARDED: 3,
}
IN_DOUBT = "The write may have happened: look in the system before sending it again."


def letters_table(now: datetime) -> Table[DeadLetter]:
    """The table of dead letters; ``now`` for their ages."""

    def cells(letter: DeadLetter) -> tuple[Cell, ...]:
        mark = letter_mark(letter.state)
        return (
            Cell(f"{mark.symbol} {mark.word}", mark.style),
            Cell(letter.tenant, STRONG),
            Cell(one_line(letter.user)),
            Cell(one_line(letter.tool)),
            Cell(one_line(letter.error) or "–", DIM),
            Cell(count(letter.attempts)),
            Cell("? yes" if letter.in_doubt else "–", WARN if letter.in_doubt else DIM),
            Cell(age(letter.created, now), DIM),
        )

    return Table(
        columns=(
            Column("State", 11, keep=9),
            Column("Tenant", 10, grow=1, keep=7),
            Column("User", 16, grow=1, keep=5),
            Column("Tool", 22, grow=1, keep=8),
            Column("Error", 16, grow=5, keep=6),
            Column("Tries", 5, keep=2, right=True),
            Column("In doubt", 8, keep=4),
            Column("Age", 4, keep=3, right=True),
        ),
        key=lambda d: d.key,
        cells=cells,
        text=lambda d: f"{letter_mark(d.state).word} {d.tenant} {d.id} {d.user} {d.tool} {d.error}",
        values=(
            lambda d: (_RANK[d.state], -_seconds(d.created)),
            lambda d: d.tenant,
            lambda d: d.user,
            lambda d: d.tool,
            lambda d: d.error,
            lambda d: d.attempts,
            lambda d: not d.in_doubt,
            lambda d: -_seconds(d.created),
        ),
    )


def letter_lines(letter: DeadLetter, now: datetime, *, room: int = 0) -> list[Line]:
    """All of a dead letter. ``room``: at most about so many characters of arguments (0: all of them)."""
    mark = letter_mark(letter.state)
    arguments = json_lines(letter.arguments)
    if room:
        arguments = shortened(arguments, room, f"pilothouse dlq show {letter.id}")
    lines: list[Line] = [
        [
            Cell(f"{mark.symbol} {mark.word}", mark.style),
            Cell(f"  {visible(letter.tool)}", STRONG),
            Cell(f" for {visible(letter.user)} at {letter.tenant}"),
        ]
    ]
    if letter.in_doubt:
        lines.append([Cell(f"? {IN_DOUBT}", WARN)])
    lines += block("error", [visible(line) for line in (letter.error or "–").splitlines()], BAD)
    lines += fields(
        (
            (
                "failed",
                f"{age(letter.created, now)} ago ({letter.created:%Y-%m-%d %H:%M:%S} UTC)" if letter.created else "",
            ),
            ("attempts", count(letter.attempts)),
            ("breaker", visible(letter.breaker_state)),
        )
    )
    lines += block("arguments", arguments)
    if letter.resolved or letter.resolution or letter.resolved_by:
        by = f" by {visible(letter.resolved_by)}" if letter.resolved_by else ""
        when = f"{age(letter.resolved, now)} ago" if letter.resolved else ""
        lines.append(field("resolved", f"{when}{by}".strip()))
        lines += block("", [visible(letter.resolution)] if letter.resolution else [], PLAIN)
    lines += fields(
        (
            ("id", letter.id),
            ("session", letter.session_id),
            ("run", " step ".join(part for part in (letter.run_id, letter.step_id) if part)),
            ("key", letter.idempotency_key),
        )
    )
    return lines


def letter_page(letter: DeadLetter, now: datetime) -> list[Line]:
    """A dead letter on a screen that is painted again and again."""
    return letter_lines(letter, now, room=_ROOM)


def replay_sentence(replay: Replay) -> str:
    """What came of a replay: the worker's own sentence, else one out of the outcome."""
    mark = step_mark(replay.outcome)
    said = (
        one_line(replay.message)
        or {
            StepOutcome.SUCCEEDED: "The write was made, or found to be made before.",
            StepOutcome.REFUSED: "The system refused it; nothing was written.",
            StepOutcome.FAILED: "It failed again; nothing was written.",
            StepOutcome.UNKNOWN: "Whether it was written is still not known.",
            StepOutcome.UNSPECIFIED: "The gateway did not say what came of it.",
        }[replay.outcome]
    )
    return f"{mark.symbol} {said}"


def _seconds(moment: datetime | None) -> float:
    return moment.timestamp() if moment is not None else _OLD
