"""Where a tenant's credentials are: sealing keys that are made once, Vault's policy and role, the condition."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pilothouse_api import Tenant, names
from pilothouse_api.workerconfig import CredentialsConfig, VaultConfig
from pilothouse_operator.core.credentials import VaultState, usable_keys
from pilothouse_operator.core.readiness import ConnectorReport
from pilothouse_operator.core.refs import Problem
from pilothouse_operator.manifests.vault import VaultAccess, access, policy
from pilothouse_testing.builders import Modifier, tenant, with_connector, with_oauth, with_provider_key, with_vault
from pilothouse_testing.operator_world import PLATFORM, World, ready_world

KEY = base64.b64encode(b"k" * 32)
ADDRESS = "https://vault.example:8200"


def access_of(*modifiers: Modifier, name: str = "acme", namespace: str | None = None) -> VaultAccess:
    found = access(Tenant.model_validate(tenant(name, with_vault(), *modifiers, namespace=namespace).tenant))
    assert found is not None
    return found


# --- backend Kubernetes --------------------------------------------------------------------------------------------


def test_the_keys_are_created_first_and_alone() -> None:
    world = World(tenant("acme", with_connector("jira")))

    decision = world.decide()

    assert decision.children == decision.statuses == ()  # nothing may be sealed under a key that is not kept
    (created,) = decision.creates
    assert (created["kind"], created["metadata"]["name"]) == ("Secret", "acme-account-keys")
    assert created["metadata"]["ownerReferences"][0]["uid"] == "uid-Tenant-acme"
    assert base64.b64decode(created["data"]["key.1"]) == KEY


def test_the_workers_get_all_keys_and_what_a_person_adds() -> None:
    world = ready_world(with_connector("jira"))
    before = world.files()
    assert before["secret.acme-account-keys.key.1"] == KEY
    assert world.config().credentials == CredentialsConfig(keys_secret="acme-account-keys")
    assert world.condition("CredentialsReady")["status"] == "True"

    world.scene.secrets["acme-account-keys"]["key.2"] = base64.b64encode(b"n" * 32)
    decision = world.step()

    assert decision.creates == ()
    assert [child["kind"] for child in decision.children] == ["Secret"]
    assert world.files().keys() - before.keys() == {"secret.acme-account-keys.key.2"}
    assert world.files()["secret.acme-account-keys.key.1"] == KEY


@pytest.mark.parametrize("content", [{}, {"key.1": b"short"}, {"key.0": KEY}, {"key": KEY}, {"key.1": b"\xff" * 44}])
def test_keys_that_can_not_be_used_are_told_and_never_written_over(content: dict[str, bytes]) -> None:
    world = ready_world(with_connector("jira"))
    world.scene.secrets["acme-account-keys"] = content

    decision = world.step()

    assert decision.creates == ()
    condition = world.condition("CredentialsReady")
    assert (condition["status"], condition["reason"]) == ("False", "KeysInvalid")
    assert world.config().credentials.keys_secret == ""
    assert not any("account-keys" in name for name in world.files())
    assert [connector.name for connector in world.config().connectors] == ["jira"]  # the rest goes on


def test_one_broken_key_takes_no_other_with_it() -> None:
    assert usable_keys({"key.1": KEY, "key.2": b"x", "note": KEY}) == {"key.1": KEY}
    assert usable_keys({"key.1": KEY + b"\n"}) == {"key.1": KEY}  # as an editor leaves a file
    world = ready_world()
    world.scene.secrets["acme-account-keys"]["key.2"] = b"x"
    world.step()
    assert world.config().credentials.keys_secret == "acme-account-keys"
    assert "key.2 can't be used" in world.condition("CredentialsReady")["message"]


# --- backend Vault -------------------------------------------------------------------------------------------------


def test_with_vault_no_connectors_secret_is_in_the_workers_own() -> None:
    modifiers = (with_connector("jira"), with_oauth("okta", "okta", "https://acme.okta.example"))
    world = ready_world(*modifiers, with_provider_key("models"), with_vault(mount="teams/kv", authMount="k8s/eu"))

    assert {name for name in world.files() if name.startswith("secret.")} == {"secret.models.api-key"}
    assert b"planted" not in b"".join(world.files().values())
    assert world.config().credentials == CredentialsConfig(
        backend="Vault",
        vault=VaultConfig(
            address=ADDRESS,
            mount="teams/kv",
            prefix="acme/acme",
            auth_mount="k8s/eu",
            role="acme",
            token_file="/var/run/secrets/pilothouse/vault/token",
        ),
    )
    # and a Secret that is not there is not missed: the workers look in Vault
    world.scene.secrets.pop("okta-oauth")
    assert world.decide().children == ()
    assert {connector.name for connector in world.config().connectors} == {"jira", "okta"}


def test_a_worker_shows_its_token_to_vault_and_may_go_there() -> None:
    world = ready_world(with_vault())
    pod = world.children["Deployment"]["spec"]["template"]["spec"]
    (volume,) = [volume for volume in pod["volumes"] if "projected" in volume]
    (source,) = volume["projected"]["sources"]
    token = source["serviceAccountToken"]
    assert (token["audience"], token["path"]) == ("vault", "token")
    assert 600 <= token["expirationSeconds"] <= 3600
    mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    assert mounts[volume["name"]] == "/var/run/secrets/pilothouse/vault"
    assert pod["automountServiceAccountToken"] is False
    assert 8200 in {rule["ports"][0]["port"] for rule in world.children["NetworkPolicy"]["spec"]["egress"][1:]}

    plain = ready_world().children["Deployment"]["spec"]["template"]["spec"]
    assert not any("projected" in volume for volume in plain["volumes"])


def test_vaults_own_authority_reaches_the_workers_and_the_operator() -> None:
    world = World(tenant("acme", with_vault(caSecretRef={"name": "vault-ca"})))
    world.step()
    assert world.condition("ResolvedRefs")["reason"] == "SecretNotFound"
    assert world.config().credentials.vault is not None

    world.scene.secrets["vault-ca"] = {"ca.crt": b"PEM"}
    decision = world.step()
    vault = world.config().credentials.vault
    assert vault is not None
    assert world.files()[vault.ca_file] == b"PEM"
    assert decision.access is not None
    assert decision.access.ca_pem == "PEM"
    assert "PEM" not in repr(decision.access)


def test_the_policy_allows_the_tenants_own_paths_and_nothing_else() -> None:
    rules = json.loads(access_of().policy)["path"]
    assert rules == {
        "kv/data/acme/acme/secrets": {"capabilities": ["read"]},
        "kv/data/acme/acme/users/*": {"capabilities": ["create", "read", "update", "delete"]},
        "kv/metadata/acme/acme/users/*": {"capabilities": ["create", "update", "list", "delete"]},
    }


def test_no_text_adds_a_rule_to_a_policy() -> None:
    hostile = 'kv" { capabilities = ["sudo"] } path "*'
    assert len(json.loads(policy(hostile, "acme/acme"))["path"]) == 3


def test_two_tenants_never_share_a_policy() -> None:
    one = access_of(name="c", namespace="a-b")
    other = access_of(name="b-c", namespace="a")
    assert one.policy_name != other.policy_name
    assert one.policy_name.startswith("pilothouse-")


def test_a_role_of_another_is_known_as_such() -> None:
    mine = access_of()
    assert mine.owns(mine.role)
    assert mine.role["audience"] == names.VAULT_AUDIENCE
    assert mine.role["token_ttl"] == 1200
    assert not mine.owns({**mine.role, "bound_service_account_namespaces": ["globex"]})
    assert not mine.owns({**mine.role, "bound_service_account_names": ["*"]})
    assert not mine.owns({})


def test_the_operator_writes_only_where_it_may_show_its_token() -> None:
    assert ready_world(with_vault()).decide().access == access_of()
    elsewhere = ready_world(with_vault("https://attacker.example"))
    assert elsewhere.decide().access is None
    assert not elsewhere.decide().keeps_access


def test_what_is_written_goes_with_the_backend_and_the_tenant_and_stays_over_a_mistake() -> None:
    world = ready_world(with_vault())
    world.scene.route = None
    assert world.decide().access is not None
    spec = world.scene.tenant["spec"]
    display = spec.pop("displayName")
    assert world.decide().keeps_access
    spec["displayName"] = display
    del spec["credentials"]
    assert (world.decide().access, world.decide().keeps_access) == (None, False)
    world.exists = False
    assert (world.decide().access, world.decide().keeps_access) == (None, False)


def test_the_condition_says_what_the_workers_say_of_vault() -> None:
    world = ready_world(with_vault(), with_connector("jira"))
    jira = world.scene.connectors[0]
    assert world.condition("CredentialsReady")["status"] == "True"
    assert world.condition("ResolvedRefs", jira)["status"] == "Unknown"

    world.say(ConnectorReport("jira", problem='Vault has no "oauth.client-id" at kv/acme/acme/secrets.'))
    world.step()
    resolved = world.condition("ResolvedRefs", jira)
    assert (resolved["status"], resolved["message"]) == (
        "False", 'Vault has no "oauth.client-id" at kv/acme/acme/secrets.',
    )  # fmt: skip

    until = datetime(2026, 11, 23, 12, 20, tzinfo=UTC)
    world.say(ConnectorReport("jira", 3, True), credentials_error="Vault is sealed.", credentials_until=until)
    world.now += timedelta(minutes=1)
    world.step()
    condition = world.condition("CredentialsReady")
    assert (condition["status"], condition["reason"]) == ("False", "VaultUnavailable")
    assert "Cached credentials go on until 2026-11-23T12:20:00Z." in condition["message"]
    assert world.condition("Ready")["status"] == "True"  # what is cached goes on
    assert world.condition("ResolvedRefs", jira)["status"] == "True"

    world.say(ConnectorReport("jira", 3, True), credentials_error="", credentials_until=None)
    world.step()
    assert world.condition("CredentialsReady")["status"] == "True"
    world.reports.clear()
    world.step()
    assert world.condition("CredentialsReady")["status"] == "True"  # silence is no news


def test_the_condition_says_when_the_operator_can_not_write_the_policy() -> None:
    world = ready_world(with_vault())
    world.vault = VaultState(Problem("VaultUnavailable", "Vault at https://vault.example:8200 does not answer."))
    world.step()
    condition = world.condition("CredentialsReady")
    assert (condition["status"], condition["reason"]) == ("False", "VaultUnavailable")
    world.vault = VaultState()
    world.step()
    assert world.condition("CredentialsReady")["status"] == "True"


def test_where_the_operator_writes_nothing_a_failure_says_who_must() -> None:
    world = ready_world(with_vault(), platform=replace(PLATFORM, vault_addresses=()))
    assert world.condition("CredentialsReady")["status"] == "True"
    world.say(credentials_error="Vault refuses the role acme.")
    world.step()
    assert "operator.vault.addresses" in world.condition("CredentialsReady")["message"]
