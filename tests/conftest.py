"""Real servers for the tests that want them, started once a session in state folders of their own.

Unit tests ask for none of these fixtures, so nothing starts for them; the import waits for the same reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pilothouse_testing.cluster import LocalCluster


@pytest.fixture(scope="session")
def core_cluster() -> Iterator[LocalCluster]:
    """Kubernetes API with the kinds, Valkey, PostgreSQL and the node; no operator, no gateway."""
    from pilothouse_testing.cluster import local_cluster

    with local_cluster(only_core=True) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def kubeconfig(core_cluster: LocalCluster) -> Path:
    """An administrator's kubeconfig of ``core_cluster``."""
    return core_cluster.kubeconfig


@pytest.fixture(scope="session")
def local_stack() -> Iterator[LocalCluster]:
    """Everything that ``make up`` starts, available."""
    from pilothouse_testing.cluster import local_cluster

    with local_cluster(only_core=False) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def demonstrated(local_stack: LocalCluster) -> tuple[LocalCluster, str]:
    """The stack after one demo, and what the demo said; the tenant acme is Ready."""
    return local_stack, local_stack.must("demo")
