"""Which worker takes a run: a pure choice.

A session stays with its worker while that one is ready. Else it goes to the least busy worker, of the session's own
revision where there still is one (a conversation ends on the revision it began on). Ties are dealt by rendezvous
hashing, so that every gateway deals a session alike and sessions spread evenly.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pilothouse_dataplane.gateway.workers import Worker


@dataclass(frozen=True, slots=True)
class Affinity:
    """Where a session was last served: Pod name and revision."""

    worker: str
    revision: str

    def encode(self) -> bytes:
        """Value of the Redis key; neither part can hold a space (both are label values or object names)."""
        return f"{self.worker} {self.revision}".encode()

    @classmethod
    def decode(cls, value: bytes) -> Affinity:
        """Inverse of :meth:`encode`; tolerates a value without revision."""
        worker, _, revision = value.decode(errors="replace").partition(" ")
        return cls(worker, revision)


def _score(session_id: str, worker: Worker) -> bytes:
    return hashlib.blake2b(f"{session_id}\0{worker.uid}".encode(), digest_size=8).digest()


def choose(
    session_id: str,
    ready: Sequence[Worker],
    in_flight: Mapping[str, int],
    affinity: Affinity | None,
    avoid: frozenset[str] = frozenset(),
) -> Worker | None:
    """The worker for this session's next run, or None where none is ready.

    ``in_flight``: runs by Pod uid; ``avoid``: uids that were just found dead and may still look ready.
    """
    usable = [w for w in ready if w.ready and w.uid not in avoid]
    if affinity is not None:
        for worker in usable:
            if worker.name == affinity.worker:
                return worker
        usable = [w for w in usable if w.revision == affinity.revision] or usable
    return min(usable, key=lambda w: (in_flight.get(w.uid, 0), _score(session_id, w)), default=None)
