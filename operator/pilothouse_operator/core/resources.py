"""The resources that the operator reads and writes: how a kind is addressed in the Kubernetes API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pilothouse_api import names

Json = dict[str, Any]
"""A Kubernetes object as the API gives it."""


@dataclass(frozen=True)
class Resource:
    """One kind's address in the API."""

    kind: str
    api_version: str
    plural: str

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """URL path of the collection, of one object, or of its subresource."""
        parts = ["/apis" if "/" in self.api_version else "/api", self.api_version]
        if namespace is not None:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        parts += [part for part in (name, subresource) if part is not None]
        return "/".join(parts)


TENANT = Resource("Tenant", names.API_VERSION, "tenants")
CONNECTOR = Resource("Connector", names.API_VERSION, "connectors")
MODEL_ROUTE = Resource("ModelRoute", names.API_VERSION, "modelroutes")
ROLLOUT = Resource("Rollout", names.API_VERSION, "rollouts")
SECRET = Resource("Secret", "v1", "secrets")
CONFIG_MAP = Resource("ConfigMap", "v1", "configmaps")
POD = Resource("Pod", "v1", "pods")
SERVICE = Resource("Service", "v1", "services")
SERVICE_ACCOUNT = Resource("ServiceAccount", "v1", "serviceaccounts")
DEPLOYMENT = Resource("Deployment", "apps/v1", "deployments")
NETWORK_POLICY = Resource("NetworkPolicy", "networking.k8s.io/v1", "networkpolicies")
DISRUPTION_BUDGET = Resource("PodDisruptionBudget", "policy/v1", "poddisruptionbudgets")

OWN_KINDS = (TENANT, CONNECTOR, MODEL_ROUTE, ROLLOUT)
CHILD_KINDS = (SERVICE_ACCOUNT, SECRET, SERVICE, NETWORK_POLICY, DISRUPTION_BUDGET, DEPLOYMENT)
"""In the order in which they are applied: the Deployment last, when all that its Pods need is there."""

BY_KIND = {resource.kind: resource for resource in (*OWN_KINDS, *CHILD_KINDS, CONFIG_MAP, POD)}


@dataclass(frozen=True, order=True)
class Key:
    """One unit of reconciliation: a Tenant (with its Connectors and workers), a ModelRoute or a Rollout."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"
