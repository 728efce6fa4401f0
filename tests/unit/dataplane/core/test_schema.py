"""JSON Schema as foreign systems bring it: nested, hostile, broken."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

import pytest

from pilothouse_dataplane.core.schema import ArgumentsError, check_arguments, misfit, parse_arguments, unusable
from pilothouse_dataplane.core.schema_cost import is_cheap

ORDER = {
    "type": "object",
    "properties": {
        "item": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]+$"},
        "count": {"type": "integer", "minimum": 1, "maximum": 50},
        "ratio": {"type": "number", "exclusiveMinimum": 0},
        "kind": {"enum": ["a", "b"]},
        "note": {"type": ["string", "null"], "maxLength": 20},
        "address": {
            "type": "object",
            "properties": {"street": {"type": "string"}, "lines": {"type": "array", "items": {"type": "string"}}},
            "required": ["street"],
            "additionalProperties": False,
        },
        "tags": {"type": "array", "items": {"type": "string", "minLength": 1}, "maxItems": 2},
        "free": {"type": "object"},
    },
    "required": ["item"],
    "additionalProperties": False,
}


def parsed(schema: dict[str, Any] = ORDER, **arguments: Any) -> dict[str, Any]:
    return parse_arguments(schema, json.dumps({"item": "AB-1", **arguments}))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"item": "ab"}, "'item' must have the form"),
        ({"count": 0}, "'count' must be at least 1"),
        ({"count": 51}, "'count' must be at most 50"),
        ({"count": 1.5}, "'count' must be of type integer"),
        ({"count": True}, "'count' must be of type integer"),
        ({"ratio": 0}, "'ratio' must be more than 0"),
        ({"kind": "c"}, "'kind' must be one of a, b"),
        ({"note": "x" * 21}, "'note' is longer than 20"),
        ({"address": {}}, "'address.street' is missing"),
        ({"address": {"street": "s", "zip": "1"}}, "'address' must not have 'zip'"),
        ({"address": {"street": "s", "lines": ["a", 2]}}, "'address.lines[1]' must be of type string"),
        ({"tags": ["a", "b", "c"]}, "'tags' must have at most 2 entries"),
        ({"tags": [""]}, "'tags[0]' must not be empty"),
        ({"nope": 1}, "there is no argument 'nope'; the arguments are: item, count"),
        ({"free": {"deep": ["a\x00b"]}}, "'free.deep[0]' must not contain the character NUL"),
        ({"free": {"a\x00": 1}}, "the character NUL"),
        ({"free": {"long": "x" * 32769}}, "'free.long' is longer than 32768"),
        ({"count": 0, "kind": "c"}, "; "),
    ],
)
def test_what_does_not_fit_is_said_where_it_stands(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ArgumentsError) as wrong:
        parsed(**arguments)
    assert said in str(wrong.value)
    assert len(str(wrong.value)) < 1500


def test_nulls_that_mean_nothing_are_dropped_and_those_that_do_stay() -> None:
    given = {"count": None, "note": None, "address": {"street": "s", "lines": None}, "free": {"x": None}, "kind": None}
    assert parsed(**given) == {"item": "AB-1", "note": None, "address": {"street": "s"}, "free": {"x": None}}
    with pytest.raises(ArgumentsError, match="'item' is missing"):
        parsed(item=None)
    # a property that is known by a reference alone
    tree = {"type": "object", "properties": {"t": {"$ref": "#/$defs/t"}}, "$defs": {"t": {"type": "integer"}}}
    assert parse_arguments(tree, '{"t": null}') == {}


def test_whole_numbers_are_integers_where_integers_are_asked_for() -> None:
    assert repr(parsed(count=2.0, ratio=2.0)) == "{'item': 'AB-1', 'count': 2, 'ratio': 2.0}"


@pytest.mark.parametrize(
    "text", ['{"item": NaN}', '{"item": Infinity}', "[]", '"x"', "{", '{"item": "\\ud800"}', "[" * 100_000]
)
def test_what_is_no_json_object_is_refused(text: str) -> None:
    with pytest.raises(ArgumentsError):
        parse_arguments(ORDER, text)


def test_what_is_nested_too_deep_is_refused() -> None:
    deep: Any = 1
    for _ in range(100):
        deep = {"d": deep}
    with pytest.raises(ArgumentsError, match="too deep"):
        parsed(free=deep)


def test_schemas_that_leave_things_open() -> None:
    free = {"type": "object", "additionalProperties": True}
    assert parse_arguments(free, '{"a": {"b": [1]}}') == {"a": {"b": [1]}}
    typed = {"type": "object", "additionalProperties": {"type": "integer"}}
    assert parse_arguments(typed, '{"a": 1}') == {"a": 1}
    with pytest.raises(ArgumentsError):
        parse_arguments(typed, '{"a": "x"}')
    either = {
        "type": "object",
        "oneOf": [{"properties": {"a": {"type": "string"}}, "required": ["a"]}, {"required": ["b"]}],
    }
    assert parse_arguments(either, '{"b": 1}') == {"b": 1}
    with pytest.raises(ArgumentsError, match="none of the forms"):
        parse_arguments(either, '{"c": 1}')
    with pytest.raises(ArgumentsError, match="there is no argument 'a'; the arguments are: none"):
        parse_arguments({"type": "object"}, '{"a": 1}')


@pytest.mark.parametrize(
    "reference",
    ["http://127.0.0.1:{port}/schema.json", "https://json-schema.org/nowhere", "file:///etc/hostname", "//x/y"],
)
def test_a_schema_never_leads_out_of_the_process(reference: str, monkeypatch: pytest.MonkeyPatch) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    listening.settimeout(0.2)
    target = reference.replace("{port}", str(listening.getsockname()[1]))
    for schema in (
        {"type": "object", "properties": {"a": {"$ref": target}}},
        {"$schema": target, "type": "object", "properties": {"a": {}}},
        {"$id": target, "type": "object", "properties": {"a": {"$ref": "other.json"}}},
    ):
        assert unusable(schema)
        with pytest.raises(ArgumentsError, match="can't be used"):
            check_arguments(schema, {"a": 1})
    with pytest.raises(TimeoutError):  # nobody has come
        listening.accept()
    listening.close()


def test_patterns_take_linear_time() -> None:
    evil = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}}
    began = time.process_time()
    with pytest.raises(ArgumentsError, match="must have the form"):
        check_arguments(evil, {"a": "a" * 30_000 + "!"})
    assert time.process_time() - began < 0.5


def test_a_pattern_that_the_engine_can_not_express_is_left_to_the_system() -> None:
    ahead = {
        "type": "object",
        "properties": {"a": {"type": "string", "pattern": "^(?!x)", "maxLength": 3}, "pattern": {"type": "integer"}},
    }
    check_arguments(ahead, {"a": "x", "pattern": 1})
    for bad in ({"a": "long"}, {"pattern": "x"}):
        with pytest.raises(ArgumentsError):
            check_arguments(ahead, bad)


@pytest.mark.parametrize("schema", [{"type": "strin"}, {"properties": 3}, {"$ref": "#/nowhere"}, {"pattern": 3}])
def test_a_broken_schema_is_named_and_nothing_fits_it(schema: dict[str, Any]) -> None:
    assert "can't be used" in unusable(schema)
    with pytest.raises(ArgumentsError):
        misfit(schema, {})


def test_a_schema_that_refers_to_itself() -> None:
    tree = {"$defs": {"t": {"type": "array", "items": {"$ref": "#/$defs/t"}}}, "$ref": "#/$defs/t"}
    assert misfit(tree, [[], [[]]]) == ""
    assert "must be of type array" in misfit(tree, [[1]])


def test_results_of_any_type() -> None:
    rows = {"type": "object", "properties": {"rows": {"type": "array"}}, "required": ["rows"]}
    assert misfit(rows, {"rows": [], "more": 1}) == ""
    for odd in (None, 3, "x", [], {}, {"rows": {}}, {"rows": "\ud800"}, {"rows": object()}):
        assert misfit(rows, odd)
    assert len(misfit({"type": "object", "properties": {}, "additionalProperties": False}, {"k" * 9999: 1})) < 400


def test_validators_are_made_once_and_bounded() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    check_arguments(schema, {"n": 1})
    began = time.process_time()
    for _ in range(1000):
        check_arguments(schema, {"n": 1})
    assert (time.process_time() - began) / 1000 < 100e-6
    from pilothouse_dataplane.core import schema as module

    for number in range(3000):
        misfit({"const": number}, number)
    assert len(module._compiled._kept) <= 2048


def bomb(word: str, levels: int = 30) -> dict[str, Any]:
    """Doubles with each level."""
    held = {
        f"d{level}": {word: [{"$ref": f"#/$defs/d{level + 1}"}, {"$ref": f"#/$defs/d{level + 1}"}]}
        for level in range(levels)
    }
    properties = {"a": {"$ref": "#/$defs/d0"}}
    return {
        "type": "object",
        "properties": properties,
        "required": ["a"],
        "$defs": {**held, f"d{levels}": {"type": "integer"}},
    }


TWICE = {
    "type": "object",
    "properties": {"a": {"$ref": "#/$defs/t"}},
    "$defs": {
        "t": {"allOf": [{"properties": {"x": {"$ref": "#/$defs/t"}}}, {"properties": {"x": {"$ref": "#/$defs/t"}}}]}
    },
}
ENDLESS = {
    "type": "object",
    "properties": {"a": {"$ref": "#/$defs/t"}},
    "$defs": {"t": {"anyOf": [{"$ref": "#/$defs/t"}]}},
}


@pytest.mark.parametrize("schema", [bomb("allOf"), bomb("anyOf"), bomb("oneOf"), TWICE, ENDLESS])
def test_a_schema_that_would_take_for_ever_is_checked_at_its_uppermost_level(schema: dict[str, Any]) -> None:
    deep: Any = {}
    for _ in range(50):
        deep = {"x": deep}
    began = time.process_time()
    assert not is_cheap(schema)
    for value in ({"a": 1}, {"a": "x"}, {"a": deep}):
        check_arguments(schema, value)
        misfit(schema, value)
    for bad in ({"b": 1}, {"a": 1, "b": 1}):
        with pytest.raises(ArgumentsError, match=r"there is no argument 'b'|'a' is missing"):
            check_arguments(schema, bad)
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize(
    "schema",
    [
        ORDER,
        {"$defs": {"t": {"properties": {"l": {"$ref": "#/$defs/t"}, "r": {"$ref": "#/$defs/t"}}}}, "$ref": "#/$defs/t"},
        {"$defs": {"a/b": {"type": "array", "items": {"$ref": "#/$defs/a~1b"}}}, "$ref": "#/$defs/a~1b"},
        {"type": "object", "properties": {f"p{n}": {"$ref": "#/$defs/s"} for n in range(200)}, "$defs": {"s": {}}},
        {"items": [{"type": "string"}, {"type": "integer"}]},
    ],
)
def test_what_systems_really_send_is_checked_in_full(schema: dict[str, Any]) -> None:
    assert is_cheap(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": ["a"]},
        {"type": "object", "properties": {"a": 3}},
        {"type": "object", "properties": {"a": {"type": "string", "maxLength": "10"}}},
        {"type": "object", "required": True},
        {"type": "object", "required": "a"},
        {"type": "object", "properties": {"a": {"$ref": 3}}},
        {"type": "object", "properties": {"a": {"items": 3}}},
        {"type": ["object", 3]},
    ],
)
def test_what_is_no_schema_is_an_error_and_no_defect(schema: dict[str, Any]) -> None:
    with pytest.raises(ArgumentsError, match="can't be used"):
        parse_arguments(schema, '{"a": "x", "b": null}')
    with pytest.raises(ArgumentsError, match="can't be used"):
        check_arguments(schema, {"a": "x"})


def test_patterns_that_grow_when_they_are_compiled_are_left_out() -> None:
    greedy = {"type": "object", "properties": {"a": {"type": "string", "pattern": "(((a{100}){100}){100}){10}"}}}
    began = time.process_time()
    check_arguments(greedy, {"a": "b"})
    assert time.process_time() - began < 0.5
