"""What a Tenant becomes: ``decide`` as a pure function of what was gathered and the time."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from pilothouse_api import names
from pilothouse_api.workerconfig import AgentConfig, ApprovalRule, BreakerConfig, SecretValue, digest
from pilothouse_operator.core.readiness import WorkerReport, poll_delay
from pilothouse_operator.core.tenant import Decision
from pilothouse_testing.builders import (
    tenant,
    with_connector,
    with_provider_key,
    with_replicas,
    without_route,
)
from pilothouse_testing.operator_world import STORES, World, ready_world


def test_a_tenant_becomes_its_children_all_owned_by_it() -> None:
    world = World(tenant("acme", with_connector("jira")))
    world.step()
    assert list(world.children) == [
        "ServiceAccount", "Secret", "Service", "NetworkPolicy", "PodDisruptionBudget", "Deployment",
    ]  # fmt: skip
    for child in world.children.values():
        assert child["metadata"]["name"] == "acme-worker"
        assert child["metadata"]["ownerReferences"][0]["uid"] == "uid-Tenant-acme"
    template = world.children["Deployment"]["spec"]["template"]
    assert template["metadata"]["labels"][names.LABEL_REVISION] == world.config().revision
    assert names.ANNOTATION_CONFIG_HASH not in json.dumps(template)
    assert world.children["ServiceAccount"]["automountServiceAccountToken"] is False


def test_the_secret_holds_the_configuration_and_its_hash() -> None:
    world = World(tenant("acme", with_connector("jira")))
    world.step()
    (jira,) = world.config().connectors
    assert jira.oauth is not None
    assert jira.oauth.accounts == SecretValue(secret="acme-jira-accounts", key="accounts.json")
    assert "secret.acme-jira-accounts.accounts.json" in world.files()
    assert world.files()["redis-url"] == STORES.redis_url.encode()
    assert world.files()["database-url"] == STORES.database_url.encode()
    annotation = world.children["Secret"]["metadata"]["annotations"][names.ANNOTATION_CONFIG_HASH]
    assert annotation == digest(world.files()) == world.scene.tenant["status"]["configHash"]


def test_what_the_kinds_say_of_a_run_and_its_connectors_reaches_the_worker() -> None:
    world = World(tenant("acme", with_connector("jira"), with_connector("plain")))
    world.scene.tenant["spec"]["agent"] |= {"budgetUSD": "0.0000021", "approvalFor": "10m"}
    world.scene.connectors[0]["spec"] |= {
        "tools": {"approvals": [{"match": "issue.delete"}, {"match": "user.*", "by": "Group", "group": "it"}]},
        "resilience": {
            "breaker": {
                "windowType": "Time",
                "window": 60,
                "minimumCalls": 100,
                "failureRatePercent": 30,
                "slowCallAfter": "1500ms",
                "slowCallRatePercent": 60,
                "openFor": "1m",
                "halfOpenCalls": 2,
                "halfOpenFor": "15s",
            }
        },
    }
    world.step()

    config = world.config()
    assert config.agent.run_budget_micros == 3  # rounded up: never to none
    assert config.agent.approval_seconds == 600
    jira, plain = config.connectors
    assert jira.approvals == (ApprovalRule(match="issue.delete"), ApprovalRule(match="user.*", by="Group", group="it"))
    assert jira.breaker == BreakerConfig(
        window_type="Time",
        window=60,
        minimum_calls=100,
        failure_rate_percent=30,
        slow_call_seconds=1.5,
        slow_call_rate_percent=60,
        open_seconds=60,
        half_open_calls=2,
        half_open_seconds=15,
    )
    # and what they leave open is what the worker takes for it
    assert plain.breaker == BreakerConfig()
    assert plain.approvals == ()
    bare = World(tenant("acme"))
    bare.step()
    assert bare.config().agent == AgentConfig(instructions="You help.")


def test_a_worker_has_the_time_to_hand_its_runs_over() -> None:
    world = World(tenant("acme"))
    world.step()
    assert world.children["Deployment"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > 35


def test_ready_only_when_every_worker_reports_exactly_this_configuration() -> None:
    world = World(tenant("acme", with_connector("jira"), with_replicas(2)))
    assert not world.step().settled
    assert world.condition("Ready")["reason"] == "WorkersNotReady"

    world.run_workers(2)
    world.reports["w1"] = WorkerReport("sha256:0000000000000000", "acme")
    assert not world.step().settled
    config_hash = world.scene.tenant["status"]["configHash"]
    assert world.condition("Ready")["status"] == "False"
    assert world.condition("Ready")["message"] == f"1 of 2 workers run configuration {config_hash}"
    assert world.condition("Ready", world.scene.connectors[0])["status"] == "False"

    world.reports["w1"] = WorkerReport(config_hash, "acme")
    assert world.step().settled
    assert world.condition("Ready")["status"] == "True"
    assert world.scene.tenant["status"]["readyWorkers"] == 2
    assert world.condition("Ready", world.scene.connectors[0])["status"] == "True"


@pytest.mark.parametrize(
    "break_it",
    [
        pytest.param(lambda w: w.reports.update(w0=WorkerReport(error="UNAVAILABLE: refused")), id="unreachable"),
        pytest.param(
            lambda w: w.reports.update(w0=WorkerReport(w.scene.tenant["status"]["configHash"], "globex")),
            id="another tenant's worker at that address",
        ),
        pytest.param(lambda w: w.reports.clear(), id="not asked"),
        pytest.param(lambda w: w.children["Deployment"]["metadata"].update(generation=9), id="rollout not observed"),
        pytest.param(lambda w: w.children["Deployment"]["status"].update(replicas=2), id="an old worker is left"),
        pytest.param(lambda w: w.children.pop("Deployment"), id="Deployment deleted"),
    ],
)
def test_not_ready_when(break_it: Any) -> None:
    world = ready_world()
    break_it(world)
    decision = world.step()
    assert not decision.settled
    assert world.condition("Ready")["status"] == "False"


def test_a_worker_of_an_earlier_revision_is_stale() -> None:
    world = ready_world()
    world.scene.tenant["spec"]["agent"]["instructions"] = "You help more."
    world.scene.tenant["metadata"]["generation"] = 2
    decision = world.step()
    assert {child["kind"] for child in decision.children} == {"Secret", "Deployment"}
    assert world.condition("Ready")["status"] == "False"


def test_with_nothing_to_change_nothing_is_written() -> None:
    world = ready_world(with_connector("jira"), workers=2)
    world.now += timedelta(hours=1)
    again = world.decide()
    assert again == Decision(creates=(), children=(), statuses=(), settled=True, watched=True)


def test_values_that_the_api_adds_are_no_change() -> None:
    world = ready_world()
    world.children["Deployment"]["spec"]["progressDeadlineSeconds"] = 600
    world.children["Deployment"]["spec"]["template"]["spec"]["containers"][0]["terminationMessagePath"] = "/dev/x"
    world.children["Service"]["spec"]["clusterIPs"] = ["None"]
    assert world.decide().children == ()


def test_drift_is_mended() -> None:
    world = ready_world()
    world.children["Deployment"]["spec"]["replicas"] = 7
    world.children["NetworkPolicy"]["spec"]["egress"].append({})
    assert [child["kind"] for child in world.decide().children] == ["NetworkPolicy", "Deployment"]


def test_a_changed_credential_changes_only_the_secret() -> None:
    world = ready_world(with_connector("jira"))
    world.scene.secrets["acme-jira-accounts"]["accounts.json"] = b'{"new@acme.example": "t"}'
    decision = world.step()
    assert [child["kind"] for child in decision.children] == ["Secret"]
    assert world.condition("Ready")["status"] == "False"


def test_a_missing_secret_is_named_and_mends_itself() -> None:
    world = World(tenant("acme", with_connector("jira", secret=False)))
    world.step()
    world.run_workers(1)
    world.step()
    jira = world.scene.connectors[0]
    assert world.condition("ResolvedRefs", jira)["reason"] == "SecretNotFound"
    assert '"acme-jira-accounts" with key "accounts.json"' in world.condition("ResolvedRefs", jira)["message"]
    assert world.condition("Ready", jira)["status"] == "False"
    # the Tenant serves what it can, and says what it does without
    assert world.config().connectors == ()
    assert world.condition("ResolvedRefs")["reason"] == "SecretNotFound"
    assert (world.condition("Ready")["status"], world.condition("Ready")["reason"]) == ("True", "WithoutConnectors")

    world.scene.secrets["acme-jira-accounts"] = {"token": b"x"}
    world.step()
    assert 'no key "accounts.json"' in world.condition("ResolvedRefs", jira)["message"]

    world.scene.secrets["acme-jira-accounts"] = {"accounts.json": b"{}"}
    world.step()
    world.run_workers(1)
    world.step()
    assert world.condition("Ready", jira)["status"] == "True"
    assert world.condition("Ready")["reason"] == "AsSpecified"


def test_accounts_that_are_not_json_are_left_out_before_a_worker_reads_them() -> None:
    world = World(tenant("acme", with_connector("jira")))
    world.scene.secrets["acme-jira-accounts"]["accounts.json"] = b"not json"
    world.step()
    assert world.condition("ResolvedRefs", world.scene.connectors[0])["reason"] == "SecretInvalid"
    assert world.config().connectors == ()


def test_without_a_route_nothing_is_made_and_what_runs_goes_on() -> None:
    fresh = World(tenant("acme", without_route()))
    assert fresh.step().children == ()
    assert fresh.condition("Ready")["reason"] == "ModelRouteNotFound"

    running = ready_world()
    running.scene.route = None
    decision = running.step()
    assert decision.children == ()
    assert running.condition("ResolvedRefs")["reason"] == "ModelRouteNotFound"
    assert running.scene.tenant["status"]["configHash"].startswith("sha256:")


def test_a_missing_provider_key_keeps_the_tenant_unready() -> None:
    world = World(tenant("acme", with_provider_key("anthropic", None)))
    assert world.step().children == ()
    assert world.condition("Ready")["reason"] == "SecretNotFound"
    world.scene.secrets["anthropic"] = {"api-key": b"sk"}
    world.step()
    assert world.files()["secret.anthropic.api-key"] == b"sk"


def test_connectors_of_a_tenant_that_is_gone_say_so() -> None:
    world = ready_world(with_connector("jira"))
    world.exists = False
    decision = world.step()
    jira = world.scene.connectors[0]
    assert decision.children == ()
    assert world.condition("Accepted", jira)["reason"] == "TenantNotFound"
    assert world.condition("Ready", jira)["status"] == "False"
    assert world.decide().statuses == ()


def test_an_invalid_tenant_changes_nothing_that_runs() -> None:
    world = ready_world()
    del world.scene.tenant["spec"]["displayName"]
    assert world.step().children == ()
    assert world.condition("Accepted")["reason"] == "Invalid"
    assert "displayName" in world.condition("Accepted")["message"]


def test_a_transition_time_moves_only_with_the_status() -> None:
    world = ready_world(workers=2)
    since = world.condition("Ready")["lastTransitionTime"]
    world.now += timedelta(minutes=5)
    world.reports["w0"] = WorkerReport(error="UNAVAILABLE")
    world.step()
    assert world.condition("Ready")["lastTransitionTime"] == "2026-11-23T12:05:00Z"
    assert world.condition("Accepted")["lastTransitionTime"] == since


def test_the_network_policy_opens_only_what_the_configuration_names() -> None:
    world = World(tenant("acme", with_connector("jira")))
    world.scene.connectors[0]["spec"]["url"] = "https://acme.example/jira"
    world.step()
    spec = world.children["NetworkPolicy"]["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    opened = [(rule["to"][0], rule["ports"][0]["port"]) for rule in spec["egress"][1:]]
    assert ({"ipBlock": {"cidr": "127.0.0.1/32"}}, 6390) in opened
    assert ({"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.169.254/32"]}}, 443) in opened
    inside = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "pilothouse-sim"}}}
    assert (inside, 8080) in opened
    stores = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "stores"}}}
    assert (stores, 5433) in opened
    assert (stores, 5432) in opened
    assert len(opened) == 5


def test_polling_begins_fast_and_backs_off() -> None:
    delays = [poll_delay(tries, True) for tries in range(1, 40)]
    assert delays[0] == 0.3
    assert delays == sorted(delays)
    assert delays[-1] == 5.0
    assert poll_delay(1, False) == 15.0  # a worker that becomes ready is an event
