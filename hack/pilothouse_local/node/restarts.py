"""When an ended container is started again, and how long that waits (pure).

Kubelet's rule with a local cluster's patience: the first restart is immediate, then 1 s, doubling up to 60 s; a run of
two minutes forgets."""

from __future__ import annotations

from dataclasses import dataclass

FIRST_SECONDS = 1.0
LONGEST_SECONDS = 60.0
FORGIVEN_AFTER_SECONDS = 2 * LONGEST_SECONDS


def should_restart(policy: str, exit_code: int) -> bool:
    """Whether a container that ended with `exit_code` runs again under the Pod's restartPolicy."""
    if policy == "Always":
        return True
    return policy == "OnFailure" and exit_code != 0


@dataclass
class Backoff:
    """Delays between restarts of one container, in seconds."""

    failures: int = 0

    def next_delay(self, ran_seconds: float) -> float:
        """How long to wait before the next start, after a run of `ran_seconds`."""
        if ran_seconds >= FORGIVEN_AFTER_SECONDS:
            self.failures = 0
        delay = 0.0 if self.failures == 0 else min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** (self.failures - 1))
        self.failures = min(self.failures + 1, 16)
        return delay
