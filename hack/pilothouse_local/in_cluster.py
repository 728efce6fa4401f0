"""Valkey and PostgreSQL in a cluster that brings none, with the Secret that names them: for demonstrations.

Valkey's data lives as long as its Pod, PostgreSQL's on a volume: it holds what was written on behalf of people.
Passwords are in the Secret and nowhere else; a Secret that is there is completed, never replaced.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from pilothouse_api.names import SYSTEM_NAMESPACE
from pilothouse_local import deploy
from pilothouse_local.api import Object

NEEDED_KEYS = ("redis-url", "database-url", "database-owner-url")
"""What the chart takes from the Secret; ``database-worker-password`` is for who leaves it to the migration."""
_VALKEY = f"valkey.{SYSTEM_NAMESPACE}.svc:6379/0"
_VALKEY_PASSWORD = "password"  # noqa: S105 - the name of a key
_OWNER_PASSWORD = "database-owner-password"  # noqa: S105
_WORKER_PASSWORD = "database-worker-password"  # noqa: S105
_SUPERUSER_PASSWORD = "database-superuser-password"  # noqa: S105
_PORTS = {"valkey": 6379, "postgres": 5432}
_USER = 999
"""That of both images."""
_INIT_SQL = """\
\\getenv password OWNER_PASSWORD
CREATE ROLE pilothouse LOGIN CREATEROLE PASSWORD :'password';
CREATE DATABASE pilothouse OWNER pilothouse;
\\connect pilothouse
CREATE EXTENSION vector;
"""


def made_here(data: Mapping[str, str]) -> bool:
    """Whether the Secret names the Valkey of this module, and so is not a person's own."""
    return _VALKEY in data.get("redis-url", "")


def secret_data(data: Mapping[str, str]) -> dict[str, str]:
    """The Secret's whole content: what ``data`` has stays, what it lacks is made."""

    def kept(key: str) -> str:
        return data.get(key) or secrets.token_urlsafe(24)

    passwords = {key: kept(key) for key in (_VALKEY_PASSWORD, _OWNER_PASSWORD, _WORKER_PASSWORD, _SUPERUSER_PASSWORD)}
    database = f"postgres.{SYSTEM_NAMESPACE}.svc:5432/pilothouse"
    return {
        **passwords,
        "redis-url": f"redis://:{passwords[_VALKEY_PASSWORD]}@{_VALKEY}",
        "database-url": f"postgresql://pilothouse_worker:{passwords[_WORKER_PASSWORD]}@{database}",
        "database-owner-url": f"postgresql://pilothouse:{passwords[_OWNER_PASSWORD]}@{database}",
    }


def stores(data: Mapping[str, str]) -> list[Object]:
    """All objects; ``data`` is what the Secret holds now, empty where there is none."""
    valkey: Object = {
        "image": "valkey/valkey:9.0-alpine",
        "command": ["sh", "-c", 'exec valkey-server --dir /data --appendonly yes --requirepass "$PASSWORD"'],
        "env": [_from_secret("PASSWORD", _VALKEY_PASSWORD)],
        "readinessProbe": {"tcpSocket": {"port": _PORTS["valkey"]}, "periodSeconds": 2},
        "resources": {"requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"memory": "256Mi"}},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    postgres: Object = {
        "image": "pgvector/pgvector:pg18",
        "env": [
            _from_secret("POSTGRES_PASSWORD", _SUPERUSER_PASSWORD),
            _from_secret("OWNER_PASSWORD", _OWNER_PASSWORD),
        ],
        # By TCP: while the image still makes the database, its server listens on a socket file only.
        "readinessProbe": {
            "exec": {"command": ["pg_isready", "--host=127.0.0.1", "--username=postgres"]},
            "periodSeconds": 2,
        },
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
        "volumeMounts": [
            {"name": "data", "mountPath": "/var/lib/postgresql"},
            {"name": "init", "mountPath": "/docker-entrypoint-initdb.d"},
        ],
    }
    init: Object = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _meta("postgres", "postgres-init"),
        "data": {"pilothouse.sql": _INIT_SQL},
    }
    claim: Object = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": _meta("postgres"),
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}},
    }
    return [
        deploy.secret(deploy.STORES_SECRET, secret_data(data)),
        _policy(),
        _service("valkey"),
        _deployment("valkey", valkey, [{"name": "data", "emptyDir": {}}]),
        init,
        claim,
        _service("postgres"),
        _deployment(
            "postgres",
            postgres,
            [
                {"name": "data", "persistentVolumeClaim": {"claimName": "postgres"}},
                {"name": "init", "configMap": {"name": "postgres-init"}},
            ],
        ),
    ]


def _meta(app: str, name: str = "") -> Object:
    return {"name": name or app, "namespace": SYSTEM_NAMESPACE, "labels": {"app.kubernetes.io/name": app}}


def _from_secret(variable: str, key: str) -> Object:
    return {"name": variable, "valueFrom": {"secretKeyRef": {"name": deploy.STORES_SECRET, "key": key}}}


def _policy() -> Object:
    """The namespace denies by default; whoever knows the password may come in, from any tenant's namespace."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _meta("stores", "pilothouse-stores"),
        "spec": {
            "podSelector": {
                "matchExpressions": [{"key": "app.kubernetes.io/name", "operator": "In", "values": list(_PORTS)}]
            },
            "policyTypes": ["Ingress"],
            "ingress": [
                {
                    "from": [{"namespaceSelector": {}}],
                    "ports": [{"protocol": "TCP", "port": port} for port in _PORTS.values()],
                }
            ],
        },
    }


def _service(app: str) -> Object:
    port = _PORTS[app]
    spec = {"selector": _meta(app)["labels"], "ports": [{"name": app, "port": port, "targetPort": port}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": _meta(app), "spec": spec}


def _deployment(app: str, container: Object, volumes: list[Object]) -> Object:
    """One Pod that the namespace's level of Pod security (restricted) lets in."""
    whole = {
        "name": app,
        "ports": [{"name": app, "containerPort": _PORTS[app]}],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        **container,
    }
    pod: Object = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [whole],
        "volumes": volumes,
    }
    labels = _meta(app)["labels"]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _meta(app),
        "spec": {
            "replicas": 1,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }
