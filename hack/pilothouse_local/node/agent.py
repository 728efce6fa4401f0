"""The node's agent: follows the API, binds Pods, keeps one worker for each, and names and NodePorts up to date."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import aiohttp

from . import atomic, routing
from .api import ApiClient, ApiError, Reflector
from .container import Container
from .environment import Lookup
from .model import Obj, timestamp
from .nodeport import NodePorts
from .pod import PodWorker
from .processes import Process
from .registration import Events, Registration

log = logging.getLogger(__name__)

DEFAULT_NAME = "pilothouse-local"
_SHUTDOWN_GRACE_SECONDS = 10.0
_PORT_RETRY_SECONDS = 5.0


class Agent:
    """Everything that one node does. `state` is the folder that survives restarts of the node, `services` the addresses
    of Services, by namespace and name, that this machine serves without a Pod."""

    def __init__(
        self,
        api: ApiClient,
        state: Path,
        pod_octet: int,
        port: int,
        name: str = DEFAULT_NAME,
        services: Mapping[tuple[str, str], str] | None = None,
    ) -> None:
        self.api = api
        self.name = name
        self._pods_directory = state / "pods"
        self._octet = pod_octet
        self._last_address = 0
        self._fixed = {**(services or {}), ("default", "kubernetes"): api.host}
        self.registration = Registration(api, name, port)
        self._events = Events(api, name)
        self._pods = Reflector(api, "/api/v1/pods", self._pod_changed)
        self._services = Reflector(api, "/api/v1/services", self._service_changed)
        self._config_maps = Reflector(api, "/api/v1/configmaps", self._config_map_changed)
        # Helm's release records are large, and no Pod mounts them.
        self._secrets = Reflector(api, "/api/v1/secrets", self._secret_changed, "type!=helm.sh/release.v1")
        self._nodes = Reflector(api, "/api/v1/nodes", self._node_changed, f"metadata.name={name}")
        self._workers: dict[str, PodWorker] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._unbound: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self._routes_dirty = asyncio.Event()
        self._table: dict[tuple[str, str], str] = {}
        self._node_ports: dict[int, tuple[tuple[str, str], Obj]] = {}
        self._proxies = NodePorts(self._targets, self._port_trouble)
        self._started = False

    async def run(self) -> None:
        """Until cancelled; then the Pods' processes are ended, and the API keeps its objects."""
        self._pods_directory.mkdir(parents=True, exist_ok=True)
        reflectors = (self._nodes, self._config_maps, self._secrets, self._services, self._pods)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.registration.run())
                for reflector in reflectors:
                    group.create_task(reflector.run())
                await asyncio.gather(*(reflector.synced.wait() for reflector in reflectors))
                await self._end_orphans()
                self._started = True
                self._refresh_table()
                for pod in list(self._pods.objects.values()):
                    self._pod_changed(pod, False)
                group.create_task(self._bind_pods())
                group.create_task(self._keep_routes())
        finally:
            self._proxies.close()
            await asyncio.gather(
                *(worker.shut_down(_SHUTDOWN_GRACE_SECONDS) for worker in self._workers.values()),
                return_exceptions=True,
            )
            for task in self._tasks.values():
                task.cancel()
            await self.api.close()

    def healthy(self) -> bool:
        """Whether the node has read the API once and works."""
        return self._started

    def find(self, namespace: str, pod: str, container: str) -> Container | None:
        """A container on this node by names."""
        for worker in self._workers.values():
            meta = worker.pod["metadata"]
            if (meta["namespace"], meta["name"]) == (namespace, pod):
                return next((c for c in [*worker.main, *worker.init] if c.state.name == container), None)
        return None

    # What a Pod asks (pod.Node).

    def lookup(self, namespace: str) -> Lookup:
        """ConfigMaps and Secrets of one namespace, from the caches."""

        def find(kind: str, name: str) -> Obj | None:
            cache = self._secrets if kind == "Secret" else self._config_maps
            return cache.objects.get((namespace, name))

        return find

    def hosts_text(self, pod: Obj, ip: str) -> str:
        """The Pod's /etc/hosts."""
        return routing.hosts_file(pod, ip, self._table)

    def event(self, pod: Obj, kind: str, reason: str, message: str) -> None:
        """Record an event about a Pod."""
        self._events.record("Pod", pod, kind, reason, message)

    # What the watches tell.

    def _pod_changed(self, pod: Obj, gone: bool) -> None:
        self._routes_dirty.set()
        if not self._started:
            return
        meta, spec = pod["metadata"], pod["spec"]
        worker = self._workers.get(meta["uid"])
        if gone:
            if worker is not None:
                worker.gone()
        elif worker is not None:
            worker.update(pod)
        elif spec.get("nodeName") == self.name:
            self._adopt(pod)
        elif not spec.get("nodeName") and self._is_ours_to_bind(pod):
            self._unbound.put_nowait((meta["namespace"], meta["name"]))

    def _service_changed(self, _: Obj, __: bool) -> None:
        self._routes_dirty.set()

    def _config_map_changed(self, obj: Obj, _: bool) -> None:
        self._reference_changed("ConfigMap", obj)

    def _secret_changed(self, obj: Obj, _: bool) -> None:
        self._reference_changed("Secret", obj)

    def _node_changed(self, _: Obj, gone: bool) -> None:
        if gone:
            self.registration.node_gone()

    def _reference_changed(self, kind: str, obj: Obj) -> None:
        meta = obj["metadata"]
        for worker in self._workers.values():
            if worker.pod["metadata"]["namespace"] == meta["namespace"] and (kind, meta["name"]) in worker.references:
                worker.references_changed()

    # Pods.

    def _adopt(self, pod: Obj) -> None:
        meta = pod["metadata"]
        directory = self._pods_directory / meta["uid"]
        over = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
        if over and not meta.get("deletionTimestamp") and not directory.exists():
            return
        record = atomic.read_record(directory / "pod.json")
        if record is None:
            start_time = (pod.get("status") or {}).get("startTime") or timestamp(datetime.now(UTC))
            record = {
                "ip": self._free_address(),
                "namespace": meta["namespace"],
                "name": meta["name"],
                "start_time": start_time,
            }
            atomic.write_record(directory / "pod.json", record)
        worker = PodWorker(self, pod, directory, record["ip"], record["start_time"])
        self._workers[meta["uid"]] = worker
        task = asyncio.get_running_loop().create_task(worker.run())
        self._tasks[meta["uid"]] = task
        task.add_done_callback(lambda done: self._worker_ended(meta["uid"], done))

    def _worker_ended(self, uid: str, task: asyncio.Task[None]) -> None:
        self._workers.pop(uid, None)
        self._tasks.pop(uid, None)
        if not task.cancelled() and task.exception() is not None:
            log.error("a pod's worker failed", exc_info=task.exception())

    def _free_address(self) -> str:
        """The next address after the last one given that no Pod has: an ended Pod's address rests before another gets
        it."""
        used = {worker.ip for worker in self._workers.values()}
        for path in self._pods_directory.glob("*/pod.json"):
            used.add((atomic.read_record(path) or {}).get("ip", ""))
        for _ in range(254 * 256):
            self._last_address = self._last_address % (254 * 256) + 1
            high, low = divmod(self._last_address - 1, 254)
            address = f"127.{self._octet}.{high}.{low + 1}"
            if address not in used:
                return address
        raise RuntimeError("all 65,024 Pod addresses are in use")

    async def _end_orphans(self) -> None:
        """End what belongs to Pods that are gone from the API since the last node ran here."""
        present = {pod["metadata"]["uid"] for pod in self._pods.objects.values()}
        for directory in self._pods_directory.iterdir():
            if directory.name in present:
                continue
            for path in directory.glob("containers/*/record.json"):
                record = atomic.read_record(path) or {}
                process = Process.adopt(record.get("pid", 0), record.get("ticks", 0)) if record.get("pid") else None
                if process is not None:
                    log.info("ending pid %d of a pod that is gone", process.pid)
                    await process.stop(2.0)
            await asyncio.to_thread(shutil.rmtree, directory, True)

    def _is_ours_to_bind(self, pod: Obj) -> bool:
        spec = pod["spec"]
        if (
            spec.get("schedulerName", "default-scheduler") != "default-scheduler"
            or spec.get("schedulingGates")
            or pod["metadata"].get("deletionTimestamp")
        ):
            return False
        node = self._nodes.objects.get(("", self.name)) or {"metadata": {}}
        labels = node["metadata"].get("labels") or {}
        return all(labels.get(key) == value for key, value in (spec.get("nodeSelector") or {}).items())

    async def _bind_pods(self) -> None:
        while True:
            namespace, name = await self._unbound.get()
            body: Obj = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}}
            body["target"] = {"apiVersion": "v1", "kind": "Node", "name": self.name}
            try:
                await self.api.request("POST", f"/api/v1/namespaces/{namespace}/pods/{name}/binding", body)
            except ApiError as error:
                if error.status not in (404, 409):
                    log.warning("binding %s/%s: %s", namespace, name, error)
                    asyncio.get_running_loop().call_later(1.0, self._unbound.put_nowait, (namespace, name))
            except (aiohttp.ClientError, TimeoutError, OSError):
                asyncio.get_running_loop().call_later(1.0, self._unbound.put_nowait, (namespace, name))

    # Names and ports.

    def _refresh_table(self) -> None:
        self._table = routing.addresses(self._services.objects.values(), self._pods.objects.values(), self._fixed)

    async def _keep_routes(self) -> None:
        complete = True
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._routes_dirty.wait(), None if complete else _PORT_RETRY_SECONDS)
            self._routes_dirty.clear()
            before = self._table
            self._refresh_table()
            if self._table != before:
                for worker in list(self._workers.values()):
                    with contextlib.suppress(FileNotFoundError):
                        worker.write_hosts()
            self._node_ports = routing.node_ports(self._services.objects.values())
            complete = await self._proxies.sync(set(self._node_ports))
            await asyncio.sleep(0.05)  # a rollout changes many Pods at once: one pass serves them all

    def _targets(self, port: int) -> Sequence[tuple[str, int]]:
        found = self._node_ports.get(port)
        service = self._services.objects.get(found[0]) if found else None
        if found is None or service is None:
            return ()
        return routing.targets(service, found[1], self._pods.objects.values())

    def _port_trouble(self, port: int, message: str) -> None:
        log.warning("%s", message)
        found = self._node_ports.get(port)
        service = self._services.objects.get(found[0]) if found else None
        if service is not None:
            self._events.record("Service", service, "Warning", "NodePortInUse", message)
