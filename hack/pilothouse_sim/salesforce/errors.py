"""Refusals in Salesforce's own shape: ``[{"message": …, "errorCode": …, "fields": […]}]``."""

from __future__ import annotations

from typing import Any

from aiohttp import web


class SalesforceError(Exception):
    """A refusal; ``status`` is the HTTP status, ``code`` Salesforce's."""

    def __init__(self, status: int, code: str, message: str, *fields: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.fields = list(fields)

    def body(self) -> list[dict[str, Any]]:
        """The list that the API answers with."""
        fields = {"fields": self.fields} if self.fields else {}
        return [{"message": self.message, "errorCode": self.code, **fields}]

    def as_result(self) -> dict[str, Any]:
        """The error as an entry of a save result, where the code is called ``statusCode``."""
        return {"statusCode": self.code, "message": self.message, "fields": self.fields}


def not_found() -> SalesforceError:
    """404 for what is not there and for what the user may not see alike."""
    return SalesforceError(404, "NOT_FOUND", "The requested resource does not exist")


def no_access() -> SalesforceError:
    """403 of a change to a record that the user may only read."""
    return SalesforceError(403, "INSUFFICIENT_ACCESS_OR_READONLY", "insufficient access rights on object id")


def invalid_session() -> SalesforceError:
    """401."""
    return SalesforceError(401, "INVALID_SESSION_ID", "Session expired or invalid")


def parser_error(kind: str, token: str, value: object) -> SalesforceError:
    """400 of a value whose JSON type is not the field's."""
    return SalesforceError(
        400,
        "JSON_PARSER_ERROR",
        f"Cannot deserialize instance of {kind} from {token} value {value} or request may be missing a required field "
        "at [line:1, column:2]",
    )


def request_limit() -> SalesforceError:
    """403 of a request beyond the organization's limit."""
    return SalesforceError(403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.")


def render(status: int, sentence: str) -> web.Response:
    """An error for the faults' middleware; too many requests are a 403 here."""
    codes = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED", 413: "REQUEST_TOO_LARGE", 503: "SERVER_UNAVAILABLE"}
    error = SalesforceError(status, codes.get(status, "UNKNOWN_EXCEPTION"), sentence)
    if status == 404:
        error = not_found()
    if status == 429:
        error = request_limit()
    return web.json_response(error.body(), status=error.status)
