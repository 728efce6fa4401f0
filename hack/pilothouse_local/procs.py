"""Processes by identity: a pid alone may belong to somebody else by now, a pid with its start time and boot can't.

Read from /proc: the local cluster is for Linux.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


def boot_id() -> str:
    """Differs after each boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _stat(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()  # the name before may hold spaces and brackets


@dataclass(frozen=True)
class Identity:
    """One process, never another one that got its number later."""

    pid: int
    started: int
    """Clock ticks since boot."""
    boot: str

    @staticmethod
    def of(pid: int) -> Identity | None:
        """The process that has this number now, or ``None``."""
        fields = _stat(pid)
        return None if fields is None else Identity(pid, int(fields[19]), boot_id())

    def alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        fields = _stat(self.pid)
        return (
            fields is not None and fields[0] not in "ZX" and int(fields[19]) == self.started and self.boot == boot_id()
        )

    def age(self) -> float:
        """Seconds since its start."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) - self.started / _TICK

    def signal(self, number: int) -> bool:
        """Sends a signal; False when the process is gone."""
        try:
            handle = os.pidfd_open(self.pid)  # from here on the number can't be reused under our hands
        except ProcessLookupError:
            return False
        try:
            if not self.alive():
                return False
            signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(handle)
        return True

    def to_json(self) -> dict[str, object]:
        return {"pid": self.pid, "started": self.started, "boot": self.boot}

    @staticmethod
    def from_json(raw: object) -> Identity | None:
        """Reads what ``to_json`` wrote; anything else is ``None``."""
        if not isinstance(raw, dict):
            return None
        pid, started, boot = raw.get("pid"), raw.get("started"), raw.get("boot")
        if isinstance(pid, int) and isinstance(started, int) and isinstance(boot, str):
            return Identity(pid, started, boot)
        return None


def descendants(root: int) -> list[Identity]:
    """Every process below ``root``, nearest first."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (fields := _stat(int(entry))) is not None:
            children.setdefault(int(fields[1]), []).append(int(entry))
    found: list[Identity] = []
    queue = list(children.get(root, []))
    while queue:
        pid = queue.pop(0)
        if (identity := Identity.of(pid)) is not None:
            found.append(identity)
            queue += children.get(pid, [])
    return found


def stop(processes: Iterable[Identity], number: int, seconds: float) -> list[Identity]:
    """Asks the processes to end, waits, then kills; returns those that had to be killed."""
    asked = [process for process in processes if process.signal(number)]
    deadline = time.monotonic() + seconds
    while asked and time.monotonic() < deadline:
        asked = [process for process in asked if process.alive()]
        if asked:
            time.sleep(0.05)
    for process in asked:
        process.signal(signal.SIGKILL)
    deadline = time.monotonic() + 5
    while any(process.alive() for process in asked) and time.monotonic() < deadline:
        time.sleep(0.02)
    return asked


def memory(pid: int) -> int:
    """Proportional set size in bytes (shared pages counted once over all processes); 0 when it is gone or hidden."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def command_line(pid: int) -> str:
    """The arguments, separated by spaces; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""
