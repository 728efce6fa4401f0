"""How much each feature says, fitted on labelled requests: ``python hack/bench/models_parts/fit.py`` prints this table.

Two logistic regressions (L2 penalty 1, Newton's method) on the tuning requests of ``hack/bench/data/routing``. What is
of the run's state does not vary there; its weights are set by hand: each further round, write and failed call makes it
likelier that a request is harder than it sounded.
"""

from __future__ import annotations

from pilothouse_dataplane.core.routing_features import NAMES

POWER_THRESHOLD = 0.20
"""From here on the power tier answers. Cross-validated on the tuning half this misses none and sends 2% of all up."""
MORE_THRESHOLD = 0.25
"""From here on at least the mid tier answers."""

POWER_BIAS, MORE_BIAS = -3.92, -2.74
_TABLE: tuple[tuple[str, float, float], ...] = (
    ("words", 0.24, 1.75),
    ("many_words", -0.24, -0.71),
    ("clauses", -0.15, 0.90),
    ("systems", 1.19, -0.09),
    ("writes", 0.04, 2.56),
    ("many_writes", 0.20, 0.24),
    ("judges", 1.55, 1.06),
    ("opinions", 1.68, 1.19),
    ("makes", 2.01, 1.73),
    ("digests", 0.28, 2.17),
    ("scope", 0.82, 0.16),
    ("conditions", -0.08, -0.43),
    ("we", 0.89, 0.58),
    ("degrees", 1.10, 0.99),
    ("matters", 0.85, 0.71),
    ("spans", 0.27, -0.30),
    ("bounds", 0.40, 0.10),
    ("open_ended", 2.80, 2.24),
    ("complaint", -0.23, 3.01),
    ("plurals", 1.73, 1.00),
    ("identifiers", -1.74, 0.97),
    ("bulk", 1.32, 0.35),
    ("conditional_write", 0.42, 0.44),
    ("many_asks", -0.68, 0.66),
    ("plain_question", -0.11, -1.99),
    ("plain_read", -1.04, -1.23),
    ("plain_write", -1.15, 2.13),
    ("fragment", -1.73, -0.83),
    ("reply", -0.12, -1.33),
    ("other_form", 2.80, 1.56),
    ("follow_up", -0.28, 0.25),
    ("long_text", -0.59, 0.04),
    ("rounds", 0.80, 0.80),
    ("run_writes", 0.40, 0.40),
    ("failed_calls", 1.00, 1.00),
)
"""Feature, its weight for “needs power”, its weight for “needs more than fast”."""

POWER_WEIGHTS = tuple(power for _, power, _ in _TABLE)
MORE_WEIGHTS = tuple(more for _, _, more in _TABLE)
if tuple(name for name, _, _ in _TABLE) != NAMES:
    raise ImportError("the table of weights doesn't go with the features: fit it anew")
