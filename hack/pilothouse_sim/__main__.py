"""``python -m pilothouse_sim SYSTEM --listen HOST:PORT [--state DIR]``: serves one stand-in until SIGTERM.

``bench-jira`` and ``bench-models`` are those of the benches: scripted, without state, and cheap.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import os
import sys
from pathlib import Path

from pilothouse_sim.faults import Faults
from pilothouse_sim.serve import parse_listen, serve

FAULTS_ENV = "PILOTHOUSE_SIM_FAULTS"
"""JSON object of ``faults.Faults``' fields that the server starts with."""
WITH_STATE = ("jira", "okta", "servicenow", "salesforce")
"""Systems whose package has an ``app`` with ``make_app(faults=…, state_dir=…)``."""


def main(argv: list[str] | None = None) -> int:
    """Parses the command line and serves; 2 for a bad argument, 0 after SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m pilothouse_sim", description=__doc__)
    parser.add_argument("system", choices=[*WITH_STATE, "models", "bench-jira", "bench-models"])
    parser.add_argument(
        "--listen",
        default=f"{os.environ.get('POD_IP', '127.0.0.1')}:8080",
        help="HOST:PORT (default: $POD_IP:8080; port 0 takes a free one)",
    )
    parser.add_argument("--state", type=Path, help="folder of what the system keeps (default: state in memory only)")
    options = parser.parse_args(argv)
    try:
        host, port = parse_listen(options.listen)
        faults = Faults.from_json(os.environ.get(FAULTS_ENV, ""))
    except ValueError as error:
        print(f"pilothouse_sim: {error}", file=sys.stderr)
        return 2
    # Imported late: each server stays within its 40 MB without the other's code.
    if options.system.startswith("bench-"):
        from pilothouse_sim.script.app import serve as serve_script

        asyncio.run(serve_script(options.system, host, port))
        return 0
    if options.system in WITH_STATE:
        module = importlib.import_module(f"pilothouse_sim.{options.system}.app")
        app = module.make_app(faults=faults, state_dir=options.state)
    else:
        from pilothouse_sim.models.app import make_app as make_models

        app = make_models(faults=faults)
    asyncio.run(serve(app, options.system, host, port))
    return 0


if __name__ == "__main__":
    sys.exit(main())
