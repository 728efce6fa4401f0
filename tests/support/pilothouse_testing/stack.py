"""A person's and a saboteur's hands on the whole stack, for the end-to-end tests."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pilothouse_local.deploy import SIM_NAMESPACE, Kubectl
from pilothouse_local.standins import address_of
from pilothouse_testing.cluster import LocalCluster
from pilothouse_tui.data.chat import ChatConnection
from pilothouse_tui.data.kube import KubeClient
from pilothouse_tui.data.tokens import make_token

TENANT = "acme"
EMPLOYEE = "employee@acme.example"
Demonstrated = tuple[LocalCluster, str]
"""The stack after one demo, and what the demo said."""


@asynccontextmanager
async def chat(cluster: LocalCluster) -> AsyncIterator[ChatConnection]:
    """A conversation as the employee."""
    async with KubeClient.from_environment(str(cluster.kubeconfig)) as kube:
        url, key = await kube.find_chat_url(), await kube.read_signing_key()

    async def token() -> str:
        return make_token(key, tenant=TENANT, user=EMPLOYEE)

    async with ChatConnection(url, token) as connection:
        await connection.connect()
        yield connection


def post_faults(cluster: LocalCluster, stand_in: str = "models", /, **faults: object) -> None:
    """Changes a stand-in's speed or failures: ``models`` or ``jira``."""
    with address_of(Kubectl(cluster.kubeconfig), SIM_NAMESPACE, stand_in, 8080) as base:
        request = urllib.request.Request(f"{base}/__sim/faults", data=json.dumps(faults).encode())
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=5) as response:
            assert response.status == 200


def pod_processes(cluster: LocalCluster, namespace: str, module: str) -> list[int]:
    """Process ids of this instance's Pods in a namespace that run a Python module, by the Pods' addresses in their
    environment: another instance's processes on the same machine are never touched."""
    pods = json.loads(Kubectl(cluster.kubeconfig).run("get", "pods", f"-n={namespace}", "--output=json"))
    wanted = {f"POD_IP={pod['status'].get('podIP')}".encode() for pod in pods["items"]}
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command, environment = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
        except OSError:
            continue
        if module.encode() in command.split(b"\0") and wanted & set(environment.split(b"\0")):
            found.append(int(process.name))
    return found


async def answer(connection: ChatConnection, text: str) -> Mapping[str, Any]:
    """The last event of a question: ``final`` or ``error``."""
    last: Mapping[str, Any] = {}
    async for event in connection.ask(text):
        last = event
    return last
