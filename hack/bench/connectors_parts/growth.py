"""What 20 connectors with 400 tools cost a worker: its start, and its memory.

Each measurement is a process of its own. It has imported all that a worker imports, then reads its configuration and
builds and starts what a worker makes of it (``worker.runtime.build_runtime``), without stores or systems to speak to.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from results import Figure

from connectors_parts import catalogs

ROUNDS = 5
_PROBE = Path(__file__).resolve().parent / "worker_probe.py"


def measure() -> Iterator[Figure]:
    """``memory_400_tools`` and ``start_400_tools``."""
    names = [each.name for each in catalogs.connectors()]
    few, many = _rounds(["jira"]), _rounds(names)
    tools = int(many[0]["tools"])

    def middle(found: list[dict[str, float]], figure: str) -> float:
        return statistics.median(one[figure] for one in found)

    def growth(figure: str) -> float:
        return (middle(many, figure) - middle(few, figure)) / 1024

    compared = f"jira alone ({int(few[0]['tools'])} tools) with {len(names)} connectors ({tools} tools)"
    yield Figure(
        "memory_400_tools",
        growth("used"),
        "MB",
        {
            "compared": compared,
            "after": "all labelled requests were chosen for and each tool was called once without a linked account "
            "(its schema is compiled)",
            "worker with 1 and with all": f"{middle(few, 'used') / 1024:.1f} and {middle(many, 'used') / 1024:.1f} MB",
            "growth right after the start": f"{growth('started'):.1f} MB",
            "measure": f"PSS, median of {ROUNDS} processes each",
        },
    )
    yield Figure(
        "start_400_tools",
        middle(many, "seconds"),
        "s",
        {
            "tools": tools,
            "from, to": "the mounted files to a started toolset: configuration, connectors' modules, documents, "
            "wrappers, credentials, the index of tools",
            "with jira alone": f"{middle(few, 'seconds'):.3f} s",
            "all rounds": ", ".join(f"{one['seconds']:.3f}" for one in many),
            "measure": f"wall clock, median of {ROUNDS} fresh processes; CPU {middle(many, 'cpu'):.3f} s",
        },
    )


def _rounds(names: list[str]) -> list[dict[str, float]]:
    with tempfile.TemporaryDirectory(prefix="pilothouse-bench-") as folder:
        root = Path(folder)
        held = {
            "config.json": catalogs.worker_config(names).model_dump_json().encode(),
            "redis-url": b"redis://127.0.0.1:9/0",
            "database-url": b"postgresql://nobody@127.0.0.1:9/none",
            **{f"secret.{name}.{key}": b"bench" for name in names for key in ("client-id", "client-secret")},
        }
        if len(names) > 1:
            held |= catalogs.files()
        for name, content in held.items():
            (root / name).write_bytes(content)
        command = [sys.executable, str(_PROBE), str(root), str(catalogs.DATA / "requests.jsonl")]
        found = []
        for _ in range(ROUNDS):
            answer = subprocess.run(command, check=True, capture_output=True, text=True, env=dict(os.environ))
            found.append(json.loads(answer.stdout.splitlines()[-1]))
        return found
