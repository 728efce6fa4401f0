"""``up`` into a cluster that is not ours: kind (made when missing), or the current kubeconfig context.

Same manifests (``charts/overlays/kind``); that overlay brings its own stores. A signing key that is there stays.
"""

from __future__ import annotations

import secrets
import shutil
import subprocess
from pathlib import Path

import yaml
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
    if kind:
        _ensure_kind(console)
        _load_images(console)
        kubectl = Kubectl(None, f"kind-{KIND_CLUSTER}")
    else:
        kubectl = Kubectl(None)
        console.say(f"Installing into the current context: {kubectl.run('config', 'current-context').strip()}")
    for name in NAMESPACES:
        _apply(kubectl, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    _keep_or_make_signing_key(kubectl)
    deploy.apply_overlay(kubectl, "kind", console)
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


def images(rendered: str) -> list[str]:
    """The images of our own that a rendered overlay runs."""
    found: set[str] = set()
    for document in yaml.safe_load_all(rendered):
        template = ((document or {}).get("spec") or {}).get("template") or {}
        for container in (template.get("spec") or {}).get("containers") or []:
            image = str(container.get("image", ""))
            if image.rsplit("/", 1)[-1].startswith("pilothouse"):
                found.add(image)
    return sorted(found)


def _load_images(console: Console) -> None:
    dockerfile = next(
        (file for file in (CHECKOUT / "Dockerfile", CHECKOUT / "hack" / "Dockerfile") if file.is_file()), None
    )
    if dockerfile is None:
        raise BadSettings(
            "the checkout holds no Dockerfile", "no image was built", "take the repository as a whole and run it again"
        )
    rendered = Kubectl(None).run("kustomize", str(CHECKOUT / "charts" / "overlays" / "kind"))
    for image in images(rendered):
        with console.waiting(f"building {image} and loading it into kind"):
            _run(
                ["docker", "build", "--tag", image, "--file", str(dockerfile), "."], "no image was built", cwd=CHECKOUT
            )
            _run(["kind", "load", "docker-image", image, "--name", KIND_CLUSTER], "the image is not in the cluster")


def _apply(kubectl: Kubectl, body: Object) -> None:
    kubectl.run(
        "apply", "--server-side", "--field-manager=pilothouse-local", "--filename=-", stdin=yaml.safe_dump(body)
    )


def _keep_or_make_signing_key(kubectl: Kubectl) -> None:
    there = kubectl.run(
        "get", "secret", f"--namespace={SYSTEM_NAMESPACE}", "--ignore-not-found", "--output=name", DEV_TOKEN_SECRET
    )
    if not there.strip():
        _apply(kubectl, deploy.secret(DEV_TOKEN_SECRET, {"signing-key": secrets.token_urlsafe(48)}))


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
