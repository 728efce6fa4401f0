"""The tenant's worker Deployment and the small children beside it.

The configuration's hash is not in the Pod template: a worker reloads its Secret without a restart. What makes a new
revision (the agent itself, its image) is there, as a label, and rolls the Deployment.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass

from pilothouse_api import names
from pilothouse_operator.core.resources import (
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    SECRET,
    SERVICE,
    SERVICE_ACCOUNT,
    Json,
)
from pilothouse_operator.manifests.common import Owner, child, labels, selector

GRACE_SECONDS = 40
"""More than the 35 s that a worker takes at most to end its runs or hand them over, and to flush what it recorded."""
VAULT_TOKEN_SECONDS = 1800
"""The kubelet renews it after four fifths of that."""
NON_ROOT = 65532
COMMAND = ["python", "-m", "pilothouse_dataplane.worker"]


@dataclass(frozen=True)
class WorkerSpec:
    """What distinguishes one tenant's workers from another's."""

    image: str
    pull_policy: str
    replicas: int
    revision: str
    uses_vault: bool = False
    """Its Pods get a token for Vault, which they show to nobody else."""


def config_secret(owner: Owner, files: Mapping[str, bytes], config_hash: str) -> Json:
    """The whole configuration in one Secret, so that a change of any file is one atomic update of the mount."""
    secret = child(SECRET, owner, annotations={names.ANNOTATION_CONFIG_HASH: config_hash})
    secret["type"] = "Opaque"
    secret["data"] = {name: base64.b64encode(content).decode() for name, content in sorted(files.items())}
    return secret


def service_account(owner: Owner) -> Json:
    """An identity without a token: a worker never speaks to the Kubernetes API."""
    account = child(SERVICE_ACCOUNT, owner)
    account["automountServiceAccountToken"] = False
    return account


def service(owner: Owner) -> Json:
    """Headless: the gateway picks the worker, not a virtual address."""
    result = child(SERVICE, owner)
    result["spec"] = {
        "clusterIP": "None",
        "selector": selector(owner),
        "ports": [
            {"name": "grpc", "protocol": "TCP", "port": names.WORKER_GRPC_PORT, "targetPort": names.WORKER_GRPC_PORT}
        ],
    }
    return result


def disruption_budget(owner: Owner) -> Json:
    """One worker at a time may be evicted, a single one too: a drain must be able to end."""
    budget = child(DISRUPTION_BUDGET, owner)
    budget["spec"] = {"maxUnavailable": 1, "selector": {"matchLabels": selector(owner)}}
    return budget


def deployment(owner: Owner, spec: WorkerSpec) -> Json:
    """The workers."""
    result = child(DEPLOYMENT, owner)
    result["spec"] = {
        "replicas": spec.replicas,
        "revisionHistoryLimit": 3,
        "selector": {"matchLabels": selector(owner)},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "template": {
            "metadata": {"labels": {**labels(owner), names.LABEL_REVISION: spec.revision}},
            "spec": {
                "serviceAccountName": owner.child,
                "automountServiceAccountToken": False,
                "enableServiceLinks": False,
                "terminationGracePeriodSeconds": GRACE_SECONDS,
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": NON_ROOT,
                    "runAsGroup": NON_ROOT,
                    "fsGroup": NON_ROOT,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [_container(spec)],
                "volumes": [
                    {"name": "config", "secret": {"secretName": owner.child, "defaultMode": 0o440}},
                    *([_vault_token()] if spec.uses_vault else []),
                ],
            },
        },
    }
    return result


def _container(spec: WorkerSpec) -> Json:
    probe = {"grpc": {"port": names.WORKER_GRPC_PORT}}
    return {
        "name": "worker",
        "image": spec.image,
        "imagePullPolicy": spec.pull_policy,
        "command": COMMAND,
        "env": [
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "PILOTHOUSE_CONFIG_DIR", "value": names.CONFIG_DIR},
        ],
        "ports": [{"name": "grpc", "containerPort": names.WORKER_GRPC_PORT, "protocol": "TCP"}],
        "startupProbe": {**probe, "periodSeconds": 1, "failureThreshold": 60},
        "readinessProbe": {**probe, "periodSeconds": 2, "failureThreshold": 2},
        "livenessProbe": {**probe, "periodSeconds": 10, "failureThreshold": 3, "timeoutSeconds": 3},
        "resources": {
            "requests": {"cpu": "100m", "memory": "128Mi"},
            "limits": {"memory": "512Mi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "config", "mountPath": names.CONFIG_DIR, "readOnly": True},
            *(
                [{"name": "vault-token", "mountPath": names.VAULT_TOKEN_DIR, "readOnly": True}]
                if spec.uses_vault
                else []
            ),
        ],
    }


def _vault_token() -> Json:
    """A token of the Pod's ServiceAccount that only Vault takes; the API server refuses its audience."""
    token = {
        "audience": names.VAULT_AUDIENCE,
        "expirationSeconds": VAULT_TOKEN_SECONDS,
        "path": names.VAULT_TOKEN_FILE.rpartition("/")[2],
    }
    return {"name": "vault-token", "projected": {"defaultMode": 0o440, "sources": [{"serviceAccountToken": token}]}}
