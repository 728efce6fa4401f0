"""hack/demo holds together: the kinds accept it, its references exist, and the stand-ins know what it says of them."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from pilothouse_api.connector import Connector
from pilothouse_api.egress import EgressRule, refused_url
from pilothouse_api.modelroute import ModelRoute
from pilothouse_api.tenant import Tenant
from pilothouse_api.workerconfig import ConnectorConfig
from pilothouse_dataplane.connectors.factory import make_connector
from pilothouse_local import demo, demo_tenant, deploy, vault
from pilothouse_local.deploy import Kubectl
from pilothouse_local.errors import BadSettings, LocalClusterError
from pilothouse_sim.oauth import profiles

KINDS = {"Tenant": Tenant, "Connector": Connector, "ModelRoute": ModelRoute}
OBJECTS = demo_tenant.objects({})
CONNECTORS = {one["metadata"]["name"]: one for one in OBJECTS if one["kind"] == "Connector"}
SYSTEMS = ("jira", "servicenow", "okta", "salesforce")


def the(kind: str) -> dict[str, Any]:
    (found,) = (one for one in OBJECTS if one["kind"] == kind)
    return found


def test_the_kinds_accept_it() -> None:
    assert OBJECTS[0]["kind"] == "Namespace"
    for one in OBJECTS[1:]:
        KINDS[one["kind"]].model_validate(one)
        assert one["metadata"]["namespace"] == OBJECTS[0]["metadata"]["name"]
    assert set(CONNECTORS) == set(SYSTEMS)


def test_references_exist() -> None:
    tenant = the("Tenant")
    assert tenant["spec"]["agent"]["modelRouteRef"]["name"] == the("ModelRoute")["metadata"]["name"]
    assert tenant["spec"]["credentials"]["vault"]["address"] == vault.ADDRESS
    assert tenant["spec"]["credentials"]["vault"]["mount"] == vault.MOUNT
    secrets = demo_tenant.vault_secrets()
    used = set()
    for one in CONNECTORS.values():
        assert one["spec"]["tenantRef"]["name"] == tenant["metadata"]["name"]
        auth = one["spec"]["auth"]
        if auth["mode"] == "UserOAuth":
            used.add(auth["oauth"]["clientSecretRef"]["name"])
            assert set(secrets[auth["oauth"]["clientSecretRef"]["name"]]) == {"client-id", "client-secret"}
        else:
            used.add(auth["jwtBearer"]["privateKeySecretRef"]["name"])
            assert set(secrets[auth["jwtBearer"]["privateKeySecretRef"]["name"]]) == {"private-key"}
    assert used == set(secrets)


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_connector_and_its_stand_in_agree(system: str) -> None:
    auth = CONNECTORS[system]["spec"]["auth"]
    profile: profiles.Profile = getattr(profiles, system.upper())
    if auth["mode"] == "JWTBearer":
        assert profile.jwt_bearer
        assert auth["jwtBearer"]["tokenURL"].endswith(profile.token)
        assert auth["jwtBearer"]["audience"] in profile.jwt_audiences
        return
    oauth = auth["oauth"]
    assert oauth["authorizationURL"].endswith(profile.authorize)
    assert oauth["tokenURL"].endswith(profile.token)
    assert oauth.get("revocationURL", "").endswith(profile.revoke)
    assert ("revocationURL" in oauth) == bool(profile.revoke)
    assert set(oauth["scopes"]) <= set(profile.scopes)
    client = demo_tenant.vault_secrets()[oauth["clientSecretRef"]["name"]]
    assert client == {"client-id": "pilothouse", "client-secret": f"pilothouse-{system}-secret"}


def test_a_browser_finds_each_consent_page_where_its_service_is() -> None:
    rendered = deploy.render_overlay(Kubectl(None), "local")
    ports = {
        one["metadata"]["name"]: port["nodePort"]
        for one in rendered
        if one["kind"] == "Service" and one["metadata"]["namespace"] == deploy.SIM_NAMESPACE
        for port in one["spec"]["ports"]
        if "nodePort" in port
    }
    named = {
        system: int(auth["oauth"]["authorizationURL"].split(":")[2].split("/")[0])
        for system in SYSTEMS
        if (auth := CONNECTORS[system]["spec"]["auth"])["mode"] == "UserOAuth"
    }
    assert set(named.items()) <= set(ports.items())

    moved = demo_tenant.objects({str(port): port + 1000 for port in ports.values()})

    found = {one["metadata"]["name"]: one for one in moved if one["kind"] == "Connector"}
    for system, port in named.items():
        assert f":{port + 1000}/" in found[system]["spec"]["auth"]["oauth"]["authorizationURL"]
        assert found[system]["spec"]["url"] == CONNECTORS[system]["spec"]["url"]


def test_the_overlays_let_the_connectors_call_what_they_name() -> None:
    operator = next(
        one
        for one in deploy.render_overlay(Kubectl(None), "local")
        if one["kind"] == "Deployment" and one["metadata"]["name"] == "pilothouse-operator"
    )
    env = {entry["name"]: entry.get("value") for entry in operator["spec"]["template"]["spec"]["containers"][0]["env"]}
    rule = EgressRule(namespace="acme", allow_hosts=tuple(env["PILOTHOUSE_EGRESS_ALLOW_HOSTS"].split(",")))
    for one in CONNECTORS.values():
        parts = one["spec"]["auth"].get("oauth") or one["spec"]["auth"]["jwtBearer"]
        urls = [one["spec"]["url"], *(value for key, value in parts.items() if key.endswith("URL"))]
        assert [refused_url(url, rule) for url in urls] == [None] * len(urls)


@pytest.mark.parametrize("system", SYSTEMS)
def test_each_rule_about_tools_matches_one(system: str) -> None:
    spec = CONNECTORS[system]["spec"]
    tools = spec.get("tools") or {}
    globs = [*tools.get("allow", []), *tools.get("deny", []), *(rule["match"] for rule in tools.get("approvals", []))]
    if not globs:
        pytest.fail("a connector of the demo says nothing about tools: it shows nothing")
    config = ConnectorConfig(name=system, type=system, url=spec["url"], auth_mode=spec["auth"]["mode"])  # type: ignore[arg-type]
    connector = make_connector(config, {}, EgressRule())
    names = [tool.name.partition(".")[2] for tool in connector.describe_tools()]
    assert names
    assert [glob for glob in globs if not any(fnmatchcase(name, glob) for name in names)] == []


def test_the_key_is_that_of_the_certificate() -> None:
    key = load_pem_private_key(demo_tenant.vault_secrets()["acme-salesforce-jwt"]["private-key"].encode(), None)
    pem = (demo_tenant.FOLDER / "vault" / "salesforce-jwt.crt").read_bytes()
    certificate = x509.load_pem_x509_certificate(pem)
    assert key.public_key() == certificate.public_key()  # type: ignore[comparison-overlap]
    seed = json.loads(files("pilothouse_sim.salesforce").joinpath("seed.json").read_text(encoding="utf-8"))
    assert x509.load_pem_x509_certificate(seed["connectedApp"]["certificate"].encode()) == certificate


def test_a_file_outside_of_the_folder_is_no_secret(tmp_path: Path) -> None:
    (tmp_path / "vault").mkdir()
    (tmp_path / "outside").write_text("x")
    for value in ("@../outside", "@missing", "@/etc/hostname", "@"):
        (tmp_path / "vault" / "secrets.yaml").write_text(yaml.safe_dump({"a": {"b": value}}))
        with pytest.raises(BadSettings):
            demo_tenant.vault_secrets(tmp_path / "vault")
    for broken in ("", "[]", "a: b"):
        (tmp_path / "vault" / "secrets.yaml").write_text(broken)
        with pytest.raises(BadSettings):
            demo_tenant.vault_secrets(tmp_path / "vault")


def test_the_demos_people_are_jiras() -> None:
    seed = json.loads(files("pilothouse_sim.jira").joinpath("seed.json").read_text(encoding="utf-8"))
    assert {demo.EMPLOYEE, demo.CONTRACTOR, demo.MANAGER} <= {user["email"] for user in seed["users"]}


def test_a_real_model_replaces_the_stand_in() -> None:
    secret, route = demo.real_model({"OPENAI_API_KEY": "sk-x"})
    assert secret["stringData"] == {"api-key": "sk-x"}
    checked = ModelRoute.model_validate(route)
    assert [provider.base_url for provider in checked.spec.providers] == [None]
    (own,) = demo.real_model({"OPENAI_BASE_URL": "http://127.0.0.1:8000/v1", "OPENAI_MODEL": "qwen"})
    assert ModelRoute.model_validate(own).spec.tiers.declared()["mid"][0].model == "qwen"
    with pytest.raises(LocalClusterError, match="which model"):
        demo.real_model({"OPENAI_BASE_URL": "http://127.0.0.1:8000/v1"})
