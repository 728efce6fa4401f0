"""Several reads and writes in one request: all of them happen, or none does.

Source: https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/resources_composite_composite.htm
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pilothouse_dataplane.connectors.base import Refused
from pilothouse_dataplane.connectors.salesforce.call import (
    Call,
    Handler,
    clean,
    done,
    id_of,
    name_of,
    names_of,
    values_of,
)
from pilothouse_dataplane.connectors.salesforce.client import codes, error_from
from pilothouse_dataplane.connectors.shape import mapping, mappings, text, unreadable
from pilothouse_dataplane.core.messages import ToolResult

MOST = 10
"""Steps; Salesforce takes 25."""
_REF = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,39}")
_REFERENCE = re.compile(r"@\{([A-Za-z][A-Za-z0-9_]{0,39})\.[A-Za-z][A-Za-z0-9_]{0,79}\}")
_UNDONE = {"PROCESSING_HALTED", "ALL_OR_NONE_OPERATION_ROLLED_BACK"}
"""What the steps say that failed only because another one did."""
_METHODS = {"get": "GET", "create": "POST", "update": "PATCH"}
_NEEDS = {"get": "Read", "create": "Create", "update": "Edit"}


def _refused(why: str) -> Refused:
    return Refused(f"{why}; nothing was sent to Salesforce.", asked=False)


def _refers(value: object, earlier: set[str]) -> bool:
    """The whole value is a reference to an earlier step. Raises Refused where it only holds something like one:
    Salesforce would replace it wherever it stands."""
    if not isinstance(value, str) or "@{" not in value:
        return False
    match = _REFERENCE.fullmatch(value)
    if match is None or match[1] not in earlier:
        raise _refused(f"“{text(value, 60)}” is no reference such as @{{ref.id}} to an earlier step")
    return True


def _step(step: object, earlier: set[str], prefix: str) -> dict[str, Any]:
    """One subrequest. Raises Refused."""
    given = mapping(step)
    ref, action = given.get("ref"), given.get("action")
    if not isinstance(ref, str) or not _REF.fullmatch(ref) or ref in earlier:
        raise _refused("Each step needs a “ref” of its own, of letters and digits")
    if action not in _METHODS:
        raise _refused(f"“{text(action, 20)}” is no action; there are: {', '.join(_METHODS)}")
    url = f"{prefix}/sobjects/{name_of(given.get('object'), 'an object')}"
    if action != "create":
        record_id = given.get("id")
        url += f"/{record_id if _refers(record_id, earlier) else id_of(record_id)}"
    request: dict[str, Any] = {"method": _METHODS[action], "url": url, "referenceId": ref}
    if action == "get":
        fields = names_of(given.get("read", []), "“read”", 50)
        request["url"] += f"?fields={','.join(fields)}" if fields else ""
    else:
        request["body"] = values_of(given.get("fields"))
        for value in request["body"].values():
            _refers(value, earlier)
    return request


async def run(call: Call) -> ToolResult:
    steps = call.arguments.get("steps")
    if not isinstance(steps, list) or not 1 <= len(steps) <= MOST:
        raise _refused(f"“steps” must be a list of 1 to {MOST} steps")
    requests: list[dict[str, Any]] = []
    for step in steps:
        requests.append(_step(step, {request["referenceId"] for request in requests}, call.client.prefix))
    body = {"allOrNone": True, "compositeRequest": requests}
    changes = any(request["method"] != "GET" for request in requests)
    answer = await call.ask("POST", "/composite", needs="API Enabled", body=body, changes=changes)
    listed = mapping(answer).get("compositeResponse")
    if not isinstance(listed, list):
        raise unreadable("Salesforce", may_have_acted=changes)
    answers = mappings(listed)
    failed = [n for n, found in enumerate(answers) if found.get("httpStatusCode") not in range(200, 300)]
    if failed:
        # all steps were undone; the one that is not undone for another's sake says why
        n = next((n for n in failed if codes(answers[n].get("body")) - _UNDONE), failed[0])
        status, step = answers[n].get("httpStatusCode"), mapping(steps[n]) if n < len(steps) else {}
        if not isinstance(status, int) or isinstance(status, bool):
            raise unreadable("Salesforce", may_have_acted=changes)
        action, name = text(step.get("action")), text(step.get("object"))
        raise error_from(status, answers[n].get("body"), f"{_NEEDS.get(action, 'Edit')} on {name}")
    if len(answers) != len(requests):
        raise unreadable("Salesforce", may_have_acted=changes)
    results = [{"ref": text(found.get("referenceId")), "result": clean(found.get("body"))} for found in answers]
    summary = f"Salesforce did all {len(results)} steps." if len(results) > 1 else "Salesforce did the step."
    return done(summary, {"steps": results})


CALLS: Mapping[str, Handler] = {"composite.run": run}
