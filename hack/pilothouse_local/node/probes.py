"""What a probe's answers mean (pure).

A probe is *unknown* until a threshold is first reached, then healthy or unhealthy::

    unknown ──successes ≥ successThreshold──► healthy ──failures ≥ failureThreshold──► unhealthy ──successes──► healthy
       └───────────failures ≥ failureThreshold──────────────────────────────────────────►┘

Until its first success a readiness or startup probe is asked every `EAGER_SECONDS`, so that a Pod is ready as soon as
its process is; failures still count only once a period, so thresholds keep the meaning that the Pod's author gave them.
"""

from __future__ import annotations

from dataclasses import dataclass

from .model import Obj

EAGER_SECONDS = 0.3


@dataclass(frozen=True)
class ProbeSettings:
    """A probe's numbers; durations in seconds."""

    initial_delay: float
    period: float
    timeout: float
    success_threshold: int
    failure_threshold: int

    @classmethod
    def of(cls, probe: Obj) -> ProbeSettings:
        """From the API's fields, with the API's defaults."""
        return cls(
            initial_delay=float(probe.get("initialDelaySeconds") or 0),
            period=float(probe.get("periodSeconds") or 10),
            timeout=float(probe.get("timeoutSeconds") or 1),
            success_threshold=int(probe.get("successThreshold") or 1),
            failure_threshold=int(probe.get("failureThreshold") or 3),
        )


class ProbeState:
    """Counts answers; `healthy` is None until a threshold has been reached."""

    def __init__(self, settings: ProbeSettings) -> None:
        self.settings = settings
        self.healthy: bool | None = None
        self._successes = 0
        self._failures = 0
        self._counted_at: float | None = None

    def observe(self, success: bool, now: float) -> bool:
        """Take one answer at `now` (seconds, monotonic); True where `healthy` changed."""
        before = self.healthy
        if success:
            self._successes += 1
            self._failures = 0
            if self._successes >= self.settings.success_threshold:
                self.healthy = True
        elif self._counted_at is None or now - self._counted_at >= self.settings.period * 0.9:
            self._counted_at = now
            self._successes = 0
            self._failures += 1
            if self._failures >= self.settings.failure_threshold:
                self.healthy = False
        return self.healthy != before

    def next_wait(self, eager: bool) -> float:
        """Seconds until the next question; `eager` for probes that gate readiness."""
        if eager and self.healthy is not True:
            return min(EAGER_SECONDS, self.settings.period)
        return self.settings.period
