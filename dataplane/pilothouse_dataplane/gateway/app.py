"""The HTTP side: pages, accounts, chat, health and metrics, behind security headers and a bound on request bodies."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Response, WebSocket
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pilothouse_dataplane.gateway.accounts import Accounts
from pilothouse_dataplane.gateway.chat import ChatServer
from pilothouse_dataplane.gateway.metrics import Metrics
from pilothouse_dataplane.gateway.pages import load_page
from pilothouse_dataplane.gateway.settings import Settings

Check = Callable[[], Awaitable[str | None]]
"""Answers None when ready, else one sentence that says what is missing."""


_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
    (b"cache-control", b"no-store"),
)


class _Guard:
    """Security headers on every response, 413 for a body longer than allowed; plain ASGI, which costs no task."""

    def __init__(self, app: ASGIApp, *, max_body_bytes: int, default_policy: str) -> None:
        self._app = app
        self._max = max_body_bytes
        self._policy = default_policy.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        too_long = not declared.isdigit() or int(declared) > self._max
        taken = 0

        async def bounded() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self._max:
                return {"type": "http.disconnect"}
            return message

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name for name, _ in message["headers"]}
                extra = [*_HEADERS, (b"content-security-policy", self._policy)]
                message["headers"] = [*message["headers"], *((n, v) for n, v in extra if n not in present)]
            await send(message)

        if too_long:
            response = Response("The request's body is too long. Nothing was done. Send less.\n", 413)
            await response(scope, receive, guarded)
            return
        await self._app(scope, bounded, guarded)


def build_app(*, settings: Settings, chat: ChatServer, accounts: Accounts, metrics: Metrics, ready: Check) -> ASGIApp:
    """The ASGI application. ``ready`` is asked by ``/readyz`` at each call."""
    page = load_page("index.html")
    app = FastAPI(title="Pilothouse gateway", openapi_url=None, docs_url=None, redoc_url=None)

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return Response(page.html, media_type="text/html", headers={"content-security-policy": page.policy})

    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> Response:
        return Response("ok\n", media_type="text/plain")

    @app.get("/readyz", include_in_schema=False)
    async def readyz() -> Response:
        missing = await ready()
        return Response(f"{missing or 'ok'}\n", 503 if missing else 200, media_type="text/plain")

    @app.get("/metrics", include_in_schema=False)
    async def show_metrics() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    accounts.add_to(app)

    @app.websocket("/v1/chat")
    async def converse(socket: WebSocket) -> None:
        await chat.serve(socket)

    return _Guard(app, max_body_bytes=settings.max_body_bytes, default_policy="default-src 'none'")
