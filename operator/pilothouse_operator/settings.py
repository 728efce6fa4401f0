"""The operator's settings, read from its environment once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from pilothouse_api import names
from pilothouse_operator.core.config import Stores
from pilothouse_operator.core.tenant import Platform

HEALTH_PORT = 8080


class SettingsError(Exception):
    """The environment lacks a setting: whoever wrote the operator's Deployment must add it."""


@dataclass(frozen=True)
class Settings:
    """Typed settings; the comments give the variable, the default and the reason."""

    platform: Platform
    """``PILOTHOUSE_WORKER_IMAGE``, ``PILOTHOUSE_WORKER_REDIS_URL``, ``PILOTHOUSE_WORKER_DATABASE_URL`` (all three
    needed), ``PILOTHOUSE_WORKER_PULL_POLICY`` (default ``IfNotPresent``) and ``POD_NAMESPACE`` (default
    ``pilothouse-system``)."""
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
        SettingsError: a needed variable is not set.
    """

    def needed(name: str) -> str:
        value = environment.get(name, "")
        if not value:
            raise SettingsError(f"{name} is not set, so no worker could be made. Set it in the operator's Deployment.")
        return value

    platform = Platform(
        image=needed("PILOTHOUSE_WORKER_IMAGE"),
        pull_policy=environment.get("PILOTHOUSE_WORKER_PULL_POLICY") or "IfNotPresent",
        stores=Stores(
            redis_url=needed("PILOTHOUSE_WORKER_REDIS_URL"), database_url=needed("PILOTHOUSE_WORKER_DATABASE_URL")
        ),
        system_namespace=environment.get("POD_NAMESPACE") or names.SYSTEM_NAMESPACE,
    )
    return Settings(platform=platform, address=environment.get("POD_IP") or "127.0.0.1")
