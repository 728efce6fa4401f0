"""What the Okta connector offers to models. The parameters are a contract: planners name them.

No call of Okta carries an idempotency key, so an unknown outcome is told from the state that the call leads to:

- the user's status is read from the user itself, without delay: AUTHORITATIVE for unlock, suspend, unsuspend and
  deactivate;
- a password that is expired or reset leaves that status as soon as she has chosen a new one: found is proof, not found
  is none (EVENTUAL); to do either again would take her new password away;
- a factor that is not listed is reset: AUTHORITATIVE (a factor's reset can't be undone, only followed by an enrolment);
- an assignment of an app to one user is read by itself: AUTHORITATIVE;
- to put a user into a group, or to take her out, changes nothing the second time: idempotent. Okta's lists of groups
  may lag, so the look-up is EVENTUAL.

What takes access away, or resets what somebody signs in with, is DESTRUCTIVE and waits for a person by default.
"""

from __future__ import annotations

from typing import Any

from pilothouse_dataplane.connectors.okta.factors import TYPES
from pilothouse_dataplane.connectors.shape import a_count, a_text, parameters, result
from pilothouse_dataplane.core.messages import Effect, Lookup, Tool

_SELF = a_text("Login, e-mail or id; default the user herself", 100)
_USER = a_text("Login, e-mail or id", 100, 1)
_GROUP = a_text("The group's whole name, or its id", 255, 1)
_APP = a_text("The app's whole name, or its id", 255, 1)
_STATUSES = (
    "ACTIVE",
    "STAGED",
    "PROVISIONED",
    "RECOVERY",
    "PASSWORD_EXPIRED",
    "LOCKED_OUT",
    "SUSPENDED",
    "DEPROVISIONED",
)

_PERSON = result("id", "login", "email", "name", "status", title="string", department="string", manager="string")
_CHANGED = result("id", "login", "email", "name")
_FACTOR = result("user", "name", type="string", factor_id="string")
_MEMBER = result("group", "group_id", "user", "name")
_ASSIGNED = result("app", "app_id", "user", "name")


def _listed(name: str) -> dict[str, Any]:
    schema = result(more="boolean")
    schema["properties"][name] = {"type": "array", "items": {"type": "object"}}
    return schema | {"required": [name, "more"]}


def okta_tools(connector: str) -> tuple[Tool, ...]:
    """The tools of a connector of that name."""

    def read(
        name: str, sentence: str, schema: dict[str, Any], returns: dict[str, Any], keywords: tuple[str, ...] = ()
    ) -> Tool:
        return Tool(f"{connector}.{name}", sentence, schema, Effect.READ, returns=returns, keywords=keywords)

    def write(
        name: str,
        sentence: str,
        schema: dict[str, Any],
        returns: dict[str, Any],
        *,
        effect: Effect = Effect.DESTRUCTIVE,
        lookup: Lookup = Lookup.AUTHORITATIVE,
        idempotent: bool = False,
        keywords: tuple[str, ...] = (),
    ) -> Tool:
        return Tool(
            f"{connector}.{name}",
            sentence,
            schema,
            effect,
            lookup,
            returns=returns,
            idempotent=idempotent,
            keywords=keywords,
        )

    one_user = parameters({"user": _USER}, "user")
    membership = parameters({"group": _GROUP, "user": _USER}, "group", "user")
    assignment = parameters({"app": _APP, "user": _USER}, "app", "user")
    return (
        read(
            "user.me",
            "Who the user is in Okta: name, e-mail, title, department, status.",
            parameters({}),
            _PERSON,
            ("profile", "my account", "who am i", "myself", "know about me"),
        ),
        read(
            "user.search",
            "Find people in Okta by the beginning of their names, e-mail or login.",
            parameters(
                {
                    "text": a_text("Names, e-mail or login, or how they begin", 200),
                    "department": a_text("The whole name of the department", 100),
                    "status": a_text("Only users in this status", 20, enum=list(_STATUSES)),
                    "max_results": a_count(50, 10),
                }
            ),
            _listed("users"),
            ("person", "colleague", "employee", "everyone", "team", "directory", "locked out", "suspended", "inactive"),
        ),
        read(
            "user.get",
            "Read one person's profile and status in Okta.",
            parameters({"user": _USER}, "user"),
            _PERSON,
            ("employee", "account", "active", "details", "phone", "title", "department"),
        ),
        read(
            "user.manager",
            "Who somebody's manager is: name and e-mail, from the Okta profile.",
            parameters({"user": _SELF}),
            result("name", "email", "of", id="string", title="string"),
            ("boss", "supervisor", "superior", "lead", "reports to", "responsible", "my manager"),
        ),
        write(
            "user.unlock",
            "Unlock a user who is locked out of Okta.",
            one_user,
            _CHANGED,
            effect=Effect.WRITE,
            keywords=("locked", "lockout", "let in", "sign in", "login", "wrong password", "too many attempts"),
        ),
        write(
            "user.suspend",
            "Suspend a user in Okta: she can't sign in until she is unsuspended.",
            one_user,
            _CHANGED,
            keywords=("block", "disable", "freeze", "pause", "stop sign-in", "stolen", "lost", "hacked", "compromised"),
        ),
        write(
            "user.unsuspend",
            "End the suspension of a user in Okta.",
            one_user,
            _CHANGED,
            effect=Effect.WRITE,
            keywords=("reactivate", "enable", "lift", "unblock", "restore access", "let in again"),
        ),
        write(
            "user.expire_password",
            "Make a user choose a new Okta password at the next sign-in.",
            one_user,
            _CHANGED,
            lookup=Lookup.EVENTUAL,
            keywords=("change password", "new password", "force", "next login", "reset"),
        ),
        write(
            "user.reset_password",
            "Reset a user's Okta password: Okta e-mails her a link to choose a new one.",
            one_user,
            _CHANGED,
            lookup=Lookup.EVENTUAL,
            keywords=("forgot password", "forgotten", "new password", "recovery", "reset link"),
        ),
        write(
            "user.deactivate",
            "Deactivate a user in Okta: all her app assignments end.",
            one_user,
            _CHANGED,
            keywords=(
                "offboard",
                "leaver",
                "left the company",
                "terminate",
                "fired",
                "disable account",
                "close account",
            ),
        ),
        read(
            "group.search",
            "Find groups in Okta by the beginning of their names.",
            parameters({"text": a_text("How the name begins", 200), "max_results": a_count(50, 10)}),
            _listed("groups"),
            ("team", "role", "access"),
        ),
        read(
            "group.members",
            "Who is in a group in Okta.",
            parameters({"group": _GROUP, "max_results": a_count(200, 50)}, "group"),
            _listed("members"),
            ("team", "member", "membership", "people", "who has", "belongs to"),
        ),
        write(
            "group.add_user",
            "Put a user into a group in Okta.",
            membership,
            _MEMBER,
            effect=Effect.WRITE,
            lookup=Lookup.EVENTUAL,
            idempotent=True,
            keywords=("grant", "join", "give", "member", "membership", "put in", "team", "access"),
        ),
        write(
            "group.remove_user",
            "Take a user out of a group in Okta.",
            membership,
            _MEMBER,
            lookup=Lookup.EVENTUAL,
            idempotent=True,
            keywords=("revoke", "leave", "kick out", "member", "membership", "no longer", "team", "access"),
        ),
        read(
            "factor.list",
            "Which sign-in factors somebody has enrolled in Okta.",
            parameters({"user": _SELF}),
            result("user", factors="array"),
            ("mfa", "2fa", "token", "authenticator", "okta verify", "security key", "yubikey"),
        ),
        write(
            "factor.reset",
            "Reset one sign-in factor in Okta, named by id or type, so that it is enrolled anew.",
            parameters(
                {
                    "user": _SELF,
                    "factor_id": a_text("Id of the factor; this or the type", 64),
                    "type": a_text("Type of the factor; this or the id", 30, enum=list(TYPES)),
                }
            ),
            _FACTOR,
            keywords=(
                "mfa",
                "2fa",
                "vpn token",
                "broken token",
                "authenticator",
                "lost phone",
                "new phone",
                "okta verify",
            ),
        ),
        write(
            "factor.reset_all",
            "Reset all sign-in factors of somebody in Okta.",
            parameters({"user": _SELF}),
            result("user", "name"),
            keywords=(
                "mfa",
                "2fa",
                "multi-factor",
                "authenticator",
                "wipe",
                "devices",
                "lost phone",
                "all tokens",
                "start over",
            ),
        ),
        read(
            "app.search",
            "Find apps in Okta by the beginning of their names.",
            parameters({"text": a_text("How the name begins", 200), "max_results": a_count(50, 10)}),
            _listed("apps"),
            ("application", "software", "tool", "single sign-on", "sso"),
        ),
        write(
            "app.assign",
            "Give a user an app in Okta.",
            assignment,
            _ASSIGNED,
            effect=Effect.WRITE,
            keywords=(
                "application",
                "access",
                "grant",
                "give",
                "need",
                "tool",
                "software",
                "dashboard",
                "tile",
                "licence",
                "license",
            ),
        ),
        write(
            "app.unassign",
            "Take an app from a user in Okta.",
            assignment,
            _ASSIGNED,
            keywords=(
                "application",
                "access",
                "revoke",
                "remove",
                "take away",
                "no longer",
                "tool",
                "licence",
                "license",
            ),
        ),
        read(
            "log.search",
            "What happened in Okta: sign-ins, failures, changes, newest first, from the system log.",
            parameters(
                {
                    "user": a_text("Login, e-mail or id of who did it or whom it was done to", 100),
                    "event_type": a_text("Okta's event type, e.g. user.session.start", 100),
                    "outcome": a_text(
                        "Only events with this outcome",
                        20,
                        enum=["SUCCESS", "FAILURE", "SKIPPED", "ALLOW", "DENY", "CHALLENGE", "UNKNOWN"],
                    ),
                    "text": a_text("Words to look for", 40),
                    "hours": {"type": "integer", "minimum": 1, "maximum": 2160, "description": "Back; default 24"},
                    "max_results": a_count(100, 20),
                }
            ),
            _listed("events"),
            ("audit", "sign-in", "login", "failed", "suspicious", "history"),
        ),
    )
