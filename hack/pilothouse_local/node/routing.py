"""Which Pod answers for a Service: `/etc/hosts` of each Pod, and the targets of NodePorts (pure).

Endpoints and EndpointSlices refuse loopback addresses, so Services are resolved from Pods and selectors directly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from .model import Obj
from .status import is_ready

_PREAMBLE = """\
# Kept by pilothouse-node; changes here are lost.
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
"""


def backends(service: Obj, pods: Iterable[Obj]) -> list[Obj]:
    """The ready Pods that the Service selects, oldest first, so that a name keeps its Pod until that Pod goes away."""
    selector = service["spec"].get("selector")
    if not selector or service["spec"].get("type") == "ExternalName":
        return []
    namespace = service["metadata"]["namespace"]
    unready_too = bool(service["spec"].get("publishNotReadyAddresses"))
    found = [
        pod
        for pod in pods
        if pod["metadata"]["namespace"] == namespace
        and (pod.get("status") or {}).get("podIP")
        and (is_ready(pod) or unready_too)
        and _matches(selector, pod["metadata"].get("labels") or {})
    ]
    return sorted(found, key=lambda pod: (pod["metadata"].get("creationTimestamp", ""), pod["metadata"]["name"]))


def addresses(
    services: Iterable[Obj], pods: Iterable[Obj], fixed: Mapping[tuple[str, str], str]
) -> dict[tuple[str, str], str]:
    """(namespace, service) -> the address its names resolve to; Services without a ready Pod have none.

    `fixed` holds those that no Pod serves, whether they have a Service object or not."""
    by_namespace: dict[str, list[Obj]] = {}
    for pod in pods:
        by_namespace.setdefault(pod["metadata"]["namespace"], []).append(pod)
    table = dict(fixed)
    for service in services:
        key = (service["metadata"]["namespace"], service["metadata"]["name"])
        if key in fixed:
            continue
        found = backends(service, by_namespace.get(key[0], ()))
        if found:
            table[key] = found[0]["status"]["podIP"]
    return table


def hosts_file(pod: Obj, ip: str, table: Mapping[tuple[str, str], str]) -> str:
    """The text of the Pod's /etc/hosts."""
    namespace = pod["metadata"]["namespace"]
    hostname = pod["spec"].get("hostname") or pod["metadata"]["name"]
    lines = [_PREAMBLE, f"{ip}\t{hostname}\n"]
    for alias in pod["spec"].get("hostAliases") or []:
        lines.append(f"{alias['ip']}\t{' '.join(alias.get('hostnames') or [])}\n")
    for (service_namespace, name), address in sorted(table.items()):
        full = f"{name}.{service_namespace}"
        names = [f"{full}.svc.cluster.local", f"{full}.svc", full]
        if service_namespace == namespace:
            names.append(name)
        lines.append(f"{address}\t{' '.join(names)}\n")
    return "".join(lines)


def node_ports(services: Iterable[Obj]) -> dict[int, tuple[tuple[str, str], Obj]]:
    """nodePort -> ((namespace, service), the port's entry), for TCP."""
    table: dict[int, tuple[tuple[str, str], Obj]] = {}
    for service in services:
        for port in service["spec"].get("ports") or []:
            if port.get("nodePort") and port.get("protocol", "TCP") == "TCP":
                table[int(port["nodePort"])] = ((service["metadata"]["namespace"], service["metadata"]["name"]), port)
    return table


def target_port(port: Obj, pod: Obj) -> int | None:
    """The number behind a Service port's targetPort in this Pod; None where the Pod has no port of that name."""
    target = port.get("targetPort") or port["port"]
    if isinstance(target, int):
        return target
    for container in pod["spec"]["containers"]:
        for entry in container.get("ports") or []:
            if entry.get("name") == target:
                return int(entry["containerPort"])
    return None


def targets(service: Obj, port: Obj, pods: Iterable[Obj]) -> Sequence[tuple[str, int]]:
    """Every (address, port) that a connection to the Service's port may go to."""
    found = [(pod["status"]["podIP"], target_port(port, pod)) for pod in backends(service, pods)]
    return [(address, number) for address, number in found if number is not None]


def _matches(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in selector.items())
