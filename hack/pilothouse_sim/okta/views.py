"""How users, factors, groups, apps and events look in the API. Pure."""

from __future__ import annotations

from typing import Any

from pilothouse_sim.okta.store import App, Event, Factor, Group, Store, User, timestamp

DIRECTORY = frozenset(
    {"login", "email", "firstName", "lastName", "displayName", "title", "department", "organization", "manager",
     "managerId"}
)  # fmt: skip
"""What a role with basic access sees of other people."""


def user_view(user: User, base: str, *, everything: bool = True) -> dict[str, Any]:
    """A user; ``everything`` False: what the directory shows."""
    profile = {name: value for name, value in user.profile.items() if everything or name in DIRECTORY}
    link = f"{base}/api/v1/users/{user.id}"
    return {
        "id": user.id,
        "status": user.status,
        "created": timestamp(user.created),
        "activated": timestamp(user.created),
        "statusChanged": timestamp(user.status_changed),
        "lastLogin": None,
        "lastUpdated": timestamp(user.updated),
        "passwordChanged": timestamp(user.password_changed),
        "type": {"id": "oty1default000000000"},
        "profile": profile,
        "credentials": {"password": {}, "provider": {"type": "OKTA", "name": "OKTA"}},
        "_links": {"self": {"href": link}},
    }


def factor_view(factor: Factor, base: str) -> dict[str, Any]:
    """An enrolled factor."""
    link = f"{base}/api/v1/users/{factor.user}/factors/{factor.id}"
    return {
        "id": factor.id,
        "factorType": factor.type,
        "provider": factor.provider,
        "vendorName": factor.vendor,
        "status": factor.status,
        "created": timestamp(factor.created),
        "lastUpdated": timestamp(factor.created),
        "profile": factor.profile,
        "_links": {
            "self": {"href": link, "hints": {"allow": ["GET", "DELETE"]}},
            "user": {"href": f"{base}/api/v1/users/{factor.user}", "hints": {"allow": ["GET"]}},
        },
    }


def group_view(group: Group, base: str) -> dict[str, Any]:
    """A group."""
    return {
        "id": group.id,
        "created": timestamp(group.created),
        "lastUpdated": timestamp(group.created),
        "lastMembershipUpdated": timestamp(group.membership_updated),
        "objectClass": ["okta:user_group"],
        "type": group.type,
        "profile": group.profile,
        "_links": {"users": {"href": f"{base}/api/v1/groups/{group.id}/users"}},
    }


def app_view(app: App, base: str) -> dict[str, Any]:
    """An app."""
    link = f"{base}/api/v1/apps/{app.id}"
    return {
        "id": app.id,
        "name": app.name,
        "label": app.label,
        "status": app.status,
        "created": timestamp(app.created),
        "lastUpdated": timestamp(app.created),
        "signOnMode": app.sign_on,
        "accessibility": {"selfService": False},
        "visibility": {"hide": {"iOS": False, "web": False}},
        "features": [],
        "_links": {"self": {"href": link}, "users": {"href": f"{link}/users"}},
    }


def app_user_view(app: App, user: User, base: str) -> dict[str, Any]:
    """The assignment of an app to a user."""
    assigned = timestamp(app.users[user.id])
    return {
        "id": user.id,
        "externalId": None,
        "created": assigned,
        "lastUpdated": assigned,
        "statusChanged": assigned,
        "scope": "USER",
        "status": "ACTIVE",
        "syncState": "DISABLED",
        "credentials": {"userName": user.login},
        "profile": {},
        "_links": {
            "app": {"href": f"{base}/api/v1/apps/{app.id}"},
            "user": {"href": f"{base}/api/v1/users/{user.id}"},
        },
    }


def event_view(event: Event, store: Store) -> dict[str, Any]:
    """An entry of the system log (LogEvent)."""
    targets = [_party(store.users[user]) for user in event.targets if user in store.users]
    if event.object:
        targets.append({**event.object, "detailEntry": None})
    result = {"result": event.outcome, "reason": event.reason or None}
    return {
        "uuid": event.uuid,
        "published": timestamp(event.published),
        "eventType": event.type,
        "version": "0",
        "severity": "INFO" if event.outcome == "SUCCESS" else "WARN",
        "legacyEventType": None,
        "displayMessage": event.message,
        "actor": _party(store.users[event.actor]),
        "client": {"ipAddress": "192.0.2.10", "geographicalContext": {"city": "Lisbon", "country": "Portugal"}},
        "outcome": result,
        "target": targets,
        "transaction": {"type": "WEB", "id": event.uuid, "detail": {}},
    }


def _party(user: User) -> dict[str, Any]:
    name = user.profile["displayName"]
    return {"id": user.id, "type": "User", "alternateId": user.login, "displayName": name, "detailEntry": None}
