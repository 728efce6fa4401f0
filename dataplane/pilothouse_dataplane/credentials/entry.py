"""A linked account as the bytes or fields that a store keeps, and back. Pure.

``extra`` of an account, all values text: ``refused`` (why the authorization server no longer takes it), ``refreshing``
(Unix seconds until which one worker has the sole right to use the refresh token), ``issued`` (Unix seconds at which the
access token was given), ``doubted`` (why the server did not renew it, where that may be the application's fault).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pilothouse_dataplane.connectors.base import SecretText
from pilothouse_dataplane.credentials.base import LinkedAccount

REFUSED = "refused"
REFRESHING = "refreshing"
ISSUED = "issued"
DOUBTED = "doubted"
_SKEW_SECONDS = 60.0
_SKEW_SHARE = 0.1
"""Of a lifetime that is shorter than ten times the above."""


class EntryError(ValueError):
    """What a store holds is not a linked account; the message says what is wrong and holds none of it."""


def to_fields(account: LinkedAccount) -> dict[str, Any]:
    """JSON-able; without ``version``, which the store keeps beside it."""
    return {
        "access_token": account.access_token.reveal(),
        "refresh_token": account.refresh_token.reveal() if account.refresh_token is not None else None,
        "expires_at": account.expires_at if math.isfinite(account.expires_at) else None,
        "account": account.account,
        "scopes": list(account.scopes),
        "instance_url": account.instance_url,
        "linked_at": account.linked_at,
        "extra": dict(account.extra),
    }


def from_fields(fields: object, version: int) -> LinkedAccount:
    """Raises EntryError."""
    if not isinstance(fields, Mapping):
        raise EntryError("it is not an object")
    access, refresh = fields.get("access_token"), fields.get("refresh_token")
    expires, linked = fields.get("expires_at"), fields.get("linked_at", 0.0)
    scopes, extra = fields.get("scopes", []), fields.get("extra", {})
    account, instance = fields.get("account", ""), fields.get("instance_url", "")
    good = (
        isinstance(access, str)
        and (refresh is None or isinstance(refresh, str))
        and (expires is None or isinstance(expires, (int, float)))
        and isinstance(linked, (int, float))
        and isinstance(scopes, list)
        and isinstance(extra, Mapping)
        and isinstance(account, str)
        and isinstance(instance, str)
    )
    if not good:
        raise EntryError("a field is missing or of a wrong type")
    return LinkedAccount(
        SecretText(str(access)),
        SecretText(refresh) if isinstance(refresh, str) else None,
        float(expires) if isinstance(expires, (int, float)) else math.inf,
        account,
        tuple(str(scope) for scope in scopes),
        instance,
        float(linked),
        version,
        {str(key): str(value) for key, value in extra.items()},
    )


def unreadable(version: int, why: str) -> LinkedAccount:
    """Stands for an entry that nobody can read any more: its user links again, and that replaces it."""
    return LinkedAccount(SecretText(""), None, 0.0, version=version, extra={REFUSED: why})


def refused(account: LinkedAccount, why: str) -> LinkedAccount:
    """The account after the authorization server's no: its tokens are of no use and are forgotten."""
    kept = {key: value for key, value in account.extra.items() if key not in (REFRESHING, ISSUED)}
    return replace(
        account,
        access_token=SecretText(""),
        refresh_token=None,
        expires_at=0.0,
        extra={**kept, REFUSED: why or "refused"},
    )


def is_refused(account: LinkedAccount) -> bool:
    """The user must link it again."""
    return REFUSED in account.extra


def number(account: LinkedAccount, name: str) -> float:
    """Of ``extra``; 0 where there is none."""
    try:
        return float(account.extra.get(name, "0"))
    except ValueError:
        return 0.0


def is_fresh(account: LinkedAccount, now: float, refused_token: SecretText | None = None) -> bool:
    """The access token can be begun with: it lasts a while yet, and is not the one that the system has refused."""
    if is_refused(account) or not account.access_token.reveal() or account.access_token == refused_token:
        return False
    issued = number(account, ISSUED)
    lifetime = account.expires_at - issued if issued else math.inf
    return account.expires_at - min(_SKEW_SECONDS, lifetime * _SKEW_SHARE) > now


def is_of_no_use(account: LinkedAccount, now: float) -> bool:
    """As far as is known, no call can be made with it."""
    return is_lost(account, now) or (DOUBTED in account.extra and account.expires_at <= now)


def is_lost(account: LinkedAccount, now: float) -> bool:
    """Nothing but linking again helps."""
    return is_refused(account) or (account.refresh_token is None and account.expires_at <= now)
