"""Where connectors may connect to: addresses that point inward are refused, unless the cluster's operator allows them.

Pure. The platform operator's rule is asked twice: when a Connector is accepted (``refused_url``), and by a worker for
each address that a host name resolves to, right before it connects (``refused_address``), so that a name whose answer
changes in between gains nothing. What is refused by default: loopback, link-local (clouds' metadata services), private
and every other address that is not global; names of the cluster's own Services, except those of the tenant's namespace.
"""

from __future__ import annotations

import ipaddress
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict

_CLUSTER_SUFFIXES = (".svc", ".cluster.local", ".pod", ".local", ".internal", ".localhost")
_NEVER = (ipaddress.ip_network("169.254.0.0/16"), ipaddress.ip_network("fe80::/10"))
"""Link-local, where clouds hand out a node's credentials: no allowed range covers it, only its own entry does."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class EgressRule(BaseModel):
    """What the platform operator lets connectors reach beyond the public internet."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    namespace: str = ""
    """The tenant's own namespace: its Services may be reached."""
    allow_hosts: tuple[str, ...] = ()
    """Host names or globs over them, such as ``*.pilothouse-sim.svc``; any address of theirs will do."""
    allow_networks: tuple[str, ...] = ()
    """CIDR ranges, such as ``10.20.0.0/16``: a corporate network behind the cluster."""


def _plain(host: str) -> str:
    return host.casefold().rstrip(".").strip("[]")


def _is_allowed_host(host: str, rule: EgressRule) -> bool:
    short = host.removesuffix(".cluster.local")
    return any(fnmatchcase(host, glob) or fnmatchcase(short, glob) for glob in map(_plain, rule.allow_hosts))


def _is_own_service(host: str, rule: EgressRule) -> bool:
    labels = host.removesuffix(".cluster.local").split(".")
    return bool(rule.namespace) and len(labels) == 3 and labels[1:] == [rule.namespace, "svc"]


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):  # an IPv4 address in IPv6 clothes is judged as what it is
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address.sixtofour is not None:
            return address.sixtofour
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def refused_address(host: str, address: str, rule: EgressRule) -> str | None:
    """Why a connection to this address, which ``host`` resolved to, is refused; None where it may be made."""
    name = _plain(host)
    parsed = _address(address)
    if parsed is None:
        return f"{address[:60]} is not an address"
    if _is_allowed_host(name, rule):
        return None
    networks = [ipaddress.ip_network(network, strict=False) for network in rule.allow_networks]
    if any(parsed in link for link in _NEVER if link.version == parsed.version):
        exact = any(parsed in network for network in networks if network.prefixlen == network.max_prefixlen)
        return None if exact else f"{name} is at a link-local address, where a cloud keeps its metadata"
    if any(parsed in network for network in networks if network.version == parsed.version):
        return None
    if parsed.is_global and not parsed.is_multicast:
        return None
    if _is_own_service(name, rule) and parsed.is_private and not parsed.is_loopback and not parsed.is_unspecified:
        return None
    return f"{name} is at an address inside of the cluster or its network ({parsed})"


def refused_url(url: str, rule: EgressRule) -> str | None:
    """Why a connector may not have this URL, as far as that can be told without resolving its host; None: it may."""
    try:
        parts = urlsplit(url)
        host = _plain(parts.hostname or "")
        _ = parts.port
    except ValueError:
        return "it is not a URL"
    if parts.scheme not in ("http", "https") or not host:
        return "it is not an http or https URL with a host"
    if parts.username is not None or parts.password is not None:
        return "it holds a user name or a password"
    if _is_allowed_host(host, rule):
        return None
    if _address(host) is not None:
        return refused_address(host, host, rule)
    if _is_own_service(host, rule):
        return None
    if "." not in host or any(host.endswith(suffix) for suffix in _CLUSTER_SUFFIXES):
        return f"{host} is a name inside of the cluster or its network"
    if host.replace(".", "").replace("x", "").isalnum() and host.rpartition(".")[2].isdigit():
        return f"{host} is an address written in an unusual way"
    return None
