"""Connections of one worker to PostgreSQL, and what its errors mean.

A tenant is a setting of the connection (``pilothouse.tenant``), which the row-level security of every table reads.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg

from pilothouse_dataplane.ledger.base import LedgerError, LedgerUnavailable

CONNECT_SECONDS = 2.0
STATEMENT_SECONDS = 2.5
ANSWER_SECONDS = 3.0
"""The longest that a call of the ledger takes, whatever PostgreSQL does."""
_PAUSE = 0.1

_POISON = ("22", "23", "54")
"""Classes of SQLSTATE that blame the data itself: data exception, integrity violation, program limit exceeded."""
_NOT_MIGRATED = ("42883", "42P01", "42703", "42501", "3F000")


def is_poison(error: BaseException) -> bool:
    """Whether the same statement would fail again on any connection, because of what it carries."""
    if isinstance(error, asyncpg.PostgresError):
        return (error.sqlstate or "")[:2] in _POISON
    if isinstance(error, asyncpg.InterfaceError) and isinstance(error, ValueError):
        return True  # asyncpg's own DataError: it can't be sent
    return not isinstance(error, (OSError, TimeoutError, EOFError, asyncpg.InterfaceError, asyncpg.InternalClientError))


def unavailable(error: BaseException) -> LedgerUnavailable:
    """The sentence for the operator. An error's text may quote a tool's arguments, so only its kind is told."""
    kind = type(error).__name__
    if isinstance(error, asyncpg.PostgresError) and error.sqlstate in _NOT_MIGRATED:
        return LedgerUnavailable(
            f"the ledger's schema is not the one that this release needs ({kind}); nothing was recorded; "
            "run python -m pilothouse_dataplane.ledger.migrate"
        )
    if isinstance(error, asyncpg.InvalidAuthorizationSpecificationError):
        return LedgerUnavailable(
            f"PostgreSQL refused the worker's user or password ({kind}); nothing was recorded; "
            "correct the database-url in the worker's Secret"
        )
    return LedgerUnavailable(
        f"PostgreSQL did not answer ({kind}); it is not known to be recorded; see that PostgreSQL runs"
    )


class Connections:
    """Up to ``limit`` connections, made when they are needed, for calls that keep no order."""

    def __init__(self, url: str, tenant: str, name: str, limit: int = 2) -> None:
        self._url = url
        self._settings = {
            "pilothouse.tenant": tenant,
            "application_name": name[:63],
            # The server gives up no later than we do, also when it was frozen meanwhile.
            "statement_timeout": str(int(STATEMENT_SECONDS * 1000)),
            "idle_in_transaction_session_timeout": "5000",
        }
        self._idle: list[Any] = []
        self._slots = asyncio.Semaphore(limit)

    async def connect(self) -> Any:
        """A connection of the caller's own."""
        async with asyncio.timeout(CONNECT_SECONDS):
            return await asyncpg.connect(self._url, timeout=CONNECT_SECONDS, server_settings=self._settings)

    async def _connect_within(self, until: float) -> Any:
        """Tries again while PostgreSQL starts."""
        while True:
            try:
                return await self.connect()
            except Exception as error:
                if is_poison(error) or asyncio.get_running_loop().time() + _PAUSE > until:
                    raise
            await asyncio.sleep(_PAUSE)

    @asynccontextmanager
    async def borrowed(self) -> AsyncIterator[Any]:
        """One from the pool, for at most ANSWER_SECONDS in all. Raises LedgerUnavailable, or LedgerError where
        PostgreSQL refuses the data. A connection that fails in any way is thrown away."""
        connection: Any = None
        until = asyncio.get_running_loop().time() + ANSWER_SECONDS
        try:
            async with asyncio.timeout_at(until), self._slots:
                while self._idle and connection is None:
                    connection = self._idle.pop()
                    if connection.is_closed():
                        connection = None
                if connection is None:
                    connection = await self._connect_within(until)
                yield connection
                self._idle.append(connection)
                connection = None
        except LedgerError:
            raise
        except Exception as error:
            if is_poison(error):
                raise LedgerError(
                    f"PostgreSQL can't hold this ({type(error).__name__}); nothing was recorded"
                ) from None
            raise unavailable(error) from None
        finally:
            if connection is not None:
                connection.terminate()

    async def aclose(self) -> None:
        while self._idle:
            await close(self._idle.pop())


async def close(connection: Any) -> None:
    """Says good-bye where there is time for it."""
    with suppress(Exception):
        await connection.close(timeout=0.5)
    connection.terminate()
