"""A small Kubernetes client: JSON requests, and list-and-watch that resumes, relists on 410 and backs off.

Plain aiohttp, because the official client costs 60 MB of memory for the four calls that the gateway makes.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import random
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import orjson

log = logging.getLogger(__name__)

_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_PAGE = 250
"""Objects per list page: a page of Pods is about 2 MB of JSON at most."""
_WATCH_SECONDS = 240
_TOKEN_AGE = 30.0
"""Seconds that the token file's content is reused; the kubelet renews it long before it expires."""
_MAX_LINE = 4 * 1024 * 1024
"""Bytes of one watch event; etcd refuses objects above 1.5 MB."""


class KubeError(Exception):
    """The API server refused or could not be reached; ``status`` 0 means that there was no answer at all."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"Kubernetes API: {status} {message}" if status else f"Kubernetes API: {message}")
        self.status = status


@dataclass(slots=True)
class KubeConfig:
    """Where the API server is and how to speak to it."""

    server: str
    tls: ssl.SSLContext | None
    token: str | None = None
    token_file: Path | None = None
    _read_at: float = -1e9

    def bearer(self, now: float) -> str | None:
        """The token to send; re-reads the file, since projected tokens are renewed in place."""
        if self.token_file is not None and now - self._read_at > _TOKEN_AGE:
            self.token = self.token_file.read_text().strip()
            self._read_at = now
        return self.token


def load_config(env: Mapping[str, str] = os.environ) -> KubeConfig:
    """In-cluster configuration, else the file that ``KUBECONFIG`` names. Raises :class:`KubeError` with neither."""
    host, token_file = env.get("KUBERNETES_SERVICE_HOST"), _SERVICE_ACCOUNT / "token"
    if host and token_file.exists():
        authority = f"[{host}]" if ":" in host else host
        tls = ssl.create_default_context(cafile=str(_SERVICE_ACCOUNT / "ca.crt"))
        return KubeConfig(
            f"https://{authority}:{env.get('KUBERNETES_SERVICE_PORT', '443')}", tls, token_file=token_file
        )
    if env.get("KUBECONFIG"):
        return _from_kubeconfig(Path(env["KUBECONFIG"]))
    raise KubeError(
        0, "neither a ServiceAccount is mounted nor KUBECONFIG set; the gateway cannot find workers without."
    )


def _from_kubeconfig(path: Path) -> KubeConfig:
    import yaml  # only outside of a cluster, so that the process in a Pod stays small

    doc = yaml.safe_load(path.read_text())
    context = next(c["context"] for c in doc["contexts"] if c["name"] == doc["current-context"])
    cluster = next(c["cluster"] for c in doc["clusters"] if c["name"] == context["cluster"])
    user = next(u["user"] for u in doc["users"] if u["name"] == context["user"])
    server: str = cluster["server"].rstrip("/")
    tls: ssl.SSLContext | None = None
    if server.startswith("https:"):
        ca = cluster.get("certificate-authority-data")
        tls = ssl.create_default_context(
            cafile=str(path.parent / cluster["certificate-authority"])
            if cluster.get("certificate-authority")
            else None,
            cadata=base64.b64decode(ca).decode() if ca else None,
        )
        if cluster.get("insecure-skip-tls-verify"):
            tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        _load_client_certificate(tls, user, path.parent)
    return KubeConfig(
        server, tls, token=user.get("token"), token_file=Path(user["tokenFile"]) if user.get("tokenFile") else None
    )


def _load_client_certificate(tls: ssl.SSLContext, user: Mapping[str, str], base: Path) -> None:
    if user.get("client-certificate-data"):
        with tempfile.TemporaryDirectory() as folder:
            # OpenSSL takes a certificate chain only from files; the folder is 0700 and gone at once.
            certificate, key = Path(folder, "crt"), Path(folder, "key")
            certificate.write_bytes(base64.b64decode(user["client-certificate-data"]))
            key.write_bytes(base64.b64decode(user["client-key-data"]))
            tls.load_cert_chain(certificate, key)
    elif user.get("client-certificate"):
        tls.load_cert_chain(base / user["client-certificate"], base / user["client-key"])


class Sink(Protocol):
    """Takes what list-and-watch sees."""

    def begin(self) -> None:
        """A full list starts."""

    def add(self, obj: Mapping[str, Any]) -> None:
        """One object of the full list."""

    def commit(self) -> None:
        """The full list is complete and replaces what was known."""

    def put(self, obj: Mapping[str, Any]) -> None:
        """One object was added or changed."""

    def drop(self, obj: Mapping[str, Any]) -> None:
        """One object was deleted."""


class KubeClient:
    """Speaks to one API server; use as an async context manager."""

    def __init__(self, config: KubeConfig) -> None:
        self._config = config
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> KubeClient:
        self._http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self._config.tls or True, limit=32))
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._http is not None:
            await self._http.close()

    def _headers(self) -> dict[str, str]:
        token = self._config.bearer(time.monotonic())
        return {"Accept": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}

    def _session(self) -> aiohttp.ClientSession:
        if self._http is None:
            raise KubeError(0, "the client is not open")
        return self._http

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: object = None,
        seconds: float = 15,
    ) -> dict[str, Any]:
        """One JSON request. Raises :class:`KubeError` on a refusal, on no answer, and after ``seconds``."""
        data = None if body is None else orjson.dumps(body)
        try:
            async with self._session().request(
                method,
                self._config.server + path,
                params=params,
                data=data,
                headers={**self._headers(), "Content-Type": "application/json"},
                timeout=aiohttp.ClientTimeout(total=seconds, sock_connect=5),
            ) as response:
                raw = await response.read()
                if response.status >= 400:
                    raise KubeError(response.status, _message(raw))
                loaded: dict[str, Any] = orjson.loads(raw)
                return loaded
        except (aiohttp.ClientError, TimeoutError, OSError, orjson.JSONDecodeError) as error:
            raise KubeError(0, f"{method} {path}: {error!r}") from error

    async def _list(self, path: str, params: Mapping[str, str], sink: Sink) -> str:
        sink.begin()
        token = ""
        while True:
            query = {**params, "limit": str(_PAGE), **({"continue": token} if token else {})}
            page = await self.request("GET", path, params=query, seconds=60)
            for obj in page.get("items") or ():
                sink.add(obj)
            token = page.get("metadata", {}).get("continue") or ""
            if not token:
                sink.commit()
                version: str = page.get("metadata", {}).get("resourceVersion", "")
                return version

    async def _watch(self, path: str, params: Mapping[str, str], version: str) -> AsyncIterator[dict[str, Any]]:
        query = {
            **params,
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(_WATCH_SECONDS),
        }
        # Bookmarks come every minute: 90 silent seconds mean a connection that is dead without a reset.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=90)
        async with self._session().get(
            self._config.server + path, params=query, headers=self._headers(), timeout=timeout
        ) as response:
            if response.status >= 400:
                raise KubeError(response.status, _message(await response.read()))
            buffer = bytearray()
            async for chunk in response.content.iter_any():
                buffer += chunk
                if len(buffer) > _MAX_LINE:
                    raise KubeError(0, f"a watch event of {path} is longer than {_MAX_LINE} bytes")
                while (end := buffer.find(b"\n")) >= 0:
                    line = bytes(buffer[:end])
                    del buffer[: end + 1]
                    if line.strip():
                        yield orjson.loads(line)

    async def list_and_watch(self, path: str, params: Mapping[str, str], sink: Sink) -> None:
        """Keep ``sink`` equal to the server's objects until cancelled; failures are logged and tried again."""
        version, delay = "", 0.2
        while True:
            try:
                if not version:
                    version = await self._list(path, params, sink)
                async for event in self._watch(path, params, version):
                    version = _take(event, sink, version)
                    delay = 0.2
                continue
            except KubeError as error:
                if error.status == 410:
                    version = ""
                    continue
                log.warning("watch of %s: %s; trying again in %.1f s", path, error, delay)
            except (aiohttp.ClientError, TimeoutError, OSError, orjson.JSONDecodeError) as error:
                log.warning("watch of %s was cut (%r); resuming in %.1f s", path, error, delay)
            await asyncio.sleep(delay * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
            delay = min(delay * 2, 15.0)


def _take(event: Mapping[str, Any], sink: Sink, version: str) -> str:
    kind, obj = event.get("type"), event.get("object") or {}
    if kind == "ERROR":
        raise KubeError(int(obj.get("code") or 500), str(obj.get("message") or "the watch ended with an error"))
    if kind in {"ADDED", "MODIFIED"}:
        sink.put(obj)
    elif kind == "DELETED":
        sink.drop(obj)
    newest: str = obj.get("metadata", {}).get("resourceVersion") or version
    return newest


def _message(raw: bytes) -> str:
    try:
        return str(orjson.loads(raw).get("message") or raw[:200].decode(errors="replace"))
    except (orjson.JSONDecodeError, AttributeError):
        return raw[:200].decode(errors="replace")
