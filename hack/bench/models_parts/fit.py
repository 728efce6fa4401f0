"""Fits the router's weights: ``python hack/bench/models_parts/fit.py`` prints the table of ``routing_weights.py``.

Two logistic regressions with an L2 penalty, by Newton's method from zero: does a request need the power tier, and does
it need more than the fast one. The thresholds are chosen from ten-fold cross-validation within the tuning requests.
What these don't vary (the state of the run) keeps the weights that were set by hand. Nothing here reads the held-out
half. ``-v`` shows the hardest ones.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from models_parts.routing_set import Labelled, labelled, more_tuning
from pilothouse_dataplane.core.routing_features import NAMES, features

_BY_HAND = {"rounds": 0.8, "run_writes": 0.4, "failed_calls": 1.0}
_STEPS, _PENALTY = 8, 1.0
_FOLDS = 10

Row = tuple[float, ...]
Model = tuple[float, list[float]]
"""Bias and weights."""


def fit(rows: Sequence[Row], wanted: Sequence[bool]) -> Model:
    """Weights that tell the wanted rows from the others: Newton's method, the bias without penalty."""
    size = len(rows[0]) + 1
    weights = [0.0] * size
    for _ in range(_STEPS):
        slope = [_PENALTY * weight if index else 0.0 for index, weight in enumerate(weights)]
        curve = [[_PENALTY if index == other and index else 0.0 for other in range(size)] for index in range(size)]
        for row, yes in zip(rows, wanted, strict=True):
            guess = probability((weights[0], weights[1:]), row)
            set_ones = [(0, 1.0), *((index + 1, value) for index, value in enumerate(row) if value)]
            for index, value in set_ones:
                slope[index] += (guess - yes) * value
                for other, another in set_ones:
                    curve[index][other] += guess * (1 - guess) * value * another
        for index in range(1, size):
            curve[index][index] += 1e-9
        weights = [weight - step for weight, step in zip(weights, solve(curve, slope), strict=True)]
    return weights[0], weights[1:]


def solve(matrix: Sequence[Sequence[float]], right: Sequence[float]) -> list[float]:
    """The vector that the matrix takes to ``right`` (Gauss, with pivots)."""
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    size = len(rows)
    for at in range(size):
        best = max(range(at, size), key=lambda index: abs(rows[index][at]))
        rows[at], rows[best] = rows[best], rows[at]
        for index in range(size):
            if index != at and rows[index][at]:
                factor = rows[index][at] / rows[at][at]
                rows[index] = [value - factor * other for value, other in zip(rows[index], rows[at], strict=True)]
    return [row[-1] / row[index] for index, row in enumerate(rows)]


def probability(model: Model, row: Row) -> float:
    """0..1."""
    total = model[0] + sum(w * value for w, value in zip(model[1], row, strict=True))
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, total))))


def out_of_fold(ones: Sequence[Labelled], rows: Sequence[Row], wanted: Callable[[Labelled], bool]) -> list[float]:
    """Each request's probability by a model that was fitted without its fold."""
    found = [0.0] * len(ones)
    for fold in range(_FOLDS):
        kept = [index for index in range(len(ones)) if index % _FOLDS != fold]
        model = fit([rows[index] for index in kept], [wanted(ones[index]) for index in kept])
        for index in range(fold, len(ones), _FOLDS):
            found[index] = probability(model, rows[index])
    return found


def main() -> None:
    """Print the table, and what cross-validation says of the thresholds."""
    day = labelled("tuning")
    ones = [*day, *more_tuning()]
    rows = [features(one.situation).values for one in ones]
    models = {}
    for name, wanted in (("POWER", lambda one: one.tier == "power"), ("MORE", lambda one: one.tier != "fast")):
        guesses = out_of_fold(ones, rows, wanted)
        print(f"# {name}: threshold → missed, raised of {len(day)} | of {len(ones) - len(day)} harder", file=sys.stderr)
        pairs = list(zip(ones, guesses, strict=True))
        for threshold in (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5):
            told = ""
            for part in (pairs[: len(day)], pairs[len(day) :]):
                missed = sum(wanted(one) and guess < threshold for one, guess in part)
                raised = sum(not wanted(one) and guess >= threshold for one, guess in part)
                told += f"  {missed:3} {raised:3}  |"
            print(f"#   {threshold:.2f}{told}", file=sys.stderr)
        if "-v" in sys.argv:
            for guess, one in sorted(((g, o) for o, g in pairs if wanted(o)), key=lambda p: p[0])[:28]:
                print(f"   low  {guess:.2f} {one.tier} {one.situation.text[:130]}", file=sys.stderr)
            for guess, one in sorted(((g, o) for o, g in pairs if not wanted(o)), key=lambda p: -p[0])[:28]:
                print(f"   high {guess:.2f} {one.tier} {one.situation.text[:130]}", file=sys.stderr)
        models[name] = fit(rows, [wanted(one) for one in ones])
    print(f"POWER_BIAS, MORE_BIAS = {models['POWER'][0]:.2f}, {models['MORE'][0]:.2f}")
    print("_TABLE: tuple[tuple[str, float, float], ...] = (")
    for index, name in enumerate(NAMES):
        pair = [_BY_HAND.get(name, models[key][1][index]) for key in ("POWER", "MORE")]
        print(f'    ("{name}", {pair[0]:.2f}, {pair[1]:.2f}),')
    print(")")


if __name__ == "__main__":
    main()
