"""Events of the kinds that people write, and of the Secrets and ConfigMaps that these refer to."""

from __future__ import annotations

from typing import Any

import kopf

from pilothouse_api import names
from pilothouse_operator.core.resources import CONNECTOR, MODEL_ROUTE, TENANT
from pilothouse_operator.handlers.lifecycle import Runtime


def register(registry: kopf.OperatorRegistry, runtime: Runtime) -> None:
    """Add the handlers."""

    def observe(event: kopf.RawEvent, **_: Any) -> None:
        runtime.observe(event)

    for resource in (TENANT, CONNECTOR, MODEL_ROUTE):
        kopf.on.event(names.GROUP, names.VERSION, resource.plural, registry=registry)(observe)
    kopf.on.event("", "v1", "secrets", registry=registry)(observe)
    kopf.on.event("", "v1", "configmaps", registry=registry)(observe)
