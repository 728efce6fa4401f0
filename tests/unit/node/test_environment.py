"""Command lines, environment variables and volumes, without an API server."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from pilothouse_local.node import environment, projection
from pilothouse_local.node.model import ContainerRefused

POD: dict[str, Any] = {
    "metadata": {"name": "web-0", "namespace": "acme", "uid": "u1", "labels": {"app": "web"}, "annotations": {}},
    "spec": {"serviceAccountName": "robot", "nodeName": "n1", "containers": [{"name": "c"}]},
}
OBJECTS: dict[tuple[str, str], dict[str, Any]] = {
    ("ConfigMap", "conf"): {"data": {"a": "1", "b": "2"}, "binaryData": {"raw": base64.b64encode(b"\x00").decode()}},
    ("Secret", "keys"): {"data": {"token": base64.b64encode(b"s3cret").decode()}},
}


def lookup(kind: str, name: str) -> dict[str, Any] | None:
    return OBJECTS.get((kind, name))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("$(A)-$(B)", "1-$(B)"), ("$$(A)", "$(A)"), ("$A", "$A"), ("$$$(A)", "$1"), ("$(A", "$(A"), ("", "")],
)
def test_expansion_follows_kubernetes(text: str, expected: str) -> None:
    assert environment.expand(text, {"A": "1"}) == expected


@pytest.mark.parametrize(
    ("image", "local"),
    [
        ("pilothouse", True),
        ("pilothouse-worker:dev", True),
        ("ghcr.io/x/pilothouse-gateway@sha256:00", True),
        ("nginx", False),
        ("pilothouse.dev/nginx", False),
    ],
)
def test_only_our_images_run(image: str, local: bool) -> None:
    assert environment.image_is_local(image) is local
    if not local:
        with pytest.raises(ContainerRefused, match="pilothouse") as refused:
            environment.check_image(image)
        assert refused.value.reason == "ErrImagePull"


def test_environment_from_every_source() -> None:
    container = {
        "envFrom": [
            {"configMapRef": {"name": "conf"}, "prefix": "C_"},
            {"secretRef": {"name": "none", "optional": True}},
        ],
        "env": [
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "SA", "valueFrom": {"fieldRef": {"fieldPath": "spec.serviceAccountName"}}},
            {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
            {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "token"}}},
            {"name": "LATER", "value": "http://$(IP):$(C_a)"},
            {"name": "ABSENT", "valueFrom": {"configMapKeyRef": {"name": "conf", "key": "zz", "optional": True}}},
            {"name": "MEMORY", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory"}}},
        ],
    }
    env = environment.build(POD, container, lookup, {"PATH": "/bin"}, "127.9.0.1")
    assert env["LATER"] == "http://127.9.0.1:1"
    assert (env["SA"], env["APP"], env["TOKEN"], env["PATH"], env["MEMORY"]) == ("robot", "web", "s3cret", "/bin", "0")
    assert "ABSENT" not in env


@pytest.mark.parametrize(
    "source",
    [
        {"secretKeyRef": {"name": "none", "key": "k"}},
        {"secretKeyRef": {"name": "keys", "key": "none"}},
        {"fieldRef": {"fieldPath": "spec.nothing"}},
    ],
)
def test_what_is_missing_is_named(source: dict[str, Any]) -> None:
    with pytest.raises(ContainerRefused) as refused:
        environment.build(POD, {"env": [{"name": "X", "valueFrom": source}]}, lookup, {}, "127.9.0.1")
    assert refused.value.reason == "CreateContainerConfigError"


def test_no_command_is_refused() -> None:
    with pytest.raises(ContainerRefused, match="no entrypoint"):
        environment.command_line({}, {})


def test_projected_volume_joins_its_sources() -> None:
    want = projection.TokenWant("", 600)
    volume = {
        "name": "v",
        "projected": {
            "defaultMode": 0o400,
            "sources": [
                {"serviceAccountToken": {"path": "token", "expirationSeconds": 600}},
                {"configMap": {"name": "conf", "items": [{"key": "a", "path": "deep/a", "mode": 0o640}]}},
                {"downwardAPI": {"items": [{"path": "ns", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
            ],
        },
    }
    assert projection.wanted_tokens(volume) == {want}
    files = projection.render(POD, volume, lookup, {want: "jwt"}, "127.9.0.1")
    assert files == {
        "token": projection.File(b"jwt", 0o400),
        "deep/a": projection.File(b"1", 0o640),
        "ns": projection.File(b"acme", 0o400),
    }


def test_missing_and_optional_volumes() -> None:
    optional = {"name": "v", "secret": {"secretName": "none", "optional": True}}
    assert projection.render(POD, optional, lookup, {}, "") == {}
    with pytest.raises(ContainerRefused, match='secret "none" not found'):
        projection.render(POD, {"name": "v", "secret": {"secretName": "none"}}, lookup, {}, "")
    with pytest.raises(ContainerRefused, match="hostPath"):
        projection.render(POD, {"name": "v", "hostPath": {"path": "/"}}, lookup, {}, "")


def test_paths_stay_in_their_volume() -> None:
    volume = {"name": "v", "configMap": {"name": "conf", "items": [{"key": "a", "path": "../../etc/passwd"}]}}
    with pytest.raises(ContainerRefused, match="leaves its volume"):
        projection.render(POD, volume, lookup, {}, "")
