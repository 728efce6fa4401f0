"""Tells whether a live object is what was decided, so that nothing is written where nothing changes.

Two questions: was the live object applied from this very manifest (``APPLIED_HASH`` covers all of it, so a field that
the manifest no longer has is noticed), and does it still hold every value of the manifest (so a change by somebody
else is noticed). Values that the API server or another manager adds do not matter.
"""

from __future__ import annotations

import hashlib
import json

from pilothouse_api import names
from pilothouse_operator.core.resources import Json

APPLIED_HASH = f"{names.GROUP}/applied-hash"


def stamped(manifest: Json) -> Json:
    """The manifest with the annotation that holds its own hash."""
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    meta = manifest["metadata"]
    return {**manifest, "metadata": {**meta, "annotations": {**(meta.get("annotations") or {}), APPLIED_HASH: digest}}}


def is_current(desired: Json, live: Json | None) -> bool:
    """True where applying ``desired`` (stamped) over ``live`` would change nothing."""
    return live is not None and not live["metadata"].get("deletionTimestamp") and _holds(live, desired)


def _holds(live: object, desired: object) -> bool:
    if isinstance(desired, dict):
        return isinstance(live, dict) and all(_holds(live.get(key), value) for key, value in desired.items())
    if isinstance(desired, list):
        if not isinstance(live, list):
            return desired == [] and live is None
        if desired and all(isinstance(item, dict) and "name" in item for item in desired):
            # A list that the API merges by name: others may have added items (an injected sidecar).
            named = {item.get("name"): item for item in live if isinstance(item, dict)}
            return all(_holds(named.get(item["name"]), item) for item in desired)
        return len(live) == len(desired) and all(_holds(a, b) for a, b in zip(live, desired, strict=True))
    if desired in ({}, None, "", False, 0) and live is None:
        return True  # the API leaves empty values out
    return live == desired
