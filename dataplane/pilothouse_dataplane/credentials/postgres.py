"""Linked accounts in PostgreSQL, sealed (backend Kubernetes). The database sees who linked what and when, no token.

Key rotation: add ``key.N+1`` to the tenant's keys. From its arrival on it seals; what an older key sealed is sealed
anew when it is read, and by a sweep over the rest. No account is left under a key K when
``SELECT count(*) FROM linked_accounts WHERE key_id <= K`` gives 0 (with ``pilothouse.tenant`` set), which the sweep
also logs; then K may be removed. An account whose key was removed too early can't be read: its user links it again.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import orjson
import structlog

from pilothouse_dataplane.credentials import entry
from pilothouse_dataplane.credentials.base import LinkedAccount, StoreUnavailable
from pilothouse_dataplane.credentials.sealing import KeyRing, SealError
from pilothouse_dataplane.ledger.base import LedgerError, LedgerUnavailable
from pilothouse_dataplane.ledger.connections import Connections

SWEEP_SECONDS = 60.0
_SWEEP_ROWS = 100
_log = structlog.get_logger(__name__)

_ONE = "SELECT connector, key_id, sealed, version FROM linked_accounts WHERE tenant = $1 AND user_email = $2"
_INSERT = """
INSERT INTO linked_accounts (tenant, user_email, connector, key_id, sealed, version, expires_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING
"""
_UPDATE = """
UPDATE linked_accounts SET key_id = $4, sealed = $5, version = $6, expires_at = $7, updated_at = clock_timestamp()
    WHERE tenant = $1 AND user_email = $2 AND connector = $3 AND version = $8
"""
_RESEAL = """
UPDATE linked_accounts SET key_id = $4, sealed = $5
    WHERE tenant = $1 AND user_email = $2 AND connector = $3 AND version = $6 AND key_id = $7
"""
_DELETE = "DELETE FROM linked_accounts WHERE tenant = $1 AND user_email = $2 AND connector = $3"
_OLD = """
SELECT user_email, connector, key_id, sealed, version FROM linked_accounts
    WHERE tenant = $1 AND key_id < $2 AND (user_email, connector) > ($3, $4) ORDER BY user_email, connector LIMIT $5
"""


class SealedAccounts:
    """Linked accounts of one tenant."""

    def __init__(
        self,
        connections: Connections,
        tenant: str,
        keys: Callable[[], KeyRing],
        *,
        random: Callable[[int], bytes],
        clock: Callable[[], float],
    ) -> None:
        """``keys`` gives the newest ring, ``random`` the system's random bytes, ``clock`` Unix seconds."""
        self._connections = connections
        self._tenant = tenant
        self._keys = keys
        self._random = random
        self._clock = clock
        self.error = ""
        """Why the last question had no answer; "" where it had."""

    async def get(self, user: str, connector: str) -> LinkedAccount | None:
        async with self._asked() as connection:
            row = await connection.fetchrow(f"{_ONE} AND connector = $3", self._tenant, user, connector)
            return await self._opened(connection, user, row) if row is not None else None

    async def of_user(self, user: str) -> Mapping[str, LinkedAccount]:
        async with self._asked() as connection:
            rows = await connection.fetch(_ONE, self._tenant, user)
            return {row["connector"]: await self._opened(connection, user, row) for row in rows}

    async def put(self, user: str, connector: str, account: LinkedAccount) -> bool:
        # a new entry's version is one that no earlier entry had: who still knows an earlier one can't replace it
        version = account.version + 1 if account.version else int(self._clock() * 1_000_000)
        content = orjson.dumps(entry.to_fields(account))
        try:
            key_id, sealed = self._keys().seal(content, self._context(user, connector, version), self._random)
        except SealError as error:
            raise StoreUnavailable(f"{error}, so nothing was kept") from None
        ends = datetime.fromtimestamp(account.expires_at, UTC) if math.isfinite(account.expires_at) else None
        row = (self._tenant, user, connector, key_id, sealed, version, ends)
        async with self._asked() as connection:
            if account.version:
                done = await connection.execute(_UPDATE, *row, account.version)
            else:
                done = await connection.execute(_INSERT, *row)
        return str(done).endswith(" 1")

    async def delete(self, user: str, connector: str) -> bool:
        async with self._asked() as connection:
            return str(await connection.execute(_DELETE, self._tenant, user, connector)).endswith(" 1")

    async def sweep(self) -> int:
        """Seal anew what an older key has sealed. Returns how many entries are still under an older key, because it is
        not there. Raises StoreUnavailable."""
        ring = self._keys()
        try:
            current = ring.current
        except SealError:
            return 0
        user = connector = ""
        left = done = 0
        while True:
            async with self._asked() as connection:
                rows = await connection.fetch(_OLD, self._tenant, current, user, connector, _SWEEP_ROWS)
                for row in rows:
                    user, connector = row["user_email"], row["connector"]
                    sealed_anew = await self._reseal(connection, user, row)
                    done, left = done + sealed_anew, left + (not sealed_anew)
            if len(rows) < _SWEEP_ROWS:
                break
        if done or left:
            _log.info("linked accounts sealed anew", key=current, sealed=done, left_under_older_keys=left)
        return left

    async def keep_swept(self) -> None:
        """Sweep again and again; ends when it is cancelled."""
        while True:
            try:
                await self.sweep()
            except StoreUnavailable as error:
                _log.warning("linked accounts not swept", error=str(error))
            await asyncio.sleep(SWEEP_SECONDS)

    async def aclose(self) -> None:
        await self._connections.aclose()

    def _context(self, user: str, connector: str, version: int) -> tuple[str, ...]:
        return (self._tenant, user, connector, str(version))

    async def _opened(self, connection: Any, user: str, row: Any) -> LinkedAccount:
        connector, version = row["connector"], row["version"]
        ring = self._keys()
        try:
            content = ring.open(row["key_id"], row["sealed"], self._context(user, connector, version))
            account = entry.from_fields(orjson.loads(content), version)
        except (SealError, entry.EntryError, orjson.JSONDecodeError) as error:
            why = str(error) if not isinstance(error, orjson.JSONDecodeError) else "it is not JSON"
            _log.warning("a linked account can't be read; its user must link it again", connector=connector, why=why)
            return entry.unreadable(version, "it can't be read any more")
        if row["key_id"] < ring.current:
            await self._reseal(connection, user, row)
        return account

    async def _reseal(self, connection: Any, user: str, row: Any) -> bool:
        """The version stays: nothing changed for who has read it. False: the older key is not there."""
        ring, connector, version = self._keys(), row["connector"], row["version"]
        context = self._context(user, connector, version)
        try:
            content = ring.open(row["key_id"], row["sealed"], context)
            key_id, sealed = ring.seal(content, context, self._random)
        except SealError:
            return False
        await connection.execute(_RESEAL, self._tenant, user, connector, key_id, sealed, version, row["key_id"])
        return True

    @asynccontextmanager
    async def _asked(self) -> AsyncIterator[Any]:
        try:
            async with self._connections.borrowed() as connection:
                yield connection
        except LedgerUnavailable as error:
            self.error = f"linked accounts can't be asked: {error}"
            raise StoreUnavailable(self.error) from None
        except LedgerError as error:
            raise StoreUnavailable(f"linked accounts refused this: {error}") from None
        self.error = ""
