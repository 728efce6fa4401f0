"""The Node object, its heartbeats (status and Lease), and events."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import uuid
from datetime import UTC, datetime

import aiohttp

from .api import ApiClient, ApiError
from .model import Obj, micro_timestamp, timestamp

log = logging.getLogger(__name__)

LEASE_SECONDS = 40
_BEAT_SECONDS = 10
_STATUS_EVERY_BEATS = 6
_EVENT_QUIET_SECONDS = 30.0
_PODS = "512"


class Registration:
    """Keeps the Node named `name` present and Ready, with its kubelet endpoint at 127.0.0.1:`port`."""

    def __init__(self, api: ApiClient, name: str, port: int) -> None:
        self._api = api
        self._name = name
        self._port = port
        self._wake = asyncio.Event()
        self._since = timestamp(datetime.now(UTC))

    def node_gone(self) -> None:
        """Somebody deleted the Node: make it again now."""
        self._wake.set()

    async def ensure(self) -> None:
        """Create or update the Node and renew its Lease. Raises ApiError and connection errors."""
        await self._ensure_node()
        await self._renew_lease()

    async def run(self) -> None:
        """Heartbeats until cancelled."""
        beats = 0
        while True:
            try:
                if self._wake.is_set() or beats % _STATUS_EVERY_BEATS == 0:
                    self._wake.clear()
                    await self._ensure_node()
                await self._renew_lease()
                beats += 1
            except (ApiError, aiohttp.ClientError, TimeoutError, OSError) as error:
                log.info("heartbeat: %r; trying again", error)
                await asyncio.sleep(1)
                continue
            try:
                await asyncio.wait_for(self._wake.wait(), _BEAT_SECONDS)
            except TimeoutError:
                continue

    async def _ensure_node(self) -> None:
        path = f"/api/v1/nodes/{self._name}"
        labels = {
            "kubernetes.io/hostname": self._name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": _arch(),
            "pilothouse.dev/local": "true",
        }
        try:
            await self._api.request("PATCH", path, {"metadata": {"labels": labels}, "spec": {"unschedulable": None}})
        except ApiError as error:
            if error.status != 404:
                raise
            body: Obj = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": self._name, "labels": labels}}
            await self._api.request("POST", "/api/v1/nodes", body)
            self._since = timestamp(datetime.now(UTC))
        await self._api.request("PATCH", path + "/status", {"status": self._status()})

    def _status(self) -> Obj:
        now = timestamp(datetime.now(UTC))
        memory = f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') // 1024}Ki"
        resources = {"cpu": str(os.cpu_count() or 1), "memory": memory, "pods": _PODS}
        conditions = [
            _condition("MemoryPressure", "False", "KubeletHasSufficientMemory", self._since, now),
            _condition("DiskPressure", "False", "KubeletHasNoDiskPressure", self._since, now),
            _condition("PIDPressure", "False", "KubeletHasSufficientPID", self._since, now),
            _condition("Ready", "True", "KubeletReady", self._since, now),
        ]
        return {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}, {"type": "Hostname", "address": self._name}],
            "capacity": resources,
            "allocatable": resources,
            "conditions": conditions,
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self._port}},
            "nodeInfo": {
                "architecture": _arch(),
                "bootID": "",
                "containerRuntimeVersion": "pilothouse://0.1.0",
                "kernelVersion": platform.release(),
                "kubeProxyVersion": "",
                "kubeletVersion": "v1.37.2+pilothouse-local",
                "machineID": "",
                "operatingSystem": "linux",
                "osImage": "local processes",
                "systemUUID": "",
            },
        }

    async def _renew_lease(self) -> None:
        spec: Obj = {
            "holderIdentity": self._name,
            "leaseDurationSeconds": LEASE_SECONDS,
            "renewTime": micro_timestamp(datetime.now(UTC)),
        }
        collection = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
        try:
            await self._api.request("PATCH", f"{collection}/{self._name}", {"spec": spec})
        except ApiError as error:
            if error.status != 404:
                raise
            body: Obj = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": self._name},
                "spec": spec,
            }
            await self._api.request("POST", collection, body)


class Events:
    """Writes events about Pods and Services; the same one at most every 30 s, so that a crash loop does not fill
    etcd."""

    def __init__(self, api: ApiClient, host: str) -> None:
        self._api = api
        self._host = host
        self._seen: dict[tuple[str, str, str], float] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def record(self, kind_of_object: str, obj: Obj, kind: str, reason: str, message: str) -> None:
        """Write an event soon; `kind` is Normal or Warning. Failures are only logged."""
        meta = obj["metadata"]
        loop = asyncio.get_running_loop()
        key = (meta.get("uid", ""), reason, message)
        if loop.time() - self._seen.get(key, -_EVENT_QUIET_SECONDS) < _EVENT_QUIET_SECONDS:
            return
        if len(self._seen) > 2000:
            self._seen.clear()
        self._seen[key] = loop.time()
        now = timestamp(datetime.now(UTC))
        body: Obj = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{meta['name'][:200]}.{uuid.uuid4().hex[:16]}", "namespace": meta["namespace"]},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": kind_of_object,
                "name": meta["name"],
                "namespace": meta["namespace"],
                "uid": meta.get("uid", ""),
            },
            "type": kind,
            "reason": reason,
            "message": message[:1000],
            "source": {"component": "pilothouse-node", "host": self._host},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        task = loop.create_task(self._write(f"/api/v1/namespaces/{meta['namespace']}/events", body))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _write(self, path: str, body: Obj) -> None:
        try:
            await self._api.request("POST", path, body)
        except (ApiError, aiohttp.ClientError, TimeoutError, OSError) as error:
            log.debug("event was not written: %r", error)


def _arch() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def _condition(kind: str, status: str, reason: str, since: str, now: str) -> Obj:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": "",
        "lastHeartbeatTime": now,
        "lastTransitionTime": since,
    }
