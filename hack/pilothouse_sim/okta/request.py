"""What all handlers share: the caller behind the request, its scopes, query parameters, bodies, pages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import urlencode

from aiohttp import web
from multidict import CIMultiDict

from pilothouse_sim.oauth import Caller
from pilothouse_sim.okta.errors import OktaError, forbidden, not_found
from pilothouse_sim.okta.store import READ_USERS, Store, User

T = TypeVar("T")


@dataclass(frozen=True)
class Asked:
    """A request whose token is good, and the user whose it is. ``now``: epoch seconds."""

    http: web.Request
    store: Store
    user: User
    caller: Caller
    now: float

    @property
    def base(self) -> str:
        return f"{self.http.scheme}://{self.http.host}"

    def part(self, name: str) -> str:
        """A part of the path."""
        return self.http.match_info[name]

    def needs(self, *scopes: str) -> None:
        """Refuses a token that carries none of ``scopes``: 403 that names the first, as Okta's gateway does."""
        if self.caller.has(*scopes):
            return
        said = (
            f'Bearer authorization_uri="{self.base}/oauth2/v1/authorize", realm="{self.base}", scope="{scopes[0]}", '
            'error="insufficient_scope", error_description="The access token provided does not contain the required '
            f'scopes.", resource="{self.http.path}"'
        )
        raise OktaError("E0000006", headers={"WWW-Authenticate": said})

    def target(self, permission: str) -> User:
        """The user of the path, whom the caller may act on. Raises E0000006, E0000007."""
        wanted = self.part("user")
        found = self.user if wanted == "me" else self.store.find(wanted)
        if found is None:
            # Who may read nobody else does not learn who is there.
            raise not_found(wanted, "User") if self.store.everywhere(self.user, READ_USERS) else forbidden()
        if not self.store.reaches(self.user, permission, found):
            raise forbidden()
        return found

    def needs_everywhere(self, permission: str) -> None:
        """Refuses a role without the permission over the whole organization."""
        if not self.store.everywhere(self.user, permission):
            raise forbidden()

    def whole(self, name: str, default: int, maximum: int) -> int:
        """A number of the query of 1 or more, cut to ``maximum``. Raises E0000037, E0000001."""
        text = self.http.query.get(name)
        if text is None:
            return default
        if not text.lstrip("-").isdigit():
            raise OktaError("E0000037", f"{name} must be a number.")
        if int(text) < 1:
            raise OktaError("E0000001", name, f"{name}: must be greater than or equal to 1")
        return min(int(text), maximum)

    def flag(self, name: str, default: bool) -> bool:
        """A boolean of the query. Raises E0000037."""
        text = self.http.query.get(name, "true" if default else "false").lower()
        if text not in ("true", "false"):
            raise OktaError("E0000037", f"{name} must be true or false.")
        return text == "true"

    def instant(self, name: str) -> float | None:
        """A date of the query in epoch seconds. Raises E0000030."""
        text = self.http.query.get(name)
        if text is None:
            return None
        try:
            when = datetime.fromisoformat(text)
        except ValueError:
            raise OktaError("E0000030") from None
        if when.tzinfo is None or "T" not in text:
            raise OktaError("E0000030")
        return when.timestamp()

    async def body(self, known: frozenset[str]) -> dict[str, Any]:
        """The JSON object of the body; without any, an empty one. Raises E0000003, E0000021, E0000001."""
        text = await self.http.text()
        if not text:
            return {}
        if self.http.content_type != "application/json":
            raise OktaError("E0000021")
        try:
            body = json.loads(text)
        except ValueError:
            raise OktaError("E0000003") from None
        if not isinstance(body, dict):
            raise OktaError("E0000003")
        if unknown := sorted(set(body) - known):
            raise OktaError("E0000001", unknown[0], f"{unknown[0]}: unknown property")
        return body

    def page(self, items: Sequence[tuple[str, T]], limit: int) -> tuple[list[T], CIMultiDict[str]]:
        """The items (cursor, item) that follow ``after``, and the ``Link`` headers. Raises E0000029."""
        after = self.http.query.get("after")
        start = 0
        if after is not None:
            cursors = [cursor for cursor, _ in items]
            if after not in cursors:
                raise OktaError("E0000029")
            start = cursors.index(after) + 1
        shown = items[start : start + limit]
        headers = self.links("self")
        if shown and start + limit < len(items):
            headers.extend(self.links("next", after=shown[-1][0]))
        return [item for _, item in shown], headers

    def links(self, relation: str, **changed: str) -> CIMultiDict[str]:
        """A ``Link`` header to this list with a changed query."""
        query = {**dict(self.http.query), **changed}
        url = f"{self.base}{self.http.rel_url.raw_path}" + (f"?{urlencode(query)}" if query else "")
        return CIMultiDict({"Link": f'<{url}>; rel="{relation}"'})
