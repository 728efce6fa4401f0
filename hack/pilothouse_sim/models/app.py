"""The HTTP application: ``/v1/chat/completions``, ``/v1/models`` (OpenAI) and ``/v1/messages`` (Anthropic)."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from typing import Any

from aiohttp import web

from pilothouse_sim.faults import Faults, Sim
from pilothouse_sim.models import anthropic, openai, planner
from pilothouse_sim.models.stream import Pace

MODELS = ("llama-3-8b", "claude-haiku", "claude-opus")
"""What ``/v1/models`` lists; any other name is answered as well."""


def make_app(*, faults: Faults | None = None, rng: random.Random | None = None) -> web.Application:
    """The stand-in; ``rng`` gives the latencies and faults."""
    source = rng or random.Random()  # noqa: S311 - latencies, not secrets
    sim = Sim(faults or Faults(), openai.error_response, source)
    app = web.Application(client_max_size=8 << 20)
    sim.install(app)
    Models(sim, source).install(app)
    return app


class Models:
    """The handlers."""

    def __init__(self, sim: Sim, rng: random.Random) -> None:
        self._sim = sim
        self._rng = rng

    def install(self, app: web.Application) -> None:
        """Adds the routes."""
        app.router.add_get("/v1/models", self.models)
        app.router.add_post("/v1/chat/completions", self.chat)
        app.router.add_post("/v1/messages", self.messages)

    async def models(self, _request: web.Request) -> web.Response:
        """The list of models."""
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "pilothouse-sim"} for name in MODELS]
        return web.json_response({"object": "list", "data": data})

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """OpenAI chat completions, streamed or not."""
        try:
            body = await _object(request)
            messages, tools, prompt = openai.read_messages(body), openai.read_tools(body), openai.prompt_tokens(body)
        except openai.BadRequest as error:
            return openai.error_response(400, str(error))
        model = str(body.get("model") or MODELS[0])
        reply = planner.reply(messages, tools)
        pace = Pace(self._sim.faults, self._rng)
        if not body.get("stream"):
            await pace.first()
            await pace.piece(reply.text + "".join(json.dumps(dict(call.arguments)) for call in reply.calls))
            return web.json_response(openai.completion(reply, model, prompt))
        options = body.get("stream_options")
        usage = isinstance(options, dict) and bool(options.get("include_usage"))
        pieces = ((t, f"data: {_dump(c)}\n\n") for t, c in openai.chunks(reply, model, prompt, include_usage=usage))
        return await self._stream(request, pace, pieces, "data: [DONE]\n\n")

    async def messages(self, request: web.Request) -> web.StreamResponse:
        """Anthropic messages, streamed or not."""
        try:
            body = await _object(request)
            messages, tools = anthropic.read_messages(body), anthropic.read_tools(body)
        except openai.BadRequest as error:
            return anthropic.error_response(400, str(error))
        prompt, model = anthropic.prompt_tokens(body), str(body.get("model") or MODELS[1])
        reply = planner.reply(messages, tools)
        pace = Pace(self._sim.faults, self._rng)
        if not body.get("stream"):
            await pace.first()
            await pace.piece(reply.text + "".join(json.dumps(dict(call.arguments)) for call in reply.calls))
            return web.json_response(anthropic.completion(reply, model, prompt))
        pieces = ((t, f"event: {e['type']}\ndata: {_dump(e)}\n\n") for t, e in anthropic.events(reply, model, prompt))
        return await self._stream(request, pace, pieces, "")

    async def _stream(
        self, request: web.Request, pace: Pace, pieces: Iterable[tuple[str, str]], end: str
    ) -> web.StreamResponse:
        """Sends server-sent events at the model's speed; cuts the connection where a fault says so."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        await response.prepare(request)
        await pace.first()
        cut = self._sim.faults.abort_after_chunks
        try:
            for number, (text, data) in enumerate(pieces, 1):
                await pace.piece(text)
                await response.write(data.encode())
                if cut and number >= cut and request.transport is not None:
                    request.transport.abort()
                    return response
            if end:
                await response.write(end.encode())
            await response.write_eof()
        except ConnectionResetError:
            # The client stopped reading, as it does when a person presses Stop: nothing is left to do.
            pass
        return response


async def _object(request: web.Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.text())
    except (ValueError, RecursionError):
        raise openai.BadRequest("We could not parse the JSON body of your request.") from None
    if not isinstance(body, dict):
        raise openai.BadRequest("The body must be a JSON object.")
    return body


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
