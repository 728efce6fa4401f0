"""Refusals in Okta's shape and with its codes: ``{errorCode, errorSummary, errorLink, errorId, errorCauses}``.

Source: https://developer.okta.com/docs/reference/error-codes/
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from aiohttp import web

CODES: Mapping[str, tuple[int, str]] = {
    "E0000001": (400, "Api validation failed: {0}"),
    "E0000003": (400, "The request body was not well-formed."),
    "E0000006": (403, "You do not have permission to perform the requested action"),
    "E0000007": (404, "Not found: {0}"),
    "E0000008": (404, "The requested path was not found"),
    "E0000009": (500, "Internal Server Error"),
    "E0000011": (401, "Invalid token provided"),
    "E0000019": (400, "Bad request.  Accept and/or Content-Type headers likely do not match supported values."),
    "E0000021": (400, "Bad request.  Accept and/or Content-Type headers likely do not match supported values."),
    "E0000022": (405, "The endpoint does not support the provided HTTP method"),
    "E0000029": (400, "Invalid paging request."),
    "E0000030": (
        400,
        "Bad request. Invalid date. Dates must be of the form yyyy-MM-dd'T'HH:mm:ss.SSSZZ, "
        "e.g. 2013-01-01T12:00:00.000-07:00.",
    ),
    "E0000031": (400, "Invalid search criteria."),
    "E0000032": (403, "Unlock is not allowed for this user."),
    "E0000033": (400, "Bad request. Can't specify a search query and filter in the same request."),
    "E0000037": (400, "Type mismatch exception.  {0}"),
    "E0000038": (403, "This operation is not allowed in the user's current status."),
    "E0000047": (429, "API call exceeded rate limit due to too many requests."),
    "E0000060": (501, "Unsupported operation."),
}


class OktaError(Exception):
    """A refusal. ``detail`` fills the summary's gap; ``causes`` are further sentences."""

    def __init__(
        self, code: str, detail: str = "", *causes: str, headers: Mapping[str, str] | None = None, status: int = 0
    ) -> None:
        known, summary = CODES[code]
        super().__init__(summary.format(detail))
        self.code = code
        self.status = status or known
        self.causes = causes
        self.headers = dict(headers or {})

    def response(self) -> web.Response:
        """The HTTP response of this refusal."""
        body = {
            "errorCode": self.code,
            "errorSummary": str(self),
            "errorLink": self.code,
            "errorId": "oae" + secrets.token_urlsafe(16),
            "errorCauses": [{"errorSummary": cause} for cause in self.causes],
        }
        return web.json_response(body, status=self.status, headers=self.headers)


def not_found(what: str, kind: str) -> OktaError:
    """E0000007 for an id that there is not; ``kind`` as Okta names it: User, UserGroup, UserFactor, AppInstance."""
    return OktaError("E0000007", f"Resource not found: {what} ({kind})")


def forbidden() -> OktaError:
    """E0000006."""
    return OktaError("E0000006")


def render(status: int, _sentence: str) -> web.Response:
    """An error by its status, for the faults' middleware."""
    code = {404: "E0000008", 405: "E0000022", 413: "E0000003", 429: "E0000047", 403: "E0000006", 401: "E0000011"}.get(
        status, "E0000009" if status >= 500 else "E0000003"
    )
    return OktaError(code, status=status).response()
