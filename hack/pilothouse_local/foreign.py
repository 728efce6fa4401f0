"""``up`` into a cluster that is not ours: kind (made when missing), or the current kubeconfig context.

Same manifests (``charts/overlays/kind``); Valkey and PostgreSQL are added where no Secret names stores, and an OpenBao
in a namespace of its own, for the demo's tenant. What a person put into a Secret stays.
"""

from __future__ import annotations

import base64
import json
import secrets
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from pilothouse_api.names import DEV_TOKEN_SECRET, SYSTEM_NAMESPACE
from pilothouse_local import deploy, in_cluster, in_cluster_vault
from pilothouse_local.api import Object
from pilothouse_local.console import Console
from pilothouse_local.deploy import CHECKOUT, NAMESPACES, Kubectl
from pilothouse_local.errors import BadSettings, ClusterUnreachable, NotAvailable

KIND_CLUSTER = "pilothouse"
_TIMEOUT = "300s"
_MIGRATE = "app.kubernetes.io/component=migrate"


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
    _ensure_stores(kubectl)
    _ensure_vault(kubectl)
    if not _secret_data(kubectl, DEV_TOKEN_SECRET):
        deploy.apply_objects(kubectl, [deploy.secret(DEV_TOKEN_SECRET, {"signing-key": secrets.token_urlsafe(48)})])
    with console.waiting("applying charts/overlays/kind"):
        # An earlier Job would stay as it is: code that changed under the same image tag has to migrate, too.
        kubectl.run("delete", "jobs", f"--namespace={SYSTEM_NAMESPACE}", f"--selector={_MIGRATE}", "--wait")
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


def _ensure_stores(kubectl: Kubectl) -> None:
    """The Secret with all that the chart takes from it: a person's own, or ours with the stores that it names."""
    data = _secret_data(kubectl, deploy.STORES_SECRET)
    lacking = [key for key in in_cluster.NEEDED_KEYS if not data.get(key)]
    if not lacking:
        return
    if data and not in_cluster.made_here(data):
        raise BadSettings(
            f"the Secret {SYSTEM_NAMESPACE}/{deploy.STORES_SECRET} lacks {', '.join(lacking)}",
            "Pilothouse was not installed: it would not find its stores",
            "add these keys (charts/pilothouse/values.yaml says what each one holds), or delete the Secret to get "
            "stores for a demonstration",
        )
    deploy.apply_objects(kubectl, in_cluster.stores(data))


def _ensure_vault(kubectl: Kubectl) -> None:
    # Another key would open nothing of what is stored.
    kept = _secret_data(kubectl, in_cluster_vault.SEAL_SECRET, in_cluster_vault.NAMESPACE, decoded=False)
    key = kept.get(in_cluster_vault.SEAL_KEY) or in_cluster_vault.seal_key()
    deploy.apply_objects(kubectl, in_cluster_vault.objects(key))


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


def _secret_data(
    kubectl: Kubectl, name: str, namespace: str = SYSTEM_NAMESPACE, *, decoded: bool = True
) -> dict[str, str]:
    """Empty where there is no such Secret; as base64 unless ``decoded``."""
    said = kubectl.run("get", "secret", f"--namespace={namespace}", "--ignore-not-found", "--output=json", name)
    data: dict[str, str] = (json.loads(said).get("data") or {}) if said.strip() else {}
    return {key: base64.b64decode(value).decode() for key, value in data.items()} if decoded else data


def _wait(kubectl: Kubectl, console: Console) -> None:
    with console.waiting("waiting for the migration of the database's schema"):
        _until(kubectl, SYSTEM_NAMESPACE, "Complete", "jobs", f"--selector={_MIGRATE}")
    for name in (*NAMESPACES, in_cluster_vault.NAMESPACE):
        with console.waiting(f"waiting for the Deployments of {name}"):
            _until(kubectl, name, "Available", "deployments", "--all")
    console.say("Pilothouse is up.")


def _until(kubectl: Kubectl, namespace: str, condition: str, kind: str, chosen: str) -> None:
    within = f"--namespace={namespace}"
    try:
        kubectl.run("wait", kind, chosen, within, f"--for=condition={condition}", f"--timeout={_TIMEOUT}")
    except ClusterUnreachable as error:
        pods = kubectl.run("get", "pods", within, "--output=wide")
        events = kubectl.run("get", "events", within, "--sort-by=.lastTimestamp")
        raise NotAvailable(
            f"the {kind} of {namespace} are not {condition.lower()} after {_TIMEOUT}",
            "the cluster runs, but Pilothouse does not answer yet",
            "read the Pods and events below, then run it again",
            detail=f"{error.detail}\n{pods}\n" + "\n".join(events.splitlines()[-15:]),
        ) from error
