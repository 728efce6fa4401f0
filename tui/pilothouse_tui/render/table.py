"""A table as data: which columns fit a width, and a line's pieces. The widget only paints what this says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from rich.cells import cell_len, set_cell_size

from pilothouse_tui.render.style import PLAIN

T = TypeVar("T")
GAP = 2


@dataclass(frozen=True, slots=True)
class Cell:
    """Text with a style name."""

    text: str
    style: str = PLAIN


class Row:
    """One line of a table; ``key`` is the identity that the cursor follows.

    Its cells are made when they are first asked for: of 2,000 rows, ten times a second, some 30 are in sight.
    """

    __slots__ = ("_cells", "_make", "key")

    def __init__(self, key: tuple[str, ...], make: Callable[[], tuple[Cell, ...]]) -> None:
        self.key = key
        self._make = make
        self._cells: tuple[Cell, ...] | None = None

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The line's cells, one a column."""
        if self._cells is None:
            self._cells = self._make()
        return self._cells

    def same_as(self, other: Row) -> bool:
        """Whether both look the same."""
        return self.key == other.key and self.cells == other.cells


@dataclass(frozen=True, slots=True)
class Column:
    """A column. ``width`` is the least number of terminal cells; ``grow`` shares what is left over.

    ``keep`` says how long it stays in a narrow terminal: the lowest go first, those with the same go from the right.
    """

    title: str
    width: int
    grow: int = 0
    keep: int = 1
    right: bool = False


def fit(columns: Sequence[Column], width: int) -> list[tuple[int, int]]:
    """Which columns a table of ``width`` cells shows: ``(index, width of it)`` from left to right."""
    shown = list(range(len(columns)))

    def needed() -> int:
        return sum(columns[i].width for i in shown) + GAP * max(0, len(shown) - 1)

    while len(shown) > 1 and needed() > width:
        shown.remove(min(shown, key=lambda i: (columns[i].keep, -i)))
    spare = max(0, width - needed())
    shares = sum(columns[i].grow for i in shown)
    widths = {i: columns[i].width + (spare * columns[i].grow // shares if shares else 0) for i in shown}
    if len(shown) == 1:
        widths[shown[0]] = max(0, width)
    return [(i, widths[i]) for i in shown]


def cut(text: str, width: int) -> str:
    """Text at exactly ``width`` cells, with an ellipsis where it is longer (wide characters count two)."""
    if width <= 0:
        return ""
    if cell_len(text) <= width:
        return set_cell_size(text, width)
    return set_cell_size(text, width - 1) + "…"


def pieces(cells: Sequence[Cell], columns: Sequence[Column], layout: Sequence[tuple[int, int]]) -> list[Cell]:
    """A line's cells at their widths, with the gaps between them."""
    line: list[Cell] = []
    for position, (index, width) in enumerate(layout):
        if position:
            line.append(Cell(" " * GAP))
        cell = cells[index]
        text = cut(cell.text, width)
        if columns[index].right and cell_len(cell.text) < width:
            text = " " * (width - cell_len(cell.text)) + cell.text
        line.append(Cell(text, cell.style))
    return line


@dataclass(frozen=True, slots=True)
class Sort:
    """Order by a column's index."""

    column: int
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Table(Generic[T]):
    """How things of one type become rows. ``values`` gives each column's sort value,
    ``text`` what the filter looks into (cheaper than the cells: it is made for each row)."""

    columns: tuple[Column, ...]
    key: Callable[[T], tuple[str, ...]]
    cells: Callable[[T], tuple[Cell, ...]]
    values: tuple[Callable[[T], Any], ...]
    text: Callable[[T], str]

    def rows(self, items: Iterable[T], sort: Sort, words: str = "") -> list[Row]:
        """Rows of the items that hold every word of ``words``, in order; equal ones by key, so that none jumps."""
        needles = words.casefold().split()
        chosen: list[tuple[T, Row]] = []
        for item in items:
            row = Row(self.key(item), partial(self.cells, item))
            text = self.text(item).casefold() if needles else ""
            if all(n in text for n in needles):
                chosen.append((item, row))
        chosen.sort(key=lambda pair: pair[1].key)
        value = self.values[sort.column]
        chosen.sort(key=lambda pair: value(pair[0]), reverse=sort.descending)
        return [row for _, row in chosen]
