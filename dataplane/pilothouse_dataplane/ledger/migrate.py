"""``python -m pilothouse_dataplane.ledger.migrate``: brings the ledger's schema up to date, makes the workers' role.

Reads ``PILOTHOUSE_DATABASE_URL`` (the owner of the database, with CREATEROLE unless the role exists) and, optional,
``PILOTHOUSE_WORKER_DATABASE_PASSWORD``: with it the role ``pilothouse_worker`` may log in, with this password. Safe to
repeat, and to run twice at once: the second waits for an advisory lock. Exit code 1 with a sentence on trouble.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
import sys
import time
from pathlib import Path

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, make_url, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

WORKER_ROLE = "pilothouse_worker"
WAIT_SECONDS = 60.0
"""For PostgreSQL to start, and for another migration to end."""
_LOCK = 0x70696C6F74  # "pilot": any number will do as long as nobody else's is the same
_SCRAM_ITERATIONS = 4096  # PostgreSQL's own default


class MigrationFailed(Exception):
    """Three parts: what happened, what was not done, what to do."""

    def __init__(self, happened: str, not_done: str, to_do: str) -> None:
        super().__init__(f"{happened}; {not_done}; {to_do}")


def scram_verifier(password: str, salt: bytes) -> str:
    """What PostgreSQL stores of a password (RFC 5803), so that the password itself reaches no server log."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _SCRAM_ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    shown = [base64.b64encode(part).decode() for part in (salt, stored, server)]
    return f"SCRAM-SHA-256${_SCRAM_ITERATIONS}:{shown[0]}${shown[1]}:{shown[2]}"


async def migrate(url: str, worker_password: str = "", *, wait: float = WAIT_SECONDS) -> str:
    """Returns what it did in one sentence. Raises MigrationFailed; then nothing was changed."""
    engine = create_async_engine(
        make_url(url).set(drivername="postgresql+asyncpg"), connect_args={"timeout": 5, "command_timeout": 300}
    )
    until = time.monotonic() + wait
    try:
        while True:
            try:
                async with engine.connect() as connection:
                    await _lock(connection, until)
                    done = await _migrate_locked(connection, worker_password)
                    await connection.commit()
                    return done
            except (OSError, TimeoutError, SQLAlchemyError, asyncpg.PostgresError) as error:
                if not _may_pass(error):
                    raise _failed(error) from error
                if time.monotonic() > until:
                    raise MigrationFailed(
                        f"PostgreSQL did not answer within {wait:.0f} s ({_said(error)})",
                        "the schema was not changed",
                        "see that it runs and that PILOTHOUSE_DATABASE_URL names it, then run this again",
                    ) from error
            await asyncio.sleep(0.5)
    finally:
        await engine.dispose()


async def _lock(connection: AsyncConnection, until: float) -> None:
    # Tried again and again instead of waited for: a wait in the server would outlive a caller that has given up. The
    # lock ends with the transaction, and so does everything that was done under it.
    while not (await connection.execute(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": _LOCK})).scalar():
        if time.monotonic() > until:
            raise MigrationFailed(
                "another migration of this database has been under way all the time",
                "the schema was not changed",
                "let it end, or end its session (pg_stat_activity shows it), then run this again",
            )
        await asyncio.sleep(0.2)


async def _migrate_locked(connection: AsyncConnection, worker_password: str) -> str:
    exists = (
        await connection.execute(text("SELECT 1 FROM pg_roles WHERE rolname = :name"), {"name": WORKER_ROLE})
    ).scalar()
    if not exists:
        await connection.exec_driver_sql(f"CREATE ROLE {WORKER_ROLE} NOLOGIN")
    if worker_password:
        # A verifier is of [A-Za-z0-9+/=$:-] only. DDL takes no parameters.
        verifier = scram_verifier(worker_password, os.urandom(16))
        await connection.exec_driver_sql(f"ALTER ROLE {WORKER_ROLE} LOGIN PASSWORD '{verifier}'")
    done = await connection.run_sync(_upgrade)
    return f"{done}; role {WORKER_ROLE} {'may log in' if worker_password else 'exists'}"


def _upgrade(connection: Connection) -> str:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    scripts = ScriptDirectory.from_config(config)
    head = scripts.get_current_head() or ""
    before = MigrationContext.configure(connection).get_current_revision()
    known = {script.revision for script in scripts.walk_revisions()}
    if before is not None and before not in known:
        return _newer(connection, before, head)
    if before == head:
        return f"the schema was up to date ({head})"
    command.upgrade(config, "head")
    return f"the schema was brought from {before or 'nothing'} to {head}"


def _newer(connection: Connection, found: str, head: str) -> str:
    oldest = connection.execute(text("SELECT oldest_code FROM ledger_schema")).scalar()
    if oldest is not None and int(head) >= int(oldest):
        return f"the schema ({found}) is newer than this code ({head}), and this code works with it"
    raise MigrationFailed(
        f"the schema ({found}) is newer than this code ({head}) and no longer works with code before {oldest}",
        "the schema was not changed",
        "run a newer release; the schema does not go back",
    )


def _original(error: BaseException) -> BaseException:
    """asyncpg's own error below SQLAlchemy's wrappers."""
    while isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig
    return error.__cause__ or error


def _may_pass(error: BaseException) -> bool:
    """Whether it is the server's start, or a broken connection: worth another try."""
    original = _original(error)
    if isinstance(original, asyncpg.PostgresError):
        return (original.sqlstate or "")[:2] in ("08", "53", "57")
    return isinstance(original, (OSError, TimeoutError, asyncpg.InterfaceError))


def _said(error: BaseException) -> str:
    original = _original(error)
    return f"{type(original).__name__}: {original}"


def _failed(error: BaseException) -> MigrationFailed:
    original = _original(error)
    to_do = "read the database's log, mend the cause, then run this again"
    if isinstance(original, asyncpg.InsufficientPrivilegeError):
        to_do = (
            f"give the owner CREATEROLE, or make the role yourself (CREATE ROLE {WORKER_ROLE} LOGIN PASSWORD …) and "
            "leave PILOTHOUSE_WORKER_DATABASE_PASSWORD unset, then run this again"
        )
    elif isinstance(original, asyncpg.InvalidAuthorizationSpecificationError):
        to_do = "correct user and password in PILOTHOUSE_DATABASE_URL, then run this again"
    return MigrationFailed(f"PostgreSQL refused a migration ({_said(error)})", "the schema was not changed", to_do)


def main() -> int:
    url = os.environ.get("PILOTHOUSE_DATABASE_URL", "")
    try:
        if not url:
            raise MigrationFailed(
                "PILOTHOUSE_DATABASE_URL is not set",
                "the schema was not changed",
                "set it to postgresql://OWNER:PASSWORD@HOST:PORT/DATABASE",
            )
        done = asyncio.run(migrate(url, os.environ.get("PILOTHOUSE_WORKER_DATABASE_PASSWORD", "")))
    except MigrationFailed as failed:
        print(f"ledger: {failed}", file=sys.stderr)
        return 1
    print(f"ledger: {done}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
