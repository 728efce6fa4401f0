"""Thin kopf handlers: they hand events to the controller and hold no logic.

Only ``on.event`` is used: kopf then writes no annotations and adds no finalizers, and its retries don't hide ours.
"""

from __future__ import annotations

import kopf

from pilothouse_operator.handlers import children, kinds, lifecycle, rollout
from pilothouse_operator.handlers.lifecycle import Runtime


def registry_of(runtime: Runtime) -> kopf.OperatorRegistry:
    """All handlers, bound to one runtime."""
    registry = kopf.OperatorRegistry()
    lifecycle.register(registry, runtime)
    kinds.register(registry, runtime)
    children.register(registry, runtime)
    rollout.register(registry, runtime)
    return registry
