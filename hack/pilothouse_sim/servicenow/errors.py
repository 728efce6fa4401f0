"""Refusals in the platform's own shape: ``{"error": {"message": …, "detail": …}, "status": "failure"}``."""

from __future__ import annotations

from aiohttp import web


class ServiceNowError(Exception):
    """A refusal; ``status`` is the HTTP status."""

    def __init__(self, status: int, message: str, detail: str | None = None) -> None:
        super().__init__(f"{message}: {detail}" if detail else message)
        self.status = status
        self.message = message
        self.detail = detail

    def response(self) -> web.Response:
        """The HTTP response of this refusal."""
        error = {"message": self.message, "detail": self.detail}
        return web.json_response({"error": error, "status": "failure"}, status=self.status)


def no_record() -> ServiceNowError:
    """404 for a missing and for an unreadable record alike: the platform does not tell which it is."""
    return ServiceNowError(404, "No Record found", "Record doesn't exist or ACL restricts the record retrieval")


def acl(operation: str) -> ServiceNowError:
    """403 of a write that the access rules forbid; ``operation``: Insert, Update or Delete."""
    return ServiceNowError(403, "Operation Failed", f"ACL Exception {operation} Failed due to security constraints")


def no_query_rights() -> ServiceNowError:
    """403 of a query on fields that the user may not read in any record."""
    return ServiceNowError(
        403, "Insufficient rights to query records", "Field(s) present in the query do not have permission to be read"
    )


def data_policy(*labels: str) -> ServiceNowError:
    """403 of a record that lacks what a data policy makes mandatory."""
    words = "\n".join(f"{label} is mandatory" for label in labels)
    return ServiceNowError(403, "Operation Failed", f"Data Policy Exception: {words}")


def aborted(table: str, rule: str) -> ServiceNowError:
    """403 of a write that a business rule stopped."""
    detail = f"Operation against file '{table}' was aborted by Business Rule '{rule}'. Business Rule Stack:{rule}"
    return ServiceNowError(403, "Operation Failed", detail)


def unreadable_body() -> ServiceNowError:
    """400 of a body that is not the JSON that the call takes."""
    return ServiceNowError(400, "Exception while reading request", "The payload is not valid JSON.")


def render(status: int, sentence: str) -> web.Response:
    """An error for the faults' middleware."""
    messages = {429: "Rate limit exceeded", 404: "Requested URI does not represent any resource"}
    return ServiceNowError(status, messages.get(status, "Operation Failed"), sentence).response()
