"""Factors: listing them and resetting them, so that the user enrols anew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pilothouse_dataplane.connectors.base import Refused
from pilothouse_dataplane.connectors.okta.call import READ_USERS, Call, Finder, Handler, done, id_of, the_user
from pilothouse_dataplane.connectors.shape import mapping, objects, text
from pilothouse_dataplane.core.messages import ToolResult

RESET = "okta.users.credentials.resetFactors"
TYPES = (
    "call",
    "email",
    "push",
    "question",
    "signed_nonce",
    "sms",
    "token",
    "token:hardware",
    "token:hotp",
    "token:software:totp",
    "u2f",
    "web",
    "webauthn",
)
"""Okta's ``factorType``."""


def _row(factor: Mapping[str, Any]) -> dict[str, Any]:
    profile = mapping(factor.get("profile"))
    return {
        "id": text(factor.get("id")),
        "type": text(factor.get("factorType")),
        "provider": text(factor.get("provider")),
        "status": text(factor.get("status")),
        "name": text(profile.get("name") or profile.get("authenticatorName") or profile.get("credentialId")),
        "created": text(factor.get("created")),
    }


async def _enrolled(call: Call, user_id: str, needs: str = READ_USERS) -> list[dict[str, Any]]:
    listed = await call.ask("GET", f"/users/{user_id}/factors", needs=needs)
    return [_row(factor) for factor in objects(listed, "Okta")]


def _told(factors: list[dict[str, Any]]) -> str:
    return ", ".join(f"{factor['type']} ({factor['id']})" for factor in factors[:10]) or "none"


def _asked_for(call: Call) -> tuple[str, str]:
    """The factor's id or type. Raises Refused: nothing was sent."""
    factor_id, kind = call.word("factor_id"), call.word("type")
    if bool(factor_id) == bool(kind):
        raise Refused("Name the factor by its id or by its type, one of the two; nothing was asked.", asked=False)
    if factor_id:
        id_of(factor_id, "a factor")
    elif kind not in TYPES:
        raise Refused(f"“{text(kind, 64)}” is no type of factor in Okta. There are: {', '.join(TYPES)}.", asked=False)
    return factor_id, kind


async def listed(call: Call) -> ToolResult:
    user = await the_user(call)
    factors = await _enrolled(call, user["id"])
    summary = f"{user['name']} has enrolled these factors in Okta: {_told(factors)}."
    return done(summary, {"user": user["email"], "factors": factors})


async def reset(call: Call) -> ToolResult:
    factor_id, kind = _asked_for(call)
    user = await the_user(call, RESET)
    if kind:
        found = await _enrolled(call, user["id"], RESET)
        chosen = [factor for factor in found if factor["type"] == kind]
        if len(chosen) != 1:
            many = "several factors" if chosen else "no factor"
            raise Refused(f"{user['name']} has {many} of the type {kind}; nothing was reset. Enrolled: {_told(found)}.")
        factor_id = id_of(chosen[0]["id"], "a factor")
    await call.ask("DELETE", f"/users/{user['id']}/factors/{factor_id}", needs=RESET)
    return _was_reset(user, factor_id, kind)


async def find_reset(call: Call) -> ToolResult | None:
    """The factor's absence is the proof."""
    factor_id, kind = _asked_for(call)
    user = await the_user(call, RESET)
    left = await _enrolled(call, user["id"], RESET)
    if any(factor["id"] == factor_id or factor["type"] == kind for factor in left):
        return None
    return _was_reset(user, factor_id, kind)


def _was_reset(user: Mapping[str, Any], factor_id: str, kind: str) -> ToolResult:
    which = f"the factor {kind or factor_id}"
    summary = f"Reset {which} of {user['name']} in Okta; a new one is enrolled at the next sign-in."
    return done(summary, {"user": user["email"], "name": user["name"], "factor_id": factor_id, "type": kind})


async def reset_all(call: Call) -> ToolResult:
    user = await the_user(call, RESET)
    await call.ask("POST", f"/users/{user['id']}/lifecycle/reset_factors", needs=RESET)
    return _all_reset(user)


async def find_reset_all(call: Call) -> ToolResult | None:
    user = await the_user(call, RESET)
    return None if await _enrolled(call, user["id"], RESET) else _all_reset(user)


def _all_reset(user: Mapping[str, Any]) -> ToolResult:
    return done(
        f"All factors of {user['name']} are reset in Okta; new ones are enrolled at the next sign-in.",
        {"user": user["email"], "name": user["name"]},
    )


CALLS: Mapping[str, Handler] = {"factor.list": listed, "factor.reset": reset, "factor.reset_all": reset_all}
FINDS: Mapping[str, Finder] = {"factor.reset": find_reset, "factor.reset_all": find_reset_all}
