"""Runs one aiohttp application until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import signal

from aiohttp import web

SHUTDOWN_SECONDS = 2.0
"""How long requests in flight may go on after SIGTERM; well below a Pod's grace period of 30 s."""


def parse_listen(text: str) -> tuple[str, int]:
    """``HOST:PORT`` → host and port (0..65535). Raises ValueError with a sentence for the person who started it."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"--listen {text!r} is not HOST:PORT; write for example 127.0.0.1:8080")
    return host.strip("[]"), int(port)


async def serve(app: web.Application, name: str, host: str, port: int) -> None:
    """Serves ``app`` on ``host:port`` and prints its address once; returns after SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        print(f"{name} stand-in listens on http://{host}:{runner.addresses[0][1]}", flush=True)
        await stop.wait()
        print(f"{name} stand-in stops", flush=True)
    finally:
        await runner.cleanup()
