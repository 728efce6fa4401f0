"""What ``up`` puts into a cluster: namespaces, the Secrets it owns, the overlay; and the wait until it is available.

The same for the local cluster, kind and the current context; only who provides the stores differs.
"""

from __future__ import annotations

import subprocess
import sysconfig
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from pilothouse_api.names import DEV_TOKEN_SECRET, SYSTEM_NAMESPACE
from pilothouse_local.api import Api, Object
from pilothouse_local.console import Console
from pilothouse_local.errors import BadSettings, ClusterUnreachable, LocalClusterError, NotAvailable
from pilothouse_local.instance import Settings

STORES_SECRET = "pilothouse-stores"  # noqa: S105 - the name of a Secret
SIM_NAMESPACE = "pilothouse-sim"
PUBLIC_URL = "PILOTHOUSE_PUBLIC_URL"
"""The variable that tells operator and gateway where people reach the gateway."""
NAMESPACES = (SYSTEM_NAMESPACE, SIM_NAMESPACE)
CHECKOUT = Path(__file__).resolve().parents[2]
_OWNER = ("--field-manager=pilothouse-local",)
AVAILABLE_WITHIN = 180.0
"""Seconds for all Deployments: ten Python processes on two cores that are busy with something else."""


def kubectl_program() -> str:
    """kubectl of the Python environment."""
    path = Path(sysconfig.get_path("scripts")) / "kubectl"
    if not path.is_file():
        raise BadSettings(
            f"there is no kubectl in {path.parent}", "nothing was installed", "run `uv sync` (or `make up`)"
        )
    return str(path)


@dataclass(frozen=True)
class Kubectl:
    """kubectl against one cluster; ``kubeconfig`` ``None`` means the caller's own context."""

    kubeconfig: Path | None
    context: str | None = None

    def argv(self, *arguments: str) -> list[str]:
        chosen = ["--kubeconfig", str(self.kubeconfig)] if self.kubeconfig else []
        return [kubectl_program(), *chosen, *(["--context", self.context] if self.context else []), *arguments]

    def run(self, *arguments: str, stdin: str | None = None) -> str:
        """Its output; raises ``ClusterUnreachable`` with its last lines."""
        ran = subprocess.run(self.argv(*arguments), input=stdin, capture_output=True, text=True, check=False)
        if ran.returncode != 0:
            raise ClusterUnreachable(
                f"`kubectl {' '.join(arguments)}` ended with exit code {ran.returncode}",
                "what this command was to set up is there only in part",
                "read kubectl's message below, then run it again: it is safe to repeat",
                detail="\n".join((ran.stderr or ran.stdout).splitlines()[-15:]),
            )
        return ran.stdout


def secret(name: str, data: Mapping[str, str]) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": SYSTEM_NAMESPACE},
        "type": "Opaque",
        "stringData": dict(data),
    }


def apply_namespaces(api: Api) -> None:
    for name in NAMESPACES:
        api.apply(f"/api/v1/namespaces/{name}", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})


def stores_secret(settings: Settings) -> Object:
    """Where the local cluster's stores are, and as whom to use them."""
    return secret(
        STORES_SECRET,
        {
            "redis-url": settings.redis_url(),
            "database-url": settings.database_url(),
            "database-owner-url": settings.database_owner_url(),
            "database-worker-password": settings.worker_database_password,
        },
    )


def apply_secrets(api: Api, settings: Settings) -> None:
    """Where the stores are, and what signs development tokens."""
    tokens = secret(DEV_TOKEN_SECRET, {"signing-key": settings.signing_key})
    for one in (stores_secret(settings), tokens):
        api.apply(f"/api/v1/namespaces/{SYSTEM_NAMESPACE}/secrets/{one['metadata']['name']}", one)


def apply_crds(kubectl: Kubectl) -> None:
    """The kinds alone, for tests that bring their own operator."""
    files = sorted((CHECKOUT / "crds").glob("*.yaml"))
    if files:
        kubectl.run("apply", "--server-side", "--force-conflicts", *(f"--filename={file}" for file in files))
        kubectl.run("wait", "--for=condition=Established", "--timeout=30s", *(f"--filename={file}" for file in files))


def render_overlay(kubectl: Kubectl, overlay: str) -> list[Object]:
    """The objects of ``charts/overlays/<overlay>``; raises ``BadSettings`` when there is none."""
    folder = CHECKOUT / "charts" / "overlays" / overlay
    if not (folder / "kustomization.yaml").is_file():
        raise BadSettings(
            f"{folder} holds no kustomization.yaml",
            "the cluster runs, but Pilothouse was not installed into it",
            "run `make generate`, or take the charts folder from the repository",
        )
    return [document for document in yaml.safe_load_all(kubectl.run("kustomize", str(folder))) if document]


def node_ports(objects: Sequence[Object]) -> list[int]:
    """The NodePorts that the objects name."""
    return [int(port["nodePort"]) for port in _service_ports(objects) if port.get("nodePort")]


def move_node_ports(objects: Sequence[Object], ports: Mapping[str, int]) -> None:
    """Puts this instance's NodePorts in place of those that the objects name, in the gateway's address, too."""
    for port in _service_ports(objects):
        if port.get("nodePort"):
            port["nodePort"] = ports[str(port["nodePort"])]
    for one in objects:
        if one.get("kind") != "Deployment":
            continue
        for container in one["spec"]["template"]["spec"]["containers"]:
            for entry in container.get("env") or []:
                if entry["name"] == PUBLIC_URL:
                    base, _, wanted = str(entry["value"]).rpartition(":")
                    entry["value"] = f"{base}:{ports.get(wanted, wanted)}"


def _service_ports(objects: Sequence[Object]) -> list[Object]:
    return [port for one in objects if one.get("kind") == "Service" for port in one["spec"].get("ports") or []]


def apply_objects(kubectl: Kubectl, objects: Sequence[Object]) -> None:
    """Server-side apply; an object whose kind was only just registered is tried again."""
    manifest = yaml.safe_dump_all(objects)
    for attempt in range(4):
        try:
            kubectl.run("apply", "--server-side", "--force-conflicts", *_OWNER, "--filename=-", stdin=manifest)
            return
        except ClusterUnreachable as error:
            if attempt == 3 or "no matches for kind" not in error.detail:
                raise
            time.sleep(1)


@dataclass(frozen=True)
class Readiness:
    """One Deployment and how far it is."""

    namespace: str
    name: str
    wanted: int
    ready: int
    waiting_for: str
    """Empty when it is available with the current template."""


def readiness(api: Api, namespaces: Sequence[str] | None = None) -> list[Readiness]:
    """Every Deployment (of ``namespaces``, when given), judged by its status and by its Pods' own readiness."""
    pods = api.items("/api/v1/pods")
    found = []
    for deployment in api.items("/apis/apps/v1/deployments"):
        if namespaces is None or deployment["metadata"]["namespace"] in namespaces:
            found.append(_judge(deployment, pods))
    return found


def _judge(deployment: Object, pods: list[Object]) -> Readiness:
    meta, spec, status = deployment["metadata"], deployment["spec"], deployment.get("status") or {}
    wanted = int(spec.get("replicas", 1))
    # The controller's count lags behind a restart of the node by a moment: the Pods say it first.
    ready = sum(
        1
        for pod in pods
        if _owned(pod, meta["namespace"], spec["selector"].get("matchLabels") or {}) and _is_ready(pod)
    )
    waiting = ""
    if int(status.get("observedGeneration", 0)) < int(meta.get("generation", 0)):
        waiting = "the controller has not seen it yet"
    elif int(status.get("updatedReplicas", 0)) < wanted:
        waiting = "the new revision's Pods are being made"
    elif min(ready, int(status.get("availableReplicas", 0))) < wanted:
        waiting = f"{ready} of {wanted} Pods ready"
    return Readiness(meta["namespace"], meta["name"], wanted, ready, waiting)


def _owned(pod: Object, namespace: str, labels: Mapping[str, str]) -> bool:
    has = pod["metadata"].get("labels") or {}
    return (
        pod["metadata"]["namespace"] == namespace
        and bool(labels)
        and all(has.get(key) == value for key, value in labels.items())
    )


def _is_ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return "deletionTimestamp" not in pod["metadata"] and any(
        condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions
    )


def wait_available(api: Api, kubectl: Kubectl, console: Console, seconds: float = AVAILABLE_WITHIN) -> None:
    """Until every Deployment of our namespaces is available; raises ``NotAvailable`` with the failing Pod's log."""
    began = time.monotonic()
    late: list[Readiness] = []
    with console.waiting("waiting for the Deployments") as waiting:
        while time.monotonic() - began < seconds:
            all_of_them = readiness(api, NAMESPACES)
            late = [one for one in all_of_them if one.waiting_for]
            if all_of_them and not late:
                return
            waiting.label = "waiting for " + "; ".join(f"{one.name} ({one.waiting_for})" for one in late)
            time.sleep(0.25)
    names = ", ".join(f"{one.namespace}/{one.name}" for one in late) or "any Deployment"
    raise NotAvailable(
        f"not available after {seconds:.0f} s: {names}",
        "the cluster runs, but Pilothouse does not answer yet",
        "read the log below; `pilothouse status` and `pilothouse logs NAME` show more, `pilothouse up` tries again",
        detail=_why(api, kubectl, late),
    )


def _why(api: Api, kubectl: Kubectl, late: list[Readiness]) -> str:
    said: list[str] = []
    for one in late[:2]:
        for pod in api.items(f"/api/v1/namespaces/{one.namespace}/pods"):
            name = pod["metadata"]["name"]
            if not name.startswith(one.name) or _is_ready(pod):
                continue
            for container in (pod.get("status") or {}).get("containerStatuses") or []:
                states: Object = container.get("state") or {"unknown": {}}
                word, more = next(iter(states.items()))
                said.append(
                    f"Pod {one.namespace}/{name}, {container['name']}: "
                    f"{word} {more.get('reason', '')} {more.get('message', '')}"
                )
            try:
                said.append(kubectl.run("logs", f"--namespace={one.namespace}", name, "--tail=25"))
            except LocalClusterError as error:
                said.append(f"(no log: {error.detail or error.happened})")
    return "\n".join(said)


def gateway_address(api: Api) -> str | None:
    """Where a browser reaches the gateway on this machine, if its Service has a NodePort."""
    for service in api.items(f"/api/v1/namespaces/{SYSTEM_NAMESPACE}/services"):
        for port in service["spec"].get("ports") or []:
            if (
                "gateway" in service["metadata"]["name"]
                and port.get("nodePort")
                and port.get("name") in ("http", None, "")
            ):
                return f"http://127.0.0.1:{port['nodePort']}"
    return None
