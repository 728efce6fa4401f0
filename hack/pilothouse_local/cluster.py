"""``up`` and ``down`` of an instance, as plain functions: the commands, the tests and the benches call the same ones.

up:   programs → folder → settings → certificates → stores → supervisor → (each process ready) → database → schema
      → OpenBao → Secrets → overlay → wait
down: the supervisor stops its processes in reverse order; what a killed supervisor left is found by its last view.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilothouse_local import binaries, deploy, pki, procs, stores, vault
from pilothouse_local import instance as instances
from pilothouse_local.api import admin
from pilothouse_local.console import Console
from pilothouse_local.errors import ProcessFailed, writing
from pilothouse_local.instance import Instance, Settings
from pilothouse_local.procs import Identity

PROCESSES = ("etcd", "postgres", "valkey", "openbao", "apiserver", "controller-manager", "node")
_READY_WITHIN = 120.0
_GIVE_UP_AFTER = 4
"""Failed starts in a row after which ``up`` stops waiting; the supervisor goes on trying."""
_STOP_WITHIN = 90.0


@dataclass(frozen=True)
class View:
    """The supervisor's last word on its processes."""

    supervisor: Identity | None
    processes: dict[str, dict[str, Any]]

    def identity(self, name: str) -> Identity | None:
        return Identity.from_json(self.processes.get(name, {}).get("identity"))


def view(instance: Instance) -> View:
    """Empty when there is none, or when it is unreadable: then nothing can be known to be ours."""
    try:
        raw = json.loads(instance.view_file.read_text())
        processes = raw.get("processes")
        return View(Identity.from_json(raw.get("supervisor")), processes if isinstance(processes, dict) else {})
    except (OSError, ValueError, AttributeError):
        return View(None, {})


def supervisor_of(instance: Instance) -> Identity | None:
    """The running supervisor, or ``None``."""
    seen = view(instance).supervisor
    return seen if seen is not None and seen.alive() else None


@contextlib.contextmanager
def _alone(instance: Instance, console: Console) -> Iterator[None]:
    with instance.up_lock_file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with console.waiting("another `pilothouse up` or `down` works on this instance: waiting for it"):
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def up(instance: Instance, console: Console, *, only_core: bool = False) -> None:
    """Starts or mends the instance, and installs Pilothouse into it unless ``only_core``.

    Safe to repeat. Raises ``LocalClusterError``: what was started until then stays, and ``down`` stops it.
    """
    began = time.monotonic()
    programs = binaries.obtain(console)
    with writing(instance.root, "the local cluster was not started"):
        instances.prepare_folder(instance)
        with _alone(instance, console):
            settings = _start(instance, console, programs)
            _wait_processes(instance, console)
            stores.ensure_database(settings)
            with console.waiting("bringing the database's schema up to date"):
                stores.migrate(settings)
            api = admin(instance.pki, settings.ports["apiserver"])
            kubectl = deploy.Kubectl(instance.kubeconfig)
            deploy.apply_namespaces(api)
            deploy.apply_secrets(api, settings)
            with console.waiting("setting OpenBao up"):
                vault.ensure(instance, settings, api)
            if only_core:
                deploy.apply_crds(kubectl)
            else:
                with console.waiting("applying charts/overlays/local"):
                    objects = deploy.render_overlay(kubectl, "local")
                    settings = instances.with_node_ports(instance, settings, deploy.node_ports(objects))
                    instances.save(instance, settings)
                    deploy.move_node_ports(objects, settings.node_ports)
                    deploy.apply_objects(kubectl, objects)
                deploy.wait_available(api, kubectl, console)
    console.say(f"The local cluster is up after {time.monotonic() - began:.1f} s.")
    console.say(f"  kubectl:  export KUBECONFIG={instance.kubeconfig}")
    console.say(f"  OpenBao:  {settings.vault_url()} (root token: {vault.token_file(instance)})")
    if not only_core and (address := deploy.gateway_address(api)):
        console.say(f"  gateway:  {address}")


def _start(instance: Instance, console: Console, programs: Path) -> Settings:
    settings = instances.load(instance)
    if settings is not None and settings != instances.completed(settings):
        settings = instances.completed(settings)
        instances.save(instance, settings)
    running = supervisor_of(instance)
    if running is not None and (unknown := set(PROCESSES) - set(view(instance).processes)):
        console.say(f"What runs is of an older version, without {', '.join(sorted(unknown))}: stopping it first")
        _stop(instance, running, console)
        running = None
    if running is not None and settings is not None:
        states = {name: process.get("state") for name, process in view(instance).processes.items()}
        if any(state != "running" for state in states.values()):
            console.say(
                "Mending: " + ", ".join(f"{name} is {state}" for name, state in states.items() if state != "running")
            )
        running.signal(signal.SIGHUP)
        return settings
    _stop_left_behind(instance, console)
    settings, said = instances.choose(instance, settings)
    for sentence in said:
        console.say(sentence)
    instances.save(instance, settings)
    pki.ensure(instance.pki, datetime.datetime.now(datetime.UTC))
    for path, pair in (
        (instance.kubeconfig, "admin"),
        *((instance.kubeconfig_of(p), p) for p in ("controller-manager", "node")),
    ):
        pki.write_private(path, pki.kubeconfig(instance.pki, pair, settings.server()))
    first = not (instance.root / "postgres" / "data").exists()
    with console.waiting("making the database" if first else "checking the stores"):
        stores.prepare_postgres(instance, settings)
        stores.prepare_valkey(instance, settings)
        vault.prepare(instance, settings)
    instance.view_file.unlink(missing_ok=True)
    with instance.log("supervisor").open("ab") as log:
        subprocess.Popen(
            [sys.executable, "-m", "pilothouse_local.supervisor", str(instance.root), str(programs)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=instance.root,
            start_new_session=True,
        )
    return settings


def _wait_processes(instance: Instance, console: Console) -> None:
    began = time.monotonic()
    with console.waiting("starting") as waiting:
        while True:
            seen = view(instance)
            late = [name for name in PROCESSES if not _is_running(seen, name)]
            if not late:
                return
            waiting.label = "starting " + ", ".join(late)
            failed = [name for name in late if seen.processes.get(name, {}).get("failures", 0) >= _GIVE_UP_AFTER]
            elapsed = time.monotonic() - began
            if failed or elapsed > _READY_WITHIN or (seen.supervisor is None and elapsed > 15):
                _not_ready(instance, seen, failed or (["supervisor"] if seen.supervisor is None else late))
            time.sleep(0.05)


def _is_running(seen: View, name: str) -> bool:
    identity = seen.identity(name)
    return seen.processes.get(name, {}).get("state") == "running" and identity is not None and identity.alive()


def _not_ready(instance: Instance, seen: View, names: list[str]) -> None:
    name = names[0]
    last = seen.processes.get(name, {}).get("last_exit") or "it is not ready yet"
    raise ProcessFailed(
        f"{name} does not come up: {last}",
        f"the local cluster is not ready ({', '.join(names)} missing)",
        f"read the end of {instance.log(name)} below; `pilothouse up` tries again, `pilothouse down` stops the rest",
        detail=tail(instance.log(name), 20),
    )


def tail(path: Path, lines: int) -> str:
    """The last lines of a file; empty when it can't be read."""
    try:
        with path.open("rb") as source:
            source.seek(max(0, path.stat().st_size - 400 * lines))
            return "\n".join(source.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def _stop_left_behind(instance: Instance, console: Console) -> bool:
    """Stops what a killed supervisor left running; only processes that are provably its own."""
    seen = view(instance)
    left = [(name, identity) for name in reversed(PROCESSES) if (identity := seen.identity(name)) and identity.alive()]
    if left:
        console.say("Stopping what a killed supervisor left behind: " + ", ".join(name for name, _ in left))
    for name, identity in left:
        below = procs.descendants(identity.pid)
        procs.stop([identity], int(seen.processes[name].get("stop_signal", signal.SIGTERM)), 30)
        procs.stop([one for one in below if one.alive()], signal.SIGTERM, 5)
    return bool(left)


def down(instance: Instance, console: Console) -> None:
    """Stops this instance's processes and no others; the data stays. Safe to repeat."""
    if not instance.root.is_dir():
        console.say(f"Nothing runs: there is no instance in {instance.root}.")
        return
    with writing(instance.root, "the local cluster was not stopped"), _alone(instance, console):
        supervisor = supervisor_of(instance)
        if supervisor is None:
            if not _stop_left_behind(instance, console):
                console.say("Nothing runs.")
            return
        began = time.monotonic()
        _stop(instance, supervisor, console)
    console.say(f"Stopped after {time.monotonic() - began:.1f} s; the data stays in {instance.root}.")


def _stop(instance: Instance, supervisor: Identity, console: Console) -> None:
    began = time.monotonic()
    supervisor.signal(signal.SIGTERM)
    with console.waiting("stopping") as waiting:
        while supervisor.alive() and time.monotonic() - began < _STOP_WITHIN:
            seen = view(instance)
            waiting.label = "stopping " + ", ".join(
                name for name in PROCESSES if (identity := seen.identity(name)) and identity.alive()
            )
            time.sleep(0.05)
    if supervisor.alive():
        procs.stop([*reversed(procs.descendants(supervisor.pid)), supervisor], signal.SIGKILL, 5)
    _stop_left_behind(instance, console)


def stack(instance: Instance) -> list[Identity]:
    """Every process of the running instance, its Pods' included."""
    supervisor = supervisor_of(instance)
    return [] if supervisor is None else [supervisor, *procs.descendants(supervisor.pid)]


def require_running(instance: Instance) -> Settings:
    """The settings of a running instance; raises ``ProcessFailed`` when nothing runs."""
    settings = instances.load(instance)
    if settings is None or supervisor_of(instance) is None:
        raise ProcessFailed(
            f"the local cluster in {instance.root} does not run", "nothing was done", "start it with `pilothouse up`"
        )
    return settings
