"""The local cluster's promises: repeatable, mends itself, stops only what is its own, keeps data and ports."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict

import asyncpg
import pytest
import redis

from pilothouse_local import procs
from pilothouse_testing.cluster import LocalCluster, local_cluster

pytestmark = pytest.mark.timeout(900)  # the first run on a machine may have to build Kubernetes


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """An instance that these tests may break and stop."""
    with local_cluster(only_core=True) as running:
        yield running


def pids(cluster: LocalCluster) -> dict[str, int]:
    seen = cluster.view()
    return {name: identity.pid for name in seen.processes if (identity := seen.identity(name)) is not None}


def eventually(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def query(url: str, statement: str) -> object:
    async def run() -> object:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    return asyncio.run(run())


def test_up_again_changes_nothing(cluster: LocalCluster) -> None:
    before = pids(cluster)

    cluster.must("up", "--only-core")

    assert pids(cluster) == before
    assert "Not running" not in cluster.must("status")


def test_a_killed_store_is_named_and_mended_with_its_data(cluster: LocalCluster) -> None:
    store = redis.Redis.from_url(cluster.settings().redis_url())
    store.set("kept", "yes")
    killed = pids(cluster)["valkey"]

    os.kill(killed, signal.SIGKILL)

    eventually(lambda: pids(cluster).get("valkey", killed) != killed and cluster.run("status").returncode == 0)
    said = cluster.must("status")
    assert "valkey" in said
    assert "killed by SIGKILL" in said
    assert store.get("kept") == b"yes"


def test_postgres_survives_a_kill(cluster: LocalCluster) -> None:
    url = cluster.settings().database_owner_url()
    query(url, "CREATE TABLE kept (v vector(2))")
    query(url, "INSERT INTO kept VALUES ('[1,2]')")
    killed = pids(cluster)["postgres"]

    os.kill(killed, signal.SIGKILL)

    eventually(lambda: pids(cluster).get("postgres", killed) != killed)
    cluster.must("up", "--only-core")
    assert query(url, "SELECT count(*) FROM kept") == 1


@pytest.mark.parametrize("role", ["pilothouse", "pilothouse_worker"])
def test_row_level_security_applies_to_the_products_roles(cluster: LocalCluster, role: str) -> None:
    settings = cluster.settings()
    url = {"pilothouse": settings.database_owner_url(), "pilothouse_worker": settings.database_url()}[role]

    found = query(url, "SELECT rolname || rolsuper || rolbypassrls FROM pg_roles WHERE rolname = current_user")

    assert found == f"{role}falsefalse"


def test_up_of_a_version_that_knew_no_workers_role_makes_it(cluster: LocalCluster) -> None:
    older = {key: value for key, value in asdict(cluster.settings()).items() if key != "worker_database_password"}
    cluster.instance.settings_file.write_text(json.dumps(older))

    cluster.must("up", "--only-core")

    assert query(cluster.settings().database_url(), "SELECT count(*) FROM runs") == 0
    assert {**asdict(cluster.settings()), **older} == asdict(cluster.settings())


def test_up_after_a_killed_supervisor_starts_anew(cluster: LocalCluster) -> None:
    supervisor = cluster.view().supervisor
    assert supervisor is not None
    old = pids(cluster)
    supervisor.signal(signal.SIGKILL)
    eventually(lambda: not supervisor.alive())
    assert "Not running: supervisor" in cluster.run("status").stdout

    cluster.must("up", "--only-core")

    assert not set(old.values()) & set(pids(cluster).values())


def test_down_stops_only_its_own_and_up_keeps_data_and_ports(cluster: LocalCluster) -> None:
    ports = cluster.settings().ports
    redis.Redis.from_url(cluster.settings().redis_url()).set("before-down", "yes")
    own = list(pids(cluster).values())
    with subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)", str(cluster.instance.root)]
    ) as bystander:
        cluster.must("down")

        assert bystander.poll() is None
        bystander.kill()
    assert all(procs.Identity.of(pid) is None for pid in own)
    assert cluster.run("status").returncode == 1

    cluster.must("down")
    cluster.must("up", "--only-core")
    assert cluster.settings().ports == ports
    assert redis.Redis.from_url(cluster.settings().redis_url()).get("before-down") == b"yes"


def test_a_port_that_others_took_is_said_and_left(cluster: LocalCluster) -> None:
    cluster.must("down")
    taken = cluster.settings().ports["valkey"]
    with socket.create_server(("127.0.0.1", taken)):
        said = cluster.must("up", "--only-core")

    assert f"port {taken} of valkey is now in use by another program" in said
    assert cluster.settings().ports["valkey"] != taken


def test_a_damaged_database_is_explained_without_a_trace(cluster: LocalCluster) -> None:
    cluster.must("down")
    version = cluster.instance.root / "postgres" / "data" / "PG_VERSION"
    kept = version.read_bytes()
    version.write_bytes(b"9\n")

    ran = cluster.run("up", "--only-core")

    version.write_bytes(kept)
    assert ran.returncode == 1
    assert "What happened:" in ran.stderr
    assert "Not done:" in ran.stderr
    assert "What to do now:" in ran.stderr
    assert "Traceback" not in ran.stderr
    cluster.must("up", "--only-core")
