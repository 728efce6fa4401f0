"""How to reach the Kubernetes API: from inside of a Pod, or with a kubeconfig.

Read by hand instead of through the official client, which costs 60 MB of resident memory for what is 100 lines here.
"""

from __future__ import annotations

import base64
import os
import ssl
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

SERVICE_ACCOUNT_DIR = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TOKEN_LIFE_SECONDS = 60.0
"""How long a token that was read from a file is used: the kubelet rewrites it long before it expires."""


class NoConnectionError(Exception):
    """Neither a Pod's ServiceAccount nor a usable kubeconfig was found: whoever starts the operator must give one."""


@dataclass(frozen=True)
class Connection:
    """Server address and credentials; exactly one of token, token file and client certificate is usually set."""

    server: str
    ca_path: str | None = None
    ca_data: str | None = None
    """Base64 of PEM, as in a kubeconfig."""
    token: str | None = None
    token_file: Path | None = None
    certificate_path: str | None = None
    certificate_data: str | None = None
    private_key_path: str | None = None
    private_key_data: str | None = None
    insecure: bool = False

    def current_token(self) -> str | None:
        """The bearer token to send now."""
        if self.token_file is not None:
            return self.token_file.read_text(encoding="utf-8").strip()
        return self.token

    def ssl_context(self) -> ssl.SSLContext | None:
        """TLS settings; None for a plain-text server (a test's)."""
        if not self.server.startswith("https:"):
            return None
        pem = base64.b64decode(self.ca_data).decode() if self.ca_data else None
        context = ssl.create_default_context(cafile=self.ca_path, cadata=pem)
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.certificate_path and self.private_key_path:
            context.load_cert_chain(self.certificate_path, self.private_key_path)
        elif self.certificate_data and self.private_key_data:
            # ssl loads certificates from files only; the folder is private and gone right after.
            with tempfile.TemporaryDirectory() as folder:
                certificate, key = Path(folder, "tls.crt"), Path(folder, "tls.key")
                certificate.write_bytes(base64.b64decode(self.certificate_data))
                key.write_bytes(base64.b64decode(self.private_key_data))
                context.load_cert_chain(certificate, key)
        return context


class TokenSource:
    """Gives the connection's token, read again from its file after ``TOKEN_LIFE_SECONDS``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._token: str | None = None
        self._read_at = float("-inf")

    def headers(self) -> dict[str, str]:
        """Authorization header, empty where a client certificate authenticates."""
        if time.monotonic() - self._read_at > TOKEN_LIFE_SECONDS:
            self._token = self._connection.current_token()
            self._read_at = time.monotonic()
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}

    def forget(self) -> None:
        """Read the token anew at the next request (the API refused the one in use)."""
        self._read_at = float("-inf")


def load() -> Connection:
    """The Pod's own ServiceAccount, else ``$KUBECONFIG`` or ``~/.kube/config``.

    Raises:
        NoConnectionError: neither is there.
    """
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT")
    token_file = SERVICE_ACCOUNT_DIR / "token"
    if host and port and token_file.exists():
        address = f"[{host}]" if ":" in host else host
        ca_file = str(SERVICE_ACCOUNT_DIR / "ca.crt")
        return Connection(server=f"https://{address}:{port}", ca_path=ca_file, token_file=token_file)
    path = Path(os.environ.get("KUBECONFIG") or Path.home() / ".kube" / "config")
    if not path.exists():
        raise NoConnectionError("No Kubernetes API: not in a Pod, and no kubeconfig. Set KUBECONFIG.")
    return from_kubeconfig(path)


def from_kubeconfig(path: Path) -> Connection:
    """The current context of one kubeconfig file.

    Raises:
        NoConnectionError: the file has no usable current context.
    """
    config: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8")) or {}

    def named(section: str, field: str, name: object) -> dict[str, Any]:
        for item in config.get(section) or []:
            if item.get("name") == name:
                return dict(item.get(field) or {})
        raise NoConnectionError(f"{path.name}: no {field} {name!r} in {section}. Set a complete current context.")

    context = named("contexts", "context", config.get("current-context"))
    cluster = named("clusters", "cluster", context.get("cluster"))
    user = named("users", "user", context.get("user"))

    def beside(value: str | None) -> str | None:
        return str(path.parent / value) if value else None

    return Connection(
        server=str(cluster["server"]),
        ca_path=beside(cluster.get("certificate-authority")),
        ca_data=cluster.get("certificate-authority-data"),
        insecure=bool(cluster.get("insecure-skip-tls-verify")),
        token=user.get("token"),
        token_file=Path(user["tokenFile"]) if user.get("tokenFile") else None,
        certificate_path=beside(user.get("client-certificate")),
        certificate_data=user.get("client-certificate-data"),
        private_key_path=beside(user.get("client-key")),
        private_key_data=user.get("client-key-data"),
    )
