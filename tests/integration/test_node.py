"""The node against a real API server: Pods become processes, and everything kubectl shows of them is true."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

SERVE = 'exec python -u -m http.server 8080 --bind "$POD_IP" --directory /etc/pilothouse-node-test/config'


class Cluster:
    """kubectl in a namespace of the test's own."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        self._base = ["kubectl", "--kubeconfig", str(kubeconfig)]
        self.namespace = namespace

    def run(self, *arguments: str, stdin: str | None = None) -> str:
        line = [*self._base, "-n", self.namespace, *arguments]
        return subprocess.run(line, input=stdin, capture_output=True, text=True, check=True, timeout=90).stdout

    def apply(self, *objects: dict[str, Any]) -> None:
        self.run("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))

    def get(self, *what: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("get", *what, "-o", "json"))
        return found

    def status(self, pod: str) -> dict[str, Any]:
        found: dict[str, Any] = self.get("pod", pod)["status"]
        return found


@pytest.fixture
def cluster(kubeconfig: Path) -> Iterator[Cluster]:
    cluster = Cluster(kubeconfig, f"node-{uuid.uuid4().hex[:8]}")
    cluster.run("create", "namespace", cluster.namespace)
    cluster.run("wait", "--for=create", "serviceaccount/default", "--timeout=30s")
    yield cluster
    cluster.run("delete", "namespace", cluster.namespace, "--wait=false")


def eventually(check: Callable[[], object], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, "this did not become true in time"
        time.sleep(0.1)


def a_pod(name: str, *command: str, image: str = "pilothouse", **spec: Any) -> dict[str, Any]:
    container = {"name": "c", "image": image, "command": list(command), **spec.pop("container", {})}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 2, **spec},
    }


def a_server(name: str) -> dict[str, Any]:
    return a_pod(
        name,
        "sh",
        "-c",
        SERVE,
        container={
            "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
            "ports": [{"name": "http", "containerPort": 8080}],
            "readinessProbe": {"httpGet": {"path": "/greeting", "port": "http"}, "periodSeconds": 1},
            "volumeMounts": [{"name": "config", "mountPath": "/etc/pilothouse-node-test/config"}],
        },
        volumes=[{"name": "config", "configMap": {"name": "config"}}],
    )


def a_config_map(greeting: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "config"}, "data": {"greeting": greeting}}


def a_service(name: str) -> dict[str, Any]:
    spec = {"type": "NodePort", "selector": {"app": name}, "ports": [{"port": 8080, "targetPort": "http"}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def fetch(url: str) -> str:
    return subprocess.run(["curl", "-s", "-m", "2", url], capture_output=True, text=True, check=False).stdout


def test_a_pod_is_served_by_name_and_node_port_and_follows_its_config(cluster: Cluster) -> None:
    cluster.apply(a_config_map("hello"), a_server("web"), a_service("web"))
    cluster.run("wait", "--for=condition=Ready", "pod/web", "--timeout=30s")
    port = cluster.get("service", "web")["spec"]["ports"][0]["nodePort"]
    eventually(lambda: fetch(f"http://127.0.0.1:{port}/greeting") == "hello")

    script = f"import urllib.request as u; print(u.urlopen('http://web.{cluster.namespace}.svc:8080/greeting').read())"
    cluster.apply(a_pod("client", "python", "-c", script, restartPolicy="OnFailure"))
    eventually(lambda: cluster.status("client").get("phase") == "Succeeded")
    assert "hello" in cluster.run("logs", "client")

    cluster.apply(a_config_map("changed"))
    eventually(lambda: fetch(f"http://127.0.0.1:{port}/greeting") == "changed", seconds=3)
    cluster.run("delete", "pod", "web", "--timeout=20s")
    eventually(lambda: fetch(f"http://127.0.0.1:{port}/greeting") == "")


def test_a_deployment_rolls_out_and_a_job_talks_to_the_api(cluster: Cluster) -> None:
    template = a_server("rolled")
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "rolled"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "rolled"}},
            "template": {"metadata": {"labels": {"app": "rolled"}}, "spec": template["spec"]},
        },
    }
    cluster.apply(a_config_map("x"), deployment)
    cluster.run("rollout", "status", "deployment/rolled", "--timeout=60s")
    cluster.run("rollout", "restart", "deployment/rolled")
    cluster.run("rollout", "status", "deployment/rolled", "--timeout=60s")

    script = "import kubernetes.config as f, kubernetes.client as c; f.load_incluster_config()"
    script += "; print(c.VersionApi().get_code())"
    job = a_pod("ignored", "python", "-c", script, restartPolicy="Never")["spec"]
    cluster.apply(
        {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once"}, "spec": {"template": {"spec": job}}}
    )
    cluster.run("wait", "--for=condition=Complete", "job/once", "--timeout=60s")
    assert "git_version" in cluster.run("logs", "job/once")


def test_restarts_refusals_and_previous_logs(cluster: Cluster) -> None:
    cluster.apply(
        a_pod("crash", "sh", "-c", "echo boom; exit 3"),
        a_pod("foreign", "true", image="nginx:1"),
        a_pod("never", "sh", "-c", "exit 4", restartPolicy="Never"),
    )
    eventually(lambda: cluster.status("never").get("phase") == "Failed")
    eventually(lambda: (cluster.status("crash").get("containerStatuses") or [{}])[0].get("restartCount", 0) >= 2)
    last = cluster.status("crash")["containerStatuses"][0]["lastState"]["terminated"]
    assert (last["exitCode"], last["reason"]) == (3, "Error")
    assert cluster.run("logs", "crash", "--previous") == "boom\n"
    waiting = cluster.status("foreign")["containerStatuses"][0]["state"]["waiting"]
    assert waiting["reason"] == "ErrImagePull"
    assert "pilothouse" in waiting["message"]


def test_a_volume_over_the_python_environment_hides_it_in_no_start(cluster: Cluster) -> None:
    # as the operator's own volume at /tmp does where Pilothouse is checked out under /tmp
    checkout = str(Path(sys.prefix).parent)
    mount = {"volumeMounts": [{"name": "data", "mountPath": checkout}]}
    subject = a_pod("covered", "python", "-c", "import orjson; raise SystemExit(5)", container=mount)
    subject["spec"]["volumes"] = [{"name": "data", "emptyDir": {}}]
    cluster.apply(subject)
    eventually(lambda: (cluster.status("covered").get("containerStatuses") or [{}])[0].get("restartCount", 0) >= 2)
    assert cluster.status("covered")["containerStatuses"][0]["lastState"]["terminated"]["exitCode"] == 5


def test_init_containers_come_first_and_liveness_restarts(cluster: Cluster) -> None:
    mount = {"volumeMounts": [{"name": "data", "mountPath": "/pilothouse-node-test"}]}
    init = a_pod("i", "sh", "-c", "echo made > /pilothouse-node-test/file", container=mount)["spec"]["containers"][0]
    liveness = {
        "exec": {"command": ["test", "-e", "/pilothouse-node-test/file"]},
        "periodSeconds": 1,
        "failureThreshold": 1,
        "initialDelaySeconds": 1,
    }
    script = "cat /pilothouse-node-test/file; rm /pilothouse-node-test/file; exec sleep 60"
    subject = a_pod("lively", "sh", "-c", script, container={**mount, "livenessProbe": liveness})
    subject["spec"].update(initContainers=[{**init, "name": "init"}], volumes=[{"name": "data", "emptyDir": {}}])
    cluster.apply(subject)
    eventually(lambda: (cluster.status("lively").get("containerStatuses") or [{}])[0].get("restartCount", 0) >= 1)
    assert cluster.status("lively")["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 0
    assert not Path("/pilothouse-node-test").exists()


def test_a_projected_token_is_for_its_audience_and_its_pod_alone(cluster: Cluster) -> None:
    token = {"audience": "vault", "expirationSeconds": 1800, "path": "token"}
    volume = {"name": "t", "projected": {"defaultMode": 0o440, "sources": [{"serviceAccountToken": token}]}}
    mounted = {"volumeMounts": [{"name": "t", "mountPath": "/var/run/secrets/pilothouse/vault", "readOnly": True}]}
    print_it = (
        "stat -L -c %a /var/run/secrets/pilothouse/vault/token; cat /var/run/secrets/pilothouse/vault/token; sleep 60"
    )
    cluster.apply(a_pod("holder", "sh", "-c", print_it, container=mounted, volumes=[volume]))
    eventually(lambda: len(cluster.run("logs", "holder", "--ignore-errors").splitlines()) == 2)

    mode, jwt = cluster.run("logs", "holder").splitlines()

    assert mode == "440"
    body = jwt.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    assert claims["aud"] == ["vault"]
    assert claims["exp"] - claims["iat"] == 1800
    assert claims["kubernetes.io"]["pod"]["name"] == "holder"
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {}}

    def accepted(*audiences: str) -> bool:
        asked = {**review, "spec": {"token": jwt, "audiences": list(audiences)}}
        said = json.loads(cluster.run("create", "-o", "json", "-f", "-", stdin=json.dumps(asked)))
        return bool(said["status"].get("authenticated"))

    assert accepted("vault")
    assert not accepted()  # the API server itself
    cluster.run("delete", "pod", "holder", "--wait")
    eventually(lambda: not accepted("vault"))  # the API server keeps a verdict for 10 s
