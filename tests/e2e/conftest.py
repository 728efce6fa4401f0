"""The whole stack for the end-to-end tests, with the demo's tenant in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pilothouse_testing.cluster import LocalCluster, local_cluster


@pytest.fixture(scope="session")
def local_stack() -> Iterator[LocalCluster]:
    """Everything that ``make up`` starts, available, in a state folder of its own."""
    with local_cluster(only_core=False) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def demonstrated(local_stack: LocalCluster) -> tuple[LocalCluster, str]:
    """The stack after one demo, and what the demo said; the tenant acme is Ready."""
    return local_stack, local_stack.must("demo")
