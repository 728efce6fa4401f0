"""One container: started, probed, restarted, stopped; its record on disk lets a later node take it over.

::

    waiting ──start──► running ──ends──► terminated ──restartPolicy──► waiting (CrashLoopBackOff) ──► running …
       ▲ refused (image, config): tried again     └──► finished
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from . import atomic, logs, probing
from .environment import check_image
from .model import UNKNOWN_EXIT, ContainerRefused, ContainerState, Obj, Running, Terminated, Waiting, timestamp
from .probes import ProbeSettings, ProbeState
from .processes import Launch, Process, run_once, start_ticks
from .restarts import Backoff, should_restart

REFUSED_RETRY_SECONDS = 3.0
_ROTATE_SECONDS = 5.0


class Host(Protocol):
    """What a container needs of its Pod."""

    ip: str
    stopping: bool

    def changed(self) -> None:
        """The state changed: the status is to be written."""

    def event(self, kind: str, reason: str, message: str) -> None:
        """Tell the Pod's author; `kind` is Normal or Warning."""

    def launch(self, container: Obj, scratch: Path) -> Launch:
        """Command, environment and mounts. Raises ContainerRefused."""


@dataclass
class _Record:
    """What is on disk about a container, so that nothing is doubled or run again after the node was killed."""

    pid: int = 0
    ticks: int = 0
    attempt: int = 0
    started_at: str = ""
    container_id: str = ""
    finished: Obj | None = None
    last: Obj | None = None
    booted: bool = False


def _now() -> str:
    return timestamp(datetime.now(UTC))


class Container:
    """Runs one container of a Pod until it is finished, or stopped."""

    def __init__(self, host: Host, spec: Obj, directory: Path, policy: str) -> None:
        self._host = host
        self.spec = spec
        self.directory = directory
        self.state = ContainerState(spec["name"], spec.get("image", ""))
        self._policy = policy
        self._file = directory / "record.json"
        self._record = _Record(**(atomic.read_record(self._file) or {}))
        self._backoff = Backoff()
        self._process: Process | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._launch: Launch | None = None
        self._ran_seconds = 0.0
        self.has_started = asyncio.Event()
        """Set once the container has passed its startup probe (or has ended for good)."""
        self._restore()

    @property
    def attempt(self) -> int:
        """Number of the current start, from 0."""
        return self._record.attempt

    def ended(self, attempt: int) -> bool:
        """Whether nothing more will be written to that attempt's log."""
        return attempt != self._record.attempt or not isinstance(self.state.state, Running)

    async def run(self) -> None:
        """Until finished or stopped. The state is in `state`."""
        process = self._take_over()
        while not self.state.finished:
            if process is None:
                process = await self._start()
                if process is None:
                    return
            ended = await self._supervise(process)
            process = None
            if self._host.stopping or not should_restart(self._policy, ended.exit_code):
                self._finish(ended)
                return
            await self._pause_before_restart(ended)

    def refused(self, reason: str, message: str) -> None:
        """Show why the container is not running."""
        shown = self.state.state
        if not (isinstance(shown, Waiting) and (shown.reason, shown.message) == (reason, message)):
            self.state.state = Waiting(reason, message)
            self._host.changed()

    async def stop(self, grace: float) -> None:
        """Run preStop, then SIGTERM, then SIGKILL; all within `grace` seconds (and a little)."""
        if self._process is None:
            return
        if self._stopping is None:
            self._stopping = asyncio.get_running_loop().create_task(self._stop(self._process, grace))
        await self._stopping

    async def end_left_over(self, grace: float) -> None:
        """End what an earlier node started and this one has not taken over."""
        if self._process is None and self._record.pid:
            process = Process.adopt(self._record.pid, self._record.ticks)
            if process is not None:
                await process.stop(grace)

    def _restore(self) -> None:
        """Show at once what the record says: the API server refuses a status in which an ended container waits
        again."""
        record = self._record
        self.state.restart_count = record.attempt
        self.state.container_id = record.container_id
        if record.last:
            self.state.last = Terminated(**record.last)
        if record.finished:
            self.state.state = Terminated(**record.finished)
            self.state.finished = True
            self.has_started.set()
        elif record.pid and start_ticks(record.pid) == record.ticks:
            self.state.state = Running(record.started_at)

    def _take_over(self) -> Process | None:
        record = self._record
        if self.state.finished:
            return None
        process = Process.adopt(record.pid, record.ticks) if record.pid else None
        if process is not None:
            with contextlib.suppress(ContainerRefused):
                self._launch = self._host.launch(self.spec, self._scratch())
            self._running(process)
        elif record.booted:
            # It was started once and nobody saw its end: kubelet calls that ContainerStatusUnknown, and counts it as a
            # failure.
            message = "the container ended while the node was down"
            lost = Terminated(
                UNKNOWN_EXIT, "ContainerStatusUnknown", record.started_at, _now(), record.container_id, message
            )
            if should_restart(self._policy, UNKNOWN_EXIT):
                self._remember_last(lost)
            else:
                self._finish(lost)
        return process

    async def _start(self) -> Process | None:
        while not self._host.stopping:
            try:
                check_image(self.state.image)
                self._launch = self._host.launch(self.spec, self._scratch())
                return self._spawn(self._launch)
            except ContainerRefused as error:
                self.refused(error.reason, error.message)
                self._host.event("Warning", "Failed", error.message)
            except OSError as error:
                self.refused("RunContainerError", f"the process could not be started: {error}")
            await asyncio.sleep(REFUSED_RETRY_SECONDS)
        return None

    def _spawn(self, launch: Launch) -> Process:
        record = self._record
        if record.booted:
            record.attempt += 1
        record.container_id = f"pilothouse://{uuid.uuid4().hex}"
        record.started_at = _now()
        record.booted = True
        logs.prune(self.directory, record.attempt)

        def recorded(pid: int, ticks: int) -> None:
            record.pid, record.ticks = pid, ticks
            self._save()

        process = Process.start(launch, logs.path_of(self.directory, record.attempt), recorded)
        self.state.restart_count = record.attempt
        self.state.container_id = record.container_id
        self._running(process)
        self._host.event("Normal", "Started", f"Started container {self.state.name} (pid {process.pid})")
        return process

    def _running(self, process: Process) -> None:
        self._process = process
        self._stopping = None
        self.state.state = Running(self._record.started_at)
        self.state.started = not self.spec.get("startupProbe")
        self.state.ready = self.state.started and not self.spec.get("readinessProbe")
        if self.state.started:
            self.has_started.set()
        self._host.changed()

    async def _supervise(self, process: Process) -> Terminated:
        started = time.monotonic()
        helpers = [asyncio.create_task(self._probe_all(process)), asyncio.create_task(self._rotate())]
        if (self.spec.get("lifecycle") or {}).get("postStart"):
            helpers.append(asyncio.create_task(self._post_start()))
        try:
            code = await process.wait()
        finally:
            for helper in helpers:
                helper.cancel()
        self._process = None
        self._ran_seconds = time.monotonic() - started
        ended = self._describe(code)
        self.state.ready = False
        self.state.started = False
        self.state.state = ended
        self._host.changed()
        return ended

    def _describe(self, code: int | None) -> Terminated:
        if code is None:
            number, reason = UNKNOWN_EXIT, "ContainerStatusUnknown"
            if self._host.stopping or self._stopping is not None:
                number, reason = 0, "Completed"
        else:
            number = code if code >= 0 else 128 - code
            reason = "Completed" if number == 0 else "Error"
        message = ""
        # The launcher's own exit codes come with a sentence for the Pod's author.
        if number in (125, 126, 127) or (
            number and self.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError"
        ):
            message = logs.last_words(logs.path_of(self.directory, self._record.attempt))
        return Terminated(number, reason, self._record.started_at, _now(), self._record.container_id, message)

    async def _pause_before_restart(self, ended: Terminated) -> None:
        self._remember_last(ended)
        delay = self._backoff.next_delay(self._ran_seconds)
        if delay:
            message = f"back-off {delay:g}s restarting failed container={self.state.name}"
            self.state.state = Waiting("CrashLoopBackOff", message)
            self._host.event("Warning", "BackOff", message)
            self._host.changed()
            await asyncio.sleep(delay)

    def _remember_last(self, ended: Terminated) -> None:
        self.state.last = ended
        self._record.last = asdict(ended)
        self._record.pid = 0
        self._save()

    def _finish(self, ended: Terminated) -> None:
        self._record.finished = asdict(ended)
        self._record.pid = 0
        # What ends because the node or the Pod is stopping is not finished: a node that comes back starts it again.
        if not self._host.stopping:
            self._save()
        self._show_finished(ended)

    def _show_finished(self, ended: Terminated) -> None:
        self.state.state = ended
        self.state.finished = True
        self.state.ready = False
        self.has_started.set()
        self._host.changed()

    async def _probe_all(self, process: Process) -> None:
        if self.spec.get("startupProbe") and not await self._startup(process):
            return
        self.state.started = True
        self.has_started.set()
        self.state.ready = not self.spec.get("readinessProbe")
        self._host.changed()
        async with asyncio.TaskGroup() as group:
            if self.spec.get("readinessProbe"):
                group.create_task(self._readiness())
            if self.spec.get("livenessProbe"):
                group.create_task(self._liveness(process))

    async def _startup(self, process: Process) -> bool:
        async for healthy, why in self._answers(self.spec["startupProbe"], "Startup", eager=True):
            if healthy:
                return True
            if healthy is False:
                self._unhealthy(process, "startup", why)
                return False
        return False

    async def _readiness(self) -> None:
        async for healthy, _ in self._answers(self.spec["readinessProbe"], "Readiness", eager=True):
            ready = healthy is True
            if ready != self.state.ready:
                self.state.ready = ready
                self._host.changed()

    async def _liveness(self, process: Process) -> None:
        async for healthy, why in self._answers(self.spec["livenessProbe"], "Liveness", eager=False):
            if healthy is False:
                self._unhealthy(process, "liveness", why)
                return

    async def _answers(self, probe: Obj, name: str, eager: bool) -> AsyncIterator[tuple[bool | None, str]]:
        """The probe's verdict after each answer (None while undecided), and what was wrong last."""
        state = ProbeState(ProbeSettings.of(probe))
        await asyncio.sleep(state.settings.initial_delay)
        while True:
            began = time.monotonic()
            success, why = await probing.ask(probe, self.spec, self._host.ip, state.settings.timeout, self._run_inside)
            if state.observe(success, time.monotonic()) and state.healthy is False:
                self._host.event("Warning", "Unhealthy", f"{name} probe failed: {why}")
            yield state.healthy, why
            await asyncio.sleep(max(0.05, state.next_wait(eager) - (time.monotonic() - began)))

    def _unhealthy(self, process: Process, probe: str, why: str) -> None:
        grace = float(self.spec[f"{probe}Probe"].get("terminationGracePeriodSeconds") or 30)
        self._host.event(
            "Normal", "Killing", f"Container {self.state.name} failed {probe} probe ({why}), will be restarted"
        )
        self._process = process
        if self._stopping is None:
            self._stopping = asyncio.get_running_loop().create_task(self._stop(process, grace))

    async def _stop(self, process: Process, grace: float) -> None:
        began = time.monotonic()
        hook = (self.spec.get("lifecycle") or {}).get("preStop")
        if hook and grace > 0:
            await self._hook(hook, grace)
        await process.stop(max(grace - (time.monotonic() - began), 2.0 if grace > 0 else 0.0))

    async def _post_start(self) -> None:
        ok, why = await self._hook(self.spec["lifecycle"]["postStart"], 60.0)
        if not ok and self._process is not None:
            self._host.event("Warning", "FailedPostStartHook", why)
            self._process.send(signal.SIGKILL)

    async def _hook(self, hook: Obj, timeout: float) -> tuple[bool, str]:
        if hook.get("sleep"):
            await asyncio.sleep(min(float(hook["sleep"]["seconds"]), timeout))
            return True, ""
        return await probing.ask(hook, self.spec, self._host.ip, timeout, self._run_inside)

    async def _run_inside(self, argv: list[str], timeout: float) -> tuple[int, bytes]:
        launch = self._launch or self._host.launch(self.spec, self._scratch())
        inside = Launch(argv, launch.env, launch.cwd, launch.mounts, launch.scratch)
        return await run_once(inside, timeout)

    async def _rotate(self) -> None:
        while True:
            await asyncio.sleep(_ROTATE_SECONDS)
            path = logs.path_of(self.directory, self._record.attempt)
            with contextlib.suppress(OSError):
                if path.stat().st_size > logs.LIMIT_BYTES:
                    await asyncio.to_thread(logs.rotate, path)

    def _scratch(self) -> Path:
        scratch = self.directory / "scratch"
        scratch.mkdir(parents=True, exist_ok=True)
        return scratch

    def _save(self) -> None:
        atomic.write_record(self._file, asdict(self._record))
