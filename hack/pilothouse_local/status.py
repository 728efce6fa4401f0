"""What ``pilothouse status`` says: each process, each Deployment, and which of them does not run.

``gather`` reads, ``render`` is pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from pilothouse_local import cluster, deploy, procs
from pilothouse_local import instance as instances
from pilothouse_local.api import admin
from pilothouse_local.deploy import Readiness
from pilothouse_local.errors import LocalClusterError
from pilothouse_local.instance import Instance


@dataclass(frozen=True)
class ProcessStatus:
    """One process. ``memory`` in bytes of its whole tree, ``age`` in seconds; both 0 when it does not run."""

    name: str
    state: str
    """``running``, ``starting``, ``waiting``, ``restarting``, ``stopped`` or ``dead``."""
    pid: int | None
    memory: int
    age: float
    restarts: int
    last_exit: str


@dataclass(frozen=True)
class Status:
    processes: list[ProcessStatus]
    deployments: list[Readiness]
    api_silent: str
    """Why the Deployments are unknown; empty when they are known."""
    root: str

    def well(self) -> bool:
        """Whether everything runs and is available."""
        return (
            all(process.state == "running" for process in self.processes)
            and not any(one.waiting_for for one in self.deployments)
            and not self.api_silent
        )


def gather(instance: Instance) -> Status:
    seen = cluster.view(instance)
    supervisor = cluster.supervisor_of(instance)
    processes = [
        ProcessStatus(
            "supervisor",
            "running" if supervisor else ("dead" if _was_running(seen) else "stopped"),
            supervisor.pid if supervisor else None,
            procs.memory(supervisor.pid) if supervisor else 0,
            supervisor.age() if supervisor else 0.0,
            0,
            "",
        )
    ]
    processes += [_process(seen, name, supervised=supervisor is not None) for name in cluster.PROCESSES]
    deployments: list[Readiness] = []
    silent = ""
    try:
        settings = instances.load(instance)
        if settings is None or not any(process.name == "apiserver" and process.pid for process in processes):
            silent = "kube-apiserver does not run"
        else:
            deployments = deploy.readiness(admin(instance.pki, settings.ports["apiserver"], timeout=3.0))
    except LocalClusterError as error:
        silent = error.happened
    return Status(processes, deployments, silent, str(instance.root))


def _was_running(seen: cluster.View) -> bool:
    return any(process.get("state") not in (None, "stopped") for process in seen.processes.values())


def _process(seen: cluster.View, name: str, *, supervised: bool) -> ProcessStatus:
    raw = seen.processes.get(name, {})
    state = str(raw.get("state", "stopped"))
    identity = seen.identity(name)
    alive = identity is not None and identity.alive()
    if state in ("running", "starting") and not alive:
        state = "restarting" if supervised else "dead"
    elif not supervised and not alive and state != "stopped":
        state = "dead"
    pid = identity.pid if identity is not None and alive else None
    memory = 0 if pid is None else procs.memory(pid) + sum(procs.memory(child.pid) for child in procs.descendants(pid))
    age = identity.age() if identity is not None and alive else 0.0
    return ProcessStatus(name, state, pid, memory, age, int(raw.get("restarts", 0)), str(raw.get("last_exit", "")))


def render(status: Status) -> str:
    lines = [f"{'PROCESS':<20}{'STATE':<12}{'PID':>8}{'MEMORY':>10}{'UPTIME':>10}  NOTE"]
    for process in status.processes:
        note = f"restarted {process.restarts}x" if process.restarts else ""
        if process.last_exit:
            note = f"{note}, last: {process.last_exit}".lstrip(", ")
        if process.name == "node" and process.memory:
            note = f"{note}, memory with its Pods".lstrip(", ")
        memory = f"{process.memory / 1e6:.0f} MB" if process.memory else "-"
        pid = str(process.pid) if process.pid else "-"
        lines.append(
            f"{process.name:<20}{process.state:<12}{pid:>8}{memory:>10}{duration(process.age):>10}  {note}".rstrip()
        )
    lines.append("")
    if status.deployments:
        lines.append(f"{'NAMESPACE':<20}{'DEPLOYMENT':<28}{'READY':>7}  WAITING FOR")
        for one in status.deployments:
            lines.append(
                f"{one.namespace:<20}{one.name:<28}{f'{one.ready}/{one.wanted}':>7}  {one.waiting_for}".rstrip()
            )
        lines.append("")
    elif status.api_silent:
        lines += [f"Deployments unknown: {status.api_silent}", ""]
    broken = [process.name for process in status.processes if process.state not in ("running", "stopped")]
    if all(process.state == "stopped" for process in status.processes):
        lines.append("Nothing runs. `pilothouse up` starts it.")
    elif broken:
        lines.append(f"Not running: {', '.join(broken)}. `pilothouse up` mends it; `pilothouse logs NAME` says why.")
    lines.append(f"State: {status.root}")
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """``-``, ``12s``, ``3m05s``, ``2h04m`` or ``3d02h``."""
    whole = int(seconds)
    if whole <= 0:
        return "-"
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole // 60 % 60:02d}m"
    return f"{whole // 86400}d{whole // 3600 % 24:02d}h"
