"""Calls the operations of an OpenAPI document, at the Connector's own URL and with the asking user's credential."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import structlog

from pilothouse_api.workerconfig import ConnectorConfig
from pilothouse_dataplane.connectors.base import CallContext, ConnectorError, Refused, SecretText, SystemUnavailable
from pilothouse_dataplane.connectors.dialect import error_of
from pilothouse_dataplane.connectors.http import JsonClient
from pilothouse_dataplane.connectors.openapi.document import DocumentError, Operation, load, operations
from pilothouse_dataplane.core.messages import Citation, Effect, Outcome, Tool, ToolResult

_MAX_DOCUMENT_BYTES = 16 << 20
_MAX_PART = 1000
_EFFECTS = {"GET": Effect.READ, "HEAD": Effect.READ, "DELETE": Effect.DESTRUCTIVE}
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Known:
    """What a document has said."""

    tools: tuple[Tool, ...] = ()
    operations: Mapping[str, Operation] | None = None
    """By tool."""


class OpenAPIConnector:
    """One API. Its document comes with the configuration, or is fetched (``discover``)."""

    def __init__(self, config: ConnectorConfig, http: JsonClient, files: Mapping[str, bytes]) -> None:
        assert config.openapi is not None
        self._name = config.name
        self._wanted = config.openapi
        self._http = http
        self._known = _Known()
        self._problem = ""
        if self._wanted.document_file:
            try:
                self._known = self._read(files.get(self._wanted.document_file, b""))
            except DocumentError as error:
                self._problem = str(error)

    def describe_tools(self) -> tuple[Tool, ...]:
        return self._known.tools

    async def discover(self, context: CallContext | None) -> bool:
        """See ``Discovering``. A document of the configuration is read once; one behind a URL is fetched."""
        if not self._wanted.document_url:
            if self._problem:
                raise ConnectorError(self._problem)
            return False
        parts = urlsplit(self._wanted.document_url)
        base, path = f"{parts.scheme}://{parts.netloc}", parts.path + (f"?{parts.query}" if parts.query else "")
        # a credential goes to the system itself only, never to wherever a document happens to lie
        same = context is not None and base == _origin(self._http.base_url)
        token = context.token if context is not None and same else None
        answer = await self._http.request(
            "GET",
            path,
            token=token,
            base_url=base,
            headers={"Accept": "application/json, application/yaml;q=0.9, */*;q=0.5"},
            max_body_bytes=_MAX_DOCUMENT_BYTES,
            raw=True,
        )
        if answer.status >= 300:
            raise error_of(answer, self._http.system, said="the OpenAPI document")
        try:
            known = self._read(answer.body)
        except DocumentError as error:
            raise ConnectorError(str(error)) from error
        changed = known.tools != self._known.tools
        self._known = known
        return changed

    def _read(self, raw: bytes) -> _Known:
        globs = self._wanted.operations
        found = [o for o in operations(load(raw)) if any(fnmatchcase(o.id, glob) for glob in globs)]
        if not found:
            raise DocumentError(f"No operation of the document has an id that matches {', '.join(globs)[:200]}.")
        tools = {}
        for operation in found:
            tool = self._tool(operation)
            if len(tool.model_name) > 64:  # models take no longer name
                _log.warning("operation left out: its name is too long", connector=self._name, operation=operation.id)
                continue
            tools[tool.name] = (tool, operation)
        return _Known(
            tuple(tool for tool, _ in tools.values()), {name: operation for name, (_, operation) in tools.items()}
        )

    def _tool(self, operation: Operation) -> Tool:
        effect = _EFFECTS.get(operation.method, Effect.WRITE)
        return Tool(
            f"{self._name}.{operation.id}",
            operation.description,
            operation.schema,
            effect,
            returns=operation.returns,
            # RFC 9110, 9.2.2: a PUT or DELETE made twice is one made once; so is what carries an idempotency key
            idempotent=effect is not Effect.READ
            and (operation.method in ("PUT", "DELETE") or bool(operation.key_header)),
            key_by=operation.key_header,
            keywords=operation.tags,
        )

    async def call(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
        operation = (self._known.operations or {}).get(tool.name)
        if operation is None:
            raise Refused(f"{tool.name} is not in the system's OpenAPI document any more.", asked=False)
        headers: dict[str, str] = {}
        if operation.key_header:
            headers[operation.key_header] = context.key
        token: SecretText | None = context.token
        if operation.token_header.lower() != "authorization" or not operation.token_scheme:
            headers[operation.token_header] = context.token.reveal()
            token = None
        path, body = _request(operation, arguments, headers)
        response = await self._http.request(
            operation.method, path, token=token, body=body, headers=headers, scheme=operation.token_scheme or "Bearer"
        )
        if not 200 <= response.status < 300:
            raise error_of(response, self._http.system, said=sentence(response.body))
        return ToolResult(
            Outcome.SUCCEEDED,
            f"{self._http.system}: {operation.sentence[:120].rstrip('.')} — done.",
            response.body,
            _citations(response.body),
        )

    async def find_by_key(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext) -> ToolResult | None:
        """Nothing in a document says how; such tools have no look-up."""
        raise SystemUnavailable(f"{self._http.system} can't tell what became of it.", may_have_acted=False)

    async def probe(self) -> None:
        """Any answer but a server's own failure shows that it is there."""
        answer = await self._http.request("GET", "/", token=None, raw=True)
        if answer.status >= 500:
            raise error_of(answer, self._http.system)

    async def aclose(self) -> None:
        await self._http.aclose()


def _request(operation: Operation, arguments: Mapping[str, Any], headers: dict[str, str]) -> tuple[str, Any]:
    """Path with its query, and the JSON body; headers are added to the given ones. Raises Refused."""
    path = operation.path
    query: list[tuple[str, str]] = []
    body: dict[str, Any] = {}
    whole: Any = None
    for argument in operation.arguments:
        if argument.name not in arguments:
            continue
        value = arguments[argument.name]
        if argument.place == "path":
            path = path.replace(f"{{{argument.key}}}", _part(argument.name, value))
        elif argument.place == "query":
            if isinstance(value, list) and argument.explode:
                query.extend((argument.key, _text(item)) for item in value)
            elif isinstance(value, list):
                query.append((argument.key, ",".join(map(_text, value))))
            else:
                query.append((argument.key, _text(value)))
        elif argument.place == "header":
            text = _text(value)
            if not text.isprintable() or not text.isascii() or len(text) > _MAX_PART:
                raise Refused(f"The argument “{argument.name}” can't stand in a header.", asked=False)
            headers[argument.key] = text
        elif argument.place == "body":
            body[argument.key] = value
        else:
            whole = value
    if "{" in path:
        raise Refused("A part of the address is missing, so nothing was asked.", asked=False)
    has_body = any(argument.place == "body" for argument in operation.arguments)
    return path + (f"?{urlencode(query)}" if query else ""), body if has_body else whole


def _part(name: str, value: object) -> str:
    """One segment of a path: it can't leave its place. Raises Refused."""
    text = _text(value)
    if not text or text in (".", "..") or len(text) > _MAX_PART or not text.isprintable():
        raise Refused(f"The argument “{name}” can't stand in an address, so nothing was asked.", asked=False)
    if any(c in text for c in "/\\") or "%2f" in text.lower() or "%5c" in text.lower():
        raise Refused(f"The argument “{name}” may hold no slash, so nothing was asked.", asked=False)
    return quote(text, safe="")


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise Refused("A part of the address must be a word or a number, so nothing was asked.", asked=False)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def sentence(body: object) -> str:
    """A system's own words for an error: RFC 9457, or one of the shapes that are common."""
    if isinstance(body, list):
        return sentence(body[0]) if body else ""
    if not isinstance(body, Mapping):
        return ""
    error = body.get("error")
    inner = error if isinstance(error, Mapping) else body
    parts = [inner.get(word) for word in ("title", "detail", "message", "error_description", "description")]
    if isinstance(error, str):
        parts.append(error)
    if isinstance(body.get("errors"), list) and body["errors"]:
        first = body["errors"][0]
        parts.append(first if isinstance(first, str) else sentence(first))
    said = [part for part in parts if isinstance(part, str) and part]
    return ". ".join(dict.fromkeys(said))[:500]


def _citations(body: object) -> tuple[Citation, ...]:
    """A link for people, where an object has one under a usual name."""
    if not isinstance(body, Mapping):
        return ()
    for word in ("html_url", "web_url", "permalink", "url"):
        link = body.get(word)
        if isinstance(link, str) and link.startswith(("https://", "http://")) and len(link) < 2000:
            title = next((str(body[w]) for w in ("title", "name", "subject", "key", "id") if body.get(w)), link)
            return (Citation(" ".join(title.split())[:120], link),)
    return ()
