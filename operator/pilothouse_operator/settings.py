"""The operator's settings, read from its environment once."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pilothouse_api import names
from pilothouse_api.egress import EgressRule
from pilothouse_operator.core.config import Platform, Stores
from pilothouse_operator.io.vault import VaultLogin

HEALTH_PORT = 8080


class SettingsError(Exception):
    """The environment lacks a setting, or one is wrong: whoever wrote the operator's Deployment must add it."""


@dataclass(frozen=True)
class Settings:
    """Typed settings; the comments give the variable, the default and the reason."""

    platform: Platform
    """``PILOTHOUSE_WORKER_IMAGE``, ``PILOTHOUSE_WORKER_REDIS_URL``, ``PILOTHOUSE_WORKER_DATABASE_URL`` (all three
    needed), ``PILOTHOUSE_WORKER_PULL_POLICY`` (default ``IfNotPresent``), ``POD_NAMESPACE`` (default
    ``pilothouse-system``), ``PILOTHOUSE_PUBLIC_URL`` (default none: links to the gateway can't be given).
    Lists with commas, by default empty: ``PILOTHOUSE_EGRESS_ALLOW_HOSTS`` (host names or globs) and
    ``PILOTHOUSE_EGRESS_ALLOW_NETWORKS`` (CIDR ranges), which connectors may reach besides the public internet;
    ``PILOTHOUSE_VAULT_ADDRESSES``, the Vault servers that the operator shows its token to."""
    vault: VaultLogin = field(default_factory=VaultLogin)
    """``PILOTHOUSE_VAULT_ROLE`` (default ``pilothouse-operator``) and ``PILOTHOUSE_VAULT_TOKEN_FILE`` (default: where
    the chart mounts it)."""
    address: str = "127.0.0.1"
    """``POD_IP``: where ``/healthz`` is served. Default loopback, for a run outside of a cluster."""
    concurrency: int = 8
    """Keys worked on at the same time: enough to hide the API's latency, few enough for its fair queuing."""
    resync_seconds: float = 60.0
    """How often all lists are read anew, so that an event that was missed is made good."""

    @property
    def liveness(self) -> str:
        """URL of the health endpoint."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"http://{host}:{HEALTH_PORT}/healthz"


def from_environment(environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings.

    Raises:
        SettingsError: a needed variable is not set, or a range of addresses is none.
    """

    def needed(name: str) -> str:
        value = environment.get(name, "")
        if not value:
            raise SettingsError(f"{name} is not set, so no worker could be made. Set it in the operator's Deployment.")
        return value

    def listed(name: str) -> tuple[str, ...]:
        return tuple(part for part in map(str.strip, environment.get(name, "").split(",")) if part)

    networks = listed("PILOTHOUSE_EGRESS_ALLOW_NETWORKS")
    for network in networks:
        try:
            ipaddress.ip_network(network, strict=False)
        except ValueError as error:
            raise SettingsError(
                f"PILOTHOUSE_EGRESS_ALLOW_NETWORKS holds {network!r}, which is no range of addresses, so no Connector "
                "was looked at. Write it as 10.20.0.0/16 (the chart's egress.allowNetworks)."
            ) from error
    platform = Platform(
        image=needed("PILOTHOUSE_WORKER_IMAGE"),
        pull_policy=environment.get("PILOTHOUSE_WORKER_PULL_POLICY") or "IfNotPresent",
        stores=Stores(
            redis_url=needed("PILOTHOUSE_WORKER_REDIS_URL"), database_url=needed("PILOTHOUSE_WORKER_DATABASE_URL")
        ),
        system_namespace=environment.get("POD_NAMESPACE") or names.SYSTEM_NAMESPACE,
        egress=EgressRule(allow_hosts=listed("PILOTHOUSE_EGRESS_ALLOW_HOSTS"), allow_networks=networks),
        public_url=environment.get("PILOTHOUSE_PUBLIC_URL", "").rstrip("/"),
        vault_addresses=tuple(address.rstrip("/") for address in listed("PILOTHOUSE_VAULT_ADDRESSES")),
    )
    login = VaultLogin(
        role=environment.get("PILOTHOUSE_VAULT_ROLE") or VaultLogin.role,
        token_file=Path(environment.get("PILOTHOUSE_VAULT_TOKEN_FILE") or VaultLogin.token_file),
    )
    return Settings(platform=platform, vault=login, address=environment.get("POD_IP") or "127.0.0.1")
