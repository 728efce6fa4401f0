"""How much each feature says, fitted on labelled requests: ``python hack/bench/models_parts/fit.py`` prints this table.

Two logistic regressions (L2 penalty 1, Newton's method) on the tuning requests of ``hack/bench/data/routing``. What is
of the run's state does not vary there; its weights are set by hand: each further round, write and failed call makes it
likelier that a request is harder than it sounded.
"""

from __future__ import annotations

from pilothouse_dataplane.core.routing_features import NAMES

POWER_THRESHOLD = 0.20
"""From here on the power tier answers. Cross-validated on the tuning half this misses none and sends 2.5% of all up."""
MORE_THRESHOLD = 0.25
"""From here on at least the mid tier answers."""

POWER_BIAS, MORE_BIAS = -4.24, -2.93
_TABLE: tuple[tuple[str, float, float], ...] = (
    ("words", 0.44, 1.83),
    ("many_words", -0.11, -0.90),
    ("clauses", 0.07, 0.66),
    ("systems", 0.88, -0.18),
    ("writes", 0.02, 2.68),
    ("many_writes", 0.38, 0.28),
    ("judges", 1.42, 1.17),
    ("opinions", 1.80, 1.03),
    ("makes", 2.18, 1.79),
    ("digests", 0.81, 2.65),
    ("scope", 0.61, 0.20),
    ("conditions", 0.17, -0.10),
    ("we", 0.82, 0.68),
    ("degrees", 1.26, 1.13),
    ("matters", 1.16, 0.76),
    ("spans", 0.35, -0.24),
    ("bounds", 0.33, 0.10),
    ("open_ended", 2.96, 2.33),
    ("complaint", -0.30, 2.94),
    ("plurals", 2.10, 1.36),
    ("identifiers", -2.22, 0.99),
    ("bulk", 0.92, 0.28),
    ("conditional_write", 0.37, 0.36),
    ("many_asks", -0.50, 1.05),
    ("plain_question", 0.01, -1.93),
    ("plain_read", -1.14, -1.38),
    ("plain_write", -0.99, 2.29),
    ("fragment", -1.52, -0.79),
    ("reply", -0.12, -1.21),
    ("other_form", 2.79, 1.62),
    ("follow_up", -0.26, -0.00),
    ("long_text", -0.01, 0.43),
    ("rounds", 0.80, 0.80),
    ("run_writes", 0.40, 0.40),
    ("failed_calls", 1.00, 1.00),
)
"""Feature, its weight for “needs power”, its weight for “needs more than fast”."""

POWER_WEIGHTS = tuple(power for _, power, _ in _TABLE)
MORE_WEIGHTS = tuple(more for _, _, more in _TABLE)
if tuple(name for name, _, _ in _TABLE) != NAMES:
    raise ImportError("the table of weights doesn't go with the features: fit it anew")
