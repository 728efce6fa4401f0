"""The Kubernetes API over plain aiohttp: a third of the official client's memory, which counts in a process that every
laptop runs."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson
import yaml

from .model import NodeUnusable, Obj

log = logging.getLogger(__name__)

_WATCH_SECONDS = 240
_MERGE_PATCH = "application/merge-patch+json"


class ApiError(Exception):
    """The API server refused a request; `status` is the HTTP status, `reason` the Status object's reason."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason


class ApiClient:
    """One connection pool with the kubeconfig's identity. `host` and `port` are the API server's, for the Pods'
    environment."""

    def __init__(self, server: str, context: ssl.SSLContext, token: str | None) -> None:
        self._server = server.rstrip("/")
        self._context = context
        self._token = token
        parts = urlsplit(server)
        self.host = parts.hostname or "127.0.0.1"
        self.port = parts.port or 443
        self._session: aiohttp.ClientSession | None = None

    @classmethod
    def from_kubeconfig(cls, path: Path) -> ApiClient:
        """Reads the current context. Raises NodeUnusable where the file can't be used."""
        try:
            config = yaml.safe_load(path.read_text())
            context = _named(config["contexts"], config["current-context"])["context"]
            cluster = _named(config["clusters"], context["cluster"])["cluster"]
            user = _named(config["users"], context["user"])["user"]
        except (OSError, KeyError, TypeError, yaml.YAMLError) as error:
            raise NodeUnusable(
                f"the kubeconfig {path} could not be read ({error!r}): give --kubeconfig a file with a current context"
            ) from error
        tls = ssl.create_default_context(cadata=_material(cluster, "certificate-authority", path) or None)
        certificate, key = _material(user, "client-certificate", path), _material(user, "client-key", path)
        if certificate and key:
            with tempfile.NamedTemporaryFile(
                "w", suffix=".pem"
            ) as pair:  # ssl loads a key pair from files only; this one has mode 0600
                pair.write(certificate + "\n" + key)
                pair.flush()
                tls.load_cert_chain(pair.name)
        return cls(cluster["server"], tls, user.get("token"))

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self._context, limit=0), headers=headers
            )
        return self._session

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def request(
        self, method: str, path: str, body: Obj | None = None, params: dict[str, str] | None = None
    ) -> Obj:
        """One call; PATCH is a JSON merge patch. Raises ApiError, aiohttp.ClientError or TimeoutError."""
        kind = _MERGE_PATCH if method == "PATCH" else "application/json"
        async with self._open().request(
            method,
            self._server + path,
            data=orjson.dumps(body) if body is not None else None,
            params=params,
            headers={"Content-Type": kind, "Accept": "application/json"},
            timeout=aiohttp.ClientTimeout(total=30),
        ) as response:
            raw = await response.read()
            if response.status >= 400:
                raise _error(response.status, raw)
            result: Obj = orjson.loads(raw)
            return result

    async def watch(self, path: str, params: dict[str, str]) -> AsyncIterator[Obj]:
        """Watch events as they come. Raises as `request` does; ends when the server ends the watch."""
        async with self._open().get(
            self._server + path,
            params={**params, "watch": "1", "allowWatchBookmarks": "true", "timeoutSeconds": str(_WATCH_SECONDS)},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=_WATCH_SECONDS + 30),
        ) as response:
            if response.status >= 400:
                raise _error(response.status, await response.read())
            rest = b""
            async for chunk in response.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if line:
                        yield orjson.loads(line)


OnChange = Callable[[Obj, bool], None]
"""(object, gone): called for every change, in the API's order."""


class Reflector:
    """A cache of one resource, kept by list and watch; survives restarts of the API server and relists on 410 Gone."""

    def __init__(self, api: ApiClient, path: str, on_change: OnChange, field_selector: str = "") -> None:
        self._api = api
        self._path = path
        self._on_change = on_change
        self._params = {"fieldSelector": field_selector} if field_selector else {}
        self.objects: dict[tuple[str, str], Obj] = {}
        self.synced = asyncio.Event()

    async def run(self) -> None:
        """Runs until cancelled."""
        version = ""
        pause = 0.1
        while True:
            try:
                if not version:
                    version = await self._list()
                    self.synced.set()
                async for event in self._api.watch(self._path, {**self._params, "resourceVersion": version}):
                    version = self._take(event)
                    pause = 0.1
            except ApiError as error:
                if error.status == 410:
                    version = ""
                    continue
                log.warning("watch of %s: %s", self._path, error)
            except (aiohttp.ClientError, TimeoutError, OSError, orjson.JSONDecodeError) as error:
                log.info("watch of %s was cut (%s); it goes on", self._path, type(error).__name__)
            else:
                continue
            await asyncio.sleep(pause)
            pause = min(pause * 2, 2.0)

    async def _list(self) -> str:
        answer = await self._api.request("GET", self._path, params=self._params)
        fresh = {_key(item): item for item in answer.get("items") or []}
        for key, old in list(self.objects.items()):
            if key not in fresh or fresh[key]["metadata"]["uid"] != old["metadata"]["uid"]:
                del self.objects[key]
                self._on_change(old, True)
        for item in fresh.values():
            self._store(item)
        return str(answer["metadata"]["resourceVersion"])

    def _take(self, event: Obj) -> str:
        obj, kind = event["object"], event["type"]
        if kind == "ERROR":
            raise ApiError(int(obj.get("code") or 500), obj.get("reason") or "", obj.get("message") or "")
        if kind == "DELETED":
            self.objects.pop(_key(obj), None)
            self._on_change(obj, True)
        elif kind in ("ADDED", "MODIFIED"):
            self._store(obj)
        return str(obj["metadata"]["resourceVersion"])

    def _store(self, obj: Obj) -> None:
        obj["metadata"].pop("managedFields", None)  # half of a small object's size, and nobody here reads it
        self.objects[_key(obj)] = obj
        self._on_change(obj, False)


def _key(obj: Obj) -> tuple[str, str]:
    return str(obj["metadata"].get("namespace", "")), str(obj["metadata"]["name"])


def _error(status: int, raw: bytes) -> ApiError:
    with contextlib.suppress(orjson.JSONDecodeError):
        body: Any = orjson.loads(raw)
        if isinstance(body, dict):
            return ApiError(status, str(body.get("reason", "")), str(body.get("message", "")))
    return ApiError(status, "", raw[:200].decode(errors="replace"))


def _named(entries: list[Obj], name: str) -> Obj:
    return next((entry for entry in entries if entry["name"] == name), {})


def _material(entry: Obj, key: str, kubeconfig: Path) -> str:
    """PEM text from `<key>-data` or from the file that `<key>` names (relative to the kubeconfig)."""
    if entry.get(key + "-data"):
        return base64.b64decode(entry[key + "-data"]).decode()
    if entry.get(key):
        try:
            return (kubeconfig.parent / str(entry[key])).read_text()
        except OSError as error:
            raise NodeUnusable(
                f"the kubeconfig {kubeconfig} names {key} {entry[key]}, which could not be read: {error}"
            ) from error
    return ""
