"""An instance of the local cluster for tests: a state folder of its own, beside whatever else runs on the machine."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pilothouse_local import instance as instances
from pilothouse_local.cluster import View, view
from pilothouse_local.instance import Instance, Settings

_COMMAND = "import sys; from pilothouse_local import cli; getattr(cli, sys.argv.pop(1))()"


@dataclass(frozen=True)
class LocalCluster:
    """Drives one instance through its commands, as a person does."""

    instance: Instance

    @property
    def kubeconfig(self) -> Path:
        return self.instance.kubeconfig

    def settings(self) -> Settings:
        """Ports and passwords; only after the first ``up``."""
        settings = instances.load(self.instance)
        if settings is None:
            raise AssertionError("the instance was never started")
        return settings

    def view(self) -> View:
        return view(self.instance)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One command (``up``, ``down``, ``status``, ``logs``) with this instance's state folder."""
        env = {**os.environ, "PILOTHOUSE_STATE": str(self.instance.root)}
        env.pop("CLUSTER", None)
        return subprocess.run(
            [sys.executable, "-c", _COMMAND, *arguments],
            env=env,
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )

    def must(self, *arguments: str) -> str:
        """As ``run``; its output, or an assertion with what it said."""
        ran = self.run(*arguments)
        if ran.returncode != 0:
            raise AssertionError(f"{' '.join(arguments)} ended with {ran.returncode}:\n{ran.stdout}\n{ran.stderr}")
        return ran.stdout


@contextlib.contextmanager
def local_cluster(*, only_core: bool) -> Iterator[LocalCluster]:
    """A running instance in a temporary folder; stopped and removed afterwards.

    ``only_core`` starts API, stores and node with the kinds; else Pilothouse is installed and available.
    """
    # Not pytest's tmp_path: PostgreSQL runs as another user when the tests run as root, and must pass through.
    root = Path(tempfile.mkdtemp(prefix="pilothouse-test-"))
    cluster = LocalCluster(Instance(root))
    try:
        cluster.must("up", *(["--only-core"] if only_core else []))
        yield cluster
    finally:
        cluster.run("down")
        shutil.rmtree(root, ignore_errors=True)
