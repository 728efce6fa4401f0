"""Which cluster, and as whom: reads the kubeconfig as kubectl does, without the Kubernetes client's 48 MB.

Order: ``--kubeconfig``, ``$KUBECONFIG`` (a path list, the first file to define a name wins), the local cluster's
``<state>/kubeconfig``, ``~/.kube/config``.
"""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import yaml

from pilothouse_tui.errors import AccessError, ConfigurationError

_NOT_DONE = "The cluster was not contacted."


def state_dir(environ: Mapping[str, str], *, uid: int | None = None) -> Path:
    """Where the local cluster keeps its files: ``$PILOTHOUSE_STATE``, ``/var/lib/pilothouse`` for root, else XDG's."""
    if named := environ.get("PILOTHOUSE_STATE"):
        return Path(named)
    if (os.geteuid() if uid is None else uid) == 0:
        return Path("/var/lib/pilothouse")
    base = environ.get("XDG_STATE_HOME") or str(Path(environ.get("HOME", "~")).expanduser() / ".local" / "state")
    return Path(base) / "pilothouse"


def find_kubeconfig(environ: Mapping[str, str], explicit: str = "", *, uid: int | None = None) -> list[Path]:
    """The kubeconfig files to read, most important first.

    Raises ConfigurationError where there is none; the caller must name one.
    """
    if explicit or environ.get("KUBECONFIG"):
        named = [Path(p).expanduser() for p in (explicit or environ["KUBECONFIG"]).split(os.pathsep) if p]
        if present := [p for p in named if p.is_file()]:
            return present
        raise ConfigurationError(
            f"None of the kubeconfig files {', '.join(map(str, named))} exists.",
            _NOT_DONE,
            "Correct --kubeconfig or $KUBECONFIG, or unset it to use the local cluster.",
        )
    home = Path(environ.get("HOME", "~")).expanduser()
    local = state_dir(environ, uid=uid) / "kubeconfig"
    for candidate in (local, home / ".kube" / "config"):
        if candidate.is_file():
            return [candidate]
    raise ConfigurationError(
        f"No kubeconfig was found: $KUBECONFIG is not set, and neither {local} nor ~/.kube/config exists.",
        _NOT_DONE,
        "Start the local cluster with `make up`, or set $KUBECONFIG to your cluster's file.",
    )


@dataclass(frozen=True, slots=True)
class ClusterAccess:
    """One context of a kubeconfig: the API server and how the caller proves who they are."""

    context: str
    server: str
    ca: bytes | None = None
    verify: bool = True
    server_name: str = ""
    client_certificate: bytes | None = None
    client_key: bytes | None = None
    token: str = ""
    token_file: str = ""
    exec_plugin: Mapping[str, Any] | None = None

    def ssl_context(self, certificate: bytes | None = None, key: bytes | None = None) -> ssl.SSLContext | bool:
        """TLS settings for the API server; ``True`` for plain HTTP, where they are not used."""
        if not self.server.startswith("https"):
            return True
        context = ssl.create_default_context(cadata=self.ca.decode() if self.ca else None)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        certificate, key = certificate or self.client_certificate, key or self.client_key
        if certificate and key:
            # The ssl module reads files only; this one is private (mkstemp makes it 0600) and gone when the block ends.
            with tempfile.NamedTemporaryFile(prefix="pilothouse-client-") as file:
                file.write(certificate + b"\n" + key)
                file.flush()
                context.load_cert_chain(file.name)
        return context


def load_access(files: list[Path], context: str = "") -> ClusterAccess:
    """Read one context (the current one by default) out of the files.

    Raises ConfigurationError where a file can't be read or the context is incomplete.
    """
    current, clusters, users, contexts = "", {}, {}, {}  # type: str, dict[str, Any], dict[str, Any], dict[str, Any]
    for path in files:
        try:
            raw = yaml.safe_load(path.read_text()) or {}
        except (OSError, yaml.YAMLError) as error:
            raise ConfigurationError(
                f"The kubeconfig {path} can't be read: {error}.", _NOT_DONE, "Correct the file."
            ) from error
        current = current or raw.get("current-context") or ""
        for table, plural, singular in ((clusters, "clusters", "cluster"), (users, "users", "user")):
            for entry in raw.get(plural) or ():
                table.setdefault(entry["name"], _absolute(entry.get(singular) or {}, path.parent))
        for entry in raw.get("contexts") or ():
            contexts.setdefault(entry["name"], entry.get("context") or {})
    chosen = context or current
    names = contexts.get(chosen)
    if names is None or names.get("cluster") not in clusters:
        raise ConfigurationError(
            f"The kubeconfig has no complete context {chosen!r}.",
            _NOT_DONE,
            f"Choose one of: {', '.join(sorted(contexts)) or 'none is defined'} (kubectl config use-context NAME).",
        )
    return _access(chosen, clusters[names["cluster"]], users.get(names.get("user", ""), {}))


def _access(context: str, cluster: Mapping[str, Any], user: Mapping[str, Any]) -> ClusterAccess:
    return ClusterAccess(
        context=context,
        server=str(cluster.get("server", "")).rstrip("/"),
        ca=_data_or_file(cluster, "certificate-authority"),
        verify=not cluster.get("insecure-skip-tls-verify", False),
        server_name=cluster.get("tls-server-name", ""),
        client_certificate=_data_or_file(user, "client-certificate"),
        client_key=_data_or_file(user, "client-key"),
        token=user.get("token", ""),
        token_file=user.get("tokenFile", ""),
        exec_plugin=user.get("exec"),
    )


def _absolute(entry: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Paths in a kubeconfig are relative to the file that they stand in."""
    paths = {"certificate-authority", "client-certificate", "client-key", "tokenFile"}
    return {k: str(folder / v) if k in paths and v else v for k, v in entry.items()}


def _data_or_file(entry: Mapping[str, Any], key: str) -> bytes | None:
    if data := entry.get(f"{key}-data"):
        return base64.b64decode(data)
    if path := entry.get(key):
        try:
            return Path(path).read_bytes()
        except OSError as error:
            raise ConfigurationError(
                f"The kubeconfig's {key} {path} can't be read: {error.strerror}.", _NOT_DONE, "Correct the kubeconfig."
            ) from error
    return None


@dataclass(frozen=True, slots=True)
class PluginCredential:
    """What an exec plugin (``aws eks get-token`` and the like) returned."""

    token: str = ""
    certificate: bytes | None = None
    key: bytes | None = None


async def run_plugin(plugin: Mapping[str, Any]) -> PluginCredential:
    """Run a kubeconfig's exec credential plugin (client.authentication.k8s.io).

    Raises AccessError where it fails; the caller must sign in as the plugin says.
    """
    command = [str(plugin.get("command", "")), *(str(a) for a in plugin.get("args") or ())]
    request = {
        "apiVersion": plugin.get("apiVersion", "client.authentication.k8s.io/v1"),
        "kind": "ExecCredential",
        "spec": {"interactive": False},
    }
    environ = {**os.environ, **{e["name"]: e["value"] for e in plugin.get("env") or ()}}
    environ["KUBERNETES_EXEC_INFO"] = orjson.dumps(request).decode()
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            env=environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, problem = await process.communicate()
        if process.returncode:
            raise OSError(problem.decode(errors="replace").strip()[-300:] or f"exit status {process.returncode}")
        status = orjson.loads(output)["status"]
    except (OSError, ValueError, KeyError) as error:
        raise AccessError(
            f"The kubeconfig's credential plugin {command[0]!r} failed: {error}.",
            _NOT_DONE,
            "Sign in with it, and try again.",
        ) from error
    certificate, key = status.get("clientCertificateData"), status.get("clientKeyData")
    return PluginCredential(
        token=status.get("token", ""),
        certificate=certificate.encode() if certificate else None,
        key=key.encode() if key else None,
    )
