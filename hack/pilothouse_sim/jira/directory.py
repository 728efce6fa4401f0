"""People, projects, fields, create metadata, attachments' metadata and one's own permissions."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from pilothouse_sim.jira import fields
from pilothouse_sim.jira.errors import JiraError, issue_not_found
from pilothouse_sim.jira.site import PEOPLE, READ, Handlers, Route, base_of, query_number
from pilothouse_sim.jira.store import PERMISSIONS, USER_PICKER, Project, User


class Directory(Handlers):
    """The handlers."""

    def routes(self) -> tuple[Route, ...]:
        """Where they answer."""
        meta = "/issue/createmeta/{project}/issuetypes"
        return (
            ("GET", meta, READ, self.createmeta_types),
            ("GET", meta + "/{type}", READ, self.createmeta_fields),
            ("GET", "/myself", PEOPLE, self.myself),
            ("GET", "/user", PEOPLE, self.get_user),
            ("GET", "/user/search", PEOPLE, self.user_search),
            ("GET", "/user/assignable/search", PEOPLE, self.assignable),
            ("GET", "/project/search", READ, self.project_search),
            ("GET", "/project/{project}", READ, self.get_project),
            ("GET", "/field", READ, self.field_list),
            ("GET", "/mypermissions", READ, self.mypermissions),
            ("GET", "/attachment/{attachment}", READ, self.get_attachment),
        )

    async def myself(self, request: web.Request, user: User) -> web.Response:
        """The user whose token it is."""
        return web.json_response(fields.user_view(user, base_of(request)))

    async def get_user(self, request: web.Request, user: User) -> web.Response:
        """The user with ``accountId``; of others, with “Browse users and groups” alone."""
        account = request.query.get("accountId")
        if not account:
            raise JiraError(400, "The accountId query parameter was not provided.")
        found = self.store.user_by_id(account)
        if found is None or (found != user and not self.store.allowed_globally(user, USER_PICKER)):
            raise JiraError(404, "Specified user does not exist or you do not have required permissions")
        return web.json_response(fields.user_view(found, base_of(request)))

    async def assignable(self, request: web.Request, user: User) -> web.Response:
        """Whom an issue (``issueKey`` or ``issueId``), or one of a ``project``, can be assigned to. Nobody is shown to
        whom may neither browse users nor assign there."""
        query = request.query
        if "issueKey" in query or "issueId" in query:
            project = self._visible(user, query.get("issueKey", query.get("issueId", ""))).project
        elif "project" in query:
            project = self._project(user, query["project"]).key
        else:
            raise JiraError(400, "Either project or issueKey must be given.")
        may = self.store.allowed_globally(user, USER_PICKER) or self.store.allowed(user, project, "ASSIGN_ISSUES")
        text, account = query.get("query", "").lower(), query.get("accountId")
        found = [
            fields.user_view(person, base_of(request))
            for person in self.store.users.values()
            if may
            and self.store.allowed(person, project, "ASSIGNABLE_USER")
            and account in (None, person.account_id)
            and _fits(person, text)
        ]
        start = query_number(request, "startAt", 0)
        return web.json_response(found[start : start + query_number(request, "maxResults", 50)])

    async def user_search(self, request: web.Request, user: User) -> web.Response:
        """Users whose name or e-mail starts with ``query``, or the one with ``accountId``; nobody without “Browse users
        and groups”, as in Jira."""
        text, account = request.query.get("query", "").lower(), request.query.get("accountId")
        if not text and not account:
            raise JiraError(400, "The username query parameter was not provided.")
        found = [
            fields.user_view(person, base_of(request))
            for person in self.store.users.values()
            if self.store.allowed_globally(user, USER_PICKER)
            and (person.account_id == account if account else _fits(person, text))
        ]
        start = query_number(request, "startAt", 0)
        return web.json_response(found[start : start + query_number(request, "maxResults", 50)])

    async def project_search(self, request: web.Request, user: User) -> web.Response:
        """The projects that the user may browse; ``query`` matches key or name."""
        text = request.query.get("query", "").lower()
        found = [
            fields.project_view(project, base_of(request))
            for project in self.store.projects.values()
            if self.store.allowed(user, project.key, "BROWSE_PROJECTS")
            and (text in project.key.lower() or text in project.name.lower())
        ]
        start, size = query_number(request, "startAt", 0), query_number(request, "maxResults", 50)
        page = found[start : start + size]
        last = start + size >= len(found)
        return web.json_response(
            {"startAt": start, "maxResults": size, "total": len(found), "isLast": last, "values": page}
        )

    async def field_list(self, _request: web.Request, _user: User) -> web.Response:
        """The system fields that this site has."""
        return web.json_response(
            [
                {"id": key, "key": key, "name": name, "custom": False, "schema": {"type": kind, "system": key}}
                for key, (name, kind) in fields.SYSTEM_FIELDS.items()
            ]
        )

    def _project(self, user: User, wanted: str) -> Project:
        """The project of that key or id, if the user may browse it. Raises 404."""
        found = next((p for p in self.store.projects.values() if wanted.upper() in (p.key, p.id)), None)
        if found is None or not self.store.allowed(user, found.key, "BROWSE_PROJECTS"):
            raise JiraError(404, f"No project could be found with key or id '{wanted}'.")
        return found

    async def get_project(self, request: web.Request, user: User) -> web.Response:
        """One project with its issue types."""
        project, base = self._project(user, request.match_info["project"]), base_of(request)
        types = [fields.issue_type_view(project, name, base) for name in project.issue_types]
        return web.json_response({**fields.project_view(project, base), "issueTypes": types})

    async def createmeta_types(self, request: web.Request, user: User) -> web.Response:
        """Issue types that the user may create in the project; none without CREATE_ISSUES, as in Jira."""
        project = self._project(user, request.match_info["project"])
        may = self.store.allowed(user, project.key, "CREATE_ISSUES")
        types = [fields.issue_type_view(project, t, base_of(request)) for t in project.issue_types if may]
        return self._page(request, "issueTypes", types)

    def _page(self, request: web.Request, name: str, items: list[dict[str, Any]]) -> web.Response:
        start, size = query_number(request, "startAt", 0), query_number(request, "maxResults", 50)
        size = min(size, 200)
        page = items[start : start + size]
        return web.json_response({"startAt": start, "maxResults": size, "total": len(items), name: page})

    async def createmeta_fields(self, request: web.Request, user: User) -> web.Response:
        """Fields of the create screen of an issue type."""
        project = self._project(user, request.match_info["project"])
        if not self.store.allowed(user, project.key, "CREATE_ISSUES"):
            raise JiraError(404, f"No project could be found with key or id '{request.match_info['project']}'.")
        if request.match_info["type"] not in {project.issue_type_id(t) for t in project.issue_types}:
            raise JiraError(404, "The issue type could not be found.")
        listed: list[dict[str, Any]] = [
            {
                "fieldId": key,
                "key": key,
                "name": fields.SYSTEM_FIELDS[key][0],
                "required": key in ("summary", "issuetype", "project"),
                "schema": {"type": fields.SYSTEM_FIELDS[key][1], "system": key},
                "operations": ["set"],
            }
            for key in ("summary", "issuetype", "project", "description", "labels", "priority", "assignee", "reporter")
        ]
        return self._page(request, "fields", listed)

    async def get_attachment(self, request: web.Request, user: User) -> web.Response:
        """An attachment's metadata, of an issue that the user may browse."""
        wanted = request.match_info["attachment"]
        for issue in self.store.issues.values():
            for attachment in issue.attachments:
                if attachment["id"] == wanted and self.store.find(user, issue.key):
                    return web.json_response(fields.attachment_view(attachment, self.store, base_of(request)))
        raise JiraError(404, f"The attachment with id '{wanted}' does not exist")

    async def mypermissions(self, request: web.Request, user: User) -> web.Response:
        """Which of the ``permissions`` the user has in the project of ``projectKey`` or ``issueKey``, or anywhere."""
        names = [name for name in request.query.get("permissions", "").split(",") if name]
        if not names:
            raise JiraError(400, "The 'permissions' query parameter is required.")
        if unknown := [name for name in names if name not in PERMISSIONS]:
            raise JiraError(400, f"Unrecognized permission: {', '.join(unknown)}")
        if "issueKey" in request.query:
            issue = self.store.find(user, request.query["issueKey"])
            if issue is None:
                raise issue_not_found()
            projects = [issue.project]
        elif "projectKey" in request.query:
            projects = [request.query["projectKey"]]
            if not self.store.allowed(user, projects[0], "BROWSE_PROJECTS"):
                raise JiraError(404, f"No project could be found with key '{projects[0]}'.")
        else:
            projects = list(self.store.projects)
        granted = {
            name: {
                "id": str(list(PERMISSIONS).index(name) + 10),
                "key": name,
                "name": PERMISSIONS[name],
                "type": "PROJECT",
                "havePermission": any(self.store.allowed(user, project, name) for project in projects),
            }
            for name in names
        }
        return web.json_response({"permissions": granted})


def _fits(person: User, text: str) -> bool:
    """Whether the e-mail or a word of the name begins with ``text`` (lower case)."""
    return any(word.startswith(text) for word in [person.email, person.name.lower(), *person.name.lower().split()])
