"""Runs SQL of several statements: asyncpg prepares each, so it takes one at a time."""

from __future__ import annotations

from collections.abc import Iterator

from alembic import op


def split(sql: str) -> Iterator[str]:
    """Statements, each ended by a ``;`` at the end of a line outside of ``$$ … $$``."""
    lines: list[str] = []
    in_body = False
    for line in sql.splitlines():
        lines.append(line)
        in_body ^= line.count("$$") % 2 == 1
        if not in_body and line.rstrip().endswith(";"):
            yield "\n".join(lines)
            lines = []
    if "".join(lines).strip():
        yield "\n".join(lines)


def execute(sql: str) -> None:
    """Runs the statements as they stand: no ``:name`` in them is a parameter."""
    for statement in split(sql):
        op.get_bind().exec_driver_sql(statement)
