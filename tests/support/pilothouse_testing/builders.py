"""Builders of the kinds as the API gives them: ``tenant("acme", with_connector("jira"))`` gives all objects of a scene.

A modifier takes the scene and changes it; modifiers compose in the order in which they are given.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pilothouse_api import names

Json = dict[str, Any]
DEMO_ACCOUNTS = {"employee@acme.example": "jira-token-employee"}


@dataclass
class Scene:
    """The objects of one namespace: a Tenant and what belongs to it."""

    tenant: Json
    route: Json | None = None
    connectors: list[Json] = field(default_factory=list)
    secrets: dict[str, dict[str, bytes]] = field(default_factory=dict)
    config_maps: dict[str, dict[str, bytes]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The Tenant's name."""
        return str(self.tenant["metadata"]["name"])

    @property
    def namespace(self) -> str:
        """The namespace of everything."""
        return str(self.tenant["metadata"]["namespace"])

    def objects(self) -> list[Json]:
        """Everything as manifests, in an order in which it can be applied."""
        secrets = [secret(name, self.namespace, content) for name, content in self.secrets.items()]
        secrets += [config_map(name, self.namespace, content) for name, content in self.config_maps.items()]
        route = [self.route] if self.route is not None else []
        return [*secrets, *route, *self.connectors, self.tenant]


Modifier = Callable[[Scene], None]


def _object(kind: str, name: str, namespace: str, spec: Json) -> Json:
    meta = {"name": name, "namespace": namespace, "uid": f"uid-{kind}-{name}", "generation": 1, "resourceVersion": "1"}
    return {"apiVersion": names.API_VERSION, "kind": kind, "metadata": meta, "spec": spec}


def secret(name: str, namespace: str, content: dict[str, bytes]) -> Json:
    """A Secret."""
    data = {key: base64.b64encode(value).decode() for key, value in content.items()}
    meta = {"name": name, "namespace": namespace, "resourceVersion": "1"}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "type": "Opaque", "data": data}


def config_map(name: str, namespace: str, content: dict[str, bytes]) -> Json:
    """A ConfigMap of texts."""
    data = {key: value.decode() for key, value in content.items()}
    meta = {"name": name, "namespace": namespace, "resourceVersion": "1"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


def tenant(name: str, *modifiers: Modifier, namespace: str | None = None) -> Scene:
    """A Tenant with its ModelRoute ``standard``, whose models want no key, and what the modifiers add."""
    place = namespace or name
    spec = {
        "displayName": name.capitalize(),
        "agent": {"modelRouteRef": {"name": "standard"}, "instructions": "You help.", "maxSteps": 8, "deadline": "30s"},
        "workers": {"minReplicas": 1, "maxReplicas": 4},
    }
    scene = Scene(_object("Tenant", name, place, spec), model_route("standard", place))
    for modify in modifiers:
        modify(scene)
    return scene


def model_route(name: str, namespace: str) -> Json:
    """A ModelRoute with one provider and one tier."""
    target = {"provider": "local", "model": "llama-3-8b", "pricePer1K": {"input": "0.002", "output": "0.002"}}
    spec = {
        "providers": [{"name": "local", "type": "OpenAI", "baseURL": "http://models.pilothouse-sim.svc:8080/v1"}],
        "tiers": {"mid": {"targets": [target]}},
        "routing": {"strategy": "Complexity", "default": "mid"},
        "fallback": ["mid"],
    }
    return _object("ModelRoute", name, namespace, spec)


def connector(name: str, tenant_name: str, namespace: str) -> Json:
    """A Jira Connector whose users' accounts are linked by an administrator."""
    spec = {
        "tenantRef": {"name": tenant_name},
        "type": "jira",
        "url": "http://jira.pilothouse-sim.svc:8080",
        "auth": {
            "mode": "UserOAuth",
            "oauth": {"linkedAccountsSecretRef": {"name": f"{tenant_name}-{name}-accounts"}},
        },
    }
    return _object("Connector", name, namespace, spec)


def with_connector(name: str, *, secret: bool = True) -> Modifier:
    """Adds a Jira Connector, and the Secret that it needs unless ``secret`` is False."""

    def modify(scene: Scene) -> None:
        scene.connectors.append(connector(name, scene.name, scene.namespace))
        if secret:
            content = json.dumps(DEMO_ACCOUNTS).encode()
            scene.secrets[f"{scene.name}-{name}-accounts"] = {"accounts.json": content}

    return modify


def with_system(name: str, *, content: dict[str, dict[str, bytes]] | None = None, **spec: Any) -> Modifier:
    """Adds a Connector with these fields over those of ``connector``, and Secrets with this content."""

    def modify(scene: Scene) -> None:
        raw = connector(name, scene.name, scene.namespace)
        raw["spec"] |= spec
        scene.connectors.append(raw)
        scene.secrets |= content or {}

    return modify


def with_oauth(name: str, type_: str, url: str, **oauth: Any) -> Modifier:
    """Adds a Connector whose users link accounts themselves, with the OAuth app's Secret."""
    app = f"{name}-oauth"
    auth = {"mode": "UserOAuth", "oauth": {"clientSecretRef": {"name": app}, **oauth}}
    content = {app: {"client-id": b"pilothouse", "client-secret": b"planted-" + name.encode()}}
    return with_system(name, content=content, type=type_, url=url, auth=auth)


def with_vault(address: str = "https://vault.example:8200", **vault: Any) -> Modifier:
    """Puts the credentials into Vault."""

    def modify(scene: Scene) -> None:
        spec = {"address": address, "role": scene.name, **vault}
        scene.tenant["spec"]["credentials"] = {"backend": "Vault", "vault": spec}

    return modify


def with_replicas(count: int) -> Modifier:
    """Sets the least number of workers."""

    def modify(scene: Scene) -> None:
        scene.tenant["spec"]["workers"]["minReplicas"] = count

    return modify


def with_provider_key(secret_name: str, key: bytes | None = b"sk-test") -> Modifier:
    """Makes the route's provider want a key; ``key=None`` leaves the Secret out."""

    def modify(scene: Scene) -> None:
        if scene.route is None:
            raise AssertionError("the scene has no ModelRoute")
        scene.route["spec"]["providers"][0]["credentialsSecretRef"] = {"name": secret_name}
        if key is not None:
            scene.secrets[secret_name] = {"api-key": key}

    return modify


def without_route() -> Modifier:
    """Leaves the ModelRoute out."""

    def modify(scene: Scene) -> None:
        scene.route = None

    return modify
