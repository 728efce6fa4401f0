"""The workers' NetworkPolicy: default-deny, opened for the gateway, the operator and what the configuration names."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from pilothouse_api import names
from pilothouse_operator.core.resources import NETWORK_POLICY, Json
from pilothouse_operator.manifests.common import Owner, child, selector

DEFAULT_PORTS = {"http": 80, "https": 443, "redis": 6379, "rediss": 6379, "postgresql": 5432}
METADATA_SERVICE = "169.254.169.254/32"
"""Clouds hand out a node's credentials there; no tenant's worker has business with it."""
VENDORS = "https://vendor.invalid"
"""Stands for a provider's own public address."""


@dataclass(frozen=True, order=True)
class Destination:
    """Where a worker may connect to: a namespace of the cluster, one address, or (both empty) the internet."""

    port: int
    namespace: str = ""
    address: str = ""

    @staticmethod
    def of(url: str) -> Destination | None:
        """The destination that a URL names; None where it names no port that is known."""
        try:
            parts = urlsplit(url)
            port = parts.port or DEFAULT_PORTS.get(parts.scheme)
            host = parts.hostname or ""
        except ValueError:
            return None
        if port is None or not host:
            return None
        try:
            return Destination(port, address=str(ipaddress.ip_address(host)))
        except ValueError:
            pass
        labels = host.removesuffix(".").removesuffix(".cluster.local").split(".")
        if len(labels) == 3 and labels[2] == "svc":
            return Destination(port, namespace=labels[1])
        return Destination(port)

    def peer(self) -> Json:
        """The destination as a NetworkPolicy peer."""
        if self.namespace:
            return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self.namespace}}}
        if self.address:
            return {"ipBlock": {"cidr": f"{self.address}/{128 if ':' in self.address else 32}"}}
        return {"ipBlock": {"cidr": "0.0.0.0/0", "except": [METADATA_SERVICE]}}


def network_policy(owner: Owner, urls: Iterable[str], system_namespace: str) -> Json:
    """Ingress from the gateway and the operator on the gRPC port; egress to DNS and to the URLs' destinations."""
    destinations = sorted({found for url in urls if (found := Destination.of(url)) is not None})
    policy = child(NETWORK_POLICY, owner)
    policy["spec"] = {
        "podSelector": {"matchLabels": selector(owner)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [
            {
                "from": [
                    {
                        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": system_namespace}},
                        "podSelector": {
                            "matchExpressions": [
                                {
                                    "key": names.LABEL_COMPONENT,
                                    "operator": "In",
                                    "values": [names.COMPONENT_GATEWAY, "operator"],
                                }
                            ]
                        },
                    }
                ],
                "ports": [{"protocol": "TCP", "port": names.WORKER_GRPC_PORT}],
            }
        ],
        "egress": [
            {
                "to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}],
                "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}],
            },
            *(
                {"to": [destination.peer()], "ports": [{"protocol": "TCP", "port": destination.port}]}
                for destination in destinations
            ),
        ],
    }
    return policy
