"""Keeps the directory of workers equal to the cluster: watches of worker Pods and of Tenants, all namespaces."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from pilothouse_api import names
from pilothouse_dataplane.gateway.kube import KubeClient
from pilothouse_dataplane.gateway.workers import Directory, TenantRef, tenant_from_object

_PODS = "/api/v1/pods"
_TENANTS = f"/apis/{names.API_VERSION}/tenants"


class _PodSink:
    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._listed: list[dict[str, Any]] = []
        self.synced = False

    def begin(self) -> None:
        self._listed = []

    def add(self, obj: Mapping[str, Any]) -> None:
        # Only what the table reads is kept between pages: a Pod with its managed fields is ten times as large.
        meta = {k: v for k, v in obj.get("metadata", {}).items() if k != "managedFields"}
        self._listed.append({"metadata": meta, "status": obj.get("status", {})})

    def commit(self) -> None:
        self._directory.table.replace_pods(self._listed)
        self._listed = []
        self.synced = True
        self._directory.announce()

    def put(self, obj: Mapping[str, Any]) -> None:
        self._directory.table.put_pod(obj)
        self._directory.announce()

    def drop(self, obj: Mapping[str, Any]) -> None:
        meta = obj.get("metadata", {})
        self._directory.table.put_worker((meta.get("namespace", ""), meta.get("name", "")), None)
        self._directory.announce()


class _TenantSink:
    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._listed: list[TenantRef] = []
        self.synced = False

    def begin(self) -> None:
        self._listed = []

    def add(self, obj: Mapping[str, Any]) -> None:
        self._listed.append(tenant_from_object(obj))

    def commit(self) -> None:
        self._directory.table.replace_tenants(self._listed)
        self._listed = []
        self.synced = True
        self._directory.announce()

    def put(self, obj: Mapping[str, Any]) -> None:
        self._directory.table.put_tenant(tenant_from_object(obj))
        self._directory.announce()

    def drop(self, obj: Mapping[str, Any]) -> None:
        ref = tenant_from_object(obj)
        self._directory.table.drop_tenant(ref.namespace, ref.name)
        self._directory.announce()


class Discovery:
    """Runs both watches; ``synced`` once both have listed, which readiness asks for."""

    def __init__(self, client: KubeClient, directory: Directory) -> None:
        self._client = client
        self._pods = _PodSink(directory)
        self._tenants = _TenantSink(directory)

    @property
    def synced(self) -> bool:
        """Whether Pods and Tenants have each been listed once."""
        return self._pods.synced and self._tenants.synced

    async def run(self) -> None:
        """Watch until cancelled."""
        selector = {"labelSelector": f"{names.LABEL_COMPONENT}={names.COMPONENT_WORKER}"}
        async with asyncio.TaskGroup() as group:
            group.create_task(self._client.list_and_watch(_TENANTS, {}, self._tenants), name="watch-tenants")
            group.create_task(self._client.list_and_watch(_PODS, selector, self._pods), name="watch-pods")
