"""Reads an OpenAPI 3.0 or 3.1 document into operations. Pure; the document is somebody else's, and may be hostile.

Left out, each for its reason: ``servers`` (tokens go to the Connector's own URL and nowhere else), references to other
documents (nothing is fetched because a document says so), cookies, and headers that say who asks or how HTTP works.

Source: https://spec.openapis.org/oas/v3.1.1
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from pilothouse_dataplane.connectors.foreign_schema import SchemaReader, line

_METHODS = ("get", "head", "post", "put", "patch", "delete")
_MAX_OPERATIONS = 2000
_HOP_HEADERS = (
    "authorization cookie host connection content-length content-type content-encoding accept transfer-encoding "
    "upgrade te trailer expect proxy-authorization forwarded x-forwarded-for x-forwarded-host"
)
_FORBIDDEN_HEADERS = frozenset(_HOP_HEADERS.split())
_HEADER = re.compile(r"[A-Za-z0-9-]{1,64}")
_PATH = re.compile(r"/[A-Za-z0-9/_.~!$&'()*+,;=:@%{}-]*")


class DocumentError(ValueError):
    """The document can't be used; the message says why. The tenant's administrator must act."""


@dataclass(frozen=True, slots=True)
class Argument:
    """Where one argument of a tool goes."""

    name: str
    """As the model writes it."""
    place: str
    """path, query, header, body (one field of the JSON body) or whole (the body itself)."""
    key: str
    """As the system calls it."""
    explode: bool = True


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation, ready to be called."""

    id: str
    method: str
    path: str
    """With {braces}."""
    sentence: str
    """What it does, for people: the summary."""
    description: str
    """For models: the summary, and what the document says beyond it."""
    tags: tuple[str, ...]
    arguments: tuple[Argument, ...]
    schema: Mapping[str, Any]
    """JSON Schema of the arguments."""
    returns: Mapping[str, Any] | None
    token_header: str
    """Where the credential goes: ``Authorization``, or the header of an API key."""
    token_scheme: str
    """Bearer or Basic; "" for a bare key."""
    key_header: str
    """The header that carries an idempotency key, where the operation has one."""


def load(raw: bytes) -> Mapping[str, Any]:
    """JSON or YAML. Raises DocumentError."""
    try:
        document = orjson.loads(raw) if raw.lstrip()[:1] in (b"{", b"[") else _yaml(raw)
    except (ValueError, RecursionError) as error:
        raise DocumentError(f"The OpenAPI document can't be read: {str(error)[:120]}.") from error
    if not isinstance(document, dict) or not isinstance(document.get("paths"), dict):
        raise DocumentError("It is no OpenAPI document: it has no paths.")
    if not str(document.get("openapi", "")).startswith("3."):
        raise DocumentError("The document is not of OpenAPI 3: convert it (Swagger 2 is not read).")
    return document


def _yaml(raw: bytes) -> Any:
    import yaml  # only where a document is YAML

    if b"&" in raw and re.search(rb"(?m)[:\-]\s+[&*][A-Za-z0-9_]+", raw):
        raise DocumentError("The OpenAPI document has YAML anchors, which are not read: write them out, or use JSON.")
    try:
        return yaml.load(raw, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - the safe loader
    except yaml.YAMLError as error:
        raise ValueError(str(error).splitlines()[0] if str(error) else "broken YAML") from error


def operations(document: Mapping[str, Any]) -> list[Operation]:
    """All operations that can be called, in the document's order. Raises DocumentError where there are too many."""
    reader = _Reader(document)
    found: dict[str, Operation] = {}
    for path, item in document["paths"].items():
        if not isinstance(item, Mapping) or not isinstance(path, str) or not _PATH.fullmatch(path):
            continue
        for method in _METHODS:
            raw = item.get(method)
            if isinstance(raw, Mapping):
                operation = reader.operation(path, method, item, raw)
                if operation is not None and operation.id not in found:
                    found[operation.id] = operation
                if len(found) > _MAX_OPERATIONS:
                    raise DocumentError(
                        f"The document has more than {_MAX_OPERATIONS} operations: name those that are wanted in a "
                        "smaller one."
                    )
    if not found:
        raise DocumentError("The document has no operation that can be called.")
    return list(found.values())


class _Reader:
    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._schemas = SchemaReader(document)

    def operation(self, path: str, method: str, item: Mapping[str, Any], raw: Mapping[str, Any]) -> Operation | None:
        """None where it can't be called: a required part has no form that is served."""
        self._schemas.begin()
        properties: dict[str, Any] = {}
        required: list[str] = []
        arguments: list[Argument] = []
        key_header = ""
        merged: dict[tuple[str, str], Mapping[str, Any]] = {}
        for source in (item.get("parameters"), raw.get("parameters")):
            for parameter in source if isinstance(source, list) else ():
                resolved = self._schemas.resolve(parameter)
                merged[str(resolved.get("name", "")), str(resolved.get("in", ""))] = resolved
        for (name, place), parameter in merged.items():
            needed = parameter.get("required") is True or place == "path"
            if place == "header" and name.lower() in ("idempotency-key", "x-idempotency-key"):
                key_header = name
                continue
            if (
                place not in ("path", "query", "header")
                or (place == "header" and (name.lower() in _FORBIDDEN_HEADERS or not _HEADER.fullmatch(name)))
                or not name
                or len(name) > 100
            ):
                if needed:
                    return None
                continue
            argument = _free(name, properties)
            properties[argument] = self._described(parameter)
            arguments.append(Argument(argument, place, name, parameter.get("explode", place != "path") is not False))
            if needed:
                required.append(argument)
        in_path = set(re.findall(r"\{([^{}]+)\}", path))
        if in_path != {argument.key for argument in arguments if argument.place == "path"}:
            return None
        if not self._body(raw.get("requestBody"), properties, required, arguments):
            return None
        header, scheme = self._security(raw)
        if not header:
            return None
        schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
        return Operation(
            _identifier(raw.get("operationId"), method, path),
            method.upper(),
            path,
            _sentence(raw, method, path),
            _description(raw, method, path),
            tuple(tag[:60] for tag in raw.get("tags") or () if isinstance(tag, str))[:5]
            if isinstance(raw.get("tags"), list)
            else (),
            tuple(arguments),
            schema,
            self._returns(raw.get("responses")),
            header,
            scheme,
            key_header,
        )

    def _body(self, raw: object, properties: dict[str, Any], required: list[str], arguments: list[Argument]) -> bool:
        """Take the request's body over; False where it is needed and is no JSON."""
        if raw is None:
            return True
        body = self._schemas.resolve(raw)
        content = body.get("content")
        media = next(
            (
                media
                for kind, media in (content.items() if isinstance(content, Mapping) else ())
                if isinstance(kind, str)
                and (kind.startswith("application/json") or kind.split(";")[0].endswith("+json"))
            ),
            None,
        )
        if not isinstance(media, Mapping):
            return body.get("required") is not True
        schema = self._schemas.schema(media.get("schema"), 0)
        fields = schema.get("properties")
        if schema.get("type") == "object" and isinstance(fields, dict) and fields and not fields.keys() & properties:
            for name, field in fields.items():
                properties[name] = field
                arguments.append(Argument(name, "body", name))
            required.extend(name for name in schema.get("required", ()) if name in fields)
            return True
        argument = _free("body", properties)
        properties[argument] = schema
        arguments.append(Argument(argument, "whole", "body"))
        if body.get("required") is True:
            required.append(argument)
        return True

    def _described(self, parameter: Mapping[str, Any]) -> dict[str, Any]:
        schema = self._schemas.schema(parameter.get("schema"), 0)
        text = parameter.get("description")
        if isinstance(text, str) and "description" not in schema:
            schema["description"] = line(text)
        return schema

    def _returns(self, raw: object) -> Mapping[str, Any] | None:
        """Only whether it is an object or a list: documents describe answers less well than they describe questions."""
        for status in ("200", "201", "2XX", "default"):
            response = self._schemas.resolve(raw.get(status)) if isinstance(raw, Mapping) else {}
            content = response.get("content")
            for kind, media in content.items() if isinstance(content, Mapping) else ():
                if "json" in str(kind) and isinstance(media, Mapping):
                    self._schemas.begin()
                    shape = self._schemas.resolve(media.get("schema")).get("type")
                    return {"type": shape} if shape in ("object", "array") else None
        return None

    def _security(self, raw: Mapping[str, Any]) -> tuple[str, str]:
        """Header and scheme of the first way to sign in that a header carries; ("", "") where there is none."""
        wanted = raw.get("security", self._document.get("security"))
        if not isinstance(wanted, list) or not wanted:
            return "Authorization", "Bearer"
        schemes = self._schemas.resolve({"$ref": "#/components/securitySchemes"})
        for choice in wanted:
            if choice == {}:
                return "Authorization", "Bearer"
            for name in choice if isinstance(choice, Mapping) else ():
                scheme = self._schemas.resolve(schemes.get(name))
                kind, where = scheme.get("type"), scheme.get("in")
                if kind in ("oauth2", "openIdConnect") or (kind == "http" and scheme.get("scheme") == "bearer"):
                    return "Authorization", "Bearer"
                if kind == "http" and scheme.get("scheme") == "basic":
                    return "Authorization", "Basic"
                header = str(scheme.get("name", ""))
                if (
                    kind == "apiKey"
                    and where == "header"
                    and _HEADER.fullmatch(header)
                    and header.lower() not in _FORBIDDEN_HEADERS - {"authorization"}
                ):
                    return header, ""
        return "", ""


def _free(name: str, taken: Mapping[str, Any]) -> str:
    """The name, or one like it that is not taken (a path and a query parameter may have the same)."""
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:64]
    if plain not in taken:
        return plain
    return next(n for n in (f"{plain}_", *(f"{plain}_{i}" for i in range(2, 1000))) if n not in taken)


def _identifier(raw: object, method: str, path: str) -> str:
    text = raw if isinstance(raw, str) and raw.strip() else f"{method}_{path}"
    return re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_")[:60] or method


def _sentence(raw: Mapping[str, Any], method: str, path: str) -> str:
    texts: Iterator[object] = (raw.get(word) for word in ("summary", "description"))
    text = next((t for t in texts if isinstance(t, str) and t.strip()), f"{method.upper()} {path}")
    return line(text)


def _description(raw: Mapping[str, Any], method: str, path: str) -> str:
    """A summary alone often only repeats the operation's name: "Create an incident" does not say that somebody's phone
    rings."""
    sentence, more = _sentence(raw, method, path), raw.get("description")
    told = line(more) if isinstance(more, str) else ""
    if not told or told in sentence:
        return sentence
    return told if told.startswith(sentence.rstrip(".")) else line(f"{sentence.rstrip('.')}. {told}")
