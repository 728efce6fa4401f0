"""The Kubernetes programs of the local cluster: found, downloaded or built, in this order.

1. ``KUBEBUILDER_ASSETS``, where it holds all three.
2. The cache, ``$XDG_CACHE_HOME/pilothouse/kubernetes-<version>`` (``~/.cache`` by default).
3. The official download, its SHA-256 checked (``download.py``).
4. Built with Go from the module proxy (``gobuild.py``).

Each way is said aloud when it is tried and when it fails. One process at a time fills the cache: a second one waits.
Standard library only: ``python -m pilothouse_local.binaries`` runs beside the set-up of the Python environment.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from pilothouse_local.console import Console
from pilothouse_local.errors import BinariesUnavailable, LocalClusterError, writing

KUBERNETES_VERSION = "v1.37.2"
ETCD_VERSION = "v3.7.3"
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager")

_NOT_DONE = "the local cluster was not started, since its Kubernetes programs are missing"

Maker = Callable[[Path, tuple[str, ...], Console], None]
"""Puts the named programs into the folder, each one atomically, or raises ``LocalClusterError``."""


def cache_root(env: Mapping[str, str] | None = None) -> Path:
    """Folder of everything that can be fetched or built again."""
    env = os.environ if env is None else env
    base = env.get("XDG_CACHE_HOME") or str(Path(env.get("HOME") or Path.home()) / ".cache")
    return Path(base) / "pilothouse"


def cache_folder(env: Mapping[str, str] | None = None) -> Path:
    """Folder of this version's programs."""
    return cache_root(env) / f"kubernetes-{KUBERNETES_VERSION}"


def machine() -> str:
    """The architecture as Go names it; raises ``BinariesUnavailable`` where the local cluster does not run."""
    name = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}.get(platform.machine().lower())
    if sys.platform != "linux" or name is None:
        raise BinariesUnavailable(
            f"the local cluster runs on Linux (x86-64 or arm64), and this is {sys.platform} on {platform.machine()}",
            _NOT_DONE,
            "install Docker and kind and run it with CLUSTER=kind, or point CLUSTER=current at a cluster of yours",
        )
    return name


def missing(folder: Path) -> tuple[str, ...]:
    """The programs that ``folder`` lacks (absent, empty or not executable)."""

    def usable(path: Path) -> bool:
        return path.is_file() and path.stat().st_size > 0 and os.access(path, os.X_OK)

    return tuple(program for program in PROGRAMS if not usable(folder / program))


def _makers() -> list[tuple[str, Maker]]:
    # Imported late: where the cache is warm neither is needed.
    from pilothouse_local import download, gobuild

    return [("the official download", download.make), ("a build with Go", gobuild.make)]


def obtain(
    console: Console, env: Mapping[str, str] | None = None, makers: list[tuple[str, Maker]] | None = None
) -> Path:
    """A folder that holds all of ``PROGRAMS``.

    Raises ``BinariesUnavailable`` with every way's reason when none worked (the caller must act).
    """
    env = os.environ if env is None else env
    machine()
    assets = env.get("KUBEBUILDER_ASSETS")
    if assets:
        absent = missing(Path(assets))
        if not absent:
            console.say(f"Kubernetes programs: from KUBEBUILDER_ASSETS ({assets})")
            return Path(assets)
        console.say(f"KUBEBUILDER_ASSETS ({assets}) lacks {', '.join(absent)}: looking elsewhere")
    folder = cache_folder(env)
    if not missing(folder):
        return folder
    with writing(folder, _NOT_DONE):
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder, console):
            return _fill(folder, console, makers if makers is not None else _makers())


def _fill(folder: Path, console: Console, makers: list[tuple[str, Maker]]) -> Path:
    reasons: list[str] = []
    for name, make in makers:
        absent = missing(folder)
        if not absent:
            break
        console.say(f"Kubernetes programs: {', '.join(absent)} not in the cache ({folder}); trying {name}")
        try:
            make(folder, absent, console)
        except LocalClusterError as error:
            console.say(f"  {name} did not work: {error.happened}")
            reasons.append(f"{name}: {error.happened}" + (f"\n{error.detail}" if error.detail else ""))
    absent = missing(folder)
    if absent:
        raise BinariesUnavailable(
            f"{', '.join(absent)} can be neither found, downloaded nor built",
            _NOT_DONE,
            "give this machine a way to dl.k8s.io and github.com, or to PyPI and a Go module proxy, "
            f"or set KUBEBUILDER_ASSETS to a folder with the programs ({KUBERNETES_VERSION}, etcd {ETCD_VERSION})",
            detail="\n".join(reasons),
        )
    return folder


@contextlib.contextmanager
def _alone(folder: Path, console: Console) -> Iterator[None]:
    progress = folder / ".progress"
    with (folder / ".lock").open("w") as lock:
        told = False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    told = True
                    console.say(
                        "Kubernetes programs: on their way already (make begins with them, in the background). "
                        "Where they can't be downloaded they are built from source: about 11 minutes on two cores, once"
                    )
                said = progress.read_text().strip() if progress.exists() else ""
                console.update(f"  {said or 'waiting for them'}")
                time.sleep(0.5)
        console.mirror = progress
        try:
            yield
        finally:
            console.mirror = None
            progress.unlink(missing_ok=True)


def main() -> int:
    """Fills the cache; exit code 1 and the three-part message when that is impossible."""
    console = Console()
    try:
        console.say(f"Kubernetes programs: {obtain(console)}")
    except LocalClusterError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
