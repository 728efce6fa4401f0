"""The operator against a real API server, controller manager and node, with the rights that the chart gives it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pilothouse_local.instance import Settings
from pilothouse_testing.builders import Json, Scene, tenant, with_connector
from pilothouse_testing.cluster import LocalCluster

pytestmark = pytest.mark.timeout(900)  # the first run on a machine may have to build Kubernetes

ROOT = Path(__file__).resolve().parents[2]
RIGHTS = ("Namespace", "ServiceAccount", "ClusterRole", "ClusterRoleBinding")


class Kubectl:
    """kubectl with one kubeconfig."""

    def __init__(self, kubeconfig: Path) -> None:
        self._env = {**os.environ, "KUBECONFIG": str(kubeconfig)}

    def __call__(self, *arguments: str, given: str | None = None, check: bool = True) -> str:
        command = [str(Path(sys.executable).parent / "kubectl"), *arguments]
        ran = subprocess.run(
            command, env=self._env, input=given, capture_output=True, text=True, check=False, timeout=120
        )
        assert ran.returncode == 0 or not check, f"{' '.join(arguments)}: {ran.stderr}"
        return ran.stdout

    def apply(self, *objects: Json) -> None:
        for raw in objects:
            meta = {key: raw["metadata"][key] for key in ("name", "namespace") if key in raw["metadata"]}
            self("apply", "-f", "-", given=json.dumps({**raw, "metadata": meta} if "namespace" in meta else raw))

    def get(self, kind: str, name: str, namespace: str) -> Json | None:
        text = self("get", kind, name, "-n", namespace, "-o", "json", "--ignore-not-found")
        found: Json | None = json.loads(text) if text.strip() else None
        return found

    def condition(self, kind: str, name: str, namespace: str, type_: str) -> tuple[str, str]:
        """Status and reason; empty before the operator has said anything."""
        status: dict[str, Any] = (self.get(kind, name, namespace) or {}).get("status") or {}
        for found in status.get("conditions") or []:
            if found["type"] == type_:
                return found["status"], found["reason"]
        return "", ""


def eventually(condition: Callable[[], bool], what: str, seconds: float = 60) -> float:
    """Seconds until the condition held."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, f"not within {seconds} s: {what}"
        time.sleep(0.1)
    return time.monotonic() - start


def writes(kubectl: Kubectl) -> float:
    """Requests that the API server was sent to change one of our objects or their children."""
    ours = ("tenants", "connectors", "modelroutes", "secrets", "services", "serviceaccounts", "networkpolicies")
    total = 0.0
    for line in kubectl("get", "--raw", "/metrics").splitlines():
        if line.startswith("apiserver_request_total") and ('verb="APPLY"' in line or 'verb="PATCH"' in line):
            total += float(line.rsplit(" ", 1)[1]) if any(f'resource="{name}"' in line for name in ours) else 0
    return total


class Operator:
    """The operator as a process of its own."""

    def __init__(self, kubeconfig: Path, stores: Settings, log: Path) -> None:
        self._env = {
            **os.environ,
            "KUBECONFIG": str(kubeconfig),
            "POD_IP": "127.0.0.1" if not sys.platform.startswith("linux") else "127.201.7.1",
            "PILOTHOUSE_WORKER_IMAGE": "pilothouse:local",
            "PILOTHOUSE_WORKER_PULL_POLICY": "Never",
            "PILOTHOUSE_WORKER_REDIS_URL": stores.redis_url(),
            "PILOTHOUSE_WORKER_DATABASE_URL": stores.database_url(),
        }
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as out:
            command = [sys.executable, "-m", "pilothouse_operator"]
            self._process = subprocess.Popen(command, env=self._env, stdout=out, stderr=out)

    def stop(self) -> int:
        """Exit status after SIGTERM."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(20)


@pytest.fixture(scope="module")
def kubectl(kubeconfig: Path) -> Kubectl:
    return Kubectl(kubeconfig)


@pytest.fixture(scope="module")
def operator(
    core_cluster: LocalCluster, kubectl: Kubectl, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Operator]:
    installed = yaml.safe_load_all((ROOT / "charts" / "install.yaml").read_text())
    kubectl.apply(*sorted((o for o in installed if o["kind"] in RIGHTS), key=lambda o: RIGHTS.index(o["kind"])))
    token = kubectl("create", "token", "pilothouse-operator", "-n", "pilothouse-system", "--duration", "2h").strip()
    config = yaml.safe_load(core_cluster.kubeconfig.read_text())
    config["users"] = [{"name": user["name"], "user": {"token": token}} for user in config["users"]]
    folder = tmp_path_factory.mktemp("operator")
    mine = folder / "kubeconfig"
    mine.write_text(yaml.safe_dump(config))
    operator = Operator(mine, core_cluster.settings(), folder / "log")
    operator.start()
    yield operator
    operator.stop()


@pytest.fixture
def acme(kubectl: Kubectl, operator: Operator) -> Iterator[Scene]:
    scene = tenant("acme", with_connector("jira"), namespace="operator-acme")
    kubectl("create", "namespace", scene.namespace)
    yield scene
    kubectl("delete", "namespace", scene.namespace, "--wait=false")
    eventually(lambda: kubectl("get", "pods", "-n", scene.namespace, "-o", "name") == "", "the Pods are gone")
    eventually(lambda: kubectl.get("namespace", scene.namespace, "") is None, "the namespace is gone")


def is_ready(kubectl: Kubectl, scene: Scene, kind: str = "tenant", name: str = "acme") -> bool:
    return kubectl.condition(kind, name, scene.namespace, "Ready")[0] == "True"


def test_a_tenants_life(kubectl: Kubectl, operator: Operator, acme: Scene) -> None:
    # given a Tenant whose Connector lacks its Secret
    kubectl.apply(*(o for o in acme.objects() if o["kind"] != "Secret"))

    # then the Connector says so and the rest is served
    eventually(lambda: is_ready(kubectl, acme), f"acme is Ready, see {operator.log.read_text()[-2000:]}")
    refused = kubectl.condition("connector", "jira", acme.namespace, "ResolvedRefs")
    assert refused == ("False", "SecretNotFound")
    assert kubectl.condition("tenant", "acme", acme.namespace, "Ready")[1] == "WithoutConnectors"

    # when the Secret appears, it mends itself, and the workers reload without a restart
    pods = kubectl("get", "pods", "-n", acme.namespace, "-o", "name")
    kubectl.apply(*(o for o in acme.objects() if o["kind"] == "Secret"))
    took = eventually(lambda: is_ready(kubectl, acme, "connector", "jira"), "the Connector is Ready")
    assert took < 10
    assert kubectl("get", "pods", "-n", acme.namespace, "-o", "name") == pods
    eventually(lambda: is_ready(kubectl, acme, "modelroute", "standard"), "the ModelRoute is Ready")

    # and with nothing to change nothing is written, not even over a restart
    time.sleep(1)
    before = writes(kubectl)
    assert operator.stop() == 0
    operator.start()
    time.sleep(6)
    assert writes(kubectl) == before

    # when a child is deleted, it comes back
    kubectl("delete", "deployment", "acme-worker", "-n", acme.namespace)
    eventually(lambda: kubectl.get("deployment", "acme-worker", acme.namespace) is not None, "the Deployment is back")
    eventually(lambda: is_ready(kubectl, acme), "acme is Ready again")

    # when the Tenant is deleted, owner references leave nothing, and its Connector says so
    kubectl("delete", "tenant", "acme", "-n", acme.namespace)
    kinds = "deployments,secrets,services,serviceaccounts,networkpolicies,poddisruptionbudgets"
    selector = ("-l", "app.kubernetes.io/managed-by=pilothouse-operator", "-o", "name")
    eventually(lambda: kubectl("get", kinds, "-n", acme.namespace, *selector) == "", "the children are gone")
    accepted = ("False", "TenantNotFound")
    eventually(lambda: kubectl.condition("connector", "jira", acme.namespace, "Accepted") == accepted, "TenantNotFound")


@pytest.mark.parametrize(
    ("verb", "resource", "allowed"),
    [
        ("get", "fleets", True),
        ("list", "deadletters", True),
        ("update", "deadletters", True),
        ("delete", "deadletters", True),
        ("update", "approvals", True),
        ("update", "breakers", True),
        ("delete", "approvals", False),
        ("get", "tenants", False),
    ],
)
def test_the_sres_account_may_what_fleet_asks_for_it_and_nothing_else(
    kubectl: Kubectl, operator: Operator, verb: str, resource: str, allowed: bool
) -> None:
    asked = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": "system:serviceaccount:pilothouse-system:pilothouse-sre",
            "resourceAttributes": {
                "group": "pilothouse.dev", "resource": resource, "verb": verb, "namespace": "acme",
            },
        },
    }  # fmt: skip

    said = json.loads(kubectl("create", "-f", "-", "-o", "json", given=json.dumps(asked)))

    assert said["status"]["allowed"] is allowed
