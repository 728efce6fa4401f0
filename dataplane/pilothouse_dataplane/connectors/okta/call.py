"""What the handlers of all nouns share: the call, checked parts of addresses, and how users, groups and apps are
found by what people call them."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from pilothouse_dataplane.connectors.base import AccountNotLinked, CallContext, Refused
from pilothouse_dataplane.connectors.okta import scim
from pilothouse_dataplane.connectors.okta.client import OktaClient
from pilothouse_dataplane.connectors.shape import mapping, text, unreadable, word
from pilothouse_dataplane.core.messages import Outcome, ToolResult

READ_USERS = "okta.users.read"
READ_GROUPS = "okta.groups.read"
READ_APPS = "okta.apps.read"

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_USER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+@'-]{0,99}")
"""An id or a login. It can't begin with a dot, so it is never ``.`` or ``..``."""
_GROUP_ID = re.compile(r"00g[A-Za-z0-9]{10,40}")
_APP_ID = re.compile(r"0oa[A-Za-z0-9]{10,40}")


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a tool."""

    client: OktaClient
    arguments: Mapping[str, Any]
    context: CallContext

    def word(self, name: str, default: str = "") -> str:
        return word(self.arguments, name, default).strip()

    async def ask(self, method: str, path: str, *, needs: str, query: Mapping[str, str] | None = None) -> Any:
        return await self.client.call(method, path, self.context, needs=needs, query=query)

    async def pages(
        self, path: str, *, needs: str, query: Mapping[str, str], wanted: int
    ) -> tuple[list[Mapping[str, Any]], bool]:
        return await self.client.pages(path, self.context, needs=needs, query=query, wanted=wanted)


Handler = Callable[[Call], Awaitable[ToolResult]]
Finder = Callable[[Call], Awaitable[ToolResult | None]]


def done(summary: str, data: object) -> ToolResult:
    return ToolResult(Outcome.SUCCEEDED, summary, data)


def id_of(value: object, what: str) -> str:
    """An id that may become a part of an address. Raises Refused."""
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise Refused(f"“{text(value, 64)}” is not the id of {what} in Okta, so nothing was asked.", asked=False)
    return value


def row(user: Mapping[str, Any]) -> dict[str, Any]:
    """A user as tools tell her."""
    profile = mapping(user.get("profile"))
    first, last = text(profile.get("firstName")), text(profile.get("lastName"))
    return {
        "id": text(user.get("id")),
        "login": text(profile.get("login")),
        "email": text(profile.get("email")) or text(profile.get("login")),
        "name": text(profile.get("displayName")) or f"{first} {last}".strip() or text(profile.get("login")),
        "first_name": first,
        "last_name": last,
        "title": text(profile.get("title")),
        "department": text(profile.get("department")),
        "phone": text(profile.get("mobilePhone") or profile.get("primaryPhone")),
        "status": text(user.get("status")),
        "manager": text(profile.get("manager")),
        "manager_id": text(profile.get("managerId")),
    }


async def read_user(call: Call, wanted: str, needs: str = READ_USERS) -> Mapping[str, Any]:
    """The user with this id, login or e-mail; the asking user for "" and "me". Raises ConnectorError."""
    wanted = wanted or "me"
    if not _USER.fullmatch(wanted):
        raise Refused(f"“{text(wanted, 64)}” is not a user's id, login or e-mail in Okta.", asked=False)
    try:
        user = await call.ask("GET", f"/users/{quote(wanted, safe='')}", needs=needs)
    except AccountNotLinked:
        raise
    except Refused:
        if "@" not in wanted:
            raise
        # the e-mail need not be the login
        found = await search_users(call, scim.equals("profile.email", wanted), 2, needs)
        if len(found) != 1:
            raise
        return found[0]
    if not isinstance(user, dict) or not _ID.fullmatch(text(user.get("id"))):
        raise unreadable("Okta")
    return user


async def search_users(call: Call, expression: str, wanted: int, needs: str = READ_USERS) -> list[Mapping[str, Any]]:
    query = {"search": expression, "limit": str(wanted)}
    return (await call.pages("/users", needs=needs, query=query, wanted=wanted))[0]


# ``needs`` is what the whole call takes: who may not even look is told of that permission, not of one on the way to it.


async def the_user(call: Call, needs: str = READ_USERS) -> dict[str, Any]:
    """The row of the user that the argument ``user`` names."""
    return row(await read_user(call, call.word("user"), needs))


async def the_group(call: Call, needs: str = READ_GROUPS) -> dict[str, Any]:
    """``id`` and ``name`` of the group that the argument ``group`` names, by id or by its whole name."""
    wanted = call.word("group")
    if _GROUP_ID.fullmatch(wanted):
        found = [mapping(await call.ask("GET", f"/groups/{wanted}", needs=needs))]
    else:
        query = {"search": scim.equals("profile.name", wanted), "limit": "2"}
        found, _ = await call.pages("/groups", needs=needs, query=query, wanted=2)
    return _only([group_row(group) for group in found], "group", wanted)


async def the_app(call: Call, needs: str = READ_APPS) -> dict[str, Any]:
    """``id`` and ``name`` of the app that the argument ``app`` names, by id or by its whole label."""
    wanted = call.word("app")
    if _APP_ID.fullmatch(wanted):
        found = [mapping(await call.ask("GET", f"/apps/{wanted}", needs=needs))]
    else:
        # q finds what begins with it
        query = {"q": wanted, "limit": "50"}
        listed, _ = await call.pages("/apps", needs=needs, query=query, wanted=50)
        found = [app for app in listed if text(app.get("label")).casefold() == wanted.casefold()]
    return _only([app_row(app) for app in found], "app", wanted)


def group_row(group: Mapping[str, Any]) -> dict[str, Any]:
    profile = mapping(group.get("profile"))
    return {
        "id": text(group.get("id")),
        "name": text(profile.get("name")),
        "description": text(profile.get("description"), 500),
        "type": text(group.get("type")),
    }


def app_row(app: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": text(app.get("id")),
        "name": text(app.get("label")),
        "type": text(app.get("name")),
        "status": text(app.get("status")),
    }


def _only(rows: list[dict[str, Any]], what: str, wanted: str) -> dict[str, Any]:
    if len(rows) != 1:
        many = f"more than one {what}" if rows else f"no {what} that you may see"
        raise Refused(f"Okta has {many} named “{text(wanted, 100)}”, so nothing was changed. Name its id.")
    id_of(rows[0]["id"], f"a {what}")
    return rows[0]
