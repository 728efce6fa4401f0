"""The processes of the bench: the stand-ins, the workers and their configuration; their CPU time and memory."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine_parts.stores import Stores
from pilothouse_api.egress import EgressRule
from pilothouse_api.workerconfig import (
    AgentConfig,
    ConnectorConfig,
    LimitsConfig,
    OAuthConfig,
    ProviderConfig,
    RouteConfig,
    SecretValue,
    TargetConfig,
    Tier,
    WorkerConfig,
)

USER = "employee@acme.example"
TOKEN = "jira-token-employee"  # noqa: S105 - the stand-in's, in its public seed
_TICK = os.sysconf("SC_CLK_TCK")
_READY_SECONDS = 30.0


@dataclass(frozen=True)
class StandIn:
    """A running stand-in."""

    url: str
    pid: int

    def pace(self, **ranges: tuple[float, float]) -> None:
        """How fast a scripted one answers from now on."""
        post(f"{self.url}/__sim/pace", ranges)


def post(url: str, body: Mapping[str, Any]) -> Any:
    """POST JSON to a stand-in; the answer's JSON."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - an address of ours
        return json.load(answer)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_listening(port: int, process: subprocess.Popen[bytes] | None = None, seconds: float = _READY_SECONDS) -> None:
    """Raises RuntimeError where the process ends first or nobody listens in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process is not None and process.poll() is not None:
            break
        time.sleep(0.01)
    raise RuntimeError(f"nobody listens on port {port}")


@contextlib.contextmanager
def process(command: list[str], log: Path, env: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A process of ours, its output in ``log``; ended at the end."""
    with log.open("ab") as said:
        running = subprocess.Popen(command, stdout=said, stderr=said, env={**os.environ, **(env or {})})
    try:
        yield running
    finally:
        running.terminate()
        try:
            running.wait(10)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


@contextlib.contextmanager
def stand_in(system: str, root: Path, *more: str, faults: Mapping[str, Any] | None = None) -> Iterator[StandIn]:
    """One of ``python -m pilothouse_sim``'s systems."""
    port = free_port()
    command = [sys.executable, "-m", "pilothouse_sim", system, "--listen", f"127.0.0.1:{port}", *more]
    env = {"PILOTHOUSE_SIM_FAULTS": json.dumps(faults or {})}
    with process(command, root / f"{system}.log", env) as running:
        wait_listening(port, running)
        yield StandIn(f"http://127.0.0.1:{port}", running.pid)


def config(tenant: str, models: str, jira: str, *, tier: Tier = "power", timeout: float = 5.0) -> WorkerConfig:
    """A worker's configuration with one provider, one Jira (``timeout``: seconds a call) and bounds that the bench does
    not meet."""
    return WorkerConfig(
        tenant=tenant,
        namespace=tenant,
        display_name=tenant.capitalize(),
        revision="bench",
        agent=AgentConfig(instructions="You help Acme's employees.", deadline_seconds=60),
        route=RouteConfig(
            providers=(ProviderConfig(name="local", type="OpenAI", base_url=f"{models}/v1"),),
            tiers={tier: (TargetConfig(provider="local", model=f"bench-{tier}"),)},
            default_tier=tier,
        ),
        connectors=(
            ConnectorConfig(
                name="jira",
                type="jira",
                url=jira,
                auth_mode="UserOAuth",
                oauth=OAuthConfig(accounts=SecretValue(secret="jira", key="accounts")),  # noqa: S106 - its name
                timeout_seconds=timeout,
                concurrent_calls=1000,
            ),
        ),
        egress=EgressRule(allow_hosts=("127.0.0.1",)),
        limits=LimitsConfig(concurrent_runs=10_000),  # counted, and never reached
        concurrent_runs=1000,
    )


def write_config(folder: Path, what: WorkerConfig, stores: Stores) -> None:
    """The files of the worker's mounted Secret."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(what.model_dump_json())
    (folder / "redis-url").write_text(stores.redis_url)
    (folder / "database-url").write_text(stores.database_url)
    (folder / "secret.jira.accounts").write_text(json.dumps({USER: TOKEN}))


@dataclass(frozen=True)
class WorkerProcess:
    """A running worker."""

    address: str
    pid: int
    tenant: str


@contextlib.contextmanager
def worker(
    root: Path, name: str, what: WorkerConfig, stores: Stores, *, collector: str = ""
) -> Iterator[WorkerProcess]:
    """The product's own worker process, as a Pod starts it; with a ``collector`` (a URL) its spans are on."""
    folder = root / f"config-{name}"
    write_config(folder, what, stores)
    port = free_port()
    command = [sys.executable, "-m", "pilothouse_dataplane.worker", "--listen", f"127.0.0.1:{port}"]
    env = {"PILOTHOUSE_CONFIG_DIR": str(folder), "POD_NAME": name}
    if collector:
        env["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector
    with process(command, root / f"{name}.log", env) as running:
        wait_listening(port, running)
        yield WorkerProcess(f"127.0.0.1:{port}", running.pid, what.tenant)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process with all of its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def memory_kb(pid: int) -> int:
    """Proportional set size."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0
