"""Issues: creating, reading, changing, deleting them; their comments, transitions and properties.

Source: https://developer.atlassian.com/cloud/jira/platform/rest/v3/api-group-issues/ and the groups beside it
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from aiohttp import web

from pilothouse_sim.jira import adf, fields
from pilothouse_sim.jira.errors import INVALID_PAYLOAD, JiraError, field_error
from pilothouse_sim.jira.site import (
    API,
    READ,
    WRITE,
    Handlers,
    Route,
    base_of,
    check_property,
    query_number,
    read_body,
    read_properties,
    typed,
)
from pilothouse_sim.jira.store import STATUSES, Comment, Issue, User, status_named


class Issues(Handlers):
    """The handlers."""

    def routes(self) -> tuple[Route, ...]:
        """Where they answer."""
        prop, comment = "/issue/{issue}/properties", "/issue/{issue}/comment"
        of_comment = "/comment/{comment}/properties"
        return (
            ("POST", "/issue", WRITE, self.create),
            ("GET", "/issue/{issue}", READ, self.get),
            ("PUT", "/issue/{issue}", WRITE, self.edit),
            ("DELETE", "/issue/{issue}", WRITE, self.delete),
            ("PUT", "/issue/{issue}/assignee", WRITE, self.assign),
            ("GET", comment, READ, self.comments),
            ("POST", comment, WRITE, self.add_comment),
            ("GET", comment + "/{comment}", READ, self.get_comment),
            ("GET", "/issue/{issue}/transitions", READ, self.transitions),
            ("POST", "/issue/{issue}/transitions", WRITE, self.transition),
            ("GET", prop, READ, self.property_keys),
            ("GET", prop + "/{key}", READ, self.get_property),
            ("PUT", prop + "/{key}", WRITE, self.set_property),
            ("DELETE", prop + "/{key}", WRITE, self.delete_property),
            ("GET", of_comment, READ, self.comment_property_keys),
            ("GET", of_comment + "/{key}", READ, self.get_comment_property),
            ("PUT", of_comment + "/{key}", WRITE, self.set_comment_property),
            ("DELETE", of_comment + "/{key}", WRITE, self.delete_comment_property),
        )

    async def get(self, request: web.Request, user: User) -> web.Response:
        """One issue; ``fields`` and ``properties`` as comma-separated lists."""
        shown = [p for value in request.query.getall("fields", ["*all"]) for p in value.split(",")]
        properties = [p for value in request.query.getall("properties", []) for p in value.split(",")]
        return web.json_response(
            fields.issue_view(self._issue(request, user), self.store, base_of(request), shown, properties, user=user)
        )

    async def create(self, request: web.Request, user: User) -> web.Response:
        """Creates an issue; ``properties`` are set in the same step, so that a key of ours is there from the start."""
        body = await read_body(request, {"fields", "properties", "update", "historyMetadata", "transition"})
        if body.get("update") or body.get("transition"):
            raise JiraError(400, INVALID_PAYLOAD)
        given = typed(body, "fields", dict, {})
        project = fields.chosen_project(given.get("project"), self.store, user)
        values = fields.checked(given, project, self.store, user, creating=True)
        properties = {entry["key"]: entry["value"] for entry in read_properties(body)}
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
        link = f"{base_of(request)}{API}/issue/{number}"
        return web.json_response({"id": number, "key": key, "self": link}, status=201)

    async def edit(self, request: web.Request, user: User) -> web.Response:
        """Sets fields and properties; ``update`` takes ``set`` for each field, ``add`` and ``remove`` for labels."""
        issue = self._issue(request, user)
        body = await read_body(request, {"fields", "properties", "update", "historyMetadata"})
        self._needs(user, issue.project, "EDIT_ISSUES", "edit issues")
        given = {**typed(body, "fields", dict, {})}
        for name, operations in typed(body, "update", dict, {}).items():
            if name in given:
                raise field_error(**{name: f"Field '{name}' is in fields and in update."})
            given[name] = self._updated(issue, name, operations)
        project = self.store.projects[issue.project]
        values = fields.checked(given, project, self.store, user, creating=False)
        issue.properties.update({entry["key"]: entry["value"] for entry in read_properties(body)})
        self._save(replace(issue, **values))
        if request.query.get("returnIssue", "false") == "true":
            changed = self.store.issues[issue.key]
            return web.json_response(fields.issue_view(changed, self.store, base_of(request), ["*all"], user=user))
        return web.Response(status=204)

    def _updated(self, issue: Issue, name: str, operations: object) -> object:
        """The value that the operations make of a field. Raises ``JiraError``."""
        if not isinstance(operations, list) or not operations:
            raise JiraError(400, INVALID_PAYLOAD)
        value: object = list(issue.labels) if name == "labels" else None
        for operation in operations:
            if not isinstance(operation, dict) or len(operation) != 1:
                raise JiraError(400, INVALID_PAYLOAD)
            ((verb, given),) = operation.items()
            if verb == "set":
                value = given
            elif name == "labels" and verb in ("add", "remove") and isinstance(value, list):
                value = [label for label in value if label != given] + ([given] if verb == "add" else [])
            else:
                raise field_error(**{name: f"Field '{name}' does not support operation '{verb}'."})
        return value

    async def assign(self, request: web.Request, user: User) -> web.Response:
        """Assigns to ``accountId``; null: to nobody; ``-1``: to the project's default, who is nobody here."""
        issue = self._issue(request, user)
        body = await read_body(request, {"accountId", "name", "key", "self", "displayName", "active", "accountType"})
        self._needs(user, issue.project, "ASSIGN_ISSUES", "assign issues")
        if "accountId" not in body or not isinstance(body["accountId"], str | None):
            raise JiraError(400, INVALID_PAYLOAD)
        account = None if body["accountId"] == "-1" else body["accountId"]
        person = self.store.user_by_id(account)
        if account is not None and person is None:
            raise field_error(assignee=f"User '{account}' does not exist.")
        if person is not None and not self.store.allowed(person, issue.project, "ASSIGNABLE_USER"):
            raise field_error(assignee=f"User '{account}' cannot be assigned issues.")
        self._save(replace(issue, assignee=account))
        return web.Response(status=204)

    async def delete(self, request: web.Request, user: User) -> web.Response:
        """Deletes the issue with its comments and links."""
        issue = self._issue(request, user)
        self._needs(user, issue.project, "DELETE_ISSUES", "delete issues")
        if request.query.get("deleteSubtasks", "false") not in ("true", "false"):
            raise JiraError(400, INVALID_PAYLOAD)
        self.store.delete(issue, self.clock(), self.sim.faults.index_delay_seconds)
        return web.Response(status=204)

    async def comments(self, request: web.Request, user: User) -> web.Response:
        """A page of an issue's comments, oldest first unless ``orderBy=-created``."""
        issue = self._issue(request, user)
        start, size = query_number(request, "startAt", 0), query_number(request, "maxResults", 100)
        order = request.query.get("orderBy", "created")
        if order not in ("created", "-created", "+created"):
            raise JiraError(400, f"Ordering by '{order}' is not supported.")
        listed = issue.comments[::-1] if order == "-created" else issue.comments
        expand = "properties" in request.query.get("expand", "").split(",")
        base = base_of(request)
        page = [
            fields.comment_view(comment, issue, self.store, base, properties=expand)
            for comment in listed[start : start + size]
        ]
        return web.json_response({"startAt": start, "maxResults": size, "total": len(issue.comments), "comments": page})

    async def add_comment(self, request: web.Request, user: User) -> web.Response:
        """Adds a comment whose body is ADF."""
        issue = self._issue(request, user)
        body = await read_body(request, {"body", "visibility", "properties"})
        if not self.store.allowed(user, issue.project, "ADD_COMMENTS"):
            raise field_error(comment=f"{user.name}, you do not have the permission to comment on this issue.")
        if "body" not in body:
            raise field_error(comment="Comment body can not be empty!")
        if not adf.valid(body["body"]):
            raise field_error(comment="Comment body is not valid!")
        if not adf.plain(body["body"]).strip():
            raise field_error(comment="Comment body can not be empty!")
        comment = self._add_comment(issue, user, body["body"], read_properties(body))
        self._save(issue)
        return web.json_response(fields.comment_view(comment, issue, self.store, base_of(request)), status=201)

    async def transitions(self, request: web.Request, user: User) -> web.Response:
        """What the user may do with the issue; an empty list without TRANSITION_ISSUES, as in Jira."""
        issue = self._issue(request, user)
        may = self.store.allowed(user, issue.project, "TRANSITION_ISSUES")
        listed = [
            {
                "id": status.transition_id,
                "name": status.transition_name,
                "to": fields.status_view(status, base_of(request)),
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
        body = await read_body(request, {"transition", "fields", "update", "historyMetadata", "properties"})
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
        link = f"{base_of(request)}{API}/issue/{issue.id}/properties"
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
        value = await read_body(request, None)
        self._needs(user, issue.project, "EDIT_ISSUES", "edit issues")
        check_property(key, value)
        new = key not in issue.properties
        issue.properties[key] = value
        self._save(issue)
        return web.json_response({}, status=201 if new else 200)

    async def delete_property(self, request: web.Request, user: User) -> web.Response:
        """Removes a property."""
        issue, key = self._issue(request, user), request.match_info["key"]
        self._needs(user, issue.project, "EDIT_ISSUES", "edit issues")
        if key not in issue.properties:
            raise JiraError(404, f"The property with key '{key}' does not exist.")
        del issue.properties[key]
        self._save(issue)
        return web.Response(status=204)

    # Comments by their id, and their properties.

    def _comment(self, request: web.Request, user: User) -> tuple[Issue, Comment]:
        """The comment, and the copy of the issue that holds it, if the user may browse it. Raises 404."""
        wanted = request.match_info["comment"]
        for issue in self.store.issues.values():
            if any(comment.id == wanted for comment in issue.comments) and self.store.find(user, issue.key):
                found = self._visible(user, issue.key)
                return found, next(comment for comment in found.comments if comment.id == wanted)
        raise JiraError(404, f"Can not find a comment for the id: {wanted}.")

    async def get_comment(self, request: web.Request, user: User) -> web.Response:
        """One comment of the issue."""
        named, (issue, comment) = self._issue(request, user), self._comment(request, user)
        if named.key != issue.key:
            raise JiraError(404, f"Can not find a comment for the id: {comment.id}.")
        expand = "properties" in request.query.get("expand", "").split(",")
        view = fields.comment_view(comment, issue, self.store, base_of(request), properties=expand)
        return web.json_response(view)

    async def comment_property_keys(self, request: web.Request, user: User) -> web.Response:
        """The keys of the comment's properties."""
        _, comment = self._comment(request, user)
        link = f"{base_of(request)}{API}/comment/{comment.id}/properties"
        keys = [entry["key"] for entry in comment.properties]
        return web.json_response({"keys": [{"self": f"{link}/{key}", "key": key} for key in keys]})

    async def get_comment_property(self, request: web.Request, user: User) -> web.Response:
        """One property; 404 where it is not set."""
        _, comment = self._comment(request, user)
        return web.json_response(_found(comment, request.match_info["key"]))

    async def set_comment_property(self, request: web.Request, user: User) -> web.Response:
        """Sets a property of one's own comment, or of any with EDIT_ISSUES: 201 when it is new, else 200."""
        issue, comment = self._comment(request, user)
        key, value = request.match_info["key"], await read_body(request, None)
        self._may_change(issue, comment, user)
        check_property(key, value)
        others = [entry for entry in comment.properties if entry["key"] != key]
        new = len(others) == len(comment.properties)
        comment.properties = [*others, {"key": key, "value": value}]
        self._save(issue)
        return web.json_response({}, status=201 if new else 200)

    async def delete_comment_property(self, request: web.Request, user: User) -> web.Response:
        """Removes a property."""
        issue, comment = self._comment(request, user)
        self._may_change(issue, comment, user)
        comment.properties.remove(_found(comment, request.match_info["key"]))
        self._save(issue)
        return web.Response(status=204)

    def _may_change(self, issue: Issue, comment: Comment, user: User) -> None:
        if comment.author != user.account_id:
            self._needs(user, issue.project, "EDIT_ISSUES", "edit comments")


def _found(comment: Comment, key: str) -> dict[str, Any]:
    """The property of that key. Raises 404."""
    for entry in comment.properties:
        if entry["key"] == key:
            return entry
    raise JiraError(404, f"The property with key '{key}' does not exist.")
