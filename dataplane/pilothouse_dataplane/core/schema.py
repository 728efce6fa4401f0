"""Checks arguments and results against a tool's JSON Schema. Pure: nothing that a schema refers to is ever fetched.

The schemas of OpenAPI documents and MCP servers are foreign text: any draft since 4, nested, with references within
themselves. Patterns run on an engine whose time is linear in the text; one that it can't express (look-around, back
references) is left to the system itself, as is a schema whose check could take long (``schema_cost``). Sentences are
for the model and the user, so that they can do better.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

from pilothouse_dataplane.core.schema_cost import is_cheap, shallow

_MAX_TEXT = 32768
"""Characters of a string whose schema names no bound."""
_MAX_DEPTH = 64
_MAX_COMPILED = 2048
_PATTERN_BYTES = 1 << 20
"""Of memory, once compiled."""
_SHOWN_PROBLEMS = 3
_SHOWN_CHARS = 300
_OPENING_WORDS = ("allOf", "anyOf", "oneOf", "$ref", "$dynamicRef", "if", "patternProperties", "dependentSchemas")
"""Where one of them stands, a schema's own ``properties`` are not all that it allows."""


class ArgumentsError(ValueError):
    """The arguments don't fit the tool; the message says what to change. The model must act."""


class SchemaError(ArgumentsError):
    """A schema can't be used, so nothing fits it; the message says why. Whoever wrote the schema must act."""


class _Compiled:
    """Validators by schema object, made at first use; the least used go. An id stays true as its schema is kept."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, tuple[Mapping[str, Any], Any]] = OrderedDict()

    def of(self, schema: Mapping[str, Any]) -> Any:
        """Raises SchemaError."""
        found = self._kept.get(id(schema))
        if found is not None:
            self._kept.move_to_end(id(schema))
            return found[1]
        validator = _compile(dict(schema))
        if not is_cheap(schema):
            validator = _compile(shallow(schema))
        self._kept[id(schema)] = (schema, validator)
        while len(self._kept) > _MAX_COMPILED:
            self._kept.popitem(last=False)
        return validator


_compiled = _Compiled()


def _made(schema: Any) -> Any:
    import jsonschema_rs  # takes 10 MB: when the first arguments are checked, not when a worker starts

    patterns = jsonschema_rs.RegexOptions(size_limit=_PATTERN_BYTES, dfa_size_limit=_PATTERN_BYTES)
    return jsonschema_rs.validator_for(schema, pattern_options=patterns, offline=True)


def _compile(schema: dict[str, Any]) -> Any:
    try:
        return _made(schema)
    except (ValueError, RecursionError, TypeError) as error:
        first = error
    try:
        return _made(_without_patterns(schema, 0))
    except (ValueError, RecursionError, TypeError):
        said = str(first).partition("\n")[0][:_SHOWN_CHARS]
        raise SchemaError(f"its JSON Schema can't be used: {said}") from first


def _without_patterns(value: Any, depth: int) -> Any:
    """The schema without regular expressions; a property that is called "pattern" holds a schema and stays."""
    if depth > _MAX_DEPTH:
        raise RecursionError
    if isinstance(value, Mapping):
        return {
            name: _without_patterns(item, depth + 1)
            for name, item in value.items()
            if not (name == "pattern" and isinstance(item, str)) and name != "patternProperties"
        }
    return [_without_patterns(item, depth + 1) for item in value] if isinstance(value, list) else value


def unusable(schema: Mapping[str, Any]) -> str:
    """Why a schema can't be used, a sentence's end; "" where it can."""
    try:
        _compile(dict(schema))
    except SchemaError as error:
        return str(error)
    return ""


def parse_arguments(schema: Mapping[str, Any], text: str) -> dict[str, Any]:
    """The arguments as an object.

    Raises ArgumentsError where the text is not JSON, not an object, or does not fit. Nulls are dropped first, but where
    the schema itself speaks of null: models write null for "not given".
    """
    try:
        value = json.loads(text or "{}", parse_constant=_no_constant)
        # half a surrogate pair is a string to Python, and to no store, system or model behind it
        text.encode()
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ArgumentsError("the arguments are not valid JSON") from error
    if not isinstance(value, dict):
        raise ArgumentsError("the arguments must be a JSON object")
    _compiled.of(schema)  # from here on it is known to be a schema
    arguments: dict[str, Any] = _tidy(value, schema, 0)
    arguments = {name: item for name, item in arguments.items() if item is not None or _speaks_of_null(schema, name)}
    check_arguments(schema, arguments)
    return arguments


def check_arguments(schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
    """Raises ArgumentsError where they don't fit."""
    _compiled.of(schema)
    known = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in arguments:
            raise ArgumentsError(f"the argument {name!r} is missing")
    if not schema.get("additionalProperties") and not any(word in schema for word in _OPENING_WORDS):
        for name in arguments:
            if name not in known:
                named = ", ".join(known) or "none"
                raise ArgumentsError(f"there is no argument {name[:60]!r}; the arguments are: {named[:1000]}")
    _check_texts(arguments, schema, "", 0)
    if problems := _problems(schema, arguments, "argument"):
        raise ArgumentsError("; ".join(problems))


def misfit(schema: Mapping[str, Any], data: object) -> str:
    """What is wrong with a result's data, for operators; "" where they fit. Raises SchemaError."""
    return "; ".join(_problems(schema, data, "field"))


def _problems(schema: Mapping[str, Any], value: object, noun: str) -> list[str]:
    validator = _compiled.of(schema)
    try:
        if validator.is_valid(value):
            return []
        found: list[str] = []
        for error in validator.iter_errors(value):
            found.append(_sentence(error, noun))
            if len(found) == _SHOWN_PROBLEMS:
                break
    except (ValueError, TypeError, RecursionError):  # what JSON can't say: half a surrogate pair, an object of ours
        return [f"a {noun} holds what JSON can't"]
    return found


def _sentence(error: Any, noun: str) -> str:
    path = _path(error.instance_path)
    what = f"the {noun} {path!r}" if path else f"the {noun}s"
    details = error.kind.as_dict()
    limit = details.get("limit")
    match error.kind.name:
        case "required":
            missing = f"{path}.{details['property']}" if path else str(details["property"])
            said = f"the {noun} {missing!r} is missing"
        case "additionalProperties":
            names = ", ".join(repr(str(name)[:60]) for name in details["unexpected"][:5])
            said = f"{what} must not have {names}"
        case "type":
            said = f"{what} must be of type {' or '.join(details['types'])}"
        case "enum":
            options = ", ".join(map(str, details["options"]))
            said = f"{what} must be one of {options}"
        case "const":
            said = f"{what} must be {details['expected_value']}"
        case "minLength":
            said = f"{what} must not be empty" if limit == 1 else f"{what} is shorter than {limit} characters"
        case "maxLength":
            said = f"{what} is longer than {limit} characters"
        case "minimum" | "exclusiveMinimum" | "maximum" | "exclusiveMaximum":
            least = "inimum" in error.kind.name
            bound = "more than" if least else "less than"
            if not error.kind.name.startswith("exclusive"):
                bound = "at least" if least else "at most"
            said = f"{what} must be {bound} {limit}"
        case "minItems" | "minProperties":
            said = f"{what} must have at least {limit} entries"
        case "maxItems" | "maxProperties":
            said = f"{what} must have at most {limit} entries"
        case "pattern":
            said = f"{what} must have the form {details['pattern']}"
        case "format":
            said = f"{what} must be a valid {details.get('format', 'value')}"
        case "anyOf" | "oneOf":
            said = f"{what} has none of the forms that are allowed"
        case kind:
            said = f"{what} breaks the rule “{kind}”"
    return said[:_SHOWN_CHARS]


def _path(parts: Any) -> str:
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{str(part)[:60]}" if text else str(part)[:60]
    return text


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _inner(schema: object, name: str | None) -> Mapping[str, Any]:
    """The schema of a property, or with None of an array's items, as far as it stands there plainly."""
    if isinstance(schema, Mapping):
        held = schema.get("items") if name is None else (schema.get("properties") or {}).get(name)
        if isinstance(held, Mapping):
            return held
    return {}


def _speaks_of_null(schema: object, name: str) -> bool:
    """Whether null may mean something: "not given" is written by leaving the property out."""
    held = _inner(schema, name)
    kind = held.get("type")
    return kind == "null" or (isinstance(kind, list) and "null" in kind) or held.get("nullable") is True


def _tidy(value: Any, schema: object, depth: int) -> Any:
    """Without nulls that mean nothing, and with whole numbers as integers where the schema wants them."""
    if depth > _MAX_DEPTH:
        raise ArgumentsError("the arguments are nested too deep")
    if isinstance(value, dict):
        return {
            name: _tidy(item, _inner(schema, name), depth + 1)
            for name, item in value.items()
            if item is not None or "type" not in _inner(schema, name) or _speaks_of_null(schema, name)
        }
    if isinstance(value, list):
        return [_tidy(item, _inner(schema, None), depth + 1) for item in value]
    if isinstance(value, float) and value.is_integer() and isinstance(schema, Mapping):
        return int(value) if schema.get("type") == "integer" else value
    return value


def _check_texts(value: object, schema: object, path: str, depth: int) -> None:
    """Raises ArgumentsError for a text that no system should get, whatever the schema says."""
    if depth > _MAX_DEPTH:
        raise ArgumentsError("the arguments are nested too deep")
    if isinstance(value, str):
        if "\x00" in value:
            raise ArgumentsError(f"the argument {path!r} must not contain the character NUL")
        bound = schema.get("maxLength", _MAX_TEXT) if isinstance(schema, Mapping) else _MAX_TEXT
        if len(value) > bound:
            raise ArgumentsError(f"the argument {path!r} is longer than {bound} characters")
        return
    for name, item in _items(value):
        inner = _inner(schema, name if isinstance(name, str) else None)
        if isinstance(name, str):
            if "\x00" in name or len(name) > _MAX_TEXT:
                raise ArgumentsError("the name of an argument is too long, or contains the character NUL")
            _check_texts(item, inner, f"{path}.{name[:60]}" if path else name[:60], depth + 1)
        else:
            _check_texts(item, inner, f"{path}[{name}]", depth + 1)


def _items(value: object) -> Iterator[tuple[str | int, object]]:
    if isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, (list, tuple)):
        yield from enumerate(value)
