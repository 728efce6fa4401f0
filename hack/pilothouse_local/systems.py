"""Looks into the four systems behind the demo's agent: what they hold now, and whose token each call carried.

It speaks the vendors' own REST with the tokens of the stand-ins' seeds, which the agent has none of, and reads the
stand-ins' request logs.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from pilothouse_local.deploy import SIM_NAMESPACE, Kubectl
from pilothouse_local.errors import ClusterUnreachable
from pilothouse_local.standins import address_of

NAMES = ("okta", "servicenow", "jira", "salesforce")
_TIMEOUT = 10.0
"""Seconds for one request."""


@dataclass(frozen=True)
class Call:
    """One entry of a stand-in's request log that carried somebody's credential."""

    user: str
    """E-mail of whose token it was."""
    how: str
    """How that token was had, such as "authorization code"."""
    method: str
    path: str
    status: int


@dataclass(frozen=True)
class Systems:
    """The stand-ins' addresses by name. Methods raise ``ClusterUnreachable``."""

    addresses: Mapping[str, str]

    def begin(self) -> None:
        """Give Okta back the factors that an earlier run has reset, and begin new request logs."""
        self._ask("okta", "/__sim/reset", method="POST", body={})
        for name in self.addresses:
            self._ask(name, "/__sim/log", method="DELETE")

    def calls(self) -> dict[str, list[Call]]:
        """By system: the requests with a credential since the logs began, those for tokens left out."""
        found: dict[str, list[Call]] = {}
        for name in self.addresses:
            entries = self._ask(name, "/__sim/log")["requests"]
            found[name] = [
                Call(str(e["user"]), str(e.get("credential") or ""), str(e["method"]), str(e["path"]), int(e["status"]))
                for e in entries
                if e.get("user") and "token" not in str(e["path"])
            ]
        return found

    def incident(self, number: str, user: str) -> dict[str, Any]:
        """A ServiceNow incident with what people see of its fields; {} where there is none."""
        fields = "number,short_description,caller_id.email,watch_list,state,sys_created_on,correlation_id"
        query = f"sysparm_query=number={quote(number)}&sysparm_display_value=true&sysparm_fields={fields}"
        path = f"/api/now/table/incident?{query}"
        rows = self._ask("servicenow", path, user=user)["result"]
        return dict(rows[0]) if rows else {}

    def incidents(self, user: str) -> set[str]:
        """Numbers of the incidents that this user sees."""
        path = "/api/now/table/incident?sysparm_fields=number&sysparm_limit=1000"
        return {str(row["number"]) for row in self._ask("servicenow", path, user=user)["result"]}

    def factors(self, user: str) -> set[str]:
        """Types of the sign-in factors that this Okta user has enrolled."""
        return {str(factor["factorType"]) for factor in self._ask("okta", "/api/v1/users/me/factors", user=user)}

    def comments(self, key: str, user: str) -> list[tuple[str, str]]:
        """Author's e-mail and text of an issue's comments in Jira."""
        found = self._ask("jira", f"/rest/api/3/issue/{quote(key)}/comment", user=user)["comments"]
        return [(str(c["author"].get("emailAddress", "")), _text(c["body"])) for c in found]

    def _ask(self, name: str, path: str, *, user: str = "", method: str = "GET", body: object = None) -> Any:
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if user:
            headers["Authorization"] = f"Bearer {name}-token-{user.partition('@')[0]}"
        request = urllib.request.Request(  # noqa: S310 - always http, to a stand-in
            self.addresses[name] + path,
            data=json.dumps(body).encode() if body is not None else None,
            headers=headers,
            method=method,
        )
        # No proxy of the environment: the stand-ins are on this machine.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=_TIMEOUT) as response:
                return json.loads(response.read() or b"{}")
        except (urllib.error.URLError, OSError, ValueError) as error:
            said = error.read().decode(errors="replace")[:300] if isinstance(error, urllib.error.HTTPError) else ""
            raise ClusterUnreachable(
                f"{name} did not answer {path.partition('?')[0]}: {error} {said}".strip(),
                "what it holds was not verified",
                f"look at its log with `pilothouse logs {name}`",
            ) from error


@contextmanager
def reached(kubectl: Kubectl) -> Iterator[Systems]:
    """The systems of a cluster, as long as the block lasts."""
    with ExitStack() as stack:
        yield Systems({n: stack.enter_context(address_of(kubectl, SIM_NAMESPACE, n, 8080)) for n in NAMES})


def told(calls: list[Call]) -> list[str]:
    """What a system's log shows, a line for each credential: how many calls, and which paths changed something."""
    lines = []
    for (user, how), count in Counter((call.user, call.how) for call in calls).items():
        mine = [call for call in calls if (call.user, call.how) == (user, how)]
        changes = [f"{call.method} {call.path} -> {call.status}" for call in mine if call.method not in ("GET", "HEAD")]
        plural = "" if count == 1 else "s"
        lines.append(f"{count} call{plural} with the token of {user} ({how or 'token'})")
        lines.extend(f"    {change}" for change in changes[:6])
    return lines or ["no call"]


def _text(document: object) -> str:
    """The words in an Atlassian document."""
    if isinstance(document, Mapping):
        own = str(document.get("text", ""))
        return own + "".join(_text(part) for part in document.get("content") or ())
    return ""
