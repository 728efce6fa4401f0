"""``kill -9`` of workers in mid-run, as ``make bench BENCH=engine`` does it a thousand times, shortened.

Real workers, gateway code, PostgreSQL, Valkey and the stand-ins; Jira's state says what was written.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
KILLS = 35


@pytest.fixture(scope="module")
def figures() -> dict[str, dict[str, Any]]:
    """The crash part's figures by name."""
    env = {**os.environ, "BENCH_PARTS": "crash", "BENCH_KILLS": str(KILLS)}
    ran = subprocess.run(
        [sys.executable, str(ROOT / "hack" / "bench"), "engine"],
        env=env, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
    return {figure["figure"]: figure for figure in found}


def test_no_write_happens_twice_and_none_is_told_that_did_not(figures: dict[str, dict[str, Any]]) -> None:
    doubled = figures["duplicate_writes_in_1000_kills"]
    assert doubled["value"] == 0, doubled
    assert doubled["detail"]["writes told as done that are not there"] == 0, doubled
    assert doubled["detail"]["runs"] >= KILLS
    # a drill in which nothing was written, or nothing taken over, would prove nothing
    assert doubled["detail"]["issues"] >= KILLS
    assert figures["resumed_p95_after_kill"]["detail"]["takeovers"] >= KILLS // 2


def test_every_run_has_an_outcome(figures: dict[str, dict[str, Any]]) -> None:
    without = figures["runs_without_outcome_in_1000_kills"]
    assert without["value"] == 0, without
