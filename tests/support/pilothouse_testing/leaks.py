"""Searches what a system has left behind for secrets, in each form in which they may lie there.

``Planted`` is filled by hand and by a ``Wiretap``, which listens to what goes to and from the
stand-ins. ``found`` then looks through places: logs, stores, requests to models, spans, answers.
"""

from __future__ import annotations

import base64
import contextlib
import json
import urllib.parse
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import asyncpg
from aiohttp import web
from redis.asyncio import Redis

_SHORTEST = 12
"""Characters: what is shorter is found in words that are no secrets."""
_PART = 16
"""Characters of a part: whoever logs the beginning of a token logs enough of it."""
_LONG = 40
"""Characters from which on parts are looked for, too."""
_FORM = ("code", "code_verifier", "client_secret", "refresh_token", "assertion", "subject_token", "token")
_GIVEN = ("access_token", "refresh_token", "id_token")


@dataclass(frozen=True)
class Secret:
    """One secret and what it is."""

    kind: str
    value: bytes

    def __repr__(self) -> str:
        return f"Secret({self.kind})"


@dataclass(frozen=True)
class Leak:
    """A secret where it must not be; shows no more of it than its kind."""

    kind: str
    place: str
    form: str
    around: str


def _base64(value: bytes) -> Iterator[bytes]:
    """What of it is the same wherever it begins within a longer text that is encoded as a whole."""
    for skip in range(3):
        padded = b"\0" * skip + value
        encoded = base64.b64encode(padded)
        first = -(-skip * 8 // 6)
        yield encoded[first : len(padded) * 8 // 6]


def forms(value: bytes) -> dict[str, bytes]:
    """By name: the ways in which a secret may be written."""
    text = value.decode("utf-8", "replace")
    found: dict[str, bytes] = {
        "plain": value,
        "hex": value.hex().encode(),
        "HEX": value.hex().upper().encode(),
    }
    for number, core in enumerate(_base64(value)):
        found[f"base64/{number}"] = core
        found[f"base64url/{number}"] = core.replace(b"+", b"-").replace(b"/", b"_")
    if (value.isascii() and text.isprintable()) or b"\n" in value:
        found["url"] = urllib.parse.quote(text, safe="").encode()
        found["url+"] = urllib.parse.quote_plus(text).encode()
        found["json"] = json.dumps(text)[1:-1].encode()
        found["json twice"] = json.dumps(json.dumps(text))[3:-3].encode()
        found["repr"] = repr(text)[1:-1].encode()
        found["html"] = text.replace("&", "&amp;").replace("<", "&lt;").replace("'", "&#x27;").encode()
    return {name: form for name, form in found.items() if len(form) >= _SHORTEST}


def _parts(kind: str, value: bytes) -> dict[str, bytes]:
    """Beginning, middle and end of a long one; of a JWT the signature only, for many share the rest."""
    if len(value) < _LONG or b"\n" in value:
        return {}
    if value.startswith(b"eyJ"):
        return {"its signature": value[-_PART:]}
    body = value.partition(b"!")[2] or value  # Salesforce's begin with the organisation's id
    middle = len(body) // 2
    return {
        "its beginning": body[:_PART],
        "its middle": body[middle - _PART // 2 : middle + _PART // 2],
        "its end": body[-_PART:],
    }


class Planted:
    """The secrets of one test."""

    def __init__(self) -> None:
        self._by_value: dict[bytes, str] = {}

    def add(self, kind: str, value: str | bytes) -> None:
        """Raises ValueError for one that could be found by chance."""
        raw = value.encode() if isinstance(value, str) else value
        if len(raw) < _SHORTEST:
            raise ValueError(f"{kind} is too short to be looked for")
        self._by_value.setdefault(raw, kind)

    def __len__(self) -> int:
        return len(self._by_value)

    @property
    def kinds(self) -> set[str]:
        return set(self._by_value.values())

    def of(self, kind: str) -> list[bytes]:
        return [value for value, named in self._by_value.items() if named == kind]

    def found(self, places: Mapping[str, bytes], *, allowed: Mapping[str, Iterable[str]] | None = None) -> list[Leak]:
        """Every leak, the first of each secret in each place. ``allowed``: by place (or its beginning), the kinds that
        may be there."""
        may = {place: frozenset(kinds) for place, kinds in (allowed or {}).items()}
        needles: dict[bytes, tuple[str, str]] = {}
        for value, kind in self._by_value.items():
            for form, needle in {**forms(value), **_parts(kind, value)}.items():
                needles.setdefault(needle, (kind, form))
        leaks: dict[tuple[str, str], Leak] = {}
        for place, content in places.items():
            for needle, (kind, form) in needles.items():
                at = content.find(needle)
                if at < 0 or any(place.startswith(name) and kind in kinds for name, kinds in may.items()):
                    continue
                around = content[max(0, at - 60) : at] + b"<here>" + content[at + len(needle) : at + len(needle) + 40]
                leaks.setdefault((kind, place), Leak(kind, place, form, around.decode("utf-8", "replace")))
        return list(leaks.values())


Answer = Callable[[web.Request, bytes], web.StreamResponse | None]
"""(request, its body) → what is answered instead of what the stand-in would; None: nothing instead."""


@dataclass
class Wiretap:
    """Listens to one stand-in: every secret that goes over its wire is planted. ``answer`` is a fault of the test's."""

    system: str
    planted: Planted
    answer: Answer | None = None
    faults: int = 0
    """Requests that ``answer`` has answered."""
    calls: list[tuple[str, str, int, str]] = field(default_factory=list)
    """(method, path, status, token) of each request."""

    def middleware(self) -> Any:
        """For the outermost place of the stand-in's application."""

        @web.middleware
        async def tap(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            if request.path.startswith(("/__sim", "/healthz")):
                return await handler(request)
            body = await request.read()
            self._heard(request, body)
            response = self.answer(request, body) if self.answer is not None else None
            if response is not None:
                self.faults += 1
            else:
                response = await handler(request)
                self._said(response)
            token = request.headers.get("Authorization", "").partition(" ")[2]
            self.calls.append((request.method, request.path, response.status, token))
            return response

        return tap

    def tokens(self, method: str, path: str) -> list[str]:
        """What each request to a path carried."""
        return [token for m, p, _, token in self.calls if m == method and p == path]

    def _heard(self, request: web.Request, body: bytes) -> None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            self.planted.add(f"{self.system} access token", token)
        elif scheme.lower() == "basic":
            self.planted.add(f"{self.system} basic credential", token)
        if request.method == "GET" and "state" in request.query:
            self.planted.add("state", request.query["state"].rpartition(".")[2])
        if request.method == "POST" and request.content_type == "application/x-www-form-urlencoded":
            for name, values in urllib.parse.parse_qs(body.decode("utf-8", "replace")).items():
                if name in _FORM and len(values[0]) >= _SHORTEST:
                    self.planted.add(f"{self.system} {name}" if name != "code_verifier" else name, values[0])

    def _said(self, response: web.StreamResponse) -> None:
        location = urllib.parse.urlsplit(response.headers.get("Location", ""))
        for value in urllib.parse.parse_qs(location.query).get("code", []):
            self.planted.add(f"{self.system} code", value)
        if isinstance(response, web.Response) and response.content_type == "application/json":
            with contextlib.suppress(ValueError):
                given = json.loads(response.body or b"{}")  # type: ignore[arg-type]
                for name in _GIVEN:
                    if isinstance(given, dict) and isinstance(given.get(name), str):
                        self.planted.add(f"{self.system} {name.replace('_', ' ')}", given[name])


_READS = {
    "string": ("GET",),
    "list": ("LRANGE", 0, -1),
    "hash": ("HGETALL",),
    "set": ("SMEMBERS",),
    "zset": ("ZRANGE", 0, -1, "WITHSCORES"),
    "stream": ("XRANGE", "-", "+"),
}


# --- places -----------------------------------------------------------------------------------------------------------
async def redis_dump(url: str) -> dict[str, bytes]:
    """Every key of a Redis with all that it holds: (place, content)."""
    places: dict[str, bytes] = {}
    async with Redis.from_url(url) as client:
        made: Any = client  # its commands' types are wide
        async for raw in made.scan_iter(count=1000):
            command = _READS[(await made.type(raw)).decode()]
            content = await made.execute_command(command[0], raw, *command[1:])
            places[f"redis {raw.decode()}"] = raw + b"\n" + b"\n".join(_flat(content))
    return places


async def postgres_dump(url: str) -> dict[str, bytes]:
    """Every row of every table that is not PostgreSQL's own, as text and its binary columns as they are; and the
    statements that its sessions ran last."""
    places: dict[str, bytes] = {}
    connection = await asyncpg.connect(url)
    try:
        tables = await connection.fetch(
            "SELECT schemaname, tablename FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        )
        for schema, table in tables:
            rows = await connection.fetch(f'SELECT t::text AS whole, t.* FROM "{schema}"."{table}" AS t')
            places[f"postgres {table}"] = b"\n".join(part for row in rows for part in _flat(tuple(row.values())))
        sessions = await connection.fetch("SELECT * FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        places["postgres sessions"] = b"\n".join(part for row in sessions for part in _flat(tuple(row.values())))
    finally:
        await connection.close()
    return places


def files_dump(kind: str, folder: Any, *patterns: str) -> dict[str, bytes]:
    """Files below a folder, as they are."""
    return {
        f"{kind} {path.relative_to(folder)}": path.read_bytes()
        for pattern in patterns
        for path in sorted(folder.rglob(pattern))
        if path.is_file()
    }


def _flat(value: Any) -> Iterator[bytes]:
    if isinstance(value, bytes | bytearray | memoryview):
        yield bytes(value)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(key)
            yield from _flat(item)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from _flat(item)
    elif value is not None:
        yield str(value).encode()
