"""The labelled requests of `make bench BENCH=connectors` are split by their rule, and name tools that are there."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest

from pilothouse_api.egress import EgressRule
from pilothouse_api.workerconfig import ConnectorConfig, OpenAPIConfig
from pilothouse_dataplane.connectors.factory import make_connector, system_of
from pilothouse_dataplane.core.catalog import SHOWN, Catalog
from pilothouse_dataplane.core.messages import Tool

DATA = Path(__file__).resolve().parents[2] / "hack" / "bench" / "data"
REQUESTS = [json.loads(line) for line in (DATA / "requests.jsonl").read_text().splitlines()]
OWN_KIND = ("servicenow", "jira", "salesforce", "okta")


def _tools(config: ConnectorConfig, files: dict[str, bytes]) -> tuple[Tool, ...]:
    return make_connector(config, files, EgressRule()).describe_tools()


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    tools: list[Tool] = []
    systems = {}
    for kind in OWN_KIND:
        config = ConnectorConfig(name=kind, type=kind, url=f"https://{kind}.example", auth_mode="UserOAuth")  # type: ignore[arg-type]
        tools.extend(_tools(config, {}))
        systems[kind] = system_of(config)
    for path in sorted((DATA / "catalogs").iterdir()):
        config = ConnectorConfig(
            name=path.stem,
            type="openapi",
            url=f"https://{path.stem}.example",
            auth_mode="UserOAuth",
            openapi=OpenAPIConfig(document_file=path.name),
        )
        tools.extend(_tools(config, {path.name: path.read_bytes()}))
        systems[path.stem] = system_of(config)
    return Catalog(tools, systems)


def test_the_halves_follow_from_the_ids_alone() -> None:
    assert len({one["id"] for one in REQUESTS}) == len(REQUESTS)
    for one in REQUESTS:
        held_out = hashlib.sha256(one["id"].encode()).digest()[0] >= 128
        assert one["half"] == ("held_out" if held_out else "tuning"), one["id"]


def test_there_are_enough_requests_over_all_connectors(catalog: Catalog) -> None:
    connectors = Counter(tool.partition(".")[0] for one in REQUESTS for group in one["needs"] for tool in group)
    assert len(REQUESTS) >= 240
    assert len(connectors) == 20
    assert sum(any(tool.startswith(OWN_KIND) for g in one["needs"] for tool in g) for one in REQUESTS) >= 120
    assert len(catalog.tools) >= 400


def test_every_label_is_a_tool(catalog: Catalog) -> None:
    known = {tool.name for tool in catalog.tools}
    labels = {tool for one in REQUESTS for group in one["needs"] for tool in group}
    assert labels <= known, labels - known
    assert all(one["request"].strip() and one["needs"] for one in REQUESTS)


def _recall(catalog: Catalog, half: str) -> float:
    found = total = 0
    for one in REQUESTS:
        if one["half"] == half:
            shown = {tool.name for tool in catalog.choose(one["request"], one.get("earlier", ()))}
            assert len(shown) <= SHOWN
            total += len(one["needs"])
            found += sum(not shown.isdisjoint(group) for group in one["needs"])
    return found / total


@pytest.mark.parametrize(("half", "least"), [("tuning", 0.96), ("held_out", 0.90)])
def test_the_choice_of_tools_does_not_get_worse(catalog: Catalog, half: str, least: float) -> None:
    """The figures themselves, and their goal, are the bench's."""
    assert _recall(catalog, half) >= least


def test_practice_is_apart_from_what_measures(catalog: Catalog) -> None:
    practice = [json.loads(line) for line in (DATA / "practice.jsonl").read_text().splitlines()]
    known = {tool.name for tool in catalog.tools}
    assert {tool for one in practice for group in one["needs"] for tool in group} <= known
    assert {one["request"] for one in practice}.isdisjoint(one["request"] for one in REQUESTS)
