"""A streaming POST and its server-sent events, over aiohttp: what the OpenAI and Anthropic protocols share.

The vendors' SDKs cost 60 to 98 MB and 14 to 41 ms of CPU a run; this costs 1 to 3 ms (measured, see docs).

Bounds: one timer watches each stream (a timer a read would cost more than the read). It ends the stream when no whole
event came for ``between_tokens``, or when ``whole`` is over. Bytes are counted per event and per stream.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping
from time import time
from typing import Any

import aiohttp
import orjson
from yarl import URL

from pilothouse_dataplane.models.base import ModelError, ModelNonsense, ModelTimeout, ModelTimeouts, ModelUnavailable
from pilothouse_dataplane.models.errors import Fault, event_error, read_body, read_fault, status_error

_MAX_EVENT_BYTES = 1 << 20
_MAX_STREAM_BYTES = 32 << 20
"""An answer of the longest text takes a few hundred bytes an event."""
_MAX_ERROR_BYTES = 16 << 10
_TAIL_SECONDS = 0.1


class _Watch:
    """Ends a stream whose next whole event is late. Time that our own reader takes is not counted."""

    def __init__(self, content: aiohttp.StreamReader, first_by: float, whole_by: float, between: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._content = content
        self._whole_by = whole_by
        self._between = between
        self._bound = min(first_by, whole_by)
        self._reading = False
        self._paused = self._loop.time()
        self._timer = self._loop.call_at(self._bound, self._look)

    def reads(self) -> None:
        """Our reader waits for bytes from now on."""
        self._reading = True
        self._bound += self._loop.time() - self._paused

    def got(self, event: bool) -> None:
        """Bytes came; ``event``: they brought a whole event."""
        self._reading = False
        self._paused = self._loop.time()
        if event:
            self._bound = self._paused + self._between

    def close(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        bound = self._bound if self._reading else now + self._between
        due = min(bound, self._whole_by)
        if now >= due:
            self._content.set_exception(TimeoutError())
        else:
            self._timer = self._loop.call_at(due, self._look)


class EventCutter:
    """Cuts bytes into the ``data`` of events, as WHATWG's "event stream interpretation" wants it: whatever ends a line,
    however the bytes are cut. Names and ids of events are passed over: both protocols repeat them in the data."""

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._pending: list[bytes] = []
        """Of a line without its end."""
        self._data: list[bytes] = []
        """Of an event without its end."""
        self._skip_newline = False
        self._data_bytes = self._pending_bytes = self._total = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """The events that are whole now. Raises ModelNonsense."""
        if not chunk:  # it must not part a carriage return from its newline
            return []
        self._total += len(chunk)
        if self._skip_newline and chunk[:1] == b"\n":
            chunk = chunk[1:]
        self._skip_newline = False
        if b"\r" in chunk:
            self._skip_newline = chunk[-1:] == b"\r"
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        events: list[bytes] = []
        if b"\n" in chunk:
            if self._pending:
                chunk = b"".join((*self._pending, chunk))
            *lines, rest = chunk.split(b"\n")
            self._pending = [rest] if rest else []
            self._pending_bytes = len(rest)
            data = self._data
            for line in lines:
                if not line:
                    if data:
                        if event := data[0] if len(data) == 1 else b"\n".join(data):
                            events.append(event)
                        data.clear()
                        self._data_bytes = 0
                elif line.startswith(b"data:"):
                    data.append(line[5:].strip())
                    self._data_bytes += len(line)
        elif chunk:
            self._pending.append(chunk)
            self._pending_bytes += len(chunk)
        if self._data_bytes + self._pending_bytes > _MAX_EVENT_BYTES or self._total > _MAX_STREAM_BYTES:
            raise ModelNonsense(f"The model provider {self._provider} sent an answer without end")
        return events

    def rest(self) -> list[bytes]:
        """The last event, where the stream ended before the blank line after it."""
        return self.feed(b"\n\n")


class SseClient:
    """Keeps one provider's connections and reads its event streams."""

    def __init__(self, provider: str, timeouts: ModelTimeouts, headers: Mapping[str, str], secret: str | None) -> None:
        """``headers`` go with every request; ``secret`` is the key in them, blanked in what the server says."""
        self._provider = provider
        self._timeouts = timeouts
        self._headers = {**headers, "Content-Type": "application/json", "Accept": "text/event-stream"}
        self._secrets = (secret,) if secret else ()
        self._session: aiohttp.ClientSession | None = None

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def post(
        self, url: URL, body: bytes, is_last: Callable[[bytes], object]
    ) -> AsyncGenerator[list[bytes], None]:
        """The ``data`` of each event, in order, up to the one that ``is_last`` names; those that came at once together.

        Raises ModelError. Cancelling, or closing the generator, closes the connection at once.
        """
        began = asyncio.get_running_loop().time()
        first_by = began + self._timeouts.first_token
        try:
            async with asyncio.timeout_at(first_by):
                response = await self._open().post(url, data=body, headers=self._headers, allow_redirects=False)
            del body  # it is large, and the answer may take minutes
            try:
                if response.status != 200:
                    async with asyncio.timeout_at(first_by):
                        raise await self._refusal(response)
                if response.content_type != "text/event-stream":
                    async with asyncio.timeout_at(first_by):
                        raise await self._no_stream(response)
                watch = _Watch(response.content, first_by, began + self._timeouts.whole, self._timeouts.between_tokens)
                try:
                    cutter = EventCutter(self._provider)
                    ended = False
                    while not ended:
                        watch.reads()
                        chunk = await response.content.readany()
                        batch = cutter.feed(chunk) if chunk else cutter.rest()
                        watch.got(bool(batch))
                        ended = not chunk
                        for number, data in enumerate(batch):
                            if is_last(data):
                                del batch[number + 1 :]
                                ended = True
                        if batch:
                            yield batch
                finally:
                    watch.close()
                await self._drain(response.content)
            finally:
                # a response that was read to its end has given its connection back, and this does nothing
                response.close()
        except TimeoutError as error:
            raise ModelTimeout(f"The model provider {self._provider} took too long to answer") from error
        except aiohttp.ClientSSLError as error:
            raise ModelUnavailable(
                f"The model provider {self._provider} can't be trusted: its certificate or TLS is not valid, so "
                "nothing was sent; a platform operator must correct it"
            ) from error
        except (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError) as error:
            raise ModelUnavailable(f"The model provider {self._provider} broke off its answer") from error
        except aiohttp.ClientError as error:
            raise ModelUnavailable(f"The model provider {self._provider} can't be reached") from error

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:  # made inside the loop, and only by a worker that uses this provider
            self._session = aiohttp.ClientSession(
                # how many calls there are at a time is the runs' to say: one that waited here for another run's
                # connection would count as the provider's delay
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30, ttl_dns_cache=10),
                timeout=aiohttp.ClientTimeout(total=None, connect=None, sock_connect=self._timeouts.connect),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        return self._session

    async def _drain(self, content: aiohttp.StreamReader) -> None:
        """A connection can be used again only when its body was read to the end, which follows the last event."""
        if content.at_eof():
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_TAIL_SECONDS):
                for _ in range(8):
                    if not await content.readany():
                        break

    async def _refusal(self, response: aiohttp.ClientResponse) -> ModelError:
        fault = read_body(await self._start_of(response), self._secrets)
        return status_error(self._provider, response.status, fault, response.headers, time())

    async def _no_stream(self, response: aiohttp.ClientResponse) -> ModelError:
        """Of a 200: some servers put an error in it, others an answer that is not streamed."""
        if response.content_type.endswith("json"):
            fault = read_body(await self._start_of(response), self._secrets)
            if fault is not None:
                return event_error(self._provider, fault)
        return ModelUnavailable(f"The model provider {self._provider} did not answer with a stream")

    async def _start_of(self, response: aiohttp.ClientResponse) -> bytes:
        body = b""
        while len(body) < _MAX_ERROR_BYTES and (chunk := await response.content.read(_MAX_ERROR_BYTES)):
            body += chunk
        return body

    def parse(self, data: bytes) -> dict[str, Any]:
        """One event as an object. Raises ModelUnavailable where it isn't one, and what an error in it means."""
        try:
            value = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            raise ModelUnavailable(f"The model provider {self._provider} sent a broken event") from error
        if not isinstance(value, dict):
            raise ModelUnavailable(f"The model provider {self._provider} sent a broken event")
        if value.get("error"):
            raise event_error(self._provider, read_fault(value, self._secrets) or Fault())
        return value
