"""Refusals in Jira Cloud's own words and shape: ``{"errorMessages": […], "errors": {field: sentence}}``."""

from __future__ import annotations

from aiohttp import web

INVALID_PAYLOAD = "Invalid request payload. Refer to the REST API documentation and try again."


class JiraError(Exception):
    """A refusal; ``status`` is the HTTP status, ``errors`` maps a field to a sentence."""

    def __init__(self, status: int, *messages: str, errors: dict[str, str] | None = None) -> None:
        super().__init__("; ".join([*messages, *(errors or {}).values()]))
        self.status = status
        self.messages = list(messages)
        self.errors = errors or {}

    def response(self) -> web.Response:
        """The HTTP response of this refusal."""
        return web.json_response({"errorMessages": self.messages, "errors": self.errors}, status=self.status)


def field_error(**errors: str) -> JiraError:
    """400 that names fields."""
    return JiraError(400, errors=errors)


def issue_not_found() -> JiraError:
    """404 for a missing and for an invisible issue alike: Jira does not tell which it is."""
    return JiraError(404, "Issue does not exist or you do not have permission to see it.")


def render(status: int, sentence: str) -> web.Response:
    """An error that has no field, for the faults' middleware."""
    return JiraError(status, sentence).response()
