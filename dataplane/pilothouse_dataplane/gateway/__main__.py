"""``python -m pilothouse_dataplane.gateway``: see ARCHITECTURE.md for its environment."""

from __future__ import annotations

import asyncio
import logging
import sys

from pilothouse_dataplane.gateway.kube import KubeError
from pilothouse_dataplane.gateway.server import serve
from pilothouse_dataplane.gateway.settings import Settings, SettingsError


def main() -> int:
    """Run the gateway; returns the process's exit code (0 after a signal, 1 where it could not run)."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)  # it tells of every connection
    try:
        asyncio.run(serve(Settings.from_env()))
    except (SettingsError, KubeError) as error:
        logging.getLogger(__name__).critical("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
