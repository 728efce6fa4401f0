"""``python -m pilothouse_dataplane.worker``: the worker's process."""

from __future__ import annotations

import argparse
import asyncio
import os

from pilothouse_api import names
from pilothouse_dataplane.worker import logs


def main() -> None:
    """Read where to listen, then serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="pilothouse-worker", description="A tenant's agent worker (gRPC).")
    host = os.environ.get("POD_IP", "127.0.0.1")
    default = f"[{host}]:{names.WORKER_GRPC_PORT}" if ":" in host else f"{host}:{names.WORKER_GRPC_PORT}"
    parser.add_argument("--listen", default=default, metavar="HOST:PORT", help="default: $POD_IP:9090")
    arguments = parser.parse_args()
    logs.configure(worker=os.environ.get("POD_NAME", "worker"))
    from pilothouse_dataplane.worker.server import serve

    asyncio.run(serve(arguments.listen))


if __name__ == "__main__":
    main()
