"""Events of what the operator has made. Children that no change of the cluster's state touches are listed instead."""

from __future__ import annotations

from typing import Any

import kopf

from pilothouse_api import names
from pilothouse_operator.handlers.lifecycle import Runtime


def register(registry: kopf.OperatorRegistry, runtime: Runtime) -> None:
    """Add the handlers."""
    ours: dict[str, Any] = {names.LABEL_MANAGED_BY: names.FIELD_MANAGER, names.LABEL_TENANT: kopf.PRESENT}

    def observe(event: kopf.RawEvent, **_: Any) -> None:
        runtime.observe(event)

    kopf.on.event("apps", "v1", "deployments", registry=registry, labels=ours)(observe)
    kopf.on.event("", "v1", "pods", registry=registry, labels=ours)(observe)
