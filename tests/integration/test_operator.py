"""The operator against a real API server, controller manager and node, with the rights that the chart gives it."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from pilothouse_api import Tenant
from pilothouse_local.instance import Settings
from pilothouse_local.vault import token_file
from pilothouse_operator.io.vault import RoleTakenError, Vault, VaultError, VaultLogin
from pilothouse_operator.manifests.vault import VaultAccess, access
from pilothouse_testing.builders import Json, Scene, config_map, tenant, with_connector, with_system, with_vault
from pilothouse_testing.cluster import LocalCluster

pytestmark = pytest.mark.timeout(900)  # the first run on a machine may have to build Kubernetes

ROOT = Path(__file__).resolve().parents[2]
FOR_VAULT = ("--audience", "vault", "--duration", "1h")
RIGHTS = ("Namespace", "ServiceAccount", "ClusterRole", "ClusterRoleBinding")


class Kubectl:
    """kubectl with one kubeconfig."""

    def __init__(self, kubeconfig: Path) -> None:
        self._env = {**os.environ, "KUBECONFIG": str(kubeconfig)}

    def __call__(self, *arguments: str, given: str | None = None, check: bool = True) -> str:
        command = [str(Path(sys.executable).parent / "kubectl"), *arguments]
        ran = subprocess.run(
            command, env=self._env, input=given, capture_output=True, text=True, check=False, timeout=120
        )
        assert ran.returncode == 0 or not check, f"{' '.join(arguments)}: {ran.stderr}"
        return ran.stdout

    def apply(self, *objects: Json) -> None:
        for raw in objects:
            meta = {key: raw["metadata"][key] for key in ("name", "namespace") if key in raw["metadata"]}
            self("apply", "-f", "-", given=json.dumps({**raw, "metadata": meta} if "namespace" in meta else raw))

    def get(self, kind: str, name: str, namespace: str) -> Json | None:
        text = self("get", kind, name, "-n", namespace, "-o", "json", "--ignore-not-found")
        found: Json | None = json.loads(text) if text.strip() else None
        return found

    def condition(self, kind: str, name: str, namespace: str, type_: str) -> tuple[str, str]:
        """Status and reason; empty before the operator has said anything."""
        status: dict[str, Any] = (self.get(kind, name, namespace) or {}).get("status") or {}
        for found in status.get("conditions") or []:
            if found["type"] == type_:
                return found["status"], found["reason"]
        return "", ""


def eventually(condition: Callable[[], bool], what: str, seconds: float = 60) -> float:
    """Seconds until the condition held."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, f"not within {seconds} s: {what}"
        time.sleep(0.1)
    return time.monotonic() - start


def writes(kubectl: Kubectl) -> float:
    """Requests that the API server was sent to change one of our objects or their children."""
    ours = ("tenants", "connectors", "modelroutes", "secrets", "services", "serviceaccounts", "networkpolicies")
    changing = tuple(f'verb="{verb}"' for verb in ("APPLY", "PATCH", "POST"))
    total = 0.0
    for line in kubectl("get", "--raw", "/metrics").splitlines():
        if line.startswith("apiserver_request_total") and any(verb in line for verb in changing):
            total += float(line.rsplit(" ", 1)[1]) if any(f'resource="{name}"' in line for name in ours) else 0
    return total


class Operator:
    """The operator as a process of its own."""

    def __init__(self, kubeconfig: Path, stores: Settings, log: Path, vault_token: Path) -> None:
        self._env = {
            **os.environ,
            "KUBECONFIG": str(kubeconfig),
            "POD_IP": "127.0.0.1" if not sys.platform.startswith("linux") else "127.201.7.1",
            "PILOTHOUSE_WORKER_IMAGE": "pilothouse:local",
            "PILOTHOUSE_WORKER_PULL_POLICY": "Never",
            "PILOTHOUSE_WORKER_REDIS_URL": stores.redis_url(),
            "PILOTHOUSE_WORKER_DATABASE_URL": stores.database_url(),
            "PILOTHOUSE_EGRESS_ALLOW_HOSTS": "*.pilothouse-sim.svc",
            "PILOTHOUSE_VAULT_ADDRESSES": stores.vault_url(),
            "PILOTHOUSE_VAULT_TOKEN_FILE": str(vault_token),
        }
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as out:
            command = [sys.executable, "-m", "pilothouse_operator"]
            self._process = subprocess.Popen(command, env=self._env, stdout=out, stderr=out)

    def stop(self) -> int:
        """Exit status after SIGTERM."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(20)


@pytest.fixture(scope="module")
def kubectl(kubeconfig: Path) -> Kubectl:
    return Kubectl(kubeconfig)


@pytest.fixture(scope="module")
def operator(
    core_cluster: LocalCluster, kubectl: Kubectl, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Operator]:
    installed = yaml.safe_load_all((ROOT / "charts" / "install.yaml").read_text())
    kubectl.apply(*sorted((o for o in installed if o["kind"] in RIGHTS), key=lambda o: RIGHTS.index(o["kind"])))
    token = kubectl("create", "token", "pilothouse-operator", "-n", "pilothouse-system", "--duration", "2h").strip()
    config = yaml.safe_load(core_cluster.kubeconfig.read_text())
    config["users"] = [{"name": user["name"], "user": {"token": token}} for user in config["users"]]
    folder = tmp_path_factory.mktemp("operator")
    mine = folder / "kubeconfig"
    mine.write_text(yaml.safe_dump(config))
    vault_token = folder / "vault-token"
    vault_token.write_text(kubectl("create", "token", "pilothouse-operator", "-n", "pilothouse-system", *FOR_VAULT))
    operator = Operator(mine, core_cluster.settings(), folder / "log", vault_token)
    operator.start()
    yield operator
    operator.stop()


@pytest.fixture
def acme(kubectl: Kubectl, operator: Operator) -> Iterator[Scene]:
    scene = tenant("acme", with_connector("jira"), namespace="operator-acme")
    kubectl("create", "namespace", scene.namespace)
    yield scene
    kubectl("delete", "namespace", scene.namespace, "--wait=false")
    eventually(lambda: kubectl("get", "pods", "-n", scene.namespace, "-o", "name") == "", "the Pods are gone")
    eventually(lambda: kubectl.get("namespace", scene.namespace, "") is None, "the namespace is gone")


def worker_files(kubectl: Kubectl, scene: Scene) -> Json:
    """What is in the workers' Secret, in base64."""
    return dict((kubectl.get("secret", "acme-worker", scene.namespace) or {}).get("data") or {})


def is_ready(kubectl: Kubectl, scene: Scene, kind: str = "tenant", name: str = "acme") -> bool:
    return kubectl.condition(kind, name, scene.namespace, "Ready")[0] == "True"


def test_a_tenants_life(kubectl: Kubectl, operator: Operator, acme: Scene) -> None:
    # given a Tenant whose Connector lacks its Secret
    kubectl.apply(*(o for o in acme.objects() if o["kind"] != "Secret"))

    # then the Connector says so and the rest is served
    eventually(lambda: is_ready(kubectl, acme), f"acme is Ready, see {operator.log.read_text()[-2000:]}")
    refused = kubectl.condition("connector", "jira", acme.namespace, "ResolvedRefs")
    assert refused == ("False", "SecretNotFound")
    assert kubectl.condition("tenant", "acme", acme.namespace, "Ready")[1] == "WithoutConnectors"

    # when the Secret appears, it mends itself, and the workers reload without a restart
    pods = kubectl("get", "pods", "-n", acme.namespace, "-o", "name")
    kubectl.apply(*(o for o in acme.objects() if o["kind"] == "Secret"))
    took = eventually(lambda: is_ready(kubectl, acme, "connector", "jira"), "the Connector is Ready")
    assert took < 10
    assert kubectl("get", "pods", "-n", acme.namespace, "-o", "name") == pods
    eventually(lambda: is_ready(kubectl, acme, "modelroute", "standard"), "the ModelRoute is Ready")
    keys = kubectl.get("secret", "acme-account-keys", acme.namespace)
    assert keys is not None
    assert len(base64.b64decode(base64.b64decode(keys["data"]["key.1"]))) == 32

    # and a worker says that nothing answers at the Connector's address
    lost = ("False", "Unreachable")
    eventually(lambda: kubectl.condition("connector", "jira", acme.namespace, "Reachable") == lost, "unreachable")
    assert kubectl.get("connector", "jira", acme.namespace)["status"]["tools"] > 0  # type: ignore[index]

    # and with nothing to change nothing is written, not even over a restart
    time.sleep(1)
    before = writes(kubectl)
    assert operator.stop() == 0
    operator.start()
    time.sleep(6)
    assert writes(kubectl) == before
    assert kubectl.get("secret", "acme-account-keys", acme.namespace) == keys

    # when a person adds a key, the workers get it beside the first
    added = {"stringData": {"key.2": base64.b64encode(b"n" * 32).decode()}}
    kubectl("patch", "secret", "acme-account-keys", "-n", acme.namespace, "-p", json.dumps(added))
    mounted = {"secret.acme-account-keys.key.1", "secret.acme-account-keys.key.2"}
    eventually(lambda: mounted <= set(worker_files(kubectl, acme)), "both keys are in the workers' Secret")

    # when a child is deleted, it comes back
    kubectl("delete", "deployment", "acme-worker", "-n", acme.namespace)
    eventually(lambda: kubectl.get("deployment", "acme-worker", acme.namespace) is not None, "the Deployment is back")
    eventually(lambda: is_ready(kubectl, acme), "acme is Ready again")

    # when the Tenant is deleted, owner references leave nothing, and its Connector says so
    kubectl("delete", "tenant", "acme", "-n", acme.namespace)
    kinds = "deployments,secrets,services,serviceaccounts,networkpolicies,poddisruptionbudgets"
    selector = ("-l", "app.kubernetes.io/managed-by=pilothouse-operator", "-o", "name")
    eventually(lambda: kubectl("get", kinds, "-n", acme.namespace, *selector) == "", "the children are gone")
    accepted = ("False", "TenantNotFound")
    eventually(lambda: kubectl.condition("connector", "jira", acme.namespace, "Accepted") == accepted, "TenantNotFound")


@pytest.mark.parametrize(
    ("verb", "resource", "allowed"),
    [
        ("get", "fleets", True),
        ("list", "deadletters", True),
        ("update", "deadletters", True),
        ("delete", "deadletters", True),
        ("update", "approvals", True),
        ("update", "breakers", True),
        ("list", "tools", True),
        ("delete", "approvals", False),
        ("get", "tenants", False),
    ],
)
def test_the_sres_account_may_what_fleet_asks_for_it_and_nothing_else(
    kubectl: Kubectl, operator: Operator, verb: str, resource: str, allowed: bool
) -> None:
    asked = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": "system:serviceaccount:pilothouse-system:pilothouse-sre",
            "resourceAttributes": {
                "group": "pilothouse.dev", "resource": resource, "verb": verb, "namespace": "acme",
            },
        },
    }  # fmt: skip

    said = json.loads(kubectl("create", "-f", "-", "-o", "json", given=json.dumps(asked)))

    assert said["status"]["allowed"] is allowed


def test_a_document_in_a_config_map_is_followed_and_an_inward_address_refused(
    kubectl: Kubectl, operator: Operator
) -> None:
    auth = {"mode": "ServiceAccount", "serviceAccount": {"tokenSecretRef": {"name": "kb"}}}
    document = {"document": {"configMapKeyRef": {"name": "docs", "key": "api.json"}}}
    content = {"kb": {"token": b"t"}}
    scene = tenant(
        "acme",
        with_system("kb", content=content, type="openapi", url="https://kb.example/v1", auth=auth, openapi=document),
        with_system("inward", url="http://169.254.169.254", auth=auth),
        namespace="operator-docs",
    )
    kubectl("create", "namespace", scene.namespace)
    try:
        kubectl.apply(*scene.objects())
        missing = ("False", "ConfigMapNotFound")
        eventually(lambda: kubectl.condition("connector", "kb", scene.namespace, "ResolvedRefs") == missing, "missing")
        denied = kubectl.condition("connector", "inward", scene.namespace, "Accepted")
        assert denied == ("False", "EgressDenied")

        for text in ("one", "two"):
            kubectl.apply(config_map("docs", scene.namespace, {"api.json": text.encode()}))
            expected = base64.b64encode(text.encode()).decode()
            took = eventually(lambda: worker_files(kubectl, scene).get("document.kb") == expected, f"document {text}")  # noqa: B023
            assert took < 10
        named = json.loads(base64.b64decode(worker_files(kubectl, scene)["config.json"]))["connectors"]
        assert [connector["name"] for connector in named] == ["kb"]
    finally:
        kubectl("delete", "namespace", scene.namespace, "--wait=false")


class Login:
    """A person or a Pod in the local OpenBao."""

    def __init__(self, settings: Settings, token: str = "") -> None:
        self._host = settings.vault_url().removeprefix("http://")
        self._token = token

    def status(self, method: str, path: str, body: Json | None = None) -> int:
        return self.ask(method, path, body)[0]

    def data(self, path: str) -> Json:
        return dict(self.ask("GET", path)[1].get("data") or {})

    def ask(self, method: str, path: str, body: Json | None = None) -> tuple[int, Json]:
        connection = http.client.HTTPConnection(self._host, timeout=10)
        headers = {"X-Vault-Token": self._token} if self._token else {}
        connection.request(method, f"/v1/{path}", None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, json.loads(content) if content else {}


@pytest.fixture
def root(core_cluster: LocalCluster) -> Login:
    return Login(core_cluster.settings(), token_file(core_cluster.instance).read_text().strip())


def test_a_tenants_rights_in_vault_live_with_it(
    core_cluster: LocalCluster, kubectl: Kubectl, operator: Operator, root: Login
) -> None:
    settings = core_cluster.settings()
    scene = tenant("acme", with_vault(settings.vault_url(), role="op-acme"), namespace="operator-vault")
    role, policy = "auth/kubernetes/role/op-acme", "sys/policies/acl/pilothouse-operator-vault.acme"
    kubectl("create", "namespace", scene.namespace)
    try:
        kubectl.apply(*scene.objects())
        eventually(lambda: root.status("GET", role) == 200, f"the role is there: {operator.log.read_text()[-2000:]}")

        # then a worker of the tenant may what it needs
        own = {"data": {"oauth.client-id": "x"}}
        assert root.status("POST", "kv/data/operator-vault/acme/secrets", own) == 200
        jwt = kubectl("create", "token", "acme-worker", "-n", scene.namespace, *FOR_VAULT).strip()
        said = Login(settings).ask("POST", "auth/kubernetes/login", {"role": "op-acme", "jwt": jwt})[1]
        assert (said["auth"]["lease_duration"], "pilothouse-operator-vault.acme" in said["auth"]["policies"]) == (
            1200,
            True,
        )
        worker = Login(settings, said["auth"]["client_token"])
        mine = "kv/data/operator-vault/acme"
        assert worker.data(f"{mine}/secrets")["data"] == {"oauth.client-id": "x"}
        assert worker.status("POST", f"{mine}/users/u/jira", {"options": {"cas": 0}, "data": {"t": "1"}}) == 200
        assert worker.data(f"{mine}/users/u/jira")["data"] == {"t": "1"}
        metadata = "kv/metadata/operator-vault/acme/users"
        assert worker.status("POST", f"{metadata}/u/jira", {"max_versions": 1}) == 204
        assert worker.status("LIST", f"{metadata}/u") == 200
        assert worker.status("DELETE", f"{metadata}/u/jira") == 204

        # and nothing else
        for method, path in (
            ("POST", f"{mine}/secrets"),
            ("GET", "kv/data/operator-vault/other/secrets"),
            ("GET", "kv/data/operator-vault/acme-2/users/u/jira"),
            ("LIST", "kv/metadata/operator-vault"),
            ("GET", role),
            ("GET", policy),
        ):
            assert worker.status(method, path, {"data": {}} if method == "POST" else None) == 403, path

        # when the Tenant goes, both go
        kubectl("delete", "tenant", "acme", "-n", scene.namespace)
        eventually(lambda: root.status("GET", role) == 404, "the role is gone")
        eventually(lambda: root.status("GET", policy) == 404, "the policy is gone")
    finally:
        kubectl("delete", "namespace", scene.namespace, "--wait=false")


async def test_policy_and_role_are_written_on_a_difference_only_and_never_over_anothers(
    core_cluster: LocalCluster, kubectl: Kubectl, operator: Operator, root: Login, tmp_path: Path
) -> None:
    settings = core_cluster.settings()
    token = tmp_path / "token"
    vault = Vault(VaultLogin(token_file=token))

    def wanted(name: str, role: str) -> VaultAccess:
        scene = tenant(name, with_vault(settings.vault_url(), role=role), namespace="written")
        found = access(Tenant.model_validate(scene.tenant))
        assert found is not None
        return found

    acme = wanted("acme", "written-acme")
    with pytest.raises(VaultError, match="no token for Vault"):
        await vault.ensure(acme)
    token.write_text("not a token")
    with pytest.raises(VaultError, match="could not log in with role pilothouse-operator") as refused:
        await vault.ensure(acme)
    assert "not a token" not in str(refused.value)
    asked = await asyncio.to_thread(
        kubectl, "create", "token", "pilothouse-operator", "-n", "pilothouse-system", *FOR_VAULT
    )
    token.write_text(asked)

    assert await vault.ensure(acme) is True
    assert await vault.ensure(acme) is False
    role, policy = "auth/kubernetes/role/written-acme", "sys/policies/acl/pilothouse-written.acme"
    everything = {"policy": 'path "*" { capabilities = ["read"] }'}
    assert await asyncio.to_thread(root.status, "PUT", policy, everything) == 204
    assert await vault.ensure(acme) is True
    assert json.loads((await asyncio.to_thread(root.data, policy))["policy"]) == json.loads(acme.policy)
    wider = {**acme.role, "token_policies": [*acme.role["token_policies"], "root-like"]}
    assert await asyncio.to_thread(root.status, "POST", role, wider) in (200, 204)
    assert await vault.ensure(acme) is True
    assert (await asyncio.to_thread(root.data, role))["token_policies"] == acme.role["token_policies"]

    # another Tenant that names the same role gets nothing, and takes nothing away
    with pytest.raises(RoleTakenError, match="is not this Tenant's"):
        await vault.ensure(wanted("globex", "written-acme"))
    await vault.remove(wanted("globex", "written-acme"))
    assert await vault.ensure(acme) is False
    # nor can one name the operator's own
    with pytest.raises(VaultError):
        await vault.ensure(wanted("globex", "pilothouse-operator"))

    await vault.remove(acme)
    await vault.remove(acme)
    assert await asyncio.to_thread(root.status, "GET", role) == 404
    assert await asyncio.to_thread(root.status, "GET", policy) == 404
    await vault.close()
    gone = Vault(VaultLogin(token_file=token))
    with pytest.raises(VaultError, match="does not answer"):
        await gone.ensure(replace(acme, address="http://127.0.0.1:9"))
