"""Probes, restarts, status and names: what the node decides."""

from __future__ import annotations

from typing import Any

import pytest

from pilothouse_local.node import routing
from pilothouse_local.node.__main__ import parse
from pilothouse_local.node.model import ContainerState, Running, Terminated, Waiting
from pilothouse_local.node.probes import EAGER_SECONDS, ProbeSettings, ProbeState
from pilothouse_local.node.restarts import Backoff, should_restart
from pilothouse_local.node.status import pod_status

NOW, LATER = "2026-11-23T00:00:00Z", "2026-11-23T00:01:00Z"


def pod(name: str = "p", ready: bool = True, ip: str = "127.9.0.1", app: str = "web", **meta: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "namespace": "acme",
            "uid": name,
            "labels": {"app": app},
            "creationTimestamp": NOW,
            **meta,
        },
        "spec": {"containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {"podIP": ip, "conditions": [{"type": "Ready", "status": "True" if ready else "False"}]},
    }


def service(name: str = "web", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "acme"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}], **spec},
    }


def container(**fields: Any) -> ContainerState:
    return ContainerState("c", "pilothouse", **fields)


def ended(code: int) -> Terminated:
    return Terminated(code, "Error" if code else "Completed", NOW, NOW, "pilothouse://1")


def test_probe_defaults_are_the_apis() -> None:
    assert ProbeSettings.of({}) == ProbeSettings(0, 10, 1, 1, 3)


def test_probe_counts_failures_once_a_period() -> None:
    state = ProbeState(ProbeSettings(0, 10, 1, 1, 2))
    assert [state.observe(False, now) for now in (0.0, 0.3, 0.6, 9.5)] == [False, False, False, True]
    assert state.healthy is False
    assert state.observe(True, 10.0)
    assert state.healthy is True


def test_probe_is_eager_until_it_first_succeeds() -> None:
    state = ProbeState(ProbeSettings(0, 10, 1, 1, 3))
    assert state.next_wait(eager=True) == EAGER_SECONDS
    assert state.next_wait(eager=False) == 10
    state.observe(True, 0.0)
    assert state.next_wait(eager=True) == 10


def test_success_threshold() -> None:
    state = ProbeState(ProbeSettings(0, 1, 1, 2, 1))
    assert not state.observe(True, 0)
    assert state.observe(True, 1)
    assert state.healthy is True


@pytest.mark.parametrize(
    ("policy", "code", "again"),
    [("Always", 0, True), ("Always", 1, True), ("OnFailure", 0, False), ("OnFailure", 1, True), ("Never", 1, False)],
)
def test_restart_policy(policy: str, code: int, again: bool) -> None:
    assert should_restart(policy, code) is again


def test_backoff_doubles_and_forgives() -> None:
    backoff = Backoff()
    assert [backoff.next_delay(0.1) for _ in range(9)] == [0, 1, 2, 4, 8, 16, 32, 60, 60]
    assert backoff.next_delay(130) == 0


@pytest.mark.parametrize(
    ("init", "main", "phase"),
    [
        ([], [container()], "Pending"),
        ([], [container(state=Running(NOW))], "Running"),
        ([], [container(state=Waiting("CrashLoopBackOff"), last=ended(1))], "Running"),
        ([], [container(state=ended(0), finished=True)], "Succeeded"),
        ([], [container(state=ended(3), finished=True)], "Failed"),
        ([container(state=ended(1), finished=True)], [container()], "Failed"),
        ([container(state=Running(NOW))], [container()], "Pending"),
    ],
)
def test_phase(init: list[ContainerState], main: list[ContainerState], phase: str) -> None:
    assert pod_status(pod(), init, main, "127.9.0.1", NOW, NOW)["phase"] == phase


def test_conditions_keep_their_time_until_they_change() -> None:
    running = container(state=Running(NOW), started=True)
    first = pod_status({**pod(), "status": {}}, [], [running], "127.9.0.1", NOW, NOW)
    running.ready = True
    second = pod_status({**pod(), "status": first}, [], [running], "127.9.0.1", NOW, LATER)
    times = {c["type"]: (c["status"], c["lastTransitionTime"]) for c in second["conditions"]}
    assert times["PodScheduled"] == ("True", NOW)
    assert times["Ready"] == ("True", LATER)
    third = pod_status({**pod(), "status": second}, [], [running], "127.9.0.1", NOW, "2026-11-23T00:02:00Z")
    assert third == second


def test_readiness_gates_and_others_conditions_are_kept() -> None:
    subject = pod()
    subject["spec"]["readinessGates"] = [{"conditionType": "example.com/open"}]
    running = container(state=Running(NOW), ready=True, started=True)
    status = pod_status(subject, [], [running], "127.9.0.1", NOW, NOW)
    assert {c["type"]: c["status"] for c in status["conditions"]}["Ready"] == "False"
    subject["status"] = {"conditions": [{"type": "example.com/open", "status": "True", "lastTransitionTime": NOW}]}
    status = pod_status(subject, [], [running], "127.9.0.1", NOW, NOW)
    found = {c["type"]: c["status"] for c in status["conditions"]}
    assert found["Ready"] == found["example.com/open"] == "True"


def test_services_resolve_to_ready_pods() -> None:
    pods = [pod("a", ready=False, ip="127.9.0.1"), pod("b", ip="127.9.0.2"), pod("c", ip="127.9.0.3", app="x")]
    assert routing.addresses([service()], pods, {}) == {("acme", "web"): "127.9.0.2"}
    leaving = [pod("b", ip="127.9.0.2", deletionTimestamp=NOW)]
    assert routing.addresses([service()], leaving, {}) == {}


def test_services_that_no_pod_serves_have_the_address_they_are_given() -> None:
    fixed = {("default", "kubernetes"): "127.0.0.1", ("acme", "web"): "127.9.255.255"}
    assert routing.addresses([service()], [pod(ip="127.9.0.2")], fixed) == fixed
    assert routing.addresses([], [], fixed) == fixed


def test_the_nodes_command_line_names_such_services() -> None:
    given = ["--kubeconfig=k", "--state=s", "--pod-octet=9", "--listen=127.0.0.1:1", "--tls-cert=c", "--tls-key=k"]
    given.append("--client-ca=ca")
    assert parse([*given, "--service=acme/web=127.9.255.255"]).services == {("acme", "web"): "127.9.255.255"}
    for wrong in ("web=127.9.255.255", "acme/web", "acme/=1", "/web=1", "acme/web="):
        with pytest.raises(SystemExit):
            parse([*given, f"--service={wrong}"])


def test_hosts_file_names() -> None:
    text = routing.hosts_file(pod(), "127.9.0.1", {("acme", "web"): "127.9.0.2", ("sim", "jira"): "127.9.0.3"})
    assert "127.9.0.2\tweb.acme.svc.cluster.local web.acme.svc web.acme web\n" in text
    assert "127.9.0.3\tjira.sim.svc.cluster.local jira.sim.svc jira.sim\n" in text
    assert "127.9.0.1\tp\n" in text


def test_node_ports_reach_named_ports() -> None:
    port = {"port": 80, "targetPort": "http", "nodePort": 30080}
    exposed = service(ports=[port])
    assert routing.node_ports([exposed]) == {30080: (("acme", "web"), port)}
    assert routing.targets(exposed, port, [pod("a"), pod("b", ip="127.9.0.2")]) == [
        ("127.9.0.1", 8080),
        ("127.9.0.2", 8080),
    ]
    assert routing.targets(exposed, {**port, "targetPort": "none"}, [pod()]) == []
