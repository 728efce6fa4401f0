"""Latency, errors and limits that a test sets while a stand-in runs, and the log of what was asked of it.

``GET|POST /__sim/faults`` reads or changes ``Faults``; ``GET|DELETE /__sim/log`` reads or empties the request log;
``/healthz`` answers 200. None of them is delayed, failed, limited or logged.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
import re
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Middleware

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
ErrorRenderer = Callable[[int, str], web.Response]
"""(status, sentence) → a response in the dialect of the system that is stood in for."""

LimitHeaders = Callable[[float, float], Mapping[str, str]]
"""(requests a minute, seconds until the next one) → what a vendor's 429 says in its headers."""

LOG_ENTRIES = 10_000

caller: ContextVar[str | None] = ContextVar("caller", default=None)
"""E-mail of the user whose request this task handles, for the log; the system that knows its users sets it."""
credential: ContextVar[str | None] = ContextVar("credential", default=None)
"""How the request's token came to be (``static``, ``authorization_code``, …), for the log; never the token itself."""

_WHOLE = ("status", "abort_after_chunks", "context_tokens")
_SECRET_PARAMETERS = re.compile(
    r"(^|&)(access_token|refresh_token|id_token|token|code|assertion|subject_token|client_secret|code_verifier)=[^&]*",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Faults:
    """What goes wrong, and how fast things go; the defaults are a healthy system."""

    latency_ms: tuple[float, float] = (0, 0)
    """Milliseconds, [lowest, highest], uniform, added to each request."""
    error_rate: float = 0
    """0..1: the share of requests that fail with ``status``."""
    status: int = 503
    """HTTP status of an injected error, 400..599."""
    rate_limit_per_minute: float = 0
    """Requests a minute and user above which 429 is answered; 0: no limit."""
    index_delay_seconds: float = 0
    """Jira, Okta: seconds until a change can be found by search (theirs are eventually consistent)."""
    ttft_ms: tuple[float, float] = (80, 200)
    """Models: milliseconds to the first token, [lowest, highest]."""
    tokens_per_second: float = 150
    """Models: speed of the tokens after the first; 0: no waiting."""
    abort_after_chunks: int = 0
    """Models: the connection is cut after so many streamed chunks; 0: never."""
    error: str = ""
    """Models: how requests fail, a name of ``models/errors.py``; ``error_rate`` is their share then, 0: all of them."""
    models: str = ""
    """Models: glob over the names of the models that ``error`` and ``context_tokens`` concern; "": all."""
    context_tokens: int = 0
    """Models: a longer prompt is refused; 0: no bound."""

    def changed(self, body: object) -> Faults:
        """These faults with the fields in ``body`` set. Raises ValueError that names the bad field."""
        if not isinstance(body, Mapping):
            raise ValueError("faults are a JSON object")  # noqa: TRY004 - one error type for the caller
        known = {field.name: field.default for field in dataclasses.fields(self)}
        values: dict[str, Any] = {}
        for name, value in body.items():
            if name not in known:
                raise ValueError(f"unknown fault {name!r}; known are {', '.join(known)}")
            if isinstance(known[name], tuple):
                if not (isinstance(value, list) and len(value) == 2 and all(_number(v) for v in value)):
                    raise ValueError(f"{name} must be [lowest, highest] in milliseconds")
                values[name] = (float(min(value)), float(max(value)))
            elif isinstance(known[name], str):
                if not isinstance(value, str):
                    raise ValueError(f"{name} must be text")  # noqa: TRY004 - one error type for the caller
                values[name] = value
            elif not _number(value):
                raise ValueError(f"{name} must be a number of 0 or more")
            else:
                values[name] = int(value) if name in _WHOLE else float(value)
        if values.get("error_rate", 0) > 1:
            raise ValueError("error_rate is a share of 0..1")
        if not 400 <= values.get("status", 503) <= 599:
            raise ValueError("status must be 400..599")
        return dataclasses.replace(self, **values)

    @classmethod
    def from_json(cls, text: str) -> Faults:
        """Faults from a JSON object, the defaults from an empty text. Raises ValueError."""
        return cls().changed(json.loads(text)) if text.strip() else cls()


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


class RateLimiter:
    """A token bucket for each user; it holds a quarter of a minute's requests, so that short bursts pass."""

    def __init__(self) -> None:
        self._buckets: dict[str, tuple[float, float]] = {}

    def wait_seconds(self, user: str, per_minute: float, now: float) -> float:
        """0 and one token taken, or the seconds until there is one (``now``: monotonic seconds)."""
        size = max(1.0, per_minute / 4)
        tokens, then = self._buckets.get(user, (size, now))
        tokens = min(size, tokens + (now - then) * per_minute / 60)
        allowed = tokens >= 1
        self._buckets[user] = (tokens - 1 if allowed else tokens, now)
        return 0.0 if allowed else (1 - tokens) * 60 / per_minute


class Sim:
    """The state behind ``/__sim``: faults and request log of one stand-in."""

    def __init__(
        self,
        faults: Faults,
        render_error: ErrorRenderer,
        rng: random.Random,
        *,
        limits: bool = True,
        limit_headers: LimitHeaders = lambda _per_minute, wait: {"Retry-After": str(max(1, round(wait + 0.5)))},
        check: Callable[[Faults], object] = lambda _faults: None,
    ) -> None:
        """``limits`` False: the application itself keeps to ``rate_limit_per_minute``, in its vendor's way.

        ``check`` raises ValueError for faults that the application does not know."""
        self._check = check
        self._limits = limits
        self._limit_headers = limit_headers
        self.faults = faults
        self.rng = rng
        self._render_error = render_error
        self._log: deque[dict[str, object]] = deque(maxlen=LOG_ENTRIES)
        self._limiter = RateLimiter()

    def install(self, app: web.Application) -> None:
        """Adds the middleware and the routes; call it before adding middlewares that must run inside of it."""
        app.middlewares.append(self._middleware())
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/__sim/faults", self._get_faults)
        app.router.add_post("/__sim/faults", self._post_faults)
        app.router.add_get("/__sim/log", self._get_log)
        app.router.add_delete("/__sim/log", self._delete_log)

    def _middleware(self) -> Middleware:
        @web.middleware
        async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
            if request.path == "/healthz" or request.path.startswith("/__sim/"):
                return await handler(request)
            caller.set(None)  # a kept-alive connection's requests share one task
            credential.set(None)
            started, status = time.monotonic(), 499  # 499: the client went away, as nginx logs it
            try:
                response = await self._answer(request, handler)
                status = response.status
                return response
            finally:
                self._log.append(
                    {
                        "time": time.time(),
                        "user": caller.get(),
                        "credential": credential.get(),
                        "method": request.method,
                        "path": request.path,
                        "query": _SECRET_PARAMETERS.sub(r"\1\2=…", request.query_string),
                        "status": status,
                        "duration_ms": round((time.monotonic() - started) * 1000, 1),
                    }
                )

        return middleware

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        faults = self.faults
        try:
            # as a real system does, it goes on with what it was asked although the asker dies while it takes its time
            await request.read()
        except web.HTTPRequestEntityTooLarge:
            return self._render_error(413, "The request is too large.")
        if faults.latency_ms[1]:
            await asyncio.sleep(self.rng.uniform(*faults.latency_ms) / 1000)
        if faults.error_rate and not faults.error and self.rng.random() < faults.error_rate:
            return self._render_error(faults.status, "The service is temporarily unavailable (injected fault).")
        if faults.rate_limit_per_minute and self._limits:
            who = request.headers.get("Authorization") or request.headers.get("x-api-key") or request.remote or ""
            wait = self._limiter.wait_seconds(who, faults.rate_limit_per_minute, time.monotonic())
            if wait:
                response = self._render_error(429, "Rate limit exceeded.")
                response.headers.update(self._limit_headers(faults.rate_limit_per_minute, wait))
                return response
        try:
            return await handler(request)
        except web.HTTPNotFound:
            return self._render_error(404, f"No such endpoint: {request.method} {request.path}")
        except web.HTTPMethodNotAllowed:
            return self._render_error(405, f"Method not allowed: {request.method} {request.path}")

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _get_faults(self, _request: web.Request) -> web.Response:
        return web.json_response(dataclasses.asdict(self.faults))

    async def _post_faults(self, request: web.Request) -> web.Response:
        try:
            changed = self.faults.changed(json.loads(await request.text()))
            self._check(changed)
            self.faults = changed
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response(dataclasses.asdict(self.faults))

    async def _get_log(self, request: web.Request) -> web.Response:
        wanted = {name: value for name, value in request.query.items() if name in ("user", "method", "path", "status")}
        entries = [entry for entry in self._log if all(str(entry[name]) == value for name, value in wanted.items())]
        return web.json_response({"requests": entries})

    async def _delete_log(self, _request: web.Request) -> web.Response:
        self._log.clear()
        return web.Response(status=204)
