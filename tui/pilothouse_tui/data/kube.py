"""A lean client of the Kubernetes API: get, list, watch, TokenRequest, over aiohttp.

The official client costs 48 to 60 MB to import; the terminal needs five calls.
"""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson

from pilothouse_api.names import (
    COMPONENT_GATEWAY,
    DEV_TOKEN_SECRET,
    FLEET_AUDIENCE,
    GROUP,
    LABEL_COMPONENT,
    SRE_SERVICE_ACCOUNT,
    SYSTEM_NAMESPACE,
    VERSION,
)
from pilothouse_tui.data.convert import timestamp
from pilothouse_tui.data.kubeconfig import ClusterAccess, find_kubeconfig, load_access, run_plugin
from pilothouse_tui.errors import AccessError, ConfigurationError, ToolError, UnreachableError

Object = Mapping[str, Any]
_PODS = f"/api/v1/namespaces/{SYSTEM_NAMESPACE}/pods"
_GATEWAY_SERVICE = f"/api/v1/namespaces/{SYSTEM_NAMESPACE}/services/pilothouse-gateway"
_TOKEN = f"/api/v1/namespaces/{SYSTEM_NAMESPACE}/serviceaccounts/{SRE_SERVICE_ACCOUNT}/token"
_SECRET = f"/api/v1/namespaces/{SYSTEM_NAMESPACE}/secrets/{DEV_TOKEN_SECRET}"
WATCH_SECONDS = 300
"""How long one watch lasts before it is opened again, so that a silently dead connection is noticed."""


class GoneError(Exception):
    """The resource version is too old (410): list again."""


class NotFoundError(ConfigurationError):
    """The API server answered 404."""


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A ServiceAccount token and when it stops being valid."""

    value: str
    expires: datetime


class KubeClient:
    """One API server as one caller. Use as an async context manager."""

    def __init__(self, access: ClusterAccess) -> None:
        self.access = access
        self._session: aiohttp.ClientSession | None = None
        self._ssl: Any = None
        self._plugin_token = ""

    @classmethod
    def from_environment(cls, kubeconfig: str = "", context: str = "") -> KubeClient:
        """A client for the kubeconfig that ``find_kubeconfig`` finds. Raises ConfigurationError."""
        return cls(load_access(find_kubeconfig(os.environ, kubeconfig), context))

    async def __aenter__(self) -> KubeClient:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10, sock_connect=5))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    @property
    def on_this_machine(self) -> bool:
        """Whether the API server listens on a loopback address, so that its NodePorts and Pods may be reached here."""
        host = urlsplit(self.access.server).hostname or ""
        return host in ("localhost", "::1") or host.startswith("127.")

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> Object:
        """GET a path. Raises NotFoundError, AccessError, UnreachableError."""
        return await self._call("GET", path, params=params)

    async def watch(self, path: str, resource_version: str) -> AsyncGenerator[tuple[str, Object], None]:
        """Yield ``(ADDED|MODIFIED|DELETED|BOOKMARK, object)`` from a resource version on, until the server ends it.

        Raises GoneError (list again) and what ``get`` raises.
        """
        params = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=WATCH_SECONDS + 15)
        try:
            async with await self._request("GET", path, params=params, timeout=timeout) as response:
                await self._check(response, path)
                rest = b""
                # Lines are split by hand: aiohttp's readline gives up at 128 KB, and an object may have 1.5 MB.
                async for chunk in response.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        if line.strip():
                            event = orjson.loads(line)
                            if event["type"] == "ERROR":
                                _raise_watch_error(event["object"])
                            yield event["type"], event["object"]
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(error) from error

    async def find_tenants(self) -> list[str]:
        """Names of the cluster's Tenants, in order. Raises a ToolError."""
        listed = await self.get(f"/apis/{GROUP}/{VERSION}/tenants", {"resourceVersion": "0"})
        return sorted({str(item["metadata"]["name"]) for item in listed.get("items") or ()})

    async def read_signing_key(self) -> bytes:
        """The key that signs development tokens, from its Secret in the system namespace."""
        try:
            secret = await self.get(_SECRET)
        except NotFoundError as error:
            raise ConfigurationError(
                f"The Secret {SYSTEM_NAMESPACE}/{DEV_TOKEN_SECRET} does not exist: this cluster takes no development"
                " tokens.",
                "No token was made.",
                "Use a token of your identity provider (--token), or install Pilothouse with development tokens on.",
            ) from error
        data = secret.get("data") or {}
        if "signing-key" not in data:
            raise ConfigurationError(
                f"The Secret {SYSTEM_NAMESPACE}/{DEV_TOKEN_SECRET} has no key signing-key.",
                "No token was made.",
                "Make the Secret again with the key signing-key.",
            )
        return base64.b64decode(data["signing-key"])

    async def request_fleet_token(self, seconds: int = 3600) -> IssuedToken:
        """A token of the SRE ServiceAccount for Fleet (TokenRequest), valid for about ``seconds``."""
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": [FLEET_AUDIENCE], "expirationSeconds": seconds},
        }
        try:
            status = (await self._call("POST", _TOKEN, body=body))["status"]
        except NotFoundError as error:
            raise ConfigurationError(
                f"The ServiceAccount {SYSTEM_NAMESPACE}/{SRE_SERVICE_ACCOUNT} does not exist.",
                "Live sessions, breakers and costs were not read.",
                "Install Pilothouse in this cluster, or choose another with --context.",
            ) from error
        except AccessError as error:
            raise AccessError(
                f"You may not make a token of ServiceAccount {SYSTEM_NAMESPACE}/{SRE_SERVICE_ACCOUNT}.",
                "Live sessions, breakers and costs were not read.",
                "Ask for `create serviceaccounts/token` in that namespace.",
            ) from error
        expires = timestamp(status.get("expirationTimestamp"))
        if expires is None:
            raise ToolError(
                "The API server gave a token without an expiry.", "Fleet was not contacted.", "Report it as a bug."
            )
        return IssuedToken(status["token"], expires)

    async def find_gateway_pod_ip(self) -> str:
        """Address of a Ready gateway Pod. Raises UnreachableError where none is Ready yet."""
        pods = await self.get(_PODS, {"labelSelector": f"{LABEL_COMPONENT}={COMPONENT_GATEWAY}"})
        for pod in pods.get("items") or ():
            status = pod.get("status") or {}
            ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or ())
            if ready and status.get("podIP") and not (pod["metadata"].get("deletionTimestamp")):
                return str(status["podIP"])
        raise UnreachableError(
            f"No gateway Pod in {SYSTEM_NAMESPACE} is Ready.",
            "Live sessions, breakers and costs were not read.",
            f"Look at it with `kubectl get pods -n {SYSTEM_NAMESPACE}`, or name an address with --fleet.",
        )

    async def find_chat_url(self) -> str:
        """WebSocket address of the local gateway, through the NodePort of its Service."""
        port_forward = (
            f"Run `kubectl port-forward -n {SYSTEM_NAMESPACE} deploy/pilothouse-gateway 8080`"
            " and pass --url ws://127.0.0.1:8080/v1/chat."
        )
        if not self.on_this_machine:
            raise ConfigurationError(
                f"The cluster of context {self.access.context!r} is not on this machine.",
                "The gateway was not contacted.",
                port_forward,
            )
        service = await self.get(_GATEWAY_SERVICE)
        for port in service["spec"].get("ports") or ():
            if port.get("name") == "http" and port.get("nodePort"):
                return f"ws://127.0.0.1:{port['nodePort']}/v1/chat"
        raise ConfigurationError(
            "The Service pilothouse-gateway has no NodePort named http.", "The gateway was not contacted.", port_forward
        )

    async def _call(
        self, method: str, path: str, *, params: Mapping[str, str] | None = None, body: Object | None = None
    ) -> Object:
        try:
            async with await self._request(method, path, params=params, body=body) as response:
                await self._check(response, path)
                result: Object = orjson.loads(await response.read())
                return result
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(error) from error

    async def _request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Object | None = None,
        timeout: aiohttp.ClientTimeout | None = None,
    ) -> aiohttp.ClientResponse:
        if self._session is None:
            raise RuntimeError("KubeClient is used outside of `async with`")
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if token := await self._credentials():
            headers["Authorization"] = f"Bearer {token}"
        return await self._session.request(
            method,
            self.access.server + path,
            params=params,
            data=orjson.dumps(body) if body is not None else None,
            headers=headers,
            ssl=self._ssl,
            server_hostname=self.access.server_name or None,
            timeout=timeout or self._session.timeout,
        )

    async def _credentials(self) -> str:
        """The bearer token, "" for a client certificate; makes the TLS settings on first use."""
        access = self.access
        if access.exec_plugin and (self._ssl is None or not self._plugin_token):
            credential = await run_plugin(access.exec_plugin)
            self._plugin_token = credential.token
            self._ssl = access.ssl_context(credential.certificate, credential.key)
        if self._ssl is None:
            self._ssl = access.ssl_context()
        if access.token_file:
            # Read each time: a projected token's file is replaced before the old one expires.
            try:
                return (await asyncio.to_thread(Path(access.token_file).read_text)).strip()
            except OSError as error:
                raise ConfigurationError(
                    f"The token file {access.token_file} can't be read: {error.strerror}.",
                    "The cluster was not contacted.",
                    "Correct the kubeconfig.",
                ) from error
        return access.token or self._plugin_token

    async def _check(self, response: aiohttp.ClientResponse, path: str) -> None:
        if response.status < 400:
            return
        text = (await response.read())[:2000]
        try:
            message = str(orjson.loads(text).get("message", ""))
        except (ValueError, AttributeError):
            message = text.decode(errors="replace")
        if response.status == 410:
            raise GoneError
        if response.status == 401:
            self._plugin_token = ""  # an exec plugin's token has expired: the next call runs the plugin again
        if response.status in (401, 403):
            raise AccessError(
                f"The Kubernetes API refused: {message or response.reason}.",
                f"{path} was not read.",
                f"Ask for the permission, or use another context than {self.access.context!r}.",
            )
        if response.status == 404:
            raise NotFoundError(
                f"The Kubernetes API has no {path}.",
                "It was not read.",
                "Install Pilothouse in this cluster (kubectl apply -f charts/install.yaml), or choose another context.",
            )
        raise UnreachableError(
            f"The Kubernetes API answered {response.status}: {message}.", f"{path} was not read.", "Try again."
        )

    def _unreachable(self, error: BaseException) -> UnreachableError:
        # aiohttp's own sentence repeats the address and prints the TLS object.
        cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
        reason = (isinstance(cause, OSError) and cause.strerror) or str(cause) or type(cause).__name__
        return UnreachableError(
            f"The Kubernetes API at {self.access.server} can't be reached ({reason}; context {self.access.context!r}).",
            "The cluster's objects were not read.",
            "Check that the cluster runs (`pilothouse status` for a local one) and that this is the right context.",
        )


def _raise_watch_error(status: Object) -> None:
    if status.get("code") == 410:
        raise GoneError
    raise UnreachableError(f"The watch ended: {status.get('message', 'no reason given')}.", "It was ended.", "Wait.")
