"""Users: reading them, their manager, and their lifecycle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pilothouse_dataplane.connectors.base import AccountNotLinked, Refused, SystemUnavailable
from pilothouse_dataplane.connectors.okta import scim
from pilothouse_dataplane.connectors.okta.call import (
    READ_USERS,
    Call,
    Finder,
    Handler,
    done,
    read_user,
    row,
    search_users,
    the_user,
)
from pilothouse_dataplane.connectors.shape import text, whole
from pilothouse_dataplane.core.messages import ToolResult


async def me(call: Call) -> ToolResult:
    user = row(await read_user(call, "me"))
    return done(f"You are {user['name']} ({user['login']}) in Okta.", user)


async def get(call: Call) -> ToolResult:
    user = await the_user(call)
    return done(f"{user['name']} ({user['login']}) is {user['status'] or 'known'} in Okta.", user)


async def search(call: Call) -> ToolResult:
    wanted = whole(call.arguments, "max_results", 10, 50)
    expression = scim.people(call.word("text"), call.word("department"), call.word("status"))
    query = {"limit": str(wanted)} | ({"search": expression} if expression else {})
    found, more = await call.pages("/users", needs=READ_USERS, query=query, wanted=wanted)
    rows = [row(user) for user in found]
    count = f"{'at least ' if more else ''}{len(rows)} user{'' if len(rows) == 1 else 's'}"
    return done(f"Found {count} in Okta.", {"users": rows, "more": more})


async def manager(call: Call) -> ToolResult:
    """The profile names the manager in ``managerId`` (an id, a login or an e-mail; from a directory also an employee
    number) and ``manager`` (an e-mail or a name): both are the organization's to fill."""
    user = await the_user(call)
    chief, refusal = await _manager(call, user)
    whose = "Your manager" if call.word("user") in ("", "me") else f"The manager of {user['name']}"
    if chief is None:
        name = user["manager"]
        if not name or "@" in name:
            raise refusal or Refused(f"Okta does not say who the manager of {user['name']} is.")
        data = {"name": name, "email": "", "login": "", "id": "", "title": "", "of": user["email"]}
        return done(f"{whose} is {name}; Okta does not tell you the e-mail.", data)
    data = {name: chief[name] for name in ("name", "email", "login", "id", "title", "department", "phone")}
    return done(f"{whose} is {chief['name']} ({chief['email']}).", data | {"of": user["email"]})


async def _manager(call: Call, user: Mapping[str, Any]) -> tuple[dict[str, Any] | None, Refused | None]:
    """The manager's row, or else the last refusal that was met on the way, if any."""
    refusal: Refused | None = None
    manager_id = user["manager_id"]
    # a name is nobody's address
    named = user["manager"] if "@" in user["manager"] else ""
    for address in dict.fromkeys(filter(None, (manager_id, named))):
        try:
            return row(await read_user(call, address)), None
        except AccountNotLinked:
            raise
        except Refused as error:
            refusal = error if error.asked else refusal
    if manager_id and "@" not in manager_id:
        try:
            found = await search_users(call, scim.equals("profile.employeeNumber", manager_id), 2)
        except AccountNotLinked:
            raise
        except Refused as error:
            return None, error
        if len(found) == 1:
            return row(found[0]), None
    return None, refusal


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """One lifecycle operation, and how its outcome is told from the user's status."""

    path: str
    needs: str
    did: str
    """Sentence about ``{name}``."""
    after: frozenset[str]
    """Statuses that prove that it happened."""
    before: frozenset[str] = frozenset()
    """Statuses that prove that it did not."""
    query: Mapping[str, str] | None = None

    async def act(self, call: Call) -> ToolResult:
        user = await the_user(call, self.needs)
        path = f"/users/{user['id']}/lifecycle/{self.path}"
        await call.ask("POST", path, needs=self.needs, query=self.query)
        return self._result(user)

    async def find(self, call: Call) -> ToolResult | None:
        found = await read_user(call, call.word("user"), self.needs)
        user = row(found)
        statuses = {user["status"], text(found.get("transitioningToStatus"))}
        if statuses & self.after:
            return self._result(user)
        if user["status"] in self.before:
            return None
        raise SystemUnavailable(
            f"Okta does not tell whether this was done: {user['name']} is {user['status'] or 'in no known status'}.",
            may_have_acted=False,
        )

    def _result(self, user: Mapping[str, Any]) -> ToolResult:
        data = {name: user[name] for name in ("id", "login", "email", "name")}
        return done(self.did.format(name=user["name"]), data)


_SIGNED_UP = frozenset({"ACTIVE", "PASSWORD_EXPIRED", "LOCKED_OUT", "RECOVERY", "PROVISIONED"})

LIFECYCLE = {
    "user.unlock": Lifecycle(
        "unlock",
        "okta.users.lifecycle.unlock",
        "{name} is unlocked in Okta.",
        after=frozenset({"ACTIVE", "PASSWORD_EXPIRED"}),
        before=frozenset({"LOCKED_OUT"}),
    ),
    "user.suspend": Lifecycle(
        "suspend",
        "okta.users.lifecycle.suspend",
        "{name} is suspended in Okta and can't sign in.",
        after=frozenset({"SUSPENDED"}),
        before=_SIGNED_UP,
    ),
    "user.unsuspend": Lifecycle(
        "unsuspend",
        "okta.users.lifecycle.unsuspend",
        "{name} is no longer suspended in Okta.",
        after=_SIGNED_UP,
        before=frozenset({"SUSPENDED"}),
    ),
    "user.expire_password": Lifecycle(
        "expire_password",
        "okta.users.credentials.expirePassword",
        "{name} must choose a new password at the next sign-in.",
        after=frozenset({"PASSWORD_EXPIRED"}),
        before=frozenset({"ACTIVE"}),
    ),
    "user.reset_password": Lifecycle(
        "reset_password",
        "okta.users.credentials.resetPassword",
        "{name} gets an e-mail from Okta to choose a new password; the old one is gone.",
        after=frozenset({"RECOVERY"}),
        before=frozenset({"ACTIVE", "PASSWORD_EXPIRED", "LOCKED_OUT"}),
        # without the e-mail, Okta would answer with the link, which is a secret
        query={"sendEmail": "true"},
    ),
    "user.deactivate": Lifecycle(
        "deactivate",
        "okta.users.lifecycle.deactivate",
        "{name} is deactivated in Okta.",
        after=frozenset({"DEPROVISIONED"}),
        before=_SIGNED_UP | {"SUSPENDED", "STAGED"},
        query={"sendEmail": "false"},
    ),
}

CALLS: Mapping[str, Handler] = {
    "user.me": me,
    "user.get": get,
    "user.search": search,
    "user.manager": manager,
    **{name: step.act for name, step in LIFECYCLE.items()},
}
FINDS: Mapping[str, Finder] = {name: step.find for name, step in LIFECYCLE.items()}
