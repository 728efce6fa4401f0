"""The overlays: what `kubectl apply -k` would install. Rendered by the kubectl that comes with the environment."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from pilothouse_api.egress import EgressRule, refused_url
from pilothouse_local import deploy, vault
from pilothouse_local.deploy import SIM_NAMESPACE, Kubectl

OVERLAYS = {"local": ("pilothouse:local", "Never"), "kind": ("pilothouse:dev", "IfNotPresent")}


@functools.cache
def rendered(overlay: str) -> list[dict[str, Any]]:
    return deploy.render_overlay(Kubectl(None), overlay)


def deployments(overlay: str) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in rendered(overlay) if one["kind"] == "Deployment"}


def env_of(overlay: str, name: str) -> dict[str, Any]:
    container = deployments(overlay)[name]["spec"]["template"]["spec"]["containers"][0]
    assert len({entry["name"] for entry in container["env"]}) == len(container["env"])
    return {entry["name"]: entry.get("value") for entry in container["env"]}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_stand_in_has_its_own_service(overlay: str) -> None:
    standins = {
        name: one for name, one in deployments(overlay).items() if one["metadata"]["namespace"] == SIM_NAMESPACE
    }
    services = {
        one["metadata"]["name"]: one
        for one in rendered(overlay)
        if one["kind"] == "Service" and one["metadata"]["namespace"] == SIM_NAMESPACE
    }

    assert set(standins) == {"jira", "models", "servicenow", "salesforce", "okta"}
    assert set(services) == set(standins)
    for name, one in standins.items():
        labels = one["spec"]["template"]["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == name
        # One that selects more than its own Pods would answer as another system.
        assert services[name]["spec"]["selector"] == {"app.kubernetes.io/name": name}
        assert one["spec"]["selector"]["matchLabels"] == {"app.kubernetes.io/name": name}


@pytest.mark.parametrize(("overlay", "image", "pull"), [(name, *rest) for name, rest in OVERLAYS.items()])
def test_every_container_runs_the_overlays_image(overlay: str, image: str, pull: str) -> None:
    for one in deployments(overlay).values():
        (container,) = one["spec"]["template"]["spec"]["containers"]
        assert (container["image"], container["imagePullPolicy"]) == (image, pull)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_operator_and_gateway_know_who_may_be_called_and_where_people_come_in(overlay: str) -> None:
    operator, gateway = env_of(overlay, "pilothouse-operator"), env_of(overlay, "pilothouse-gateway")

    rule = EgressRule(allow_hosts=tuple(operator["PILOTHOUSE_EGRESS_ALLOW_HOSTS"].split(",")))
    assert refused_url("http://jira.pilothouse-sim.svc:8080", rule) is None
    assert refused_url("http://jira.pilothouse-sim.localhost:30181/authorize", rule) is None
    for inside in ("http://127.0.0.1:30181", "http://localhost:30181", "http://acme-worker.acme.svc:9090"):
        assert refused_url(inside, rule)
    assert operator["PILOTHOUSE_VAULT_ADDRESSES"] == vault.ADDRESS
    assert operator[deploy.PUBLIC_URL] == gateway[deploy.PUBLIC_URL]
    assert gateway[deploy.PUBLIC_URL].startswith("http://127.0.0.1:")


def test_the_gateways_address_goes_with_its_node_port() -> None:
    objects = deploy.render_overlay(Kubectl(None), "local")

    moved = {str(port): port + 1000 for port in deploy.node_ports(objects)}
    deploy.move_node_ports(objects, {**moved, "30080": 31234})

    found = [
        entry["value"]
        for one in objects
        if one["kind"] == "Deployment"
        for entry in one["spec"]["template"]["spec"]["containers"][0]["env"]
        if entry["name"] == deploy.PUBLIC_URL
    ]
    assert found == ["http://127.0.0.1:31234"] * 2
