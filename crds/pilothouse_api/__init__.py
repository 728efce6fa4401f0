"""The four kinds of ``pilothouse.dev/v1alpha1``, typed; the CRDs are generated from them (stdlib and pydantic only)."""

from __future__ import annotations

from pilothouse_api.connector import Connector, ConnectorSpec, ConnectorStatus
from pilothouse_api.meta import Condition, Kind, LocalRef, ObjectMeta, parse_duration, parse_percent
from pilothouse_api.modelroute import ModelRoute, ModelRouteSpec, ModelRouteStatus
from pilothouse_api.rollout import Rollout, RolloutSpec, RolloutStatus
from pilothouse_api.tenant import AgentTemplate, Tenant, TenantSpec, TenantStatus

KINDS: tuple[type[Kind], ...] = (Tenant, Connector, ModelRoute, Rollout)

__all__ = [
    "KINDS",
    "AgentTemplate",
    "Condition",
    "Connector",
    "ConnectorSpec",
    "ConnectorStatus",
    "Kind",
    "LocalRef",
    "ModelRoute",
    "ModelRouteSpec",
    "ModelRouteStatus",
    "ObjectMeta",
    "Rollout",
    "RolloutSpec",
    "RolloutStatus",
    "Tenant",
    "TenantSpec",
    "TenantStatus",
    "parse_duration",
    "parse_percent",
]
