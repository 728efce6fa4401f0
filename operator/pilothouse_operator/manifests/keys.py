"""The Secret with the keys that seal a tenant's linked accounts."""

from __future__ import annotations

import base64

from pilothouse_api import names
from pilothouse_operator.core.resources import SECRET, Json
from pilothouse_operator.manifests.common import Owner, child

KEY_BYTES = 32
"""AES-256."""
FIRST_KEY = "key.1"


def account_keys(owner: Owner, key: bytes) -> Json:
    """A new Secret with one key. It is created once and never written again: what is sealed would be lost with it.

    Rotation is a person's act: she adds ``key.2``; the highest number seals, all open. It goes with its Tenant, and
    what is still in the database then can't be read by anybody.
    """
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key has {KEY_BYTES} bytes, not {len(key)}")
    secret = child(SECRET, owner)
    secret["metadata"]["name"] = names.account_keys(owner.name)
    secret["type"] = "Opaque"
    content = base64.b64encode(key)  # of the file; data wants its own encoding on top
    secret["data"] = {FIRST_KEY: base64.b64encode(content).decode()}
    return secret
