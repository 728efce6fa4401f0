"""Write generated files, or with ``--check`` say how the committed ones differ."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def write_or_check(files: Mapping[str, str], description: str) -> int:
    """Bring ``files`` (path from the root → content) up to date; exit code 1 where ``--check`` finds a difference."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 with a diff where a file differs")
    check = parser.parse_args().check
    stale = False
    for name, content in files.items():
        path = ROOT / name
        before = path.read_text() if path.exists() else ""
        if before == content:
            continue
        if check:
            stale = True
            sys.stdout.writelines(
                difflib.unified_diff(
                    before.splitlines(keepends=True), content.splitlines(keepends=True), name, f"{name} (generated)"
                )
            )
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
            print(f"wrote {name}")
    if stale:
        print("generated files are out of date: run `make generate` and commit the result", file=sys.stderr)
    return int(stale)
