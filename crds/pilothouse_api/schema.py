"""CustomResourceDefinitions from the typed kinds: pydantic's JSON schema made structural, as Kubernetes wants it.

Structural means: no references, one type per value, no ``anyOf`` with null, defaults in place. What would make a CEL
rule too dear or ``kubectl explain`` silent (a list or text without a bound, a field without a description) is refused
here, so that it fails when the files are generated and not when they are applied.
"""

from __future__ import annotations

import json
from typing import Any

from pilothouse_api.meta import Column, Kind
from pilothouse_api.names import GROUP, VERSION
from pilothouse_api.rules import VALIDATIONS

Node = dict[str, Any]

_KEPT = (
    "type",
    "format",
    "description",
    "examples",
    "enum",
    "default",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    VALIDATIONS,
)


def _merge(inner: Node, outer: Node) -> Node:
    """What a field says goes over what its type says; their rules add up."""
    merged = {**inner, **outer}
    rules = [*inner.get(VALIDATIONS, []), *(rule for rule in outer.get(VALIDATIONS, []))]
    if rules:
        merged[VALIDATIONS] = rules
    return merged


def _resolved(node: Node, definitions: Node) -> Node:
    while True:
        if "$ref" in node:
            outer = {key: value for key, value in node.items() if key != "$ref"}
            node = _merge(definitions[node["$ref"].rsplit("/", 1)[-1]], outer)
        elif "anyOf" in node:
            (inner,) = (option for option in node["anyOf"] if option.get("type") != "null")
            node = _merge(inner, {key: value for key, value in node.items() if key != "anyOf"})
        else:
            return node


def _structural(node: Node, definitions: Node, path: str) -> Node:
    node = _resolved(node, definitions)
    if "const" in node:
        node = {**node, "enum": [node["const"]]}
    out: Node = {key: node[key] for key in _KEPT if node.get(key) is not None}
    kind = out.get("type")
    if kind == "object":
        if required := node.get("required"):
            out["required"] = required
        out["properties"] = {
            name: _structural(field, definitions, f"{path}.{name}") for name, field in node["properties"].items()
        }
        if isinstance(out.get("default"), dict):
            # Spelled out: the API server evaluates rules on a default before it fills in the fields' own.
            fields = out["properties"].items()
            out["default"] = {name: field["default"] for name, field in fields if "default" in field}
        for name, field in out["properties"].items():
            if not field.get("description"):
                raise ValueError(f"{path}.{name} has no description: give it about(...)")
    elif kind == "array":
        if "maxItems" not in out:
            raise ValueError(f"{path} has no bound: give it max_length, else its rules' cost is unbounded")
        out["items"] = _structural(node["items"], definitions, f"{path}[]")
        if out["items"].get("type") == "object" and "x-kubernetes-list-type" not in out:
            out["x-kubernetes-list-type"] = "atomic"
    elif kind == "string" and not ({"maxLength", "enum", "format"} & out.keys()):
        raise ValueError(f"{path} has no bound: give it max_length, else its rules' cost is unbounded")
    elif kind == "integer":
        out["format"] = "int64"
    elif kind is None:
        raise ValueError(f"{path} has no type that Kubernetes knows")
    return out


def _without_defaults(node: Node) -> Node:
    """A status is what the operator wrote; the API server must not add to it."""
    out = {key: value for key, value in node.items() if key != "default"}
    if "properties" in out:
        out["properties"] = {name: _without_defaults(field) for name, field in out["properties"].items()}
    if "items" in out:
        out["items"] = _without_defaults(out["items"])
    return out


def structural(kind: type[Kind]) -> Node:
    """The kind's ``spec`` and ``status`` as structural schemas, each field with its ``examples`` as a list."""
    schema = kind.model_json_schema(by_alias=True, mode="validation")
    definitions = schema.get("$defs", {})
    parts = {name: _structural(schema["properties"][name], definitions, name) for name in ("spec", "status")}
    parts["status"] = _without_defaults(parts["status"])
    return {
        "type": "object",
        "description": schema["description"],
        "required": ["spec"],
        "properties": parts,
        VALIDATIONS: [kind.name_rule().as_validation()],
    }


def _sample(node: Node) -> Any:
    """An example of a value: its own, else one of its required fields (of all, where none is required), else None."""
    examples: list[Any] = node.get("examples") or []
    if examples:
        return examples[0]
    if node["type"] == "array":
        entry = _sample(node["items"])
        return None if entry is None else [entry]
    properties: Node = node.get("properties", {})
    fields = {name: _sample(properties[name]) for name in node.get("required", properties)}
    return {name: value for name, value in fields.items() if value is not None} or None


def _explained(node: Node, depth: int = 0) -> Node:
    """Move examples to the description's end: CRDs know no ``examples``, and ``kubectl explain`` shows descriptions."""
    out = {key: value for key, value in node.items() if key != "examples"}
    examples: list[Any] = node.get("examples") or []
    if depth > 1 and "description" in node and not examples and (sample := _sample(node)):
        examples = [sample]
    if examples:
        shown = (value if isinstance(value, str) else json.dumps(value) for value in examples)
        out["description"] = f"{node['description']} Example: {', '.join(shown)}"
    if "properties" in out:
        out["properties"] = {name: _explained(field, depth + 1) for name, field in out["properties"].items()}
    if "items" in out:
        out["items"] = _explained(out["items"])
    return out


def _column(column: Column) -> Node:
    out: Node = {
        "name": column.name,
        "type": column.type,
        "jsonPath": column.path,
        "description": column.description,
    }
    if column.wide:
        out["priority"] = 1
    return out


def crd(kind: type[Kind]) -> Node:
    """The CustomResourceDefinition of a kind. Raises ValueError where a field lacks a bound or a description."""
    singular = kind.__name__.lower()
    schema = _explained(structural(kind))
    schema["properties"] = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
        **schema["properties"],
    }
    version: Node = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": [_column(column) for column in kind.columns],
        "schema": {"openAPIV3Schema": schema},
    }
    if kind.selectable:
        version["selectableFields"] = [{"jsonPath": path} for path in kind.selectable]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}", "labels": {"app.kubernetes.io/part-of": "pilothouse"}},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.__name__,
                "listKind": f"{kind.__name__}List",
                "plural": kind.plural,
                "singular": singular,
                "shortNames": list(kind.short_names),
                "categories": ["pilothouse"],
            },
            "versions": [version],
        },
    }
