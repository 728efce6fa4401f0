"""``up`` into a cluster that is not ours: kind (made when missing), or the current kubeconfig context.

Same manifests (``charts/overlays/kind``); a Valkey is added where no Secret names a store. Secrets that are there stay.
"""

from __future__ import annotations

import secrets
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from pilothouse_api.names import DEV_TOKEN_SECRET, SYSTEM_NAMESPACE
from pilothouse_local import deploy
from pilothouse_local.api import Object
from pilothouse_local.console import Console
from pilothouse_local.deploy import CHECKOUT, NAMESPACES, Kubectl
from pilothouse_local.errors import BadSettings, ClusterUnreachable, NotAvailable

KIND_CLUSTER = "pilothouse"
_TIMEOUT = "300s"


def up(console: Console, *, kind: bool) -> None:
    """Installs into kind or the current context and waits until it is available; raises ``LocalClusterError``."""
    objects = deploy.render_overlay(Kubectl(None), "kind")
    if kind:
        _ensure_kind(console)
        _load_images(objects, console)
        kubectl = Kubectl(None, f"kind-{KIND_CLUSTER}")
    else:
        kubectl = Kubectl(None)
        console.say(f"Installing into the current context: {kubectl.run('config', 'current-context').strip()}")
    needed: list[Object] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in NAMESPACES
    ]
    deploy.apply_objects(kubectl, needed)
    # What is there is a person's choice, or of an earlier `up` whose tokens and data must stay valid.
    if not _has_secret(kubectl, deploy.STORES_SECRET):
        deploy.apply_objects(kubectl, valkey(secrets.token_urlsafe(24)))
    if not _has_secret(kubectl, DEV_TOKEN_SECRET):
        deploy.apply_objects(kubectl, [deploy.secret(DEV_TOKEN_SECRET, {"signing-key": secrets.token_urlsafe(48)})])
    with console.waiting("applying charts/overlays/kind"):
        deploy.apply_objects(kubectl, objects)
    _wait(kubectl, console)


def down(console: Console, *, kind: bool) -> None:
    """Deletes the kind cluster; a cluster that is somebody's own is left alone, and the command to clean it is said."""
    if not kind:
        console.say("The current context is your own cluster: nothing was removed. To remove Pilothouse from it:")
        console.say("  kubectl delete -k charts/overlays/kind")
        return
    _program("kind")
    _run(["kind", "delete", "cluster", "--name", KIND_CLUSTER], "the kind cluster was not deleted")
    console.say("The kind cluster is gone.")


def status(*, kind: bool) -> str:
    """The Deployments of Pilothouse's namespaces, as kubectl prints them."""
    kubectl = Kubectl(None, f"kind-{KIND_CLUSTER}" if kind else None)
    return "".join(kubectl.run("get", "deployments", f"--namespace={name}") for name in NAMESPACES)


def _program(name: str) -> None:
    if shutil.which(name) is None:
        raise BadSettings(
            f"CLUSTER=kind needs {name}, and it is not on PATH",
            "no cluster was made",
            f"install {name}, or leave CLUSTER out: the local cluster needs neither Docker nor kind",
        )


def _run(argv: list[str], not_done: str, cwd: Path | None = None) -> str:
    ran = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        raise ClusterUnreachable(
            f"`{' '.join(argv)}` ended with exit code {ran.returncode}",
            not_done,
            "read its last lines below; Docker must run and this user must be allowed to use it",
            detail="\n".join((ran.stderr or ran.stdout).splitlines()[-15:]),
        )
    return ran.stdout


def _ensure_kind(console: Console) -> None:
    _program("docker")
    _program("kind")
    if KIND_CLUSTER in _run(["kind", "get", "clusters"], "no cluster was made").split():
        return
    with console.waiting("making a kind cluster (fetches the node image at the first time)"):
        _run(["kind", "create", "cluster", "--name", KIND_CLUSTER, "--wait", "180s"], "no cluster was made")


def images(objects: Sequence[Object]) -> list[str]:
    """The images of our own that the objects run."""
    found: set[str] = set()
    for one in objects:
        template = (one.get("spec") or {}).get("template") or {}
        for container in (template.get("spec") or {}).get("containers") or []:
            image = str(container.get("image", ""))
            if image.rsplit("/", 1)[-1].startswith("pilothouse"):
                found.add(image)
    return sorted(found)


def valkey(password: str) -> list[Object]:
    """A Valkey for a cluster that brings none, with the Secret that names it. Its data lives as long as its Pod."""
    meta: Object = {"name": "valkey", "namespace": SYSTEM_NAMESPACE, "labels": {"app.kubernetes.io/name": "valkey"}}
    stores = deploy.secret(
        deploy.STORES_SECRET,
        {"redis-url": f"redis://:{password}@valkey.{SYSTEM_NAMESPACE}.svc:6379/0", "password": password},
    )
    container: Object = {
        "name": "valkey",
        "image": "valkey/valkey:9.0-alpine",
        "command": ["sh", "-c", 'exec valkey-server --appendonly yes --requirepass "$PASSWORD"'],
        "env": [{"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": deploy.STORES_SECRET, "key": "password"}}}],
        "ports": [{"name": "redis", "containerPort": 6379}],
        "readinessProbe": {"tcpSocket": {"port": "redis"}, "periodSeconds": 2},
        "resources": {"requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"memory": "256Mi"}},
    }
    pod: Object = {"containers": [container], "automountServiceAccountToken": False}
    deployment: Object = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": meta,
        "spec": {
            "replicas": 1,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": meta["labels"]},
            "template": {"metadata": {"labels": meta["labels"]}, "spec": pod},
        },
    }
    service: Object = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta,
        "spec": {"selector": meta["labels"], "ports": [{"name": "redis", "port": 6379, "targetPort": "redis"}]},
    }
    return [stores, deployment, service]


def _load_images(objects: Sequence[Object], console: Console) -> None:
    dockerfile = CHECKOUT / "hack" / "images" / "Dockerfile"
    if not dockerfile.is_file():
        raise BadSettings(
            "the checkout holds no hack/images/Dockerfile",
            "no image was built",
            "take the repository as a whole and run it again",
        )
    for image in images(objects):
        with console.waiting(f"building {image} and loading it into kind"):
            build = ["docker", "build", "--tag", image, "--file", str(dockerfile), "."]
            _run(build, "no image was built", cwd=CHECKOUT)
            _run(["kind", "load", "docker-image", image, "--name", KIND_CLUSTER], "the image is not in the cluster")


def _has_secret(kubectl: Kubectl, name: str) -> bool:
    listed = kubectl.run(
        "get", "secret", f"--namespace={SYSTEM_NAMESPACE}", "--ignore-not-found", "--output=name", name
    )
    return bool(listed.strip())


def _wait(kubectl: Kubectl, console: Console) -> None:
    for name in NAMESPACES:
        with console.waiting(f"waiting for the Deployments of {name}"):
            try:
                kubectl.run(
                    "wait",
                    "deployments",
                    "--all",
                    f"--namespace={name}",
                    "--for=condition=Available",
                    f"--timeout={_TIMEOUT}",
                )
            except ClusterUnreachable as error:
                pods = kubectl.run("get", "pods", f"--namespace={name}", "--output=wide")
                events = kubectl.run("get", "events", f"--namespace={name}", "--sort-by=.lastTimestamp")
                raise NotAvailable(
                    f"the Deployments of {name} are not available after {_TIMEOUT}",
                    "the cluster runs, but Pilothouse does not answer yet",
                    "read the Pods and events below, then run it again",
                    detail=f"{error.detail}\n{pods}\n" + "\n".join(events.splitlines()[-15:]),
                ) from error
    console.say("Pilothouse is up.")
