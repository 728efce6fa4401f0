"""The HTTP application: routes of Jira Cloud's REST v3, each thin over ``store``, ``jql`` and ``fields``."""

from __future__ import annotations

import base64
import copy
import json
import random
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from aiohttp import web

from pilothouse_sim.faults import Faults, Handler, Sim
from pilothouse_sim.jira import adf, fields, jql
from pilothouse_sim.jira.errors import INVALID_PAYLOAD, JiraError, field_error, issue_not_found, render
from pilothouse_sim.jira.store import PERMISSIONS, STATUSES, Comment, Issue, Store, User, status_named
from pilothouse_sim.oauth import JIRA, OAuth

MAX_PAGE = 100
MAX_RECONCILE = 50
MAX_PROPERTY_BYTES = 32768
API = "/rest/api/3"
GATEWAY = "/ex/jira"
"""Where api.atlassian.com serves OAuth tokens, by the site's cloud id; the site's own paths take them here as well."""
CLOUD_ID = "11223344-a1b2-4c3d-8e9f-0123456789ab"


def make_app(
    *,
    faults: Faults | None = None,
    state_dir: Path | None = None,
    seed: dict[str, Any] | None = None,
    clock: Callable[[], float] = time.time,
    rng: random.Random | None = None,
) -> web.Application:
    """The stand-in with ``seed`` (default: seed.json beside this module); ``clock`` gives epoch seconds."""
    content = seed or json.loads(files("pilothouse_sim.jira").joinpath("seed.json").read_text(encoding="utf-8"))
    sim = Sim(faults or Faults(), render, rng or random.Random())  # noqa: S311 - faults, not secrets
    app = web.Application(client_max_size=1 << 20)
    sim.install(app)
    app.middlewares.append(_errors)
    store = Store(content, state_dir)
    oauth = OAuth(
        JIRA,
        people={user.email: user.name for user in store.users.values()},
        static={user.token: user.email for user in store.users.values()},
        state_dir=state_dir,
        clock=clock,
        userinfo=lambda email: _identity(store.users[email]),
    )
    oauth.install(app)
    Jira(store, oauth, sim, clock).install(app)
    return app


def _identity(user: User) -> dict[str, Any]:
    """Atlassian's User Identity API, ``/me``."""
    return {
        "account_type": "atlassian",
        "account_id": user.account_id,
        "email": user.email,
        "name": user.name,
        "account_status": "active",
    }


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except JiraError as error:
        return error.response()


async def _body(request: web.Request, known: set[str] | None) -> Any:
    """The JSON body; ``known`` limits the keys of an object. Raises ``JiraError``."""
    if request.content_type != "application/json":
        raise JiraError(415, "Unsupported Media Type: send Content-Type: application/json.")
    try:
        body = json.loads(await request.text())
    except ValueError:
        raise JiraError(400, INVALID_PAYLOAD) from None
    if known is not None and (not isinstance(body, dict) or not set(body) <= known):
        raise JiraError(400, INVALID_PAYLOAD)
    return body


def _base(request: web.Request) -> str:
    return f"{request.scheme}://{request.host}"


def _typed(body: dict[str, Any], name: str, kind: type, default: Any) -> Any:
    value = body.get(name, default)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise JiraError(400, INVALID_PAYLOAD)
    return value


def _number(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name, str(default))
    if not text.isdigit():
        raise JiraError(400, f"The '{name}' query parameter must be a number.")
    return int(text)


class Jira:
    """The handlers; ``clock`` gives epoch seconds."""

    def __init__(self, store: Store, oauth: OAuth, sim: Sim, clock: Callable[[], float]) -> None:
        self.store = store
        self.oauth = oauth
        self.sim = sim
        self.clock = clock

    def install(self, app: web.Application) -> None:
        """Adds the routes."""
        add = app.router.add_route
        read, write, people = "read:jira-work", "write:jira-work", "read:jira-user"
        for method, path, scope, handler in (
            ("GET", "/search/jql", read, self.search),
            ("POST", "/search/jql", read, self.search),
            ("POST", "/issue", write, self.create),
            ("GET", "/issue/createmeta/{project}/issuetypes", read, self.createmeta_types),
            ("GET", "/issue/createmeta/{project}/issuetypes/{type}", read, self.createmeta_fields),
            ("GET", "/issue/{issue}", read, self.get),
            ("PUT", "/issue/{issue}", write, self.edit),
            ("GET", "/issue/{issue}/comment", read, self.comments),
            ("POST", "/issue/{issue}/comment", write, self.add_comment),
            ("GET", "/issue/{issue}/transitions", read, self.transitions),
            ("POST", "/issue/{issue}/transitions", write, self.transition),
            ("GET", "/issue/{issue}/properties", read, self.property_keys),
            ("GET", "/issue/{issue}/properties/{key}", read, self.get_property),
            ("PUT", "/issue/{issue}/properties/{key}", write, self.set_property),
            ("GET", "/myself", people, self.myself),
            ("GET", "/user/search", people, self.user_search),
            ("GET", "/project/search", read, self.project_search),
            ("GET", "/field", read, self.field_list),
            ("GET", "/mypermissions", read, self.mypermissions),
        ):
            for prefix in (API, f"{GATEWAY}/{{cloud}}{API}"):
                add(method, prefix + path, self._authenticated(handler, scope))
        add("GET", f"{API}/serverInfo", self.server_info)
        add("GET", f"{GATEWAY}/{{cloud}}{API}/serverInfo", self.server_info)
        add("GET", "/oauth/token/accessible-resources", self.accessible_resources)

    def _authenticated(self, handler: Callable[[web.Request, User], Any], scope: str) -> Handler:
        """The handler behind a bearer token that carries ``scope``. What lacks it is answered with 401, as Atlassian's
        gateway does, and not with 403."""

        async def authenticated(request: web.Request) -> web.StreamResponse:
            caller = self.oauth.caller(request)
            if caller is None:
                message = "Client must be authenticated to access this resource."
                response = web.json_response({"message": message, "status-code": 401}, status=401)
                response.headers["WWW-Authenticate"] = 'OAuth realm="jira"'
                return response
            if not caller.has(scope):
                return web.json_response({"code": 401, "message": "Unauthorized; scope does not match"}, status=401)
            if request.match_info.get("cloud", CLOUD_ID) != CLOUD_ID:
                return web.json_response(
                    {"code": 404, "message": "No site of that cloud id is accessible."}, status=404
                )
            response = await handler(request, self.store.users[caller.email])
            assert isinstance(response, web.Response)
            return response

        return authenticated

    async def accessible_resources(self, request: web.Request) -> web.Response:
        """The sites that an OAuth token reaches: this one, through ``/ex/jira/<cloud id>``."""
        caller = self.oauth.caller(request)
        if caller is None:
            return web.json_response({"code": 401, "message": "Unauthorized"}, status=401)
        scopes = sorted(caller.scopes) if caller.scopes is not None else list(JIRA.scopes)
        site = {"id": CLOUD_ID, "url": _base(request), "name": "acme", "avatarUrl": f"{_base(request)}/avatar.png"}
        return web.json_response([{**site, "scopes": [scope for scope in scopes if scope.endswith(":jira-work")]}])

    def _issue(self, request: web.Request, user: User) -> Issue:
        """A copy that a handler may change and then save. Raises 404."""
        issue = self.store.find(user, request.match_info["issue"])
        if issue is None:
            raise issue_not_found()
        return copy.deepcopy(issue)

    def _save(self, issue: Issue) -> None:
        now = self.clock()
        self.store.save(replace(issue, updated=now), now, self.sim.faults.index_delay_seconds)

    async def server_info(self, request: web.Request) -> web.Response:
        """What the site is; needs no credential, as in Jira."""
        info = {"baseUrl": _base(request), "deploymentType": "Cloud", "version": "1001.0.0-SNAPSHOT"}
        return web.json_response({**info, "versionNumbers": [1001, 0, 0], "serverTitle": "Jira stand-in"})

    async def search(self, request: web.Request, user: User) -> web.Response:
        """Pages by ``nextPageToken``, gives no total, and shows only ``id`` where ``fields`` is not given."""
        names = {"jql", "nextPageToken", "maxResults", "fields", "expand", "properties", "fieldsByKeys", "failFast",
                 "reconcileIssues"}  # fmt: skip
        if request.method == "POST":
            body = await _body(request, names)
        else:
            if not set(request.query) <= names:
                raise JiraError(400, INVALID_PAYLOAD)
            body = {name: request.query[name] for name in ("jql", "nextPageToken") if name in request.query}
            body["maxResults"] = _number(request, "maxResults", 50)
            for name in ("fields", "properties"):
                if name in request.query:
                    body[name] = [part.strip() for value in request.query.getall(name) for part in value.split(",")]
            ids = [part for value in request.query.getall("reconcileIssues", []) for part in value.split(",")]
            if not all(part.strip().isdigit() for part in ids):
                raise JiraError(400, INVALID_PAYLOAD)
            body["reconcileIssues"] = [int(part) for part in ids]
        source = _typed(body, "jql", str, "")
        size = _typed(body, "maxResults", int, 50)
        reconcile = _typed(body, "reconcileIssues", list, [])
        shown = _typed(body, "fields", list, ["id"])
        properties = _typed(body, "properties", list, [])
        if not all(isinstance(i, int) for i in reconcile) or not all(isinstance(i, str) for i in shown + properties):
            raise JiraError(400, INVALID_PAYLOAD)
        if len(reconcile) > MAX_RECONCILE:
            raise JiraError(400, f"reconcileIssues holds at most {MAX_RECONCILE} issue ids.")
        if size < 1:
            raise JiraError(400, "maxResults must be 1 or more.")
        now = self.clock()
        found = jql.search(jql.parse(source), self.store.searchable(user, now, reconcile), self.store, user, now)
        start = self._page_start(body.get("nextPageToken"), source)
        end = start + min(size, MAX_PAGE)
        base = _base(request)
        answer: dict[str, Any] = {
            "issues": [fields.issue_view(i, self.store, base, shown, properties) for i in found[start:end]],
            "isLast": end >= len(found),
        }
        if end < len(found):
            answer["nextPageToken"] = base64.urlsafe_b64encode(json.dumps([end, source]).encode()).decode()
        return web.json_response(answer)

    def _page_start(self, token: object, source: str) -> int:
        if token in (None, ""):
            return 0
        try:
            start, query = json.loads(base64.urlsafe_b64decode(str(token)))
        except ValueError:
            start, query = -1, None
        if query != source or not isinstance(start, int):
            raise JiraError(400, "The provided next page token is invalid or expired.")
        return start

    async def get(self, request: web.Request, user: User) -> web.Response:
        """One issue; ``fields`` and ``properties`` as comma-separated lists."""
        shown = [p for value in request.query.getall("fields", ["*all"]) for p in value.split(",")]
        properties = [p for value in request.query.getall("properties", []) for p in value.split(",")]
        return web.json_response(
            fields.issue_view(self._issue(request, user), self.store, _base(request), shown, properties)
        )

    async def create(self, request: web.Request, user: User) -> web.Response:
        """Creates an issue; ``properties`` are set in the same step, so that a key of ours is there from the start."""
        body = await _body(request, {"fields", "properties", "update", "historyMetadata", "transition"})
        if body.get("update") or body.get("transition"):
            raise JiraError(400, INVALID_PAYLOAD)
        given = _typed(body, "fields", dict, {})
        project = fields.chosen_project(given.get("project"), self.store, user)
        values = fields.checked(given, project, self.store, user, creating=True)
        properties = {entry["key"]: entry["value"] for entry in _properties(body)}
        number, key = self.store.next_identity(project.key)
        now = self.clock()
        issue = Issue(
            **{"reporter": user.account_id, **values},
            id=number,
            key=key,
            project=project.key,
            creator=user.account_id,
            created=now,
            updated=now,
            properties=properties,
        )
        self._save(issue)
        link = f"{_base(request)}{API}/issue/{number}"
        return web.json_response({"id": number, "key": key, "self": link}, status=201)

    async def edit(self, request: web.Request, user: User) -> web.Response:
        """Sets fields; ``update`` operations are not supported and refused."""
        issue = self._issue(request, user)
        body = await _body(request, {"fields", "properties", "update", "historyMetadata"})
        if not self.store.allowed(user, issue.project, "EDIT_ISSUES"):
            raise JiraError(403, "You do not have permission to edit issues in this project.")
        if body.get("update") or body.get("properties"):
            raise JiraError(400, INVALID_PAYLOAD)
        project = self.store.projects[issue.project]
        values = fields.checked(body.get("fields", {}), project, self.store, user, creating=False)
        self._save(replace(issue, **values))
        return web.Response(status=204)

    async def comments(self, request: web.Request, user: User) -> web.Response:
        """A page of an issue's comments, oldest first unless ``orderBy=-created``."""
        issue = self._issue(request, user)
        start, size = _number(request, "startAt", 0), _number(request, "maxResults", 100)
        order = request.query.get("orderBy", "created")
        if order not in ("created", "-created", "+created"):
            raise JiraError(400, f"Ordering by '{order}' is not supported.")
        listed = issue.comments[::-1] if order == "-created" else issue.comments
        expand = "properties" in request.query.get("expand", "").split(",")
        base = _base(request)
        page = [
            fields.comment_view(comment, issue, self.store, base, properties=expand)
            for comment in listed[start : start + size]
        ]
        return web.json_response({"startAt": start, "maxResults": size, "total": len(issue.comments), "comments": page})

    async def add_comment(self, request: web.Request, user: User) -> web.Response:
        """Adds a comment whose body is ADF."""
        issue = self._issue(request, user)
        body = await _body(request, {"body", "visibility", "properties"})
        if not self.store.allowed(user, issue.project, "ADD_COMMENTS"):
            raise field_error(comment=f"{user.name}, you do not have the permission to comment on this issue.")
        if "body" not in body:
            raise field_error(comment="Comment body can not be empty!")
        if not adf.valid(body["body"]):
            raise field_error(comment="Comment body is not valid!")
        if not adf.plain(body["body"]).strip():
            raise field_error(comment="Comment body can not be empty!")
        number = str(10000 + sum(len(i.comments) for i in self.store.issues.values()))
        comment = Comment(number, user.account_id, body["body"], self.clock(), _properties(body))
        issue.comments.append(comment)
        self._save(issue)
        return web.json_response(fields.comment_view(comment, issue, self.store, _base(request)), status=201)

    async def transitions(self, request: web.Request, user: User) -> web.Response:
        """What the user may do with the issue; an empty list without TRANSITION_ISSUES, as in Jira."""
        issue = self._issue(request, user)
        may = self.store.allowed(user, issue.project, "TRANSITION_ISSUES")
        listed = [
            {
                "id": status.transition_id,
                "name": status.transition_name,
                "to": fields.status_view(status, _base(request)),
                "hasScreen": False,
                "isGlobal": True,
                "isInitial": False,
                "isAvailable": True,
                "isConditional": False,
            }
            for status in STATUSES
            if may
        ]
        return web.json_response({"expand": "transitions", "transitions": listed})

    async def transition(self, request: web.Request, user: User) -> web.Response:
        """Moves the issue by a transition's id; reaching a done status sets the resolution."""
        issue = self._issue(request, user)
        body = await _body(request, {"transition", "fields", "update", "historyMetadata", "properties"})
        wanted = body.get("transition")
        if not isinstance(wanted, dict) or not isinstance(wanted.get("id"), str):
            raise JiraError(400, "Missing 'transition' identifier")
        if not self.store.allowed(user, issue.project, "TRANSITION_ISSUES"):
            raise JiraError(400, "You do not have permission to transition this issue.")
        status = next((status for status in STATUSES if status.transition_id == wanted["id"]), None)
        if status is None:
            raise JiraError(400, f"Transition id '{wanted['id']}' is not valid for this issue.")
        resolved = (issue.resolved or self.clock()) if status_named(status.name).category == "done" else None
        self._save(replace(issue, status=status.name, resolved=resolved))
        return web.Response(status=204)

    async def property_keys(self, request: web.Request, user: User) -> web.Response:
        """The keys of the issue's properties."""
        issue = self._issue(request, user)
        link = f"{_base(request)}{API}/issue/{issue.id}/properties"
        return web.json_response({"keys": [{"self": f"{link}/{key}", "key": key} for key in issue.properties]})

    async def get_property(self, request: web.Request, user: User) -> web.Response:
        """One property's value; 404 where it is not set."""
        issue, key = self._issue(request, user), request.match_info["key"]
        if key not in issue.properties:
            raise JiraError(404, f"The property with key '{key}' does not exist.")
        return web.json_response({"key": key, "value": issue.properties[key]})

    async def set_property(self, request: web.Request, user: User) -> web.Response:
        """Sets a property: 201 when it is new, else 200."""
        issue, key = self._issue(request, user), request.match_info["key"]
        value = await _body(request, None)
        if not self.store.allowed(user, issue.project, "EDIT_ISSUES"):
            raise JiraError(403, "You do not have permission to edit issues in this project.")
        _check_property(key, value)
        new = key not in issue.properties
        issue.properties[key] = value
        self._save(issue)
        return web.json_response({}, status=201 if new else 200)

    async def myself(self, request: web.Request, user: User) -> web.Response:
        """The user whose token it is."""
        return web.json_response(fields.user_view(user, _base(request)))

    async def user_search(self, request: web.Request, _user: User) -> web.Response:
        """Users whose name or e-mail starts with ``query``, or the one with ``accountId``."""
        text, account = request.query.get("query", "").lower(), request.query.get("accountId")
        if not text and not account:
            raise JiraError(400, "The username query parameter was not provided.")
        found = [
            fields.user_view(user, _base(request))
            for user in self.store.users.values()
            if user.account_id == account
            or (text and any(word.startswith(text) for word in [user.email, *user.name.lower().split()]))
        ]
        start = _number(request, "startAt", 0)
        return web.json_response(found[start : start + _number(request, "maxResults", 50)])

    async def project_search(self, request: web.Request, user: User) -> web.Response:
        """The projects that the user may browse; ``query`` matches key or name."""
        text = request.query.get("query", "").lower()
        found = [
            fields.project_view(project, _base(request))
            for project in self.store.projects.values()
            if self.store.allowed(user, project.key, "BROWSE_PROJECTS")
            and (text in project.key.lower() or text in project.name.lower())
        ]
        start, size = _number(request, "startAt", 0), _number(request, "maxResults", 50)
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

    async def createmeta_types(self, request: web.Request, user: User) -> web.Response:
        """Issue types that the user may create in the project; none without CREATE_ISSUES, as in Jira."""
        wanted = request.match_info["project"]
        project = next((p for p in self.store.projects.values() if wanted.upper() in (p.key, p.id)), None)
        if project is None or not self.store.allowed(user, project.key, "BROWSE_PROJECTS"):
            raise JiraError(404, f"No project could be found with key or id '{wanted}'.")
        may = self.store.allowed(user, project.key, "CREATE_ISSUES")
        types = [fields.issue_type_view(project, t, _base(request)) for t in project.issue_types if may]
        return web.json_response({"startAt": 0, "maxResults": 50, "total": len(types), "issueTypes": types})

    async def createmeta_fields(self, request: web.Request, user: User) -> web.Response:
        """Fields of the create screen of an issue type."""
        wanted = request.match_info["project"].upper()
        project = next((p for p in self.store.projects.values() if wanted in (p.key, p.id)), None)
        if project is None or not self.store.allowed(user, project.key, "CREATE_ISSUES"):
            raise JiraError(404, f"No project could be found with key or id '{request.match_info['project']}'.")
        if request.match_info["type"] not in {project.issue_type_id(t) for t in project.issue_types}:
            raise JiraError(404, "The issue type could not be found.")
        listed = [
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
        return web.json_response({"startAt": 0, "maxResults": 50, "total": len(listed), "fields": listed})

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


def _properties(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The entity properties that a create sets, as ``[{key, value}]``. Raises ``JiraError``."""
    entries: list[dict[str, Any]] = _typed(body, "properties", list, [])
    for entry in entries:
        if not isinstance(entry, dict) or set(entry) != {"key", "value"} or not isinstance(entry["key"], str):
            raise JiraError(400, INVALID_PAYLOAD)
        _check_property(entry["key"], entry["value"])
    return entries


def _check_property(key: str, value: object) -> None:
    if not key or len(key) > 255:
        raise JiraError(400, "The property key must have 1 to 255 characters.")
    if len(json.dumps(value)) > MAX_PROPERTY_BYTES:
        raise JiraError(400, f"The property value cannot be bigger than {MAX_PROPERTY_BYTES} bytes.")
