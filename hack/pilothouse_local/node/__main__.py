"""`python -m pilothouse_local.node`: run the local node until SIGTERM, which ends the Pods' processes too (kill -9
leaves them for the next node)."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import signal
import sys
from pathlib import Path

from aiohttp import web

from .agent import DEFAULT_NAME, Agent
from .api import ApiClient
from .model import NodeUnusable
from .processes import check_machine
from .server import application, tls_context


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m pilothouse_local.node", description="Runs Pods as local processes."
    )
    parser.add_argument("--kubeconfig", type=Path, required=True, help="how to reach the API server (cluster-admin)")
    parser.add_argument(
        "--state", type=Path, required=True, help="folder for volumes, logs and records; survives restarts"
    )
    parser.add_argument("--pod-octet", type=int, required=True, help="Pods get addresses 127.OCTET.x.y (1 to 254)")
    parser.add_argument("--listen", required=True, help="127.0.0.1:PORT of the HTTPS endpoint for logs")
    parser.add_argument("--tls-cert", type=Path, required=True)
    parser.add_argument("--tls-key", type=Path, required=True)
    parser.add_argument(
        "--client-ca", type=Path, required=True, help="CA of the API server's kubelet client certificate"
    )
    parser.add_argument(
        "--service",
        action="append",
        default=[],
        metavar="NAMESPACE/NAME=ADDRESS",
        help="a Service without Pods, and the address of what serves it on this machine; may be repeated",
    )
    parser.add_argument("--name", default=DEFAULT_NAME, help="the Node's name")
    options = parser.parse_args(arguments)
    if not 1 <= options.pod_octet <= 254:
        parser.error("--pod-octet must be 1 to 254")
    host, _, port = options.listen.rpartition(":")
    if not host or not port.isdigit():
        parser.error("--listen must be ADDRESS:PORT")
    options.host, options.port = host, int(port)
    options.services = {}
    for entry in options.service:
        full, _, address = entry.partition("=")
        namespace, _, name = full.partition("/")
        if not (namespace and name and address):
            parser.error("--service must be NAMESPACE/NAME=ADDRESS")
        options.services[namespace, name] = address
    return options


async def serve(options: argparse.Namespace) -> None:
    """Run the agent and its endpoint until SIGTERM or SIGINT. Raises NodeUnusable and OSError (port in use)."""
    loop = asyncio.get_running_loop()
    state = options.state.resolve()
    await asyncio.to_thread(check_machine, state / "check")
    agent = Agent(
        ApiClient.from_kubeconfig(options.kubeconfig),
        state,
        options.pod_octet,
        options.port,
        options.name,
        options.services,
    )
    runner = web.AppRunner(application(agent.find, agent.healthy), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(
        runner,
        options.host,
        options.port,
        ssl_context=tls_context(options.tls_cert, options.tls_key, options.client_ca),
    )
    await site.start()
    task = loop.create_task(agent.run())
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    try:
        with contextlib.suppress(asyncio.CancelledError):
            await task
    finally:
        await runner.cleanup()


def main() -> int:
    """Exit code 0 after a signal, 1 where this machine or its settings don't allow a node."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    options = parse()
    try:
        asyncio.run(serve(options))
    except (NodeUnusable, OSError) as error:
        print(f"the local node did not start: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
