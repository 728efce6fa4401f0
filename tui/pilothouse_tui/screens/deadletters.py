"""Dead letters: read when the screen opens and on ``r``, since Fleet does not stream them."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.message import Message

from pilothouse_tui.errors import ToolError
from pilothouse_tui.model import DeadLetter, DeadLetters, DeadLetterState, StepOutcome
from pilothouse_tui.render.deadletters import IN_DOUBT, letter_page, letters_table, replay_sentence
from pilothouse_tui.render.style import BAD, DIM, GOOD, WARN
from pilothouse_tui.render.table import Cell, Sort
from pilothouse_tui.render.text import age, one_line
from pilothouse_tui.screens.base import Outcome, Shared
from pilothouse_tui.screens.confirm import Question
from pilothouse_tui.screens.queue import QueueScreen
from pilothouse_tui.screens.session import SessionScreen
from pilothouse_tui.widgets.page import Page
from pilothouse_tui.widgets.queues import DeadLettersTable
from pilothouse_tui.widgets.rows import RowsTable

_NAMED = 3
"""Tenants that could not be asked and are named."""


class DeadLettersScreen(QueueScreen):
    """Dead letters of all tenants."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r", "read", "Refresh", tooltip="Read the dead letters again"),
        Binding("a", "toggle_all", "Open/all", tooltip="Only open ones, or replayed and discarded ones too"),
    ]

    class Read(Message):
        """The dead letters, or why they can't be read."""

        def __init__(self, letters: DeadLetters | None, error: ToolError | None = None) -> None:
            super().__init__()
            self.letters, self.error = letters, error

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self._letters: dict[tuple[str, str], DeadLetter] = {}
        self._failed: tuple[tuple[str, str], ...] = ()
        self._error: ToolError | None = None
        self._read_at: datetime | None = None
        self._reading = False
        self._all = False

    def make_table(self) -> RowsTable:
        columns = letters_table(self.shared.clock()).columns
        return DeadLettersTable(columns, id="dead-letters", empty="", sort=Sort(0))

    def on_mount(self) -> None:
        self.action_read()

    def action_read(self) -> None:
        """Read the dead letters; an older reading that is still under way is given up."""
        self._reading = True
        self.run_worker(self._read(self._all), exclusive=True, group="read")
        self.show()

    def action_toggle_all(self) -> None:
        """Only open ones, or all."""
        self._all = not self._all
        self.action_read()

    async def _read(self, all_states: bool) -> None:
        try:
            self.post_message(self.Read(await self.shared.sources.dead_letters(all_states=all_states)))
        except ToolError as error:
            self.post_message(self.Read(None, error))

    def on_dead_letters_screen_read(self, event: Read) -> None:
        self._reading, self._error = False, event.error
        if event.letters is not None:
            self._letters = {letter.key: letter for letter in event.letters.letters}
            self._failed, self._read_at = event.letters.failed, self.shared.clock()
        self.show()

    def show_body(self, now: datetime) -> None:
        table = self.query_one(DeadLettersTable)
        rows = letters_table(now).rows(self._letters.values(), table.sort, self.words)
        table.show(rows, self._empty())
        count = len(self._letters)
        parts = [f"5 Dead letters · {f'{len(rows)} of ' if len(rows) < count else ''}{count}"]
        parts.append("all" if self._all else "open only")
        if self._reading:
            parts.append("reading…")
        elif self._read_at is not None:
            parts.append(f"as of {age(self._read_at, now)} ago")
        table.border_title = " · ".join(parts)
        if self._failed:
            named = ", ".join(name for name, _ in self._failed[:_NAMED])
            more = f" and {len(self._failed) - _NAMED} more" if len(self._failed) > _NAMED else ""
            table.border_subtitle = f"! not read: {named}{more}"
        else:
            table.border_subtitle = "! not read" if self._error and self._letters else ""
        self.show_detail(now)

    def _empty(self) -> str:
        if self.words.strip():
            return "Nothing holds these words; Escape empties the filter."
        if self._reading:
            return "Reading the dead letters of all tenants…"
        if self._error is not None:
            return "They could not be read; see below."
        return "No dead letters." if self._all else "No open dead letters. Nothing failed for good."

    def show_detail(self, now: datetime) -> None:
        page = self.query_one(Page)
        key = self.query_one(DeadLettersTable).cursor_key
        letter = self._letters.get((key[0], key[1])) if key else None
        if letter is not None:
            page.show(letter_page(letter, now), one_line(letter.tool))
        elif self._error is not None:
            error = self._error
            page.show(
                [[Cell(f"✗ {error.happened}", BAD)], [Cell(error.not_done)], [Cell(f"→ {error.to_do}")]], "Detail"
            )
        elif self._failed:
            page.show([[Cell(f"! {name}: {why}", WARN)] for name, why in self._failed], "Not read")
        else:
            page.show([[Cell("Nothing is chosen.", DIM)]], "Detail")

    @on(RowsTable.Opened)
    def _open(self, event: RowsTable.Opened) -> None:
        letter = self._letters.get((event.key[0], event.key[1]))
        if letter is not None and letter.session_id:
            self.app.push_screen(SessionScreen(self.shared, letter.tenant, letter.session_id))

    @on(DeadLettersTable.ReplayAsked)
    def _replay(self, event: DeadLettersTable.ReplayAsked) -> None:
        letter = self._still_open(event.key)
        if letter is None:
            return
        sources = self.shared.sources

        async def work() -> Outcome:
            done = await sources.replay(letter.tenant, letter.id)
            return Outcome(replay_sentence(done), done.outcome is StepOutcome.SUCCEEDED, self.action_read)

        effects = ["It goes out as the same user, under its own key, so that it is made once."]
        if letter.in_doubt:
            effects.insert(0, IN_DOUBT)
        self.act(Question(f"Replay {_named(letter)}", effects, WARN if letter.in_doubt else GOOD), work)

    @on(DeadLettersTable.DiscardAsked)
    def _discard(self, event: DeadLettersTable.DiscardAsked) -> None:
        letter = self._still_open(event.key)
        if letter is None:
            return
        sources = self.shared.sources

        async def work() -> Outcome:
            await sources.discard(letter.tenant, letter.id)
            return Outcome(f"Discarded {_named(letter)}; it stays in the record.", then=self.action_read)

        effects = ["Nobody sends it again; it stays in the record."]
        self.act(Question(f"Discard {_named(letter)}", effects, BAD), work)

    def _still_open(self, key: tuple[str, ...]) -> DeadLetter | None:
        letter = self._letters.get((key[0], key[1]))
        if letter is not None and letter.state in (DeadLetterState.REPLAYED, DeadLetterState.DISCARDED):
            self.app.notify(f"It was {letter.state.value} before. Nothing was done.", severity="warning", markup=False)
            return None
        return letter


def _named(letter: DeadLetter) -> str:
    return f"{one_line(letter.tool)} of {one_line(letter.user)} at {letter.tenant}"
