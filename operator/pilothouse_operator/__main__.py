"""``python -m pilothouse_operator``: runs until SIGTERM or SIGINT.

One replica runs, without kopf's peering: a Deployment of one with strategy Recreate is what keeps it alone.
"""

from __future__ import annotations

import asyncio
import logging
import sys

import kopf

from pilothouse_operator.handlers import registry_of
from pilothouse_operator.handlers.lifecycle import Runtime
from pilothouse_operator.settings import SettingsError, from_environment


def main() -> int:
    """Exit status: 0 after a signal, 2 where a setting is missing."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)  # a line for each event of each object otherwise
    try:
        settings = from_environment()
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    runtime = Runtime(settings)
    asyncio.run(
        kopf.operator(
            registry=registry_of(runtime),
            clusterwide=True,
            standalone=True,
            liveness_endpoint=settings.liveness,
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
