"""Groups and their members, apps and their assignments, and the system log.

Source: https://developer.okta.com/docs/api/openapi/okta-management/management/tag/Group/, …/tag/Application/,
…/tag/ApplicationUsers/, …/tag/SystemLog/
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable

from aiohttp import web

from pilothouse_sim.okta import scim, views
from pilothouse_sim.okta.errors import OktaError, forbidden, not_found
from pilothouse_sim.okta.request import Asked
from pilothouse_sim.okta.store import READ_USERS, App, Event, Group, User

READ_GROUPS = "okta.groups.read"
READ_APPS = "okta.apps.read"
_GROUPS = ("okta.groups.read", "okta.groups.manage")
_APPS = ("okta.apps.read", "okta.apps.manage")
_LOG_MAX = 1000
_WEEK = 7 * 86400.0


class Access:
    """The handlers; ``delay`` gives the seconds until search sees a change."""

    def __init__(self, delay: Callable[[], float]) -> None:
        self._delay = delay

    def routes(self) -> tuple[tuple[str, str, Callable[[Asked], Awaitable[web.Response]]], ...]:
        """Method, path below the API's, handler."""
        return (
            ("GET", "/groups", self.list_groups),
            ("GET", "/groups/{group}", self.get_group),
            ("GET", "/groups/{group}/users", self.members),
            ("PUT", "/groups/{group}/users/{user}", self.add_member),
            ("DELETE", "/groups/{group}/users/{user}", self.remove_member),
            ("GET", "/apps", self.list_apps),
            ("GET", "/apps/{app}", self.get_app),
            ("GET", "/apps/{app}/users", self.app_users),
            ("POST", "/apps/{app}/users", self.assign),
            ("GET", "/apps/{app}/users/{user}", self.app_user),
            ("DELETE", "/apps/{app}/users/{user}", self.unassign),
            ("GET", "/logs", self.logs),
        )

    # Groups.

    def _group(self, asked: Asked) -> Group:
        found = asked.store.groups.get(asked.part("group"))
        if found is None:
            raise not_found(asked.part("group"), "UserGroup")
        return found

    async def list_groups(self, asked: Asked) -> web.Response:
        """By ``search``, or names that begin with ``q``."""
        asked.needs(*_GROUPS)
        asked.needs_everywhere(READ_GROUPS)
        query = asked.http.query
        if sum(name in query for name in ("search", "filter", "q")) > 1:
            raise OktaError("E0000033")
        text = query.get("q", "").casefold()
        found = [
            group for group in asked.store.groups.values() if str(group.profile["name"]).casefold().startswith(text)
        ]
        expression = query.get("search", query.get("filter"))
        if expression is not None:
            test = scim.parse(expression, scim.GROUP_SEARCH)
            found = [group for group in found if test(views.group_view(group, asked.base))]
        page, headers = asked.page(
            [(g.id, g) for g in sorted(found, key=lambda g: g.id)], asked.whole("limit", 200, 200)
        )
        return web.json_response([views.group_view(group, asked.base) for group in page], headers=headers)

    async def get_group(self, asked: Asked) -> web.Response:
        """One group by id."""
        asked.needs(*_GROUPS)
        asked.needs_everywhere(READ_GROUPS)
        return web.json_response(views.group_view(self._group(asked), asked.base))

    async def members(self, asked: Asked) -> web.Response:
        """The group's users."""
        asked.needs(*_GROUPS)
        asked.needs_everywhere(READ_GROUPS)
        members = [(user.id, user) for user in asked.store.members(self._group(asked))]
        page, headers = asked.page(members, asked.whole("limit", 200, 1000))
        shown = [
            views.user_view(user, asked.base, everything=asked.store.sees_all_of(asked.user, user)) for user in page
        ]
        return web.json_response(shown, headers=headers)

    async def groups_of_user(self, asked: Asked) -> web.Response:
        """The groups that a user is in."""
        asked.needs(*_GROUPS, "okta.users.read", "okta.users.manage")
        user = asked.target(READ_USERS)
        found = [g for g in asked.store.groups.values() if g.everyone or user.id in g.members]
        page, headers = asked.page(
            [(g.id, g) for g in sorted(found, key=lambda g: g.id)], asked.whole("limit", 200, 200)
        )
        return web.json_response([views.group_view(group, asked.base) for group in page], headers=headers)

    def _membership(self, asked: Asked) -> tuple[Group, User]:
        """What a change of membership is about. Only Okta's own groups take one."""
        asked.needs("okta.groups.manage")
        if "okta.groups.members.manage" not in asked.user.permissions:
            raise forbidden()
        group = self._group(asked)
        user = asked.target("okta.groups.members.manage")
        if group.type != "OKTA_GROUP":
            raise OktaError("E0000060")
        return group, user

    async def add_member(self, asked: Asked) -> web.Response:
        """204 also where she is in it already."""
        group, user = self._membership(asked)
        if user.status == "DEPROVISIONED":
            raise not_found(user.id, "User")
        if user.id not in group.members:
            group.members.append(user.id)
            self._note_member(asked, group, user, "group.user_membership.add", "Add user to group membership")
        return web.Response(status=204)

    async def remove_member(self, asked: Asked) -> web.Response:
        """204 also where she was not in it."""
        group, user = self._membership(asked)
        if user.id in group.members:
            group.members.remove(user.id)
            self._note_member(asked, group, user, "group.user_membership.remove", "Remove user from group membership")
        return web.Response(status=204)

    def _note_member(self, asked: Asked, group: Group, user: User, event: str, said: str) -> None:
        group.membership_updated = asked.now
        name = str(group.profile["name"])
        about = {"id": group.id, "type": "UserGroup", "alternateId": "unknown", "displayName": name}
        asked.store.note(secrets.token_hex(16), asked.now, event, said, asked.user, user, **about)
        asked.store.save(asked.now, self._delay())

    # Apps.

    def _app(self, asked: Asked) -> App:
        asked.needs(*_APPS)
        asked.needs_everywhere(READ_APPS)
        found = asked.store.apps.get(asked.part("app"))
        if found is None:
            raise not_found(asked.part("app"), "AppInstance")
        return found

    async def list_apps(self, asked: Asked) -> web.Response:
        """By names or labels that begin with ``q``, or by ``filter``."""
        asked.needs(*_APPS)
        asked.needs_everywhere(READ_APPS)
        query = asked.http.query
        text = query.get("q", "").casefold()
        found = [
            app
            for app in asked.store.apps.values()
            if app.label.casefold().startswith(text) or app.name.startswith(text)
        ]
        if "filter" in query:
            test = scim.parse(query["filter"], scim.APP_FILTER)
            found = [
                app
                for app in found
                if test({**views.app_view(app, asked.base), "user": [{"id": user} for user in app.users]})
            ]
        page, headers = asked.page(
            [(a.id, a) for a in sorted(found, key=lambda a: a.id)], asked.whole("limit", 20, 200)
        )
        return web.json_response([views.app_view(app, asked.base) for app in page], headers=headers)

    async def get_app(self, asked: Asked) -> web.Response:
        """One app by id."""
        return web.json_response(views.app_view(self._app(asked), asked.base))

    async def app_users(self, asked: Asked) -> web.Response:
        """To whom the app is assigned."""
        app = self._app(asked)
        users = [(user, asked.store.users[user]) for user in sorted(app.users)]
        page, headers = asked.page(users, asked.whole("limit", 50, 500))
        return web.json_response([views.app_user_view(app, user, asked.base) for user in page], headers=headers)

    async def app_user(self, asked: Asked) -> web.Response:
        """One assignment."""
        app, wanted = self._app(asked), asked.part("user")
        if wanted not in app.users:
            raise not_found(wanted, "AppUser")
        return web.json_response(views.app_user_view(app, asked.store.users[wanted], asked.base))

    def _may_assign(self, asked: Asked, user_id: str) -> User:
        user = asked.store.users.get(user_id)
        if user is None:
            raise not_found(user_id, "User")
        if not asked.store.reaches(asked.user, "okta.users.appAssignment.manage", user):
            raise forbidden()
        return user

    async def assign(self, asked: Asked) -> web.Response:
        """Assigns the app to the user ``id``; 200 also where it is assigned already."""
        asked.needs("okta.apps.manage")
        app = self._app(asked)
        body = await asked.body(frozenset({"id", "scope", "credentials", "profile"}))
        if not isinstance(body.get("id"), str):
            raise OktaError("E0000001", "id", "id: The field cannot be left blank")
        if body.get("scope", "USER") not in ("USER", "GROUP"):
            raise OktaError("E0000001", "scope", "scope: must be USER or GROUP")
        user = self._may_assign(asked, body["id"])
        if app.status != "ACTIVE" or user.status == "DEPROVISIONED":
            raise OktaError("E0000001", "user", "The app or the user is not active.")
        if user.id not in app.users:
            app.users[user.id] = asked.now
            self._note_app(asked, app, user, "application.user_membership.add", "Add user to application membership")
        return web.json_response(views.app_user_view(app, user, asked.base))

    async def unassign(self, asked: Asked) -> web.Response:
        """Takes the app from the user; 404 where it was not assigned."""
        asked.flag("sendEmail", False)
        asked.needs("okta.apps.manage")
        app = self._app(asked)
        user = self._may_assign(asked, asked.part("user"))
        if user.id not in app.users:
            raise not_found(user.id, "AppUser")
        del app.users[user.id]
        said = "Remove user from application membership"
        self._note_app(asked, app, user, "application.user_membership.remove", said)
        return web.Response(status=204)

    def _note_app(self, asked: Asked, app: App, user: User, event: str, said: str) -> None:
        about = {"id": app.id, "type": "AppInstance", "alternateId": app.label, "displayName": app.label}
        asked.store.note(secrets.token_hex(16), asked.now, event, said, asked.user, user, **about)
        asked.store.save(asked.now, self._delay())

    # The system log.

    async def logs(self, asked: Asked) -> web.Response:
        """Events from ``since`` (default: a week ago) to ``until``, by ``filter`` and ``q``. Without ``until`` the list
        always links to what may still come."""
        asked.needs("okta.logs.read")
        asked.needs_everywhere("okta.logs.read")
        since, until = asked.instant("since"), asked.instant("until")
        query, order = asked.http.query, asked.http.query.get("sortOrder", "ASCENDING")
        if order not in ("ASCENDING", "DESCENDING"):
            raise OktaError("E0000001", "sortOrder", "sortOrder: must be ASCENDING or DESCENDING")
        since = asked.now - _WEEK if since is None else since
        if until is not None and until < since:
            raise OktaError("E0000001", "until", "until: must not be before since")
        test = scim.parse(query["filter"], scim.LOG_FILTER) if "filter" in query else lambda _event: True
        words = query.get("q", "").casefold().split()
        found: list[tuple[str, Event]] = []
        for event in sorted(asked.store.events, key=lambda event: event.published):
            view = views.event_view(event, asked.store)
            text = str(list(view.values())).casefold()
            if (
                since <= event.published
                and (until is None or event.published < until)
                and test(view)
                and all(word in text for word in words)
            ):
                found.append((event.uuid, event))
        if order == "DESCENDING":
            found.reverse()
        page, headers = asked.page(found, asked.whole("limit", 100, _LOG_MAX))
        if until is None and order == "ASCENDING" and page and len(headers.getall("Link")) == 1:
            headers.extend(asked.links("next", after=page[-1].uuid))
        return web.json_response([views.event_view(event, asked.store) for event in page], headers=headers)
