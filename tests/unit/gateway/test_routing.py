"""The pure choice of a worker and the pure table of workers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pilothouse_dataplane.gateway.routing import Affinity, choose
from pilothouse_dataplane.gateway.workers import Worker as W
from pilothouse_dataplane.gateway.workers import WorkerTable, tenant_from_object
from pilothouse_testing.gateway_fakes import pod, tenant_object

workers = st.lists(
    st.builds(
        lambda n, ready, rev: W("t", "t", f"w{n}", f"u{n}", "10.0.0.1", f"r{rev}", ready),
        st.integers(0, 30),
        st.booleans(),
        st.integers(1, 2),
    ),
    unique_by=lambda w: w.name,
)
loads = st.dictionaries(st.integers(0, 30).map(lambda n: f"u{n}"), st.integers(0, 9))


@given(workers, loads, loads, st.text(max_size=8))
def test_a_session_stays_while_its_worker_is_ready(
    some: list[W], load: dict[str, int], later: dict[str, int], sid: str
) -> None:
    first = choose(sid, some, load, None)
    assert (first is None) == (not any(w.ready for w in some))
    if first is not None:
        kept = Affinity.decode(Affinity(first.name, first.revision).encode())
        assert choose(sid, some, later, kept) == first
        moved = choose(sid, some, later, kept, frozenset({first.uid}))
        left = [w for w in some if w.ready and w != first]
        assert (moved is None) == (not left)
        if moved is not None:
            same = [w for w in left if w.revision == first.revision]
            assert moved in (same or left)


@given(workers, loads, st.text(max_size=8))
def test_a_new_session_goes_to_a_least_busy_worker_whatever_the_order(
    some: list[W], load: dict[str, int], sid: str
) -> None:
    chosen = choose(sid, some, load, None)
    assert chosen == choose(sid, list(reversed(some)), load, None)
    if chosen is not None:
        assert load.get(chosen.uid, 0) == min(load.get(w.uid, 0) for w in some if w.ready)


def test_sessions_spread_over_idle_workers() -> None:
    some = [W("t", "t", f"w{n}", f"u{n}", "10.0.0.1", "r1", True) for n in range(4)]
    counts = [0] * 4
    for n in range(1_000):
        chosen = choose(f"session-{n}", some, {}, None)
        assert chosen is not None
        counts[some.index(chosen)] += 1
    assert min(counts) > 180


def test_only_pods_in_the_tenants_namespace_are_trusted() -> None:
    table = WorkerTable()
    table.put_pod(pod("acme", "w1", "10.0.0.1"))
    assert table.ready("acme") == []  # no Tenant yet
    table.put_tenant(tenant_from_object(tenant_object("acme")))
    table.put_pod(pod("acme", "thief", "10.0.0.9", namespace="evil"))
    assert [w.name for w in table.ready("acme")] == ["w1"]
    table.put_tenant(tenant_from_object(tenant_object("acme", "evil", created="2026-02-01T00:00:00Z")))
    assert [w.name for w in table.ready("acme")] == ["w1"]  # the older Tenant owns the name
    table.drop_tenant("acme", "acme")
    assert [w.name for w in table.ready("acme")] == ["thief"]


def test_pods_that_cannot_take_runs() -> None:
    table = WorkerTable()
    table.put_tenant(tenant_from_object(tenant_object("acme")))
    table.put_pod(pod("acme", "unready", "10.0.0.1", ready=False))
    table.put_pod(pod("acme", "leaving", "10.0.0.2", deletionTimestamp="2026-01-01T00:00:00Z"))
    table.put_pod(pod("acme", "starting", ""))
    other = pod("acme", "web", "10.0.0.4")
    other["metadata"]["labels"].pop("app.kubernetes.io/component")
    table.put_pod(other)
    assert table.ready("acme") == []
    assert sorted(w.name for w in table.known()) == ["leaving", "unready"]
    assert table.known()[0].address == "10.0.0.1:9090"
