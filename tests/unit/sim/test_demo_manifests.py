"""hack/demo holds together: the kinds accept it, its references exist, and its accounts are those of Jira's seed."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml

from pilothouse_api.connector import Connector
from pilothouse_api.modelroute import ModelRoute
from pilothouse_api.tenant import Tenant
from pilothouse_local import demo
from pilothouse_local.errors import LocalClusterError

FOLDER = Path(__file__).parents[3] / "hack" / "demo"
KINDS = {"Tenant": Tenant, "Connector": Connector, "ModelRoute": ModelRoute}


def objects() -> dict[str, dict[str, Any]]:
    found = [yaml.safe_load(file.read_text()) for file in sorted(FOLDER.glob("*.yaml"))]
    return {entry["kind"]: entry for entry in found}


@pytest.mark.parametrize("kind", KINDS)
def test_the_kinds_accept_it(kind: str) -> None:
    KINDS[kind].model_validate(objects()[kind])


def test_accounts_are_those_of_the_seed() -> None:
    accounts = json.loads(objects()["Secret"]["stringData"]["accounts.json"])
    seed = json.loads(files("pilothouse_sim.jira").joinpath("seed.json").read_text(encoding="utf-8"))
    assert accounts == {user["email"]: user["token"] for user in seed["users"]}


def test_references_exist() -> None:
    found = objects()
    assert found["Tenant"]["spec"]["agent"]["modelRouteRef"]["name"] == found["ModelRoute"]["metadata"]["name"]
    assert found["Connector"]["spec"]["tenantRef"]["name"] == found["Tenant"]["metadata"]["name"]
    linked = found["Connector"]["spec"]["auth"]["oauth"]["linkedAccountsSecretRef"]["name"]
    assert linked == found["Secret"]["metadata"]["name"]


def test_a_real_model_replaces_the_stand_in() -> None:
    secret, route = demo.real_model({"OPENAI_API_KEY": "sk-x"})
    assert secret["stringData"] == {"api-key": "sk-x"}
    checked = ModelRoute.model_validate(route)
    assert [provider.base_url for provider in checked.spec.providers] == [None]
    (own,) = demo.real_model({"OPENAI_BASE_URL": "http://127.0.0.1:8000/v1", "OPENAI_MODEL": "qwen"})
    assert ModelRoute.model_validate(own).spec.tiers.declared()["mid"][0].model == "qwen"
    with pytest.raises(LocalClusterError, match="which model"):
        demo.real_model({"OPENAI_BASE_URL": "http://127.0.0.1:8000/v1"})
