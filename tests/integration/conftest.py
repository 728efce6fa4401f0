"""Real servers for the integration tests, started once a session in state folders of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pilothouse_testing.cluster import LocalCluster, local_cluster


@pytest.fixture(scope="session")
def core_cluster() -> Iterator[LocalCluster]:
    """Kubernetes API with the kinds, Valkey, PostgreSQL and the node; no operator, no gateway."""
    with local_cluster(only_core=True) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def kubeconfig(core_cluster: LocalCluster) -> Path:
    """An administrator's kubeconfig of ``core_cluster``."""
    return core_cluster.kubeconfig


@pytest.fixture(scope="session")
def local_stack() -> Iterator[LocalCluster]:
    """Everything that ``make up`` starts, available."""
    with local_cluster(only_core=False) as cluster:
        yield cluster
