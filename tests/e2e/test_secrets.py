"""After the demo on the whole stack, no credential is found in any log, any object of the API server but Secrets, any
row or any key: the operator's side of ``tests/integration/test_secret_leaks.py``."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest

from pilothouse_api.names import DEV_TOKEN_SECRET, SYSTEM_NAMESPACE
from pilothouse_local import demo_tenant, vault
from pilothouse_local.deploy import SIM_NAMESPACE, Kubectl
from pilothouse_testing.cluster import LocalCluster
from pilothouse_testing.leaks import Planted, files_dump, postgres_dump, redis_dump
from pilothouse_testing.stack import EMPLOYEE, TENANT, Demonstrated

pytestmark = pytest.mark.timeout(600)


def tokens(cluster: LocalCluster) -> dict[str, str]:
    """The tokens that people have linked, by what they are: OpenBao alone has them in the clear."""
    api = vault.opened(cluster.instance, cluster.settings())
    users = f"{vault.MOUNT}/metadata/{TENANT}/{TENANT}/users"
    found: dict[str, str] = {}
    for user in _keys(api, users):
        for connector in _keys(api, f"{users}/{user.rstrip('/')}"):
            path = f"{users}/{user.rstrip('/')}/{connector}".replace("/metadata/", "/data/")
            kept = (api.request("GET", path) or {})["data"]["data"]
            for name in ("access_token", "refresh_token"):
                if kept.get(name):
                    found[f"{connector} {name} of {user}"] = kept[name]
    return found


def _keys(api: Any, path: str) -> list[str]:
    return list(((api.request("LIST", path, missing=True) or {}).get("data") or {}).get("keys") or [])


def objects(kubectl: Kubectl) -> dict[str, bytes]:
    """Every object of every kind, Secrets left out: these are where the local cluster's own passwords belong."""
    kinds = kubectl.run("api-resources", "--verbs=list", "--output=name").split()
    return {
        f"objects {kind}": kubectl.run("get", kind, "--all-namespaces", "--output=json", "--ignore-not-found").encode()
        for kind in kinds
        if kind != "secrets"
    }


def test_nothing_of_the_demos_credentials_is_left_lying_about(demonstrated: Demonstrated) -> None:
    # given a stack in which people have linked accounts and asked, and all that authenticates there
    cluster, said = demonstrated
    settings, kubectl, planted = cluster.settings(), Kubectl(cluster.kubeconfig), Planted()
    for secret, keys in demo_tenant.vault_secrets().items():
        for key, value in keys.items():
            if key != "client-id":
                planted.add(f"{secret} {key}", value)
    linked = tokens(cluster)
    assert any(name.startswith("okta access_token") for name in linked)
    assert any(name.startswith("servicenow refresh_token") for name in linked)
    for name, value in linked.items():
        planted.add(name, value)
    key = json.loads(kubectl.run("get", "secret", "-n", SYSTEM_NAMESPACE, DEV_TOKEN_SECRET, "-o", "json"))["data"]
    planted.add("signing key", base64.b64decode(key["signing-key"]))
    planted.add("worker's database password", settings.worker_database_password)
    planted.add("owner's database password", settings.application_password)
    planted.add("Redis password", settings.redis_password)
    # when everything is searched that a person or a program may look at
    places = {
        "demo": said.partition("#token=")[0].encode(),  # the link at its end signs in, and says so
        **files_dump("log", cluster.instance.root, "*.log", "*.log.*"),
        **objects(kubectl),
        **asyncio.run(redis_dump(settings.redis_url())),
        **asyncio.run(postgres_dump(settings.superuser_url("pilothouse"))),
    }
    # then there is none of it
    leaks = planted.found(places)
    assert leaks == [], "\n".join(map(str, leaks))
    # and what is no secret is found in each kind of place, so that the search was not blind
    for place, word in {
        "log": TENANT, "objects connectors": "acme-jira-oauth", "objects events": TENANT, "redis": EMPLOYEE,
        "postgres": EMPLOYEE, "objects pods": SIM_NAMESPACE, "demo": EMPLOYEE,
    }.items():  # fmt: skip
        assert any(word.encode() in content for name, content in places.items() if name.startswith(place)), place
