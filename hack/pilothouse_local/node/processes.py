"""Processes that outlive the node that started them: found again by pid and start time, awaited by pidfd, ended as a
group."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from .model import Mount, NodeUnusable, Obj

LAUNCHER = Path(__file__).with_name("launcher.py")
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Launch:
    """What the launcher is told. `env` is the whole environment, `cwd` absolute, `scratch` an existing folder."""

    argv: Sequence[str]
    env: dict[str, str]
    cwd: str
    mounts: Sequence[Mount]
    scratch: Path

    def document(self) -> bytes:
        """The launcher's input; the newline at its end says that it is whole."""
        body = {
            "argv": list(self.argv),
            "env": self.env,
            "cwd": self.cwd,
            "mounts": [[m.source, m.target, m.read_only] for m in self.mounts],
            "keep": environment_paths(),
            "scratch": str(self.scratch),
        }
        return orjson.dumps(body) + b"\n"


def environment_paths() -> list[str]:
    """Folders of the Python environment, which a Pod's own mount (at /tmp, say) must not hide."""
    found = {sys.prefix, sys.base_prefix, *(path for path in sys.path if path and os.path.isdir(path))}
    return sorted(found, key=len)


def start_ticks(pid: int) -> int | None:
    """Start time in clock ticks since boot; None where the process is gone or only a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


class Process:
    """A container's main process and its group (the pid leads both its group and its session)."""

    def __init__(self, pid: int, ticks: int, child: subprocess.Popen[bytes] | None) -> None:
        self.pid = pid
        self.ticks = ticks
        self._child = child
        self._ended = asyncio.Event()
        self.exit_code: int | None = None
        """Known once `wait` returned; negative for signals; None where it was not this node's child."""
        try:
            self._descriptor: int | None = os.pidfd_open(pid)
        except ProcessLookupError:
            self._descriptor = None
        except OSError:  # before Linux 5.3, or a sandbox without it
            self._descriptor = None
        self._watcher = asyncio.get_running_loop().create_task(self._watch())

    @classmethod
    def start(cls, launch: Launch, stdout: Path, recorded: Callable[[int, int], None]) -> Process:
        """Start through the launcher; `recorded(pid, ticks)` is called before the program can run. Raises OSError."""
        with stdout.open("ab") as output:
            child = subprocess.Popen(
                [sys.executable, "-I", "-S", str(LAUNCHER)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={},
                start_new_session=True,
            )
        recorded(child.pid, start_ticks(child.pid) or 0)
        if child.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                child.stdin.write(launch.document())
                child.stdin.close()
        return cls(child.pid, start_ticks(child.pid) or 0, child)

    @classmethod
    def adopt(cls, pid: int, ticks: int) -> Process | None:
        """The process that an earlier node recorded, or None where it is gone (or its pid is another's now)."""
        if start_ticks(pid) != ticks:
            return None
        return cls(pid, ticks, None)

    async def wait(self) -> int | None:
        """The exit code once the process and its whole group have ended."""
        await self._ended.wait()
        return self.exit_code

    def send(self, number: signal.Signals) -> None:
        """Signal the whole group; nothing where it is gone."""
        if not self._ended.is_set():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    async def stop(self, grace: float) -> None:
        """SIGTERM, then SIGKILL after `grace` seconds; returns when the main process has ended and the rest of its
        group has been sent SIGKILL."""
        if grace > 0:
            self.send(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), grace)
        self.send(signal.SIGKILL)
        await self._ended.wait()

    async def _poll(self) -> None:
        never = asyncio.Event()  # only the time matters
        while start_ticks(self.pid) == self.ticks:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(never.wait(), _POLL_SECONDS)

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        if self._descriptor is not None:
            gone = asyncio.Event()
            loop.add_reader(self._descriptor, gone.set)
            try:
                await gone.wait()
            finally:
                loop.remove_reader(self._descriptor)
                os.close(self._descriptor)
        else:
            await self._poll()
        # What the main process left behind in its group ends with it; while the zombie is unreaped, the group's number
        # can't be another's.
        if self._child is not None or not _present(self.pid):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        if self._child is not None:
            self.exit_code = self._child.wait()
        self._ended.set()


def _present(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def run_once(launch: Launch, timeout: float) -> tuple[int, bytes]:
    """Run a command in a container's view (exec probes and hooks): exit code and the end of its output.

    Raises TimeoutError after `timeout` seconds; the command's group is killed first.
    """
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", str(LAUNCHER),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={}, start_new_session=True,
    )  # fmt: skip
    try:
        output, _ = await asyncio.wait_for(child.communicate(launch.document()), timeout)
    except (TimeoutError, asyncio.CancelledError):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        await child.wait()
        raise
    return child.returncode or 0, output[-2048:]


def check_machine(scratch: Path) -> None:
    """Raises NodeUnusable, with the way out, where this machine can't give Pods a mount namespace."""
    scratch.mkdir(parents=True, exist_ok=True)
    body: Obj = {"argv": [], "env": {}, "cwd": "/", "mounts": [], "keep": [], "scratch": str(scratch), "check": True}
    answer = subprocess.run(
        [sys.executable, "-I", "-S", str(LAUNCHER)],
        input=orjson.dumps(body) + b"\n",
        capture_output=True,
        env={},
        timeout=30,
        check=False,
    )
    if answer.returncode != 0:
        raise NodeUnusable(
            answer.stderr.decode(errors="replace").strip() or f"the launcher ended with {answer.returncode}"
        )
