"""A real PostgreSQL with an empty database of Pilothouse's, for tests that need no cluster."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pilothouse_local import stores
from pilothouse_local.instance import Instance, Settings
from pilothouse_testing.servers import free_port


@dataclass
class PostgresServer:
    """One server that a test may stop, kill and start again; its data stays."""

    postgres: stores.Postgres
    settings: Settings
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def owner_url(self) -> str:
        return self.settings.database_owner_url()

    @property
    def worker_url(self) -> str:
        return self.settings.database_url()

    @property
    def superuser_url(self) -> str:
        """Row-level security does not bind it."""
        return self.settings.superuser_url("pilothouse")

    def start(self, *options: str) -> None:
        user = self.postgres.user
        port = self.settings.ports["postgres"]
        # In its own process group, so that `kill` reaches the backends, too.
        self.process = subprocess.Popen(
            [
                str(self.postgres.bin / "postgres"), "-D", str(self.postgres.data), "-p", str(port),
                "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", *options,
            ],
            user=user.uid if user else None, group=user.gid if user else None,
            extra_groups=[] if user else None, cwd="/", env={"PATH": "/usr/bin:/bin"},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        until = time.monotonic() + 30
        while not stores.postgres_answers(self.postgres, port):
            if time.monotonic() > until or self.process.poll() is not None:
                raise RuntimeError("PostgreSQL did not start")
            time.sleep(0.05)

    def signal_all(self, number: signal.Signals) -> None:
        """To the postmaster and its backends."""
        assert self.process is not None
        children = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True, check=False
        )
        for pid in [self.process.pid, *map(int, children.stdout.split())]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        """``kill -9`` of all of it."""
        assert self.process is not None
        self.signal_all(signal.SIGKILL)
        self.process.wait(10)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()


@contextlib.contextmanager
def postgres_server(*options: str) -> Iterator[PostgresServer]:
    """A running server with role and database ``pilothouse`` and nothing in them; its folder goes with it."""
    with tempfile.TemporaryDirectory(prefix="pilothouse-postgres-") as name:
        root = Path(name)
        root.chmod(0o711)  # PostgreSQL runs as another user where the tests run as root
        settings = Settings(
            ports={"postgres": free_port()},
            pod_octet=0,
            redis_password="",
            postgres_password="postgres-of-a-test",
            application_password="owner-of-a-test",
            signing_key="",
            worker_database_password="worker-of-a-test",
        )
        postgres = stores.prepare_postgres(Instance(root), settings)
        server = PostgresServer(postgres, settings)
        server.start(*options)
        try:
            stores.ensure_database(settings)
            yield server
        finally:
            server.stop()


def run_sql(url: str, *statements: str) -> None:
    """Runs SQL over a connection of its own."""
    import asyncpg

    async def run() -> None:
        connection = await asyncpg.connect(url, timeout=10)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(run())
