"""Answers of models, used again for equal calls: exact, in Redis, for one tenant and equal permissions only.

**The key** is SHA-256 over all that decides an answer: tenant, the user's permission set, the tier's targets with their
settings, messages, tool schemas, whether tools may be called, and the schema of the answer. A model's own ids of
earlier calls are numbered, since they are random and mean nothing. The user herself is not in the key: what she may see
is (her permission set), and so is everything that was read for her, as the messages hold it. The system prompt names
her, so equal calls come nearly always from one user; two whose prompts, permissions and results are the same to the
letter would be answered alike anyway. Where the permission set is not known, nothing is used again.

**Never** for a call in a run that has written. Never kept: an answer that calls a tool which writes (or which was not
shown), that was cut off, restarted after the user had read a part, came from another tier's target than asked for,
or is larger than 256 KB. An entry that is not to be read, or belongs to another key, is a miss.

**Equal calls at one time** make one: the first leads and streams, the others get the whole when it is there. In this
worker they wait on a future, in other workers they look at Redis, where the leader holds a short lock. A leader who is
cancelled hands over to the next who waits. One that fails, or whose answer may not be shared, lets all go and ask for
themselves. Nobody waits longer than she says. Redis away: each worker shares among its own, nothing is kept, no error.

::

    found = await cache.enter(key, wait_seconds=…)
    if isinstance(found, Cached):
        …found.events…
    else:
        with found:                      # leaving it without finish() hands over, or lets the others go
            async for event in …:
                found.add(event)
            found.finish((provider, model), usage)
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import uuid
import zlib
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import orjson
import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from pilothouse_api import names
from pilothouse_api.workerconfig import TargetConfig
from pilothouse_dataplane.core.messages import Effect, Message, ModelRequest, Tool, ToolCall, Usage
from pilothouse_dataplane.models.base import ModelDone, ModelEvent, ModelRestarted, ModelText, ModelToolCall
from pilothouse_dataplane.models.script_pipe import Script, ScriptPipe

MAX_BYTES = 256 * 1024
"""Of an answer, before it is compressed."""
_VERSION = b"R1"
_DIGEST = 16
_LOOK_SECONDS = 0.15
_KEEP_SECONDS = 1.0
_AWAY_SECONDS = 2.0
"""Redis is not asked again for so long after it failed."""
_LOCK_MS = 10_000
_POLL_SECONDS = (0.02, 0.04, 0.08, 0.15)
_KNOWN_TOOLS = 4096
_AWAY = (RedisError, OSError, TimeoutError)
_log = structlog.get_logger()

_LOOK = Script(
    """
local found = redis.call('GET', KEYS[1])
if found then return found end
local held = redis.call('GET', KEYS[2])
if not held then redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2]) return 1 end
if held == ARGV[1] then return 1 end
return 0
""",
    keys=2,
)
"""The answer; 1: you lead; 0: another worker does. One round trip."""

_LEAVE = Script(
    """
if ARGV[2] ~= '' then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
if redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('DEL', KEYS[2]) end
return 1
""",
    keys=2,
)


@dataclass(frozen=True, slots=True)
class CacheKey:
    """Of one call."""

    digest: str
    """SHA-256, hex."""
    targets: frozenset[tuple[str, str]]
    """Provider and model of those whose answer may be kept under it."""
    reading: frozenset[str]
    """Models' names of the shown tools that only read: an answer may call these."""


@dataclass(frozen=True, slots=True)
class Cached:
    """An answer that was made before, or just now for somebody else."""

    events: tuple[ModelEvent, ...]
    """Texts and calls as they came, then one ModelDone."""
    by: tuple[str, str]
    """Provider and model that made it."""
    usage: Usage
    """What it took then, and would have taken again."""


@dataclass(slots=True)
class _Flight:
    """One call under way, for all who want its answer. A follower gets the answer, the lead, or None: go alone."""

    token: str = ""
    """Of the lock among workers; "": none is held."""
    followers: deque[asyncio.Future[Cached | Lead | None]] = field(default_factory=deque)


class Lead:
    """The right, or the duty, to ask the model. Use it as a context."""

    def __init__(self, cache: ResponseCache, key: CacheKey | None, flight: _Flight | None) -> None:
        self._cache = cache
        self._key = key
        self._flight = flight
        self._events: list[ModelEvent] = []
        self._shareable = key is not None
        self._size = 0
        self._cached: Cached | None = None

    def __enter__(self) -> Lead:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._key is None or self._flight is None:
            return
        if self._cached is not None:
            self._cache._land(self._key, self._flight, self._cached)
        elif kind is not None and issubclass(kind, (asyncio.CancelledError, GeneratorExit)):
            self._cache._hand_over(self._key, self._flight)
        else:
            self._cache._dissolve(self._key, self._flight)

    def add(self, event: ModelEvent) -> None:
        """What the model says."""
        if not self._shareable:
            return
        if isinstance(event, ModelRestarted):
            self._events.clear()
            self._size = 0
            self._shareable = not event.after_text
            return
        if isinstance(event, ModelText):
            self._size += len(event.text)
        elif isinstance(event, ModelToolCall):
            self._size += len(event.call.arguments)
            assert self._key is not None
            if event.call.name not in self._key.reading:
                self._shareable = False
        elif event.stop:
            self._shareable = False
        self._events.append(event)
        if self._size > MAX_BYTES:
            self._shareable = False
        if not self._shareable:
            self._events.clear()

    def finish(self, by: tuple[str, str], usage: Usage) -> None:
        """The answer is whole. ``by``: provider and model that gave it."""
        if not self._shareable or self._key is None or by not in self._key.targets:
            return
        if not self._events or not isinstance(self._events[-1], ModelDone):
            return
        self._cached = Cached(_joined(self._events), by, usage)


class ResponseCache:
    """The answers of one tenant's models."""

    def __init__(self, client: Redis, tenant: str, seconds: float, *, clock: Callable[[], float]) -> None:
        """``seconds``: how long an answer may be used again; ``clock``: monotonic seconds."""
        self._tenant = tenant
        self._ms = max(1, round(seconds * 1000))
        self._clock = clock
        self._pipe = ScriptPipe(client)
        self._flights: dict[str, _Flight] = {}
        self._tools: OrderedDict[int, tuple[Tool, bytes]] = OrderedDict()
        self._away_until = float("-inf")
        self._leaving: set[asyncio.Task[None]] = set()
        self.hits = 0
        """Answers used again; for metrics, like the next ones."""
        self.shared = 0
        """Of these: those that were being made when they were asked for."""
        self.misses = 0
        self.uncacheable = 0
        """Calls that may never be answered from here."""
        self.damaged = 0
        self.saved_micros = 0
        """What the hits would have cost."""

    async def aclose(self) -> None:
        """Keep what is to be kept, for at most a second."""
        if self._leaving:
            await asyncio.wait(self._leaving, timeout=_KEEP_SECONDS)
        for task in self._leaving:
            task.cancel()
        self._pipe.drop()

    def key(self, targets: Iterable[TargetConfig], request: ModelRequest) -> CacheKey | None:
        """The key of a call to one of a tier's targets; None: its answer is neither looked up nor kept."""
        situation = request.situation
        if situation is None or not situation.permissions or situation.writes > 0:
            self.uncacheable += 1
            return None
        asked = sorted((t.provider, t.model, t.max_output_tokens, t.reasoning) for t in targets)
        head = {
            "tenant": self._tenant,
            "permissions": situation.permissions,
            "targets": asked,
            "messages": _messages(request.messages),
            "allow_tools": request.allow_tools,
            "response_schema": request.response_schema,
        }
        try:
            sha = hashlib.sha256(orjson.dumps(head, option=orjson.OPT_SORT_KEYS, default=_plain))
            for tool in request.tools:
                sha.update(self._tool(tool))
        except TypeError:  # half a character, or a number that JSON has not: a model may be asked, but not for others
            self.uncacheable += 1
            return None
        return CacheKey(
            sha.hexdigest(),
            frozenset((provider, model) for provider, model, _, _ in asked),
            frozenset(tool.model_name for tool in request.tools if tool.effect is Effect.READ),
        )

    def under_way(self, key: CacheKey) -> bool:
        """Whether this worker asks for that answer at the moment."""
        return key.digest in self._flights

    async def enter(self, key: CacheKey | None, *, wait_seconds: float) -> Cached | Lead:
        """An answer, or the lead. Waits for another's answer at most ``wait_seconds``. Raises nothing but
        CancelledError."""
        if key is None:
            return Lead(self, None, None)
        end = self._clock() + wait_seconds
        flight = self._flights.get(key.digest)
        if flight is not None:
            return await self._follow(key, flight, wait_seconds)
        flight = self._flights[key.digest] = _Flight()
        try:
            cached = await self._find(key, flight, end)
        except BaseException:
            self._hand_over(key, flight)
            raise
        if cached is None:
            self.misses += 1
            return Lead(self, key, flight)
        self._count(cached)
        self._close(key, flight)
        for follower in flight.followers:
            if not follower.done():
                follower.set_result(cached)
        return cached

    async def _follow(self, key: CacheKey, flight: _Flight, seconds: float) -> Cached | Lead:
        follower: asyncio.Future[Cached | Lead | None] = asyncio.get_running_loop().create_future()
        flight.followers.append(follower)
        try:
            await asyncio.wait((follower,), timeout=max(0.0, seconds))
        except BaseException:
            if follower.done() and isinstance(follower.result(), Lead):
                self._hand_over(key, flight)  # it was our turn
            follower.cancel()
            raise
        found = follower.result() if follower.done() else None
        follower.cancel()
        if isinstance(found, Cached):
            self._count(found)
            self.shared += 1
            return found
        self.misses += 1
        return found if found is not None else Lead(self, None, None)

    async def _find(self, key: CacheKey, flight: _Flight, end: float) -> Cached | None:
        """From Redis, now or when another worker has made it; None: make it, with the lock in ``flight`` or without."""
        token = uuid.uuid4().hex
        tries = 0
        while self._clock() >= self._away_until:
            try:
                async with asyncio.timeout(_LOOK_SECONDS):
                    found = await self._pipe.call(_LOOK, *self._keys(key), token.encode(), b"%d" % _LOCK_MS)
            except _AWAY as error:
                self._lose(error)
                return None
            if isinstance(found, bytes):
                cached = _load(key, found)
                if cached is None:
                    self.damaged += 1
                return cached
            if found:
                flight.token = token
                return None
            pause = _POLL_SECONDS[min(tries, len(_POLL_SECONDS) - 1)]
            if self._clock() + pause > end:
                return None
            await asyncio.sleep(pause)
            tries += 1
        return None

    # --- what a leader says when it leaves ----------------------------------------------------------------------------
    def _land(self, key: CacheKey, flight: _Flight, cached: Cached) -> None:
        """The answer is there."""
        for follower in flight.followers:
            if not follower.done():
                follower.set_result(cached)
        token, flight.token = flight.token, ""
        self._close(key, flight)
        self._spawn(key, token, cached)

    def _hand_over(self, key: CacheKey, flight: _Flight) -> None:
        """The leader goes: the next who waits leads."""
        while flight.followers:
            follower = flight.followers.popleft()
            if not follower.done():
                follower.set_result(Lead(self, key, flight))
                return
        self._close(key, flight)

    def _dissolve(self, key: CacheKey, flight: _Flight) -> None:
        """There is nothing to share: each asks for herself."""
        for follower in flight.followers:
            if not follower.done():
                follower.set_result(None)
        self._close(key, flight)

    def _close(self, key: CacheKey, flight: _Flight) -> None:
        if self._flights.get(key.digest) is flight:
            del self._flights[key.digest]
        if flight.token:
            token, flight.token = flight.token, ""
            self._spawn(key, token, None)

    def _spawn(self, key: CacheKey, token: str, cached: Cached | None) -> None:
        """Off the answer's way."""
        if (not token and cached is None) or self._clock() < self._away_until:
            return
        task = asyncio.get_running_loop().create_task(self._give(key, token, cached), name="response cache: leave")
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _give(self, key: CacheKey, token: str, cached: Cached | None) -> None:
        value = b"" if cached is None else _dump(key, cached)
        if not token and not value:
            return
        try:
            async with asyncio.timeout(_KEEP_SECONDS):
                mark = token.encode() or b"-"
                await self._pipe.call(_LEAVE, *self._keys(key), mark, value, b"%d" % self._ms)
        except _AWAY as error:
            self._lose(error)

    # --- small things -------------------------------------------------------------------------------------------------
    def _keys(self, key: CacheKey) -> tuple[bytes, bytes]:
        name = names.response_key(self._tenant, key.digest).encode()
        return name, name + b":lock"

    def _lose(self, error: BaseException) -> None:
        _log.warning("answers are not used again for now: the store is away", error=type(error).__name__)
        self._away_until = self._clock() + _AWAY_SECONDS
        self._pipe.drop()

    def _count(self, cached: Cached) -> None:
        self.hits += 1
        self.saved_micros += cached.usage.cost_micros

    def _tool(self, tool: Tool) -> bytes:
        """A tool's digest. Schemas are long, and the same objects come with every call."""
        known = self._tools.get(id(tool))
        if known is not None and known[0] is tool:
            return known[1]
        raw = orjson.dumps(
            [tool.model_name, tool.description, tool.parameters, tool.effect.value],
            option=orjson.OPT_SORT_KEYS,
            default=_plain,
        )
        digest = hashlib.sha256(raw).digest()
        self._tools[id(tool)] = (tool, digest)  # the reference keeps the id from being given to another
        if len(self._tools) > _KNOWN_TOOLS:
            self._tools.popitem(last=False)
        return digest


def _joined(events: Iterable[ModelEvent]) -> tuple[ModelEvent, ...]:
    """Texts that follow each other as one."""
    whole: list[ModelEvent] = []
    for is_text, group in itertools.groupby(events, lambda event: isinstance(event, ModelText)):
        if is_text:
            whole.append(ModelText("".join(event.text for event in group if isinstance(event, ModelText))))
        else:
            whole.extend(group)
    return tuple(whole)


def _plain(value: Any) -> Any:
    """What orjson doesn't know. Raises TypeError for what is no JSON."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(type(value).__name__)


def _messages(messages: Iterable[Message]) -> list[Any]:
    numbers: dict[str, int] = {"": 0}

    def number(identity: str) -> int:
        return numbers.setdefault(identity, len(numbers))

    return [
        [
            message.role,
            message.content,
            [[number(call.id), call.name, call.arguments] for call in message.tool_calls],
            number(message.tool_call_id),
        ]
        for message in messages
    ]


def _dump(key: CacheKey, cached: Cached) -> bytes:
    """b"" where it is too large, or no JSON."""
    events: list[Any] = []
    for event in cached.events:
        if isinstance(event, ModelText):
            events.append(event.text)
        elif isinstance(event, ModelToolCall):
            events.append([event.call.id, event.call.name, event.call.arguments])
    done = cached.events[-1]
    assert isinstance(done, ModelDone)
    usage = cached.usage
    content = {
        "events": events,
        "done": [done.input_tokens, done.output_tokens, done.estimated, done.cached_input_tokens],
        "by": cached.by,
        "usage": [usage.input_tokens, usage.output_tokens, usage.cost_micros, usage.cached_input_tokens],
    }
    try:
        body = orjson.dumps(content)
    except TypeError:  # half a character
        return b""
    if len(body) > MAX_BYTES:
        return b""
    packed = zlib.compress(body, 1)
    return _VERSION + _sum(key, packed) + packed


def _load(key: CacheKey, raw: bytes) -> Cached | None:
    """None for what no worker of this version has written under this key."""
    head = len(_VERSION)
    packed = raw[head + _DIGEST :]
    if raw[:head] != _VERSION or raw[head : head + _DIGEST] != _sum(key, packed):
        return None
    try:
        body = orjson.loads(zlib.decompressobj().decompress(packed, MAX_BYTES))
        events: list[ModelEvent] = [
            ModelText(each) if isinstance(each, str) else ModelToolCall(ToolCall(*map(str, each)))
            for each in body["events"]
        ]
        tokens_in, tokens_out, estimated, from_cache = body["done"]
        events.append(ModelDone(int(tokens_in), int(tokens_out), bool(estimated), int(from_cache)))
        provider, model = body["by"]
        return Cached(tuple(events), (str(provider), str(model)), Usage(*map(int, body["usage"])))
    except (zlib.error, ValueError, KeyError, TypeError):
        return None


def _sum(key: CacheKey, packed: bytes) -> bytes:
    """An entry belongs to its key: one that was copied to another is damaged."""
    return hashlib.blake2s(key.digest.encode() + packed, digest_size=_DIGEST).digest()
