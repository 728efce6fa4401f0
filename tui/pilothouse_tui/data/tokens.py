"""Development tokens: JWT HS256 as ARCHITECTURE.md's contract gives it."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from pilothouse_api.names import DEV_TOKEN_AUDIENCE
from pilothouse_tui.errors import ConfigurationError

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(text: str) -> int:
    """Seconds of ``90s``, ``30m``, ``1h``, ``1h30m`` or ``7d``. Raises ConfigurationError."""
    parts = re.findall(r"(\d+)([smhd])", text)
    seconds = sum(int(n) * _UNITS[u] for n, u in parts)
    if not seconds or "".join(n + u for n, u in parts) != text:
        raise ConfigurationError(
            f"{text!r} is not a duration.", "Nothing was done.", "Write it as 90s, 30m, 1h, 1h30m or 7d."
        )
    return seconds


def make_token(
    key: bytes,
    *,
    tenant: str,
    user: str,
    name: str = "",
    manager: str = "",
    groups: Sequence[str] = (),
    ttl_seconds: int = 3600,
    now: float | None = None,
) -> str:
    """A development token for one employee (``user`` is their e-mail); ``now`` is Unix time in seconds.

    ``manager`` is the e-mail of who decides what the employee's manager must approve; a member of ``groups`` decides
    what these are asked. Where they are not given the token has no such claims.
    """
    from joserfc import jwt
    from joserfc.jwk import OctKey

    issued = int(time.time() if now is None else now)
    claims: dict[str, object] = {
        "sub": user,
        "email": user,
        "tenant": tenant,
        "name": name or user.split("@")[0].replace(".", " ").title(),
        "aud": DEV_TOKEN_AUDIENCE,
        "iat": issued,
        "exp": issued + ttl_seconds,
    }
    if manager:
        claims["manager"] = manager
    if groups:
        claims["groups"] = list(groups)
    return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(key))
