"""OpenBao for a cluster that is not the local one: objects for a demonstration, in a namespace of their own.

It initializes itself at its first start by what its configuration says (OpenBao's self-initialization) and unseals
itself with the key of a Secret, so there is no root token at all. Whoever may make tokens of ServiceAccount
``pilothouse-vault/admin`` may write tenants' secrets; that is how the demo does it. Plain HTTP, inside of the cluster
alone: not for production, where a Vault with TLS and somebody's own unsealing is.

The official image was never run with this; its server was, with these very objects, as a Pod of the local cluster.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import PurePosixPath

from pilothouse_api.names import VAULT_AUDIENCE
from pilothouse_local import vault
from pilothouse_local.api import Object
from pilothouse_local.deploy import Kubectl
from pilothouse_local.instance import VAULT_PORT
from pilothouse_local.standins import address_of

NAMESPACE = vault.NAMESPACE
IMAGE = "openbao/openbao:2.7.2"
SEAL_SECRET = "vault-seal"  # noqa: S105 - the name of a Secret
SEAL_KEY = "key"
ADMIN = "admin"
ADMIN_ROLE = "pilothouse-admin"
_LABELS = {"app.kubernetes.io/name": vault.SERVICE}
_USER, _GROUP = 100, 1000
"""Those of the image."""
_CONFIG, _SEAL, _DATA = (PurePosixPath("/openbao") / name for name in ("pilothouse", "seal", "data"))

ADMIN_POLICY = f"""\
path "{vault.MOUNT}/data/*" {{
  capabilities = ["create", "read", "update", "patch"]
}}
"""


def seal_key() -> str:
    """32 random bytes, as a Secret's ``data`` has them."""
    return base64.b64encode(secrets.token_bytes(32)).decode()


def objects(key: str) -> list[Object]:
    """All of it; ``key`` is what the Secret holds now, or a new one."""
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": vault.NAMESPACE}},
        *(one for _, one in vault.service_objects() if one["kind"] != "Service"),
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _meta(ADMIN)},
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": _meta(SEAL_SECRET),
            "type": "Opaque",
            "data": {SEAL_KEY: key},
        },
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": _meta(vault.SERVICE),
            "data": {"config.json": json.dumps(configuration(), indent=1)},
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": _meta(vault.SERVICE),
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": _meta(vault.SERVICE),
            "spec": {
                "selector": _LABELS,
                "ports": [{"name": "http", "port": VAULT_PORT, "targetPort": VAULT_PORT}],
            },
        },
        _deployment(),
    ]


def configuration() -> Object:
    """The server's; ``initialize`` counts at the first start alone."""
    return {
        "storage": {"raft": {"path": str(_DATA), "node_id": "vault", "performance_multiplier": "1"}},
        "seal": {"static": {"current_key_id": "1", "current_key": f"file://{_SEAL / SEAL_KEY}"}},
        "listener": [{"tcp": {"address": f"0.0.0.0:{VAULT_PORT}", "tls_disable": True}}],
        "api_addr": vault.ADDRESS,
        "cluster_addr": f"http://127.0.0.1:{VAULT_PORT + 1}",
        "ui": False,
        "initialize": [{"pilothouse": {"request": [{name: request} for name, request in _requests().items()]}}],
    }


def _requests() -> dict[str, Object]:
    def write(path: str, data: Object) -> Object:
        return {"operation": "update", "path": path, "data": data}

    auth = f"auth/{vault.AUTH_MOUNT}"
    admin = {
        **vault.operator_role(),
        "bound_service_account_names": [ADMIN],
        "bound_service_account_namespaces": [vault.NAMESPACE],
        "token_policies": [ADMIN_ROLE],
    }
    return {
        "secrets": write(f"sys/mounts/{vault.MOUNT}", {"type": "kv", "options": {"version": "2"}}),
        "logins": write(f"sys/auth/{vault.AUTH_MOUNT}", {"type": "kubernetes"}),
        # Without more it reviews tokens with the Pod's own, which the kubelet renews.
        "api-server": write(f"{auth}/config", {"kubernetes_host": "https://kubernetes.default.svc"}),
        "operator-policy": write(f"sys/policies/acl/{vault.OPERATOR_ROLE}", {"policy": vault.OPERATOR_POLICY}),
        "operator-role": write(f"{auth}/role/{vault.OPERATOR_ROLE}", vault.operator_role()),
        "admin-policy": write(f"sys/policies/acl/{ADMIN_ROLE}", {"policy": ADMIN_POLICY}),
        "admin-role": write(f"{auth}/role/{ADMIN_ROLE}", admin),
    }


def _meta(name: str) -> Object:
    return {"name": name, "namespace": vault.NAMESPACE, "labels": _LABELS}


def _deployment() -> Object:
    container: Object = {
        "name": "openbao",
        "image": IMAGE,
        "command": ["bao", "server", f"-config={_CONFIG / 'config.json'}"],
        "ports": [{"name": "http", "containerPort": VAULT_PORT}],
        # 503 while it is sealed, 501 until it has initialized itself.
        "readinessProbe": {"httpGet": {"path": "/v1/sys/health", "port": VAULT_PORT}, "periodSeconds": 2},
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "384Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "config", "mountPath": str(_CONFIG), "readOnly": True},
            {"name": "seal", "mountPath": str(_SEAL), "readOnly": True},
            {"name": "data", "mountPath": str(_DATA)},
        ],
    }
    pod: Object = {
        "serviceAccountName": vault.REVIEWER,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _GROUP,
            "fsGroup": _GROUP,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": "config", "configMap": {"name": vault.SERVICE}},
            {"name": "seal", "secret": {"secretName": SEAL_SECRET, "defaultMode": 0o440}},
            {"name": "data", "persistentVolumeClaim": {"claimName": vault.SERVICE}},
        ],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _meta(vault.SERVICE),
        "spec": {
            "replicas": 1,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": _LABELS},
            "template": {"metadata": {"labels": _LABELS}, "spec": pod},
        },
    }


@contextmanager
def opened(kubectl: Kubectl) -> Iterator[vault.VaultApi]:
    """As its administrator, for as long as the context lasts. Raises ``VaultUnusable`` or ``ClusterUnreachable``."""
    token = kubectl.run(
        "create", "token", ADMIN, f"--namespace={vault.NAMESPACE}", f"--audience={VAULT_AUDIENCE}", "--duration=10m"
    )
    with address_of(kubectl, vault.NAMESPACE, vault.SERVICE, VAULT_PORT) as address:
        login: Mapping[str, str] = {"role": ADMIN_ROLE, "jwt": token.strip()}
        said = vault.VaultApi(address).request("POST", f"auth/{vault.AUTH_MOUNT}/login", dict(login)) or {}
        yield vault.VaultApi(address, str(said["auth"]["client_token"]))
