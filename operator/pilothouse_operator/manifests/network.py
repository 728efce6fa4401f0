"""The workers' NetworkPolicy: default-deny, opened for the gateway, the operator and what the configuration names."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from pilothouse_api import names
from pilothouse_operator.core.resources import NETWORK_POLICY, Json
from pilothouse_operator.manifests.common import Owner, child, selector

DEFAULT_PORTS = {
    "http": 80,
    "https": 443,
    "redis": 6379,
    "rediss": 6379,
    "postgresql": 5432,
    "postgres": 5432,
}
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
    def all_of(url: str) -> set[Destination]:
        """The destinations that a URL names: one, or one a host (PostgreSQL's may name a primary and its standbys).

        A host without a port that is known is left out.
        """
        try:
            parts = urlsplit(url)
            hosts = [urlsplit(f"//{host}") for host in parts.netloc.rpartition("@")[2].split(",")]
            named = [(host.hostname or "", host.port or DEFAULT_PORTS.get(parts.scheme)) for host in hosts]
        except ValueError:
            return set()
        return {Destination._of_host(host, port) for host, port in named if host and port is not None}

    @staticmethod
    def _of_host(host: str, port: int) -> Destination:
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
    destinations = sorted({destination for url in urls for destination in Destination.all_of(url)})
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
