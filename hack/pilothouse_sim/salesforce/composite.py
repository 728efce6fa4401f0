"""The composite resource: up to 25 requests in one, later ones with parts of earlier answers in them.

https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/resources_composite_composite.htm
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pilothouse_sim.salesforce.api import Answer, Api, Call
from pilothouse_sim.salesforce.errors import SalesforceError
from pilothouse_sim.salesforce.evaluate import Session

MAX_REQUESTS = 25
_REFERENCE = re.compile(r"@\{([A-Za-z][A-Za-z0-9_]*)((?:\.[A-Za-z_][A-Za-z0-9_]*|\[\d+\])*)\}")
_REFERENCE_ID = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_URL = re.compile(r"/services/data/v(\d{2})\.0(/.*)?")
_KEYS = {"method", "url", "referenceId", "body", "httpHeaders"}
_BODY = {"allOrNone", "collateSubrequests", "compositeRequest"}


def _bad(sentence: str) -> SalesforceError:
    return SalesforceError(400, "JSON_PARSER_ERROR", sentence)


def _checked(body: object) -> list[dict[str, Any]]:
    if not isinstance(body, dict) or not isinstance(body.get("compositeRequest"), list):
        raise _bad("Cannot deserialize request: compositeRequest is required at [line:1, column:1]")
    for name in body:
        if name not in _BODY:
            raise _bad(f'Unrecognized field "{name}" at [line:1, column:2]')
    requests: list[dict[str, Any]] = body["compositeRequest"]
    if len(requests) > MAX_REQUESTS:
        sentence = f"The request exceeded the limit of {MAX_REQUESTS} subrequests"
        raise SalesforceError(400, "INVALID_INPUT", sentence)
    seen: set[str] = set()
    for entry in requests:
        if not isinstance(entry, dict) or not set(entry) <= _KEYS:
            raise _bad("Cannot deserialize a subrequest at [line:1, column:2]")
        reference = entry.get("referenceId")
        if not isinstance(reference, str) or not _REFERENCE_ID.fullmatch(reference):
            sentence = "Provided referenceId is invalid. It must start with a letter and hold letters, digits and _."
            raise SalesforceError(400, "INVALID_INPUT", sentence)
        if reference in seen:
            raise SalesforceError(400, "INVALID_INPUT", f"Duplicate ReferenceId provided ({reference})")
        seen.add(reference)
        if not isinstance(entry.get("url"), str) or entry.get("method") not in (
            "GET",
            "POST",
            "PATCH",
            "PUT",
            "DELETE",
        ):
            raise _bad("A subrequest needs method and url at [line:1, column:2]")
    return requests


def run(api: Api, session: Session, body: object) -> Answer:
    """Runs the subrequests one after the other; with allOrNone all of them or none. Raises SalesforceError."""
    requests = _checked(body)
    assert isinstance(body, dict)
    atomic = body.get("allOrNone") is True and api.store.begin()
    answers: list[Answer] = []
    known: dict[str, Any] = {}
    failed_at: int | None = None
    for index, entry in enumerate(requests):
        if atomic and failed_at is not None:
            answers.append(_halted())
            continue
        answer = _one(api, session, entry, known)
        answers.append(answer)
        if answer.status >= 400:
            failed_at = index if failed_at is None else failed_at
        else:
            known[entry["referenceId"]] = answer.body
    if atomic:
        if failed_at is None:
            api.store.commit()
        else:
            api.store.rollback()
            answers = [answer if n == failed_at else _halted() for n, answer in enumerate(answers)]
    shown = [
        {"body": answer.body, "httpHeaders": answer.headers, "httpStatusCode": answer.status,
         "referenceId": entry["referenceId"]}
        for entry, answer in zip(requests, answers, strict=True)
    ]  # fmt: skip
    return Answer(200, {"compositeResponse": shown})


def _halted() -> Answer:
    sentence = "The transaction was rolled back since another operation in the same transaction failed."
    return Answer(400, SalesforceError(400, "PROCESSING_HALTED", sentence).body())


def _one(api: Api, session: Session, entry: dict[str, Any], known: dict[str, Any]) -> Answer:
    try:
        url = str(_filled(entry["url"], known))
        parts = urlsplit(url)
        match = _URL.fullmatch(parts.path)
        if not match or parts.scheme or parts.netloc:
            raise SalesforceError(400, "INVALID_INPUT", f"The url of a subrequest is not supported: {url[:200]}")
        call = Call(
            entry["method"],
            match[2] or "",
            dict(parse_qsl(parts.query, keep_blank_values=True)),
            _filled(entry.get("body"), known),
            version=int(match[1]),
        )
        return api.handle(session, call)
    except SalesforceError as error:
        return Answer(error.status, error.body())
    except RecursionError:
        return Answer(400, _bad("The request is nested too deeply at [line:1, column:2]").body())


def _filled(value: Any, known: dict[str, Any]) -> Any:
    """The value with ``@{reference.field}`` replaced. Raises SalesforceError."""
    if isinstance(value, dict):
        return {name: _filled(part, known) for name, part in value.items()}
    if isinstance(value, list):
        return [_filled(part, known) for part in value]
    if not isinstance(value, str) or "@{" not in value:
        return value
    whole = _REFERENCE.fullmatch(value)
    if whole:
        return _looked_up(whole, known)
    return _REFERENCE.sub(lambda match: str(_looked_up(match, known)), value)


def _looked_up(match: re.Match[str], known: dict[str, Any]) -> Any:
    found: Any = known.get(match[1])
    for part in re.findall(r"[A-Za-z_][A-Za-z0-9_]*|\d+", match[2]):
        if isinstance(found, list):
            found = found[int(part)] if part.isdigit() and int(part) < len(found) else None
        else:
            found = found.get(part) if isinstance(found, dict) else None
    if found is None:
        sentence = f"Invalid reference specified. No value for {match[1]}{match[2]} found in {match[1]}"
        raise SalesforceError(400, "PROCESSING_HALTED", sentence)
    return found
