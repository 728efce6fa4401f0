"""``python hack/bench NAME``: runs ``hack/bench/NAME.py``, prints its figures as JSON lines, keeps them in RESULTS.md.

A bench is a module with ``run() -> Iterable[results.Figure]``; it measures and exits 0 whether or not a goal is met.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

from results import record

_HERE = Path(__file__).resolve().parent
_NO_BENCH = {"__main__", "results"}


def main() -> int:
    benches = sorted(path.stem for path in _HERE.glob("*.py") if path.stem not in _NO_BENCH)
    if len(sys.argv) != 2 or sys.argv[1] not in benches:
        sys.stderr.write(f"What happened:  there is no bench named {' '.join(sys.argv[1:]) or '(nothing)'}\n")
        sys.stderr.write(
            f"Not done:       nothing was measured\nWhat to do now: make bench BENCH={'|'.join(benches)}\n"
        )
        return 1
    name = sys.argv[1]
    try:
        figures = []
        for figure in importlib.import_module(name).run():
            print(figure.line(name), flush=True)
            figures.append(figure)
    except Exception as error:
        # An error of the local cluster is already three sentences for a person; anything else keeps its trace.
        if type(error).__module__ != "pilothouse_local.errors":
            raise
        sys.stderr.write(f"{error}\n")
        return 1
    if not os.environ.get("BENCH_PARTS"):  # a part of a bench is no result
        record(name, figures)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
