"""One Pod on this node: its address, volumes, containers and status, from binding to deletion."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import aiohttp

from . import atomic, environment, projection
from .api import ApiClient, ApiError
from .container import REFUSED_RETRY_SECONDS, Container
from .environment import Lookup
from .model import ContainerRefused, ContainerState, Mount, Obj, Waiting, timestamp
from .processes import Launch
from .projection import TokenWant
from .status import pod_status
from .tokens import Tokens

log = logging.getLogger(__name__)
_API_ERRORS = (ApiError, aiohttp.ClientError, TimeoutError, OSError)


class Node(Protocol):
    """What a Pod needs of its node."""

    api: ApiClient

    def lookup(self, namespace: str) -> Lookup:
        """Where ConfigMaps and Secrets of that namespace are found."""

    def hosts_text(self, pod: Obj, ip: str) -> str:
        """The Pod's /etc/hosts as of now."""

    def event(self, pod: Obj, kind: str, reason: str, message: str) -> None:
        """Record an event about the Pod."""


class PodWorker:
    """Runs a Pod. `update`, `gone` and `references_changed` are called by the agent as the API changes."""

    def __init__(self, node: Node, pod: Obj, directory: Path, ip: str, start_time: str) -> None:
        self._node = node
        self.pod = pod
        self.ip = ip
        self.directory = directory
        self.stopping = False
        self.restart_policy = pod["spec"].get("restartPolicy", "Always")
        self._start_time = start_time
        self._dirty = asyncio.Event()
        self._volumes_dirty = asyncio.Event()
        self._ending = asyncio.Event()
        self._exists = True
        self._written: Obj | None = None
        self._tokens = Tokens(self._request_token)
        self._mounted = False
        self.references = environment.referenced(pod)
        spec = pod["spec"]
        self.init = [
            Container(self, c, self._container_directory(c), self._init_policy(c))
            for c in spec.get("initContainers") or []
        ]
        self.main = [Container(self, c, self._container_directory(c), self.restart_policy) for c in spec["containers"]]
        self._tasks: dict[str, asyncio.Task[None]] = {}

    # What the agent tells.

    def update(self, pod: Obj) -> None:
        """The Pod's object changed."""
        self.pod = pod
        if pod["metadata"].get("deletionTimestamp"):
            self._ending.set()
        self._volumes_dirty.set()  # labels and annotations may stand in downward API volumes

    def gone(self) -> None:
        """The Pod's object is gone from the API."""
        self._exists = False
        self._ending.set()

    def references_changed(self) -> None:
        """A ConfigMap or Secret that a volume uses changed."""
        self._volumes_dirty.set()

    def write_hosts(self) -> None:
        """Bring /etc/hosts up to date."""
        text = self._node.hosts_text(self.pod, self.ip)
        path = self.directory / "etc-hosts"
        if not path.exists() or path.read_text() != text:
            atomic.write_in_place(path, text)

    # What containers ask (container.Host).

    def changed(self) -> None:
        """The status is to be written."""
        self._dirty.set()

    def event(self, kind: str, reason: str, message: str) -> None:
        """Record an event about this Pod."""
        self._node.event(self.pod, kind, reason, message)

    def launch(self, container: Obj, scratch: Path) -> Launch:
        """The container's command, environment and mounts. Raises ContainerRefused."""
        base = {
            "PATH": os.path.dirname(sys.executable) + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/tmp",  # noqa: S108  # what images that run as nobody have
            "HOSTNAME": self.pod["spec"].get("hostname") or self.pod["metadata"]["name"],
            "KUBERNETES_SERVICE_HOST": self._node.api.host,
            "KUBERNETES_SERVICE_PORT": str(self._node.api.port),
            "KUBERNETES_SERVICE_PORT_HTTPS": str(self._node.api.port),
            **{name: os.environ[name] for name in ("LANG", "TZ") if name in os.environ},
        }
        lookup = self._node.lookup(self.pod["metadata"]["namespace"])
        env = environment.build(self.pod, container, lookup, base, self.ip)
        argv = environment.command_line(container, env)
        return Launch(argv, env, container.get("workingDir") or "/", self._mounts(container, env), scratch)

    # The Pod's life.

    async def run(self) -> None:
        """Until the Pod is gone from the API and from this machine."""
        writer = asyncio.create_task(self._write_statuses())
        volumes = asyncio.create_task(self._keep_volumes())
        life: asyncio.Task[None] | None = None
        if self.pod["metadata"].get("deletionTimestamp"):
            self._ending.set()  # it never starts here; what an earlier node started is ended below
        else:
            life = asyncio.create_task(self._live())
        try:
            await self._ending.wait()
            await self._terminate(life)
        finally:
            for task in (writer, volumes, life):
                if task is not None:
                    task.cancel()
        await self._delete()
        await self._clean_up()

    async def _clean_up(self) -> None:
        # A probe's process that is being killed may still write into a volume while it is removed.
        for _ in range(5):
            await asyncio.to_thread(shutil.rmtree, self.directory, True)
            if not await asyncio.to_thread(self.directory.exists):
                return
            await asyncio.sleep(0.2)
        log.warning("%s could not be removed; the next start of the node tries again", self.directory)

    async def shut_down(self, grace: float) -> None:
        """The node itself is stopping: end the processes, tell the API nothing."""
        self.stopping = True
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*(c.stop(min(grace, self._grace())) for c in [*self.main, *self.init]))

    async def _live(self) -> None:
        try:
            self.write_hosts()
            self.changed()
            await self._mount_first()
            for container in self.init:
                await self._run_init(container)
                if container.state.finished and _failed(container.state):
                    return
            for container in self.main:
                self._tasks[container.state.name] = asyncio.create_task(container.run())
            # asyncio.wait, unlike gather, leaves the containers running when this is cancelled: their ends are to be
            # seen.
            await asyncio.wait(self._tasks.values())
            for task in self._tasks.values():
                task.result()
        except asyncio.CancelledError:
            raise
        except Exception:  # one Pod's trouble must not be every Pod's
            log.exception(
                "pod %s/%s stopped working; it is shown as it was",
                self.pod["metadata"]["namespace"],
                self.pod["metadata"]["name"],
            )

    async def _run_init(self, container: Container) -> None:
        task = asyncio.create_task(container.run())
        self._tasks[container.state.name] = task
        if container.spec.get("restartPolicy") != "Always":
            await task
            return
        await container.has_started.wait()

    async def _terminate(self, life: asyncio.Task[None] | None) -> None:
        self.stopping = True
        if life is not None:
            life.cancel()
        grace = self._grace()
        await asyncio.gather(*(c.stop(grace) for c in self.main))
        await asyncio.gather(*(c.stop(min(grace, 5.0)) for c in reversed(self.init)))
        if self._tasks:
            _, sleeping = await asyncio.wait(
                self._tasks.values(), timeout=0.1
            )  # who waits for a restart does not end alone
            for task in sleeping:
                task.cancel()
        # A node that was killed may have left processes that this one had not yet taken over.
        for container in [*self.init, *self.main]:
            await container.end_left_over(grace)

    def _grace(self) -> float:
        meta = self.pod["metadata"]
        value = meta.get("deletionGracePeriodSeconds")
        if value is None:
            value = self.pod["spec"].get("terminationGracePeriodSeconds")
        return float(30 if value is None else value)

    async def _delete(self) -> None:
        meta = self.pod["metadata"]
        while self._exists:
            try:
                await self._patch_status()
                body: Obj = {"gracePeriodSeconds": 0, "preconditions": {"uid": meta["uid"]}}
                await self._node.api.request("DELETE", self._path(), body)
            except ApiError as error:
                if error.status in (404, 409):
                    return
                log.warning("deleting pod %s: %s; trying again", meta["name"], error)
            except _API_ERRORS as error:
                log.info("deleting pod %s: %r; trying again", meta["name"], error)
            else:
                return
            await asyncio.sleep(1)

    # Volumes.

    async def _mount_first(self) -> None:
        while not self._mounted:
            try:
                await self._sync_volumes()
                self._mounted = True
                return
            except ContainerRefused as error:
                for container in [*self.init, *self.main]:
                    container.refused(error.reason, error.message)
                self.event("Warning", "FailedMount", error.message)
            except _API_ERRORS as error:
                log.info("volumes of pod %s: %s; trying again", self.pod["metadata"]["name"], error)
            self._volumes_dirty.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._volumes_dirty.wait(), REFUSED_RETRY_SECONDS)

    async def _keep_volumes(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._volumes_dirty.wait(), self._tokens.wait())
            if not (self._volumes_dirty.is_set() or self._tokens.due()):
                continue
            if not self._mounted:
                await asyncio.sleep(0.5)
                continue
            self._volumes_dirty.clear()
            try:
                await self._sync_volumes()
            except ContainerRefused as error:  # what is mounted stays, as kubelet does it
                self.event("Warning", "FailedMount", error.message)
            except _API_ERRORS as error:
                log.info("volumes of pod %s: %s; trying again", self.pod["metadata"]["name"], error)
                await asyncio.sleep(1)
                self._volumes_dirty.set()

    async def _sync_volumes(self) -> None:
        lookup = self._node.lookup(self.pod["metadata"]["namespace"])
        for volume in self.pod["spec"].get("volumes") or []:
            directory = self._volume_directory(volume["name"])
            if projection.is_empty_dir(volume):
                directory.mkdir(parents=True, exist_ok=True)
                continue
            tokens = {want: await self._tokens.get(want) for want in projection.wanted_tokens(volume)}
            atomic.write_volume(directory, projection.render(self.pod, volume, lookup, tokens, self.ip))

    async def _request_token(self, want: TokenWant) -> Obj:
        meta, spec = self.pod["metadata"], self.pod["spec"]
        reference = {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]}
        body: Obj = {"spec": {"expirationSeconds": want.seconds, "boundObjectRef": reference}}
        if want.audience:
            body["spec"]["audiences"] = [want.audience]
        account = spec.get("serviceAccountName") or "default"
        return await self._node.api.request(
            "POST", f"/api/v1/namespaces/{meta['namespace']}/serviceaccounts/{account}/token", body
        )

    def _mounts(self, container: Obj, env: dict[str, str]) -> list[Mount]:
        mounts = [Mount(str(self.directory / "etc-hosts"), "/etc/hosts")]
        volumes = {volume["name"]: volume for volume in self.pod["spec"].get("volumes") or []}
        for entry in container.get("volumeMounts") or []:
            source = self._volume_directory(entry["name"])
            below = environment.expand(entry["subPathExpr"], env) if entry.get("subPathExpr") else entry.get("subPath")
            own = projection.is_empty_dir(volumes[entry["name"]])
            if below:
                if ".." in below.split("/") or below.startswith("/"):
                    raise ContainerRefused("CreateContainerConfigError", f'subPath "{below}" leaves its volume')
                source = source / below
                if own:
                    source.mkdir(parents=True, exist_ok=True)
                if not source.exists():
                    raise ContainerRefused(
                        "CreateContainerConfigError", f'subPath "{below}" of volume "{entry["name"]}" does not exist'
                    )
            mounts.append(
                Mount(
                    str(source.resolve() if below else source),
                    entry["mountPath"].rstrip("/"),
                    bool(entry.get("readOnly")) or not own,
                )
            )
        return mounts

    # Status.

    async def _write_statuses(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            try:
                await self._patch_status()
            except ApiError as error:
                if error.status != 404:
                    log.warning("status of pod %s: %s; trying again", self.pod["metadata"]["name"], error)
                    await asyncio.sleep(1)
                    self._dirty.set()
            except _API_ERRORS as error:
                log.info("status of pod %s: %r; trying again", self.pod["metadata"]["name"], error)
                await asyncio.sleep(1)
                self._dirty.set()

    async def _patch_status(self) -> None:
        known = {**self.pod, "status": self._written or self.pod.get("status") or {}}
        others = [c for c in (self.pod.get("status") or {}).get("conditions") or [] if c["type"] not in _types(known)]
        if others:
            known["status"] = {**known["status"], "conditions": [*(known["status"].get("conditions") or []), *others]}
        now = timestamp(datetime.now(UTC))
        status = pod_status(
            known, [c.state for c in self.init], [c.state for c in self.main], self.ip, self._start_time, now
        )
        if status == self._written or not self._exists:
            return
        # With the uid in the patch, a new Pod of the same name never gets this one's status.
        await self._node.api.request(
            "PATCH", self._path() + "/status", {"metadata": {"uid": self.pod["metadata"]["uid"]}, "status": status}
        )
        self._written = status

    def _path(self) -> str:
        return f"/api/v1/namespaces/{self.pod['metadata']['namespace']}/pods/{self.pod['metadata']['name']}"

    def _volume_directory(self, name: str) -> Path:
        return self.directory / "volumes" / name

    def _init_policy(self, container: Obj) -> str:
        if container.get("restartPolicy") == "Always":  # a sidecar
            return "Always"
        return "Never" if self.restart_policy == "Never" else "OnFailure"

    def _container_directory(self, container: Obj) -> Path:
        directory = self.directory / "containers" / str(container["name"])
        directory.mkdir(parents=True, exist_ok=True)
        return directory


def _failed(state: ContainerState) -> bool:
    return not isinstance(state.state, Waiting) and getattr(state.state, "exit_code", 0) != 0


def _types(pod: Obj) -> set[str]:
    return {condition["type"] for condition in pod["status"].get("conditions") or []}
