"""Names that more than one part writes or reads: labels, annotations, mount paths, Redis keys."""

from __future__ import annotations

GROUP = "pilothouse.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
FIELD_MANAGER = "pilothouse-operator"

LABEL_TENANT = f"{GROUP}/tenant"
LABEL_REVISION = f"{GROUP}/revision"
LABEL_COMPONENT = "app.kubernetes.io/component"
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
COMPONENT_WORKER = "worker"
COMPONENT_GATEWAY = "gateway"
ANNOTATION_CONFIG_HASH = f"{GROUP}/config-hash"

WORKER_GRPC_PORT = 9090
GATEWAY_HTTP_PORT = 8080
GATEWAY_FLEET_PORT = 9090

SYSTEM_NAMESPACE = "pilothouse-system"
DEV_TOKEN_SECRET = "pilothouse-dev-tokens"  # noqa: S105 - the name of a Secret, not one
"""Secret in the system namespace whose key ``signing-key`` signs development tokens (HS256)."""
SRE_SERVICE_ACCOUNT = "pilothouse-sre"
FLEET_AUDIENCE = "pilothouse-fleet"
DEV_TOKEN_AUDIENCE = "pilothouse"  # noqa: S105 - an audience

CONFIG_DIR = "/etc/pilothouse/config"
"""Where a worker's Secret is mounted: ``config.json``, ``redis-url``, ``database-url`` and ``secret.<name>.<key>``
files."""


VAULT_AUDIENCE = "vault"
"""Audience of the tokens that Pods show to Vault."""
VAULT_TOKEN_DIR = "/var/run/secrets/pilothouse/vault"  # noqa: S105 - a path
VAULT_TOKEN_FILE = f"{VAULT_TOKEN_DIR}/token"
"""Where a Pod that uses Vault finds its ServiceAccount token for it."""


def account_keys(tenant: str) -> str:
    """Name of the Secret with the keys that seal a tenant's linked accounts (backend Kubernetes)."""
    return f"{tenant}-account-keys"


def document_file(connector: str) -> str:
    """File name under ``CONFIG_DIR`` of a Connector's OpenAPI document."""
    return f"document.{connector}"


ROUTING_EXAMPLES_FILE = "routing-examples"
"""File name under ``CONFIG_DIR`` of the ModelRoute's labelled examples, JSON lines."""


def secret_file(secret: str, key: str) -> str:
    """File name under ``CONFIG_DIR`` of one key of a Secret that the tenant's objects refer to."""
    return f"secret.{secret}.{key}"


def worker_name(tenant: str) -> str:
    """Name of a tenant's worker Deployment, Service, ServiceAccount, Secret, policy and budget."""
    return f"{tenant}-worker"


def events_key(tenant: str) -> str:
    """Redis stream of a tenant's run events (proto ``RunEvent`` under field ``e``)."""
    return f"{{{tenant}}}:events"


def breakers_key(tenant: str) -> str:
    """Redis hash of what a tenant's workers know of their breakers: a JSON record under each breaker's name."""
    return f"{{{tenant}}}:breakers"


def limits_key(tenant: str) -> str:
    """Beginning of the Redis keys under which a tenant's workers count what its limits bound."""
    return f"{{{tenant}}}:limits"


def response_key(tenant: str, digest: str) -> str:
    """Redis key of a model's answer that may be used again."""
    return f"{{{tenant}}}:response:{digest}"


def session_key(tenant: str, session: str, part: str) -> str:
    """Redis key of one part of a session: ``short`` (messages) or ``worker`` (affinity)."""
    return f"{{{tenant}:{session}}}:{part}"


PLAN_STEP = "plan"
"""Id and tool of the step that stands for the making of the plan itself. It does nothing in any system."""
