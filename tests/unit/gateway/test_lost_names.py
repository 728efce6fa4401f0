"""Whom a run names as lost, when several workers have died under it."""

from __future__ import annotations

from pilothouse_dataplane.gateway.takeover import HELD_WAIT, Takeover
from pilothouse_dataplane.gateway.workers import Worker

W = [Worker("acme", "acme", f"w{n}", f"u{n}", "10.0.0.1", "r1", True) for n in range(4)]


def test_the_worker_that_was_heard_is_named_first_and_one_that_died_unheard_in_turn() -> None:
    chase = Takeover(10, 10, 0)
    assert (chase.attempt, chase.lost_worker) == (1, "")
    chase.lost(W[0], heard=True, now=1)
    assert (chase.attempt, chase.lost_worker, chase.patience) == (2, "w0", 11)
    chase.lost(W[1], heard=False, now=2)
    assert (chase.attempt, chase.lost_worker) == (3, "w0")
    assert chase.held(W[2], 4)
    assert (chase.attempt, chase.lost_worker, chase.elsewhere) == (3, "w1", {"u2"})
    assert chase.held(W[3], 6)
    assert chase.lost_worker == "w0"
    assert not chase.held(W[3], 2 + HELD_WAIT)
    chase.lost(W[2], heard=True, now=7)
    assert (chase.lost_worker, chase.gone) == ("w2", W[2])
