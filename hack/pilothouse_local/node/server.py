"""The node's HTTPS endpoint, which the API server calls for `kubectl logs`."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

from . import logs
from .container import Container

Find = Callable[[str, str, str], Container | None]
"""(namespace, pod, container) -> the container, or None."""


def tls_context(certificate: Path, key: Path, client_ca: Path) -> ssl.SSLContext:
    """Server side TLS; a client's certificate is asked for, and checked where one is sent (the handlers say where one
    must be)."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(client_ca))
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_cert_chain(certificate, key)
    return context


def application(find: Find, healthy: Callable[[], bool]) -> web.Application:
    """`/healthz` for all; everything else only with a certificate of the client CA."""

    @web.middleware
    async def authenticated(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        certified = request.transport is not None and bool(request.transport.get_extra_info("peercert"))
        if request.path != "/healthz" and not certified:
            return web.Response(status=401, text="a client certificate of the cluster's CA is needed\n")
        return await handler(request)

    async def healthz(_: web.Request) -> web.Response:
        return (
            web.Response(text="ok\n")
            if healthy()
            else web.Response(status=503, text="not in sync with the API server\n")
        )

    async def container_logs(request: web.Request) -> web.StreamResponse:
        info = request.match_info
        container = find(info["namespace"], info["pod"], info["container"])
        if container is None:
            return web.Response(
                status=404,
                text=f"no container {info['container']} of pod {info['namespace']}/{info['pod']} is on this node\n",
            )
        return await _send_logs(request, container)

    async def unsupported(_: web.Request) -> web.Response:
        return web.Response(
            status=501, text="the local node runs plain processes: exec, attach and port-forward are not offered\n"
        )

    app = web.Application(middlewares=[authenticated])
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", container_logs)
    for verb in ("exec", "attach", "portForward", "run"):
        app.router.add_route("*", f"/{verb}/{{rest:.*}}", unsupported)
    return app


async def _send_logs(request: web.Request, container: Container) -> web.StreamResponse:
    query = request.query
    attempt = container.attempt
    if query.get("previous") in ("true", "1"):
        if attempt == 0:
            return web.Response(
                status=400, text=f"previous terminated container {container.state.name} was not found\n"
            )
        attempt -= 1
    lines = int(query["tailLines"]) if query.get("tailLines", "").isdigit() else None
    path = logs.path_of(container.directory, attempt)
    text, offset = logs.tail(path, lines)
    if query.get("limitBytes", "").isdigit():
        text = text[: int(query["limitBytes"])]
    response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
    response.enable_chunked_encoding()
    await response.prepare(request)
    await response.write(text)
    if query.get("follow") in ("true", "1"):
        with contextlib.suppress(ConnectionResetError):  # the reader has seen enough
            async for chunk in logs.follow(path, offset, lambda: container.ended(attempt)):
                await response.write(chunk)
            await response.write_eof()
        return response
    await response.write_eof()
    return response
