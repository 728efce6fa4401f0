"""What all of the instance's HTTP handlers share: bodies, numbers, media types."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from pilothouse_sim.servicenow.errors import ServiceNowError, unreadable_body

MAX_LIMIT = 10_000


def base_of(request: web.Request) -> str:
    """The instance's address as the caller wrote it."""
    return f"{request.scheme}://{request.host}"


def check_accept(request: web.Request) -> None:
    """Raises ServiceNowError 406 where the caller does not take JSON."""
    accepted = [part.partition(";")[0].strip().lower() for part in request.headers.get("Accept", "*/*").split(",")]
    if not {"*/*", "application/json", "application/*"} & set(accepted):
        raise ServiceNowError(406, "Requested response format is not supported", request.headers["Accept"])


async def json_body(request: web.Request) -> dict[str, Any]:
    """The JSON object of the body. Raises ServiceNowError: 415 for another media type, 400 for what is no object."""
    if request.content_type != "application/json":
        raise ServiceNowError(415, "Unsupported content type", f"{request.content_type} is not supported.")
    try:
        body = json.loads(await request.text())
    except (ValueError, RecursionError):
        raise unreadable_body() from None
    if not isinstance(body, dict):
        raise unreadable_body()
    return body


def number_of(request: web.Request, name: str, default: int) -> int:
    """A whole number of 0 or more among the parameters. Raises ServiceNowError 400."""
    text = request.query.get(name, "") or str(default)
    if not (text.isascii() and text.isdigit()):
        raise ServiceNowError(400, f"Invalid value for {name}", f"'{text[:80]}' is not a number.")
    return int(text[:9])


def page_links(request: web.Request, offset: int, limit: int, total: int) -> str:
    """The Link header of a page; "" where everything is on it."""
    if limit <= 0 or (offset == 0 and total <= limit):
        return ""
    last = max(0, (total - 1) // limit * limit)
    places = {"first": 0}
    if offset > 0:
        places["prev"] = max(0, offset - limit)
    if offset + limit < total:
        places["next"] = offset + limit
    places["last"] = last
    here = request.url
    return ",".join(
        f'<{here.update_query({"sysparm_offset": str(place), "sysparm_limit": str(limit)})}>;rel="{name}"'
        for name, place in places.items()
    )
