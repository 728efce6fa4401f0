"""The one process that starts the others, watches them and starts them again.

    waiting ──(what it requires is running)──▶ starting ──(ready)──▶ running
       ▲                                          │                     │
       └──────(back-off over)── restarting ◀──(exited)──────────────────┘

Back-off: 0.5 s, doubled up to 15 s, forgotten after 30 s of running; SIGHUP (sent by ``up``) ends it at once. SIGTERM
stops all in reverse order. The supervisor adopts orphans of its descendants (PR_SET_CHILD_SUBREAPER): no Pod's process
outlives it.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from pilothouse_local import instance as instances
from pilothouse_local import procs, stores
from pilothouse_local.instance import Instance
from pilothouse_local.procs import Identity
from pilothouse_local.specs import Spec, all_specs

LOG_LIMIT = 8_000_000
"""Bytes of one log; when it is longer, it becomes ``NAME.log.1`` (one such is kept) and begins anew."""
_BACKOFF = (0.5, 15.0)
_SETTLED = 30.0
_PR_SET_CHILD_SUBREAPER = 36
_START_LIMIT = 90.0
"""Seconds after which a process that runs and is not ready is started anew."""


@dataclass
class Process:
    """One supervised process. Times are of the monotonic clock, in seconds."""

    spec: Spec
    state: str = "waiting"
    popen: subprocess.Popen[bytes] | None = None
    identity: Identity | None = None
    since: float = 0.0
    retry_at: float = 0.0
    backoff: float = _BACKOFF[0]
    starts: int = 0
    failures: int = 0
    """Exits in a row without having run for ``_SETTLED`` seconds."""
    last_exit: str = ""


def describe(returncode: int) -> str:
    """An exit in words."""
    if returncode >= 0:
        return f"exit code {returncode}"
    try:
        return f"killed by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"killed by signal {-returncode}"


class Supervisor:
    """Single-threaded: one loop that reaps, starts, checks and writes its view."""

    def __init__(self, instance: Instance, specs: list[Spec]) -> None:
        self._instance = instance
        self._processes = {spec.name: Process(spec) for spec in specs}
        self._stopping = False
        self._hurry = False
        self._written = ""

    def run(self) -> None:
        """Until SIGTERM or SIGINT."""
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: setattr(self, "_stopping", True))
        signal.signal(signal.SIGHUP, lambda *_: setattr(self, "_hurry", True))
        signal.signal(signal.SIGCHLD, lambda *_: None)
        rotate_at = 0.0
        while not self._stopping:
            self._reap()
            self._advance(time.monotonic())
            self._write_view()
            if time.monotonic() >= rotate_at:
                self._rotate()
                rotate_at = time.monotonic() + 5
            busy = any(process.state in ("starting", "waiting") for process in self._processes.values())
            select.select([wake_read], [], [], 0.1 if busy else 0.5)
            while self._drain(wake_read):
                pass
        self._stop_all()

    @staticmethod
    def _drain(handle: int) -> bool:
        try:
            return bool(os.read(handle, 4096))
        except BlockingIOError:
            return False

    def _reap(self) -> None:
        ours = {process.popen.pid: process for process in self._processes.values() if process.popen is not None}
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            process = ours.pop(ended.si_pid, None)
            if process is None:
                os.waitpid(ended.si_pid, 0)  # an adopted orphan
            elif process.popen is not None:
                process.popen.wait()
                self._exited(process, process.popen.returncode)

    def _exited(self, process: Process, returncode: int) -> None:
        now = time.monotonic()
        if now - process.since >= _SETTLED:
            process.backoff, process.failures = _BACKOFF[0], 0
        process.failures += 1
        process.last_exit = describe(returncode)
        self._say(f"{process.spec.name} (pid {process.popen.pid if process.popen else '?'}) ended: {process.last_exit}")
        process.popen, process.identity = None, None
        process.state, process.since = "restarting", now
        process.retry_at = now + process.backoff
        process.backoff = min(process.backoff * 2, _BACKOFF[1])

    def _advance(self, now: float) -> None:
        for process in self._processes.values():
            if self._hurry and process.state == "restarting":
                process.retry_at, process.backoff, process.failures = now, _BACKOFF[0], 0
            if process.state == "restarting" and now >= process.retry_at:
                process.state = "waiting"
            if process.state == "waiting" and now >= process.retry_at:
                if all(self._processes[name].state == "running" for name in process.spec.requires):
                    self._start(process)
            elif process.state == "starting":
                if process.spec.ready():
                    process.state = "running"
                    self._say(f"{process.spec.name} is ready after {time.monotonic() - process.since:.1f} s")
                elif now - process.since > _START_LIMIT and process.identity is not None:
                    self._say(f"{process.spec.name} is not ready after {_START_LIMIT:.0f} s: starting it anew")
                    process.identity.signal(signal.SIGKILL)
        self._hurry = False

    def _start(self, process: Process) -> None:
        spec = process.spec
        process.since = time.monotonic()
        try:
            if spec.prepare is not None:
                spec.prepare(process.starts)
            with self._instance.log(spec.name).open("ab") as log:
                process.popen = subprocess.Popen(
                    spec.argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd="/" if spec.user is not None else self._instance.root,
                    env=dict(spec.env),
                    start_new_session=True,
                    user=spec.user.uid if spec.user else None,
                    group=spec.user.gid if spec.user else None,
                    extra_groups=[] if spec.user else None,
                )
        except Exception as error:
            process.failures += 1
            process.last_exit = f"could not be started: {error}".splitlines()[0]
            self._say(f"{spec.name} {process.last_exit}")
            process.state, process.retry_at = "restarting", process.since + process.backoff
            process.backoff = min(process.backoff * 2, _BACKOFF[1])
            return
        process.starts += 1
        process.identity = Identity.of(process.popen.pid)
        process.state = "starting"
        self._write_view()  # at once: whoever has to clean up after a killed supervisor finds every process by it

    def _stop_all(self) -> None:
        # The reverse of the start, so that none loses what it needs; what is adopted meanwhile is found by descent.
        for process in reversed(self._processes.values()):
            if process.identity is None:
                process.state = "stopped"
                continue
            below = procs.descendants(process.identity.pid)
            self._say(f"stopping {process.spec.name}")
            if process.identity.signal(process.spec.stop_signal):
                try:
                    if process.popen is not None:
                        process.popen.wait(process.spec.stop_seconds)
                except subprocess.TimeoutExpired:
                    self._say(f"{process.spec.name} did not end in {process.spec.stop_seconds:.0f} s: killed")
                    process.identity.signal(signal.SIGKILL)
            procs.stop([one for one in below if one.alive()], signal.SIGTERM, 5)
            if process.popen is not None:
                process.popen.wait()
            process.state, process.popen, process.identity = "stopped", None, None
            self._write_view()
        procs.stop(procs.descendants(os.getpid()), signal.SIGTERM, 5)
        self._write_view()

    def _rotate(self) -> None:
        for name in [*self._processes, "supervisor"]:
            path = self._instance.log(name)
            try:
                if path.stat().st_size > LOG_LIMIT:
                    # The writer keeps its handle (opened for appending): the file is copied and emptied, not renamed.
                    with path.open("rb") as source, path.with_name(path.name + ".1").open("wb") as old:
                        source.seek(-LOG_LIMIT, os.SEEK_END)
                        while chunk := source.read(1 << 20):
                            old.write(chunk)
                    os.truncate(path, 0)
            except OSError:
                continue

    def _write_view(self) -> None:
        me = Identity.of(os.getpid())
        view = {
            "supervisor": me.to_json() if me else None,
            "processes": {
                name: {
                    "state": process.state,
                    "identity": process.identity.to_json() if process.identity else None,
                    "restarts": max(0, process.starts - 1),
                    "failures": process.failures,
                    "last_exit": process.last_exit,
                    "stop_signal": int(process.spec.stop_signal),
                }
                for name, process in self._processes.items()
            },
        }
        text = json.dumps(view, indent=1)
        if text == self._written:
            return
        try:
            part = self._instance.view_file.with_name(".supervisor.json.part")
            part.write_text(text)
            part.replace(self._instance.view_file)
            self._written = text
        except OSError as error:  # a full disk must not end the processes; it is tried again in the next round
            self._say(f"the view could not be written: {error}")

    @staticmethod
    def _say(text: str) -> None:
        try:
            sys.stderr.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime())}Z {text}\n")
            sys.stderr.flush()
        except OSError:
            return


def main(root: str, binaries: str) -> int:
    """Entry of the daemon; its lock makes a second one for the same folder end at once."""
    instance = Instance(Path(root))
    with instance.lock_file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 0
        settings = instances.load(instance)
        if settings is None:
            sys.stderr.write("no settings: the supervisor is started by `pilothouse up`\n")
            return 1
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        claim = instances.claim_octet(settings.pod_octet)
        postgres = stores.prepare_postgres(instance, settings)
        valkey = stores.prepare_valkey(instance, settings)
        Supervisor(instance, all_specs(instance, settings, Path(binaries), postgres, valkey)).run()
        claim.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:3]))
