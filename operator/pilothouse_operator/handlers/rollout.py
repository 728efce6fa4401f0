"""Events of Rollouts."""

from __future__ import annotations

from typing import Any

import kopf

from pilothouse_api import names
from pilothouse_operator.core.resources import ROLLOUT
from pilothouse_operator.handlers.lifecycle import Runtime


def register(registry: kopf.OperatorRegistry, runtime: Runtime) -> None:
    """Add the handler."""

    @kopf.on.event(names.GROUP, names.VERSION, ROLLOUT.plural, registry=registry)
    def observe(event: kopf.RawEvent, **_: Any) -> None:
        runtime.observe(event)
