"""Dead letters: writes that failed for good, kept with all that it takes to send them again."""

from __future__ import annotations

from collections.abc import Sequence

from pilothouse_dataplane.core.approvals import arguments_hash
from pilothouse_dataplane.ledger import codec
from pilothouse_dataplane.ledger.base import DeadLetterRecord
from pilothouse_dataplane.ledger.connections import Connections

_BURY = """
INSERT INTO dead_letters (tenant, id, run_id, session_id, step_id, asker, tool, arguments, key, error, attempts,
                          breaker_state, in_doubt, created, state, resolved, resolved_by, resolution)
VALUES ($1, $2, $3, $4, $5, $6::text::json, $7, $8::text::json, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)
ON CONFLICT DO NOTHING
"""
_ONE = "SELECT row_to_json(d) FROM dead_letters d WHERE tenant = $1 AND id = $2"
_NEWEST = """
SELECT row_to_json(d) FROM dead_letters d WHERE tenant = $1 AND ($2 OR state = 'open') ORDER BY created DESC LIMIT $3
"""
_LATER_SUCCESS = """
SELECT run_id FROM tool_calls
    WHERE tenant = $1 AND user_email = $2 AND arguments_hash = $3 AND outcome = 'succeeded' AND created > $4
      AND run_id <> $5
    ORDER BY created LIMIT 1
"""
_RESOLVE = """
UPDATE dead_letters d SET state = $3, resolved = clock_timestamp(), resolved_by = $4, resolution = $5
    WHERE tenant = $1 AND id = $2 AND state = 'open' RETURNING row_to_json(d)
"""


class Letters:
    """The part of the ledger that no run holds: each call is a transaction of its own."""

    def __init__(self, connections: Connections, tenant: str) -> None:
        self._connections = connections
        self._tenant = tenant

    async def bury(self, letter: DeadLetterRecord) -> None:
        row = (
            letter.id, letter.run_id, letter.session_id, letter.step_id, codec.asker_json(letter.asker),
            codec.clean(letter.tool), codec.to_json(letter.arguments), letter.key, codec.clean(letter.error),
            letter.attempts, letter.breaker_state, letter.in_doubt, letter.created, letter.state, letter.resolved,
            letter.resolved_by, codec.clean(letter.resolution),
        )  # fmt: skip
        async with self._connections.borrowed() as connection:
            await connection.execute(_BURY, self._tenant, *row)

    async def dead_letters(
        self, *, all_states: bool = False, limit: int = 100, id: str = ""
    ) -> Sequence[DeadLetterRecord]:
        async with self._connections.borrowed() as connection:
            if id:
                rows = await connection.fetch(_ONE, self._tenant, id)
            else:
                rows = await connection.fetch(_NEWEST, self._tenant, all_states, limit)
        return [codec.letter_of(codec.from_json(row[0])) for row in rows]

    async def later_success(self, letter: DeadLetterRecord) -> str:
        wanted = arguments_hash(letter.tool, letter.arguments)
        found = (self._tenant, letter.asker.email, wanted, letter.created, letter.run_id)
        async with self._connections.borrowed() as connection:
            return str(await connection.fetchval(_LATER_SUCCESS, *found) or "")

    async def resolve(self, id: str, *, state: str, by: str, resolution: str) -> DeadLetterRecord | None:
        async with self._connections.borrowed() as connection:
            row = await connection.fetchval(_RESOLVE, self._tenant, id, state, by, codec.clean(resolution))
        return codec.letter_of(codec.from_json(row)) if row is not None else None
