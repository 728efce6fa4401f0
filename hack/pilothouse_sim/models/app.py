"""The HTTP application: ``/v1/chat/completions``, ``/v1/responses`` and ``/v1/models`` (OpenAI), ``/v1/messages``
(Anthropic).

``/__sim/script`` takes answers to play (script.py); ``/__sim/requests`` tells the last bodies that were sent.
"""

from __future__ import annotations

import asyncio
import fnmatch
import json
import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from pilothouse_sim.faults import Faults, Handler, Sim
from pilothouse_sim.models import anthropic, errors, openai, planner, responses
from pilothouse_sim.models.exchange import Answer, Asked, BadRequest, Frame, Tokens, fitting, require
from pilothouse_sim.models.promptcache import PromptCache
from pilothouse_sim.models.quota import Quota
from pilothouse_sim.models.script import Script, Scripted
from pilothouse_sim.models.stream import Pace

MODELS = ("llama-3-8b", "claude-haiku", "claude-opus")
"""What ``/v1/models`` lists; any other name is answered as well."""
_KEPT_REQUESTS = 50
_SECRET_HEADERS = frozenset(("authorization", "x-api-key", "cookie"))
_HTML = "<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"
_dialect: ContextVar[errors.Dialect] = ContextVar("dialect", default="openai")


@dataclass(frozen=True)
class Protocol:
    """One of the protocols: how it is read and written."""

    dialect: errors.Dialect
    read: Callable[[Mapping[str, Any]], Asked]
    completion: Callable[[Asked, Answer, Tokens], dict[str, Any]]
    frames: Callable[[Asked, Answer, Tokens], Iterator[Frame]]
    encode: Callable[[Mapping[str, Any]], str]
    end: str = ""


CHAT = Protocol("openai", openai.read, openai.completion, openai.frames, openai.encode, "data: [DONE]\n\n")
RESPONSES = Protocol("openai", responses.read, responses.completion, responses.frames, responses.encode)
MESSAGES = Protocol("anthropic", anthropic.read, anthropic.completion, anthropic.frames, anthropic.encode)


def make_app(*, faults: Faults | None = None, rng: random.Random | None = None) -> web.Application:
    """The stand-in; ``rng`` gives the latencies and faults. Raises ValueError for a fault that it does not know."""
    source = rng or random.Random()  # noqa: S311 - latencies, not secrets
    asked = faults or Faults()
    errors.checked(asked.error)
    sim = Sim(
        asked,
        lambda status, said: errors.of_status(status, said, _dialect.get()),
        source,
        limits=False,
        check=lambda changed: errors.checked(changed.error),
    )
    app = web.Application(client_max_size=8 << 20)
    app.middlewares.append(_speaks)
    sim.install(app)
    Models(sim, source).install(app)
    return app


@web.middleware
async def _speaks(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Whose words an error is in."""
    _dialect.set("anthropic" if request.path.startswith("/v1/messages") else "openai")
    return await handler(request)


class Models:
    """The handlers."""

    def __init__(self, sim: Sim, rng: random.Random) -> None:
        self._sim = sim
        self._rng = rng
        self._script = Script()
        self._cache = PromptCache(time.monotonic)
        self._quota = Quota(time.time)
        self._requests: deque[dict[str, Any]] = deque(maxlen=_KEPT_REQUESTS)

    def install(self, app: web.Application) -> None:
        """Adds the routes."""
        app.router.add_get("/v1/models", self.models)
        for path, protocol in (
            ("/v1/chat/completions", CHAT),
            ("/v1/responses", RESPONSES),
            ("/v1/messages", MESSAGES),
        ):
            app.router.add_post(path, self._serving(protocol))
        app.router.add_route("*", "/__sim/script", self.script)
        app.router.add_route("*", "/__sim/requests", self.requests)

    async def models(self, _request: web.Request) -> web.Response:
        """The list of models."""
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "pilothouse-sim"} for name in MODELS]
        return web.json_response({"object": "list", "data": data})

    async def script(self, request: web.Request) -> web.Response:
        """Adds, shows or forgets scripted answers."""
        if request.method == "POST":
            try:
                self._script.add(json.loads(await request.text()))
            except (ValueError, RecursionError) as error:
                return web.json_response({"error": str(error)}, status=400)
        elif request.method == "DELETE":
            self._script.clear()
        return web.json_response(self._script.shown())

    async def requests(self, request: web.Request) -> web.Response:
        """The last requests: path, headers without secrets, body."""
        if request.method == "DELETE":
            self._requests.clear()
        return web.json_response({"requests": list(self._requests)})

    def _serving(self, protocol: Protocol) -> Handler:
        async def serve(request: web.Request) -> web.StreamResponse:
            key = request.headers.get("Authorization") or request.headers.get("x-api-key") or request.remote or ""
            wait = self._quota.take(key, self._sim.faults.rate_limit_per_minute)
            try:
                response = await self._answer(protocol, request, key) if not wait else _limited(protocol, wait)
            except BadRequest as error:
                response = errors.bad_request(error, protocol.dialect)
            if not response.prepared:
                response.headers.update(self._headers(protocol, key, 0))
            return response

        return serve

    def _headers(self, protocol: Protocol, key: str, tokens: int) -> Mapping[str, str]:
        return self._quota.headers(protocol.dialect, key, self._sim.faults.rate_limit_per_minute, tokens)

    async def _answer(self, protocol: Protocol, request: web.Request, key: str) -> web.StreamResponse:
        if protocol.dialect == "anthropic":
            require(request.headers.get("anthropic-version"), "anthropic-version: header is required")
        body = await _object(request)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _SECRET_HEADERS}
        self._requests.append({"path": request.path, "headers": headers, "body": body})
        asked = protocol.read(body)
        faults = self._sim.faults
        concerned = not faults.models or fnmatch.fnmatchcase(asked.model, faults.models)
        if concerned and 0 < faults.context_tokens < asked.prompt:
            return errors.refused("context_length", protocol.dialect)
        scripted = self._script.play(asked)
        fault = scripted.error if scripted is not None else self._fault() if concerned else ""
        pace = Pace(faults, self._rng)
        await pace.first(None if scripted is None else scripted.delay_ms)
        if fault in errors.REFUSALS:
            return errors.refused(fault, protocol.dialect)
        if scripted is not None and scripted.raw:
            return await self._raw(request, scripted.raw)
        answer = _said(asked, scripted, fault)
        tokens = self._tokens(protocol, asked, answer, scripted, fault)
        if fault == "html_in_200":
            return web.Response(text=_HTML, content_type="text/html")
        if fault == "json_in_200" or (fault == "error_in_200" and not asked.stream):
            return web.json_response(errors.body("server_error", protocol.dialect))
        if asked.stream:
            stream = _Stream(protocol, request, asked, pace, fault, faults.abort_after_chunks)
            return await stream.send(
                protocol.frames(asked, answer, tokens), self._headers(protocol, key, tokens.prompt)
            )
        if fault in errors.STREAMED:
            return errors.refused("overloaded", protocol.dialect)
        await pace.piece(answer.thoughts + answer.text + "".join(call.arguments for call in answer.calls))
        return web.json_response(protocol.completion(asked, answer, tokens))

    def _fault(self) -> str:
        """The one that is set, for the share of requests that ``error_rate`` says; without a rate, for each."""
        faults = self._sim.faults
        hit = not faults.error_rate or self._rng.random() < faults.error_rate
        return faults.error if hit else ""

    def _tokens(
        self, protocol: Protocol, asked: Asked, answer: Answer, scripted: Scripted | None, fault: str
    ) -> Tokens:
        cached, stored = self._cache.marked(asked) if protocol.dialect == "anthropic" else (self._cache.steps(asked), 0)
        tokens = Tokens(asked.prompt, answer.tokens, cached, stored, answer.thought_tokens)
        if scripted is not None:
            tokens = tokens.changed(scripted.usage)
        return errors.lying(fault, tokens)

    async def _raw(self, request: web.Request, events: list[str]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for event in events:
            await response.write(f"{event}\n\n".encode())
        await response.write_eof()
        return response


def _said(asked: Asked, scripted: Scripted | None, fault: str) -> Answer:
    """The script's answer, or the planner's; what is wished of its shape; then what goes wrong with it."""
    if scripted is not None and scripted.says:
        answer = scripted.answer()
    else:
        answer = Answer.of(planner.reply(asked.messages, asked.tools))
        if asked.schema is not None and not answer.calls:
            answer = Answer(json.dumps(fitting(asked.schema, answer.text), ensure_ascii=False))
    if asked.thinks and not answer.thoughts:
        about = f"I read the request ({len(asked.messages)} messages) and the {len(asked.tools)} tools. "
        answer = Answer(answer.text, answer.calls, about + "I do what was asked and nothing more.", answer.finish)
    if not asked.thinks:
        answer = Answer(answer.text, answer.calls, "", answer.finish)
    if fault == "endless":
        answer = Answer("And so on, ")
    return errors.spoiled(fault, answer.bounded(asked.max_tokens))


class _Stream:
    """One streamed answer, with what goes wrong in it."""

    def __init__(
        self, protocol: Protocol, request: web.Request, asked: Asked, pace: Pace, fault: str, cut_after: int
    ) -> None:
        self._protocol = protocol
        self._asked = asked
        self._request = request
        self._pace = pace
        self._fault = fault
        self._cut_after = cut_after
        self._sent = 0
        self._response = web.StreamResponse()

    async def send(self, frames: Iterator[Frame], headers: Mapping[str, str]) -> web.StreamResponse:
        """Sends the events at the model's speed; cuts the connection where a fault says so."""
        self._response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache", **headers}
        )
        await self._response.prepare(self._request)
        try:
            if self._fault == "error_in_200":
                await self._break()
            elif await self._events(frames):
                await self._response.write(self._protocol.end.encode())
            if self._request.transport is not None:
                await self._response.write_eof()
        except ConnectionResetError:
            # The client stopped reading, as it does when a person presses Stop: nothing is left to do.
            pass
        return self._response

    async def _events(self, frames: Iterator[Frame]) -> bool:
        """Whether the stream came to its proper end."""
        hurt = False
        for frame in frames:
            await self._pace.piece(frame.text)
            await self._write(frame.event)
            if self._cut_after and self._sent >= self._cut_after:
                self._abort()
                return False
            if hurt or not self._fault or not self._hits(frame):
                continue
            hurt = True
            if not await self._hurt(frame):
                return False
        return True

    def _hits(self, frame: Frame) -> bool:
        """In the middle: the first words, or the first piece of a call's arguments."""
        return self._fault in errors.STREAMED and frame.kind != ""

    async def _hurt(self, frame: Frame) -> bool:
        """Do what the fault says; whether the stream goes on."""
        if self._fault == "error_mid_stream":
            await self._break()
        elif self._fault == "cut":
            self._abort()
        elif self._fault == "broken_event":
            await self._response.write(b'data: {"choices": [{"del\n\n')
            return True
        elif self._fault in ("stall", "endless"):
            while self._request.transport is not None and not self._request.transport.is_closing():
                if self._fault == "endless":
                    await self._write(frame.event)
                await asyncio.sleep(0.1 if self._fault == "stall" else 0.0005)
        return False

    async def _write(self, event: Mapping[str, Any]) -> None:
        self._sent += 1
        await self._response.write(self._protocol.encode(event).encode())

    def _abort(self) -> None:
        if self._request.transport is not None:
            self._request.transport.abort()

    async def _break(self) -> None:
        """The error that a broken stream ends with."""
        given = errors.body("overloaded", self._protocol.dialect)
        if self._protocol is not RESPONSES:
            await self._write(given)
        elif not self._sent:
            await self._write({"type": "error", "sequence_number": 0, **given})
        else:
            for event in responses.failed(self._asked, given, self._sent):
                await self._write(event)


def _limited(protocol: Protocol, wait: float) -> web.Response:
    response = errors.of_status(429, "Rate limit exceeded.", protocol.dialect)
    response.headers["retry-after"] = str(max(1, round(wait + 0.5)))
    return response


async def _object(request: web.Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.text())
    except (ValueError, RecursionError):
        raise BadRequest("We could not parse the JSON body of your request.") from None
    if not isinstance(body, dict):
        raise BadRequest("The body must be a JSON object.")
    return body
