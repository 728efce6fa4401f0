"""The generated CRDs: structural, bounded, explained, and the same as what is committed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml

from pilothouse_api import KINDS, Kind, Tenant
from pilothouse_api.meta import Model, about
from pilothouse_api.rules import VALIDATIONS
from pilothouse_api.schema import crd, structural

ROOT = Path(__file__).resolve().parents[3]
ALLOWED = {
    *("type", "format", "description", "enum", "default", "properties", "required", "items", "minLength", "maxLength"),
    *(
        "minimum",
        "maximum",
        "minItems",
        "maxItems",
        "x-kubernetes-list-type",
        "x-kubernetes-list-map-keys",
        VALIDATIONS,
    ),
}


def walk(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, node
    for name, field in node.get("properties", {}).items():
        yield from walk(field, f"{path}.{name}")
    if "items" in node:
        yield from walk(node["items"], f"{path}[]")


def schema_of(kind: type[Kind]) -> dict[str, Any]:
    schema: dict[str, Any] = crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_field_is_explained_and_bounded(kind: type[Kind]) -> None:
    for path, node in walk(schema_of(kind)):
        assert node.keys() <= ALLOWED, path
        if path.startswith(".spec") and node["type"] == "string":
            assert "maxLength" in node or "enum" in node, path
        if node["type"] == "array":
            assert "maxItems" in node, path
        if path.count(".") > 1 and not path.endswith("[]") and path.startswith(".spec"):
            assert "Example: " in node["description"] or node["type"] in ("object", "array"), path


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_rule_says_what_to_change(kind: type[Kind]) -> None:
    rules = [rule for _, node in walk(schema_of(kind)) for rule in node.get(VALIDATIONS, [])]
    assert rules
    for rule in rules:
        assert 30 <= len(rule["message"]) <= 200, rule
        assert rule["rule"], rule


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_resource_is_one_that_operators_like(kind: type[Kind]) -> None:
    definition = crd(kind)
    names, version = definition["spec"]["names"], definition["spec"]["versions"][0]
    columns = [column["name"] for column in version["additionalPrinterColumns"]]
    conditions = version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]["conditions"]

    assert names["categories"] == ["pilothouse"]
    assert len(names["shortNames"]) == 1
    assert version["subresources"] == {"status": {}}
    assert {"Ready", "Reason", "Age"} <= set(columns)
    assert (conditions["x-kubernetes-list-type"], conditions["x-kubernetes-list-map-keys"]) == ("map", ["type"])


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_status_has_no_defaults(kind: type[Kind]) -> None:
    status = structural(kind)["properties"]["status"]
    assert [path for path, node in walk(status) if "default" in node] == []


def test_defaults_of_objects_are_those_of_their_fields() -> None:
    spec = schema_of(Tenant)["properties"]["spec"]["properties"]

    assert spec["workers"]["default"] == {"minReplicas": 1, "maxReplicas": 4}
    assert spec["credentials"]["default"] == {"backend": "Kubernetes"}
    tenant = Tenant.model_validate(
        {"spec": {"displayName": "A", "agent": {"modelRouteRef": {"name": "r"}}}},
    )
    for name in ("workers", "memory", "limits", "credentials", "identity"):
        assert getattr(tenant.spec, name).to_api() == spec[name]["default"]


def test_unbounded_or_unexplained_fields_are_refused() -> None:
    class Unbounded(Model):
        text: Annotated[str, about("No bound.", "x")]

    class Silent(Model):
        number: int

    class Loose(Kind):
        """A kind with a text without a bound."""

        spec: Unbounded
        status: Unbounded

    class Mute(Kind):
        """A kind with a field that nobody explains."""

        spec: Silent
        status: Silent

    with pytest.raises(ValueError, match=r"spec\.text has no bound"):
        structural(Loose)
    with pytest.raises(ValueError, match=r"spec\.number has no description"):
        structural(Mute)


@pytest.mark.parametrize("generator", ["crds.py", "reference.py"])
def test_committed_files_are_what_is_generated(generator: str) -> None:
    ran = subprocess.run(
        [sys.executable, str(ROOT / "hack" / "generators" / generator), "--check"], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_reference_names_every_field() -> None:
    documents = list(yaml.safe_load_all((ROOT / "docs" / "reference" / "kinds.yaml").read_text()))
    assert [document["kind"] for document in documents] == [kind.__name__ for kind in KINDS]
    for kind, document in zip(KINDS, documents, strict=True):
        for part in ("spec", "status"):
            assert set(document[part]) == set(structural(kind)["properties"][part]["properties"])


def test_package_needs_pydantic_and_nothing_else() -> None:
    code = (
        "import sys, pilothouse_api, pilothouse_api.schema as s\n"
        "print([m for m in ('kopf', 'grpc', 'yaml', 'kubernetes', 'redis', 'aiohttp') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
