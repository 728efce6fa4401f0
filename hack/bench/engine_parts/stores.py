"""A real Valkey and a real PostgreSQL with the schema, in a folder of their own, as the local cluster starts them."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pilothouse_local import instance as instances
from pilothouse_local import stores
from pilothouse_local.instance import LOOPBACK, Instance, Settings

_READY_SECONDS = 30.0


@dataclass(frozen=True)
class Stores:
    """The addresses that workers are given."""

    redis_url: str
    database_url: str


@contextlib.contextmanager
def running(root: Path) -> Iterator[Stores]:
    """Starts both and migrates; stops both. Raises the local cluster's errors, TimeoutError."""
    instance = Instance(root)
    instances.prepare_folder(instance)
    settings, _ = instances.choose(instance, None)
    postgres = stores.prepare_postgres(instance, settings)
    config = stores.prepare_valkey(instance, settings)
    clean = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/", "LC_ALL": "C"}
    owner = postgres.user
    with contextlib.ExitStack() as stack:
        quiet = stack.enter_context((instance.logs / "stores.log").open("wb"))
        valkey = subprocess.Popen([str(stores.valkey_program()), str(config)], stdout=quiet, stderr=quiet, env=clean)
        stack.callback(_end, valkey)
        database = subprocess.Popen(
            [
                str(postgres.bin / "postgres"), "-D", str(postgres.data), "-c", f"listen_addresses={LOOPBACK}",
                "-c", f"port={settings.ports['postgres']}", "-c", "unix_socket_directories=",
                "-c", "shared_buffers=32MB", "-c", "max_connections=100", "-c", "jit=off",
                "-c", "password_encryption=scram-sha-256",
            ],
            stdout=quiet, stderr=quiet, env=clean, cwd="/",
            user=owner.uid if owner else None, group=owner.gid if owner else None, extra_groups=[] if owner else None,
        )  # fmt: skip
        stack.callback(_end, database)
        _wait(lambda: stores.valkey_answers(settings), "Valkey")
        _wait(lambda: stores.postgres_answers(postgres, settings.ports["postgres"]), "PostgreSQL")
        stores.ensure_database(settings)
        stores.migrate(settings)
        yield _addresses(settings)


def _addresses(settings: Settings) -> Stores:
    return Stores(settings.redis_url(), settings.database_url())


def _wait(ready: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + _READY_SECONDS
    while not ready():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not become ready within {_READY_SECONDS:.0f} s")
        time.sleep(0.05)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(2)  # PostgreSQL's "fast" shutdown; Valkey ends, too
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
