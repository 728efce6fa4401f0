"""What a tenant's workers may in Vault: one policy, and one role of the Kubernetes auth method that carries it.

A policy is written as JSON, so that no text of a Tenant can end a string in it and add a rule. Its name holds a dot
between namespace and tenant, which neither can hold: ``a-b`` and ``c`` never share a policy with ``a`` and ``b-c``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from pilothouse_api import Tenant, names
from pilothouse_operator.core.resources import Json

TOKEN_SECONDS = 1200
"""Life of a worker's Vault token; it renews it."""


@dataclass(frozen=True)
class VaultAccess:
    """What must be in one Vault server for one Tenant."""

    address: str
    auth_mount: str
    policy_name: str
    policy: str
    """JSON."""
    role_name: str
    service_account: str
    namespace: str
    ca_pem: str = field(default="", repr=False)
    """Authority that signed the server's certificate; "": one that the system trusts."""

    @property
    def role(self) -> Json:
        """The role's fields, as the API gives them back."""
        return {
            "bound_service_account_names": [self.service_account],
            "bound_service_account_namespaces": [self.namespace],
            "audience": names.VAULT_AUDIENCE,
            "token_policies": [self.policy_name],
            "token_ttl": TOKEN_SECONDS,
        }

    def owns(self, role: Json) -> bool:
        """Whether a role that is there is this Tenant's: another's is never written over."""
        bound = (role.get("bound_service_account_names"), role.get("bound_service_account_namespaces"))
        return bound == ([self.service_account], [self.namespace])

    def same_place(self, other: VaultAccess) -> bool:
        """Both are written to the same policy and role."""
        return self._place() == other._place()

    def _place(self) -> tuple[str, ...]:
        return self.address, self.auth_mount, self.policy_name, self.role_name


def access(tenant: Tenant, ca_pem: str = "") -> VaultAccess | None:
    """The Tenant's policy and role; None where its credentials are not in Vault."""
    vault, meta = tenant.spec.credentials.vault, tenant.metadata
    if vault is None:
        return None
    return VaultAccess(
        address=vault.address.rstrip("/"),
        auth_mount=vault.auth_mount,
        policy_name=f"pilothouse-{meta.namespace}.{meta.name}",
        policy=policy(vault.mount, f"{meta.namespace}/{meta.name}"),
        role_name=vault.role,
        service_account=names.worker_name(meta.name),
        namespace=meta.namespace,
        ca_pem=ca_pem,
    )


def policy(mount: str, prefix: str) -> str:
    """Read the tenant's secrets, keep its users' accounts, and nothing else."""
    rules = {
        f"{mount}/data/{prefix}/secrets": ["read"],
        f"{mount}/data/{prefix}/users/*": ["create", "read", "update", "delete"],
        # create and update: an entry is told to keep its last version only, so that no replaced token stays readable.
        f"{mount}/metadata/{prefix}/users/*": ["create", "update", "list", "delete"],
    }
    return json.dumps({"path": {path: {"capabilities": allowed} for path, allowed in rules.items()}}, sort_keys=True)
