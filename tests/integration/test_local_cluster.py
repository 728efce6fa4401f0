"""The local cluster's promises: repeatable, mends itself, stops only what is its own, keeps data and ports."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import asyncpg
import hvac
import pytest
import redis

from pilothouse_local import deploy, in_cluster_vault, procs, vault
from pilothouse_local.api import admin
from pilothouse_local.deploy import Kubectl
from pilothouse_local.errors import VaultUnusable
from pilothouse_testing.cluster import LocalCluster, local_cluster

pytestmark = pytest.mark.timeout(900)  # the first run on a machine may have to build Kubernetes


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """An instance that these tests may break and stop."""
    with local_cluster(only_core=True) as running:
        yield running


def pids(cluster: LocalCluster) -> dict[str, int]:
    seen = cluster.view()
    return {name: identity.pid for name in seen.processes if (identity := seen.identity(name)) is not None}


def eventually(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def query(url: str, statement: str) -> object:
    async def run() -> object:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    return asyncio.run(run())


def test_up_again_changes_nothing(cluster: LocalCluster) -> None:
    before = pids(cluster)

    cluster.must("up", "--only-core")

    assert pids(cluster) == before
    assert "Not running" not in cluster.must("status")


def put_and_get(cluster: LocalCluster, value: str) -> None:
    opened = vault.opened(cluster.instance, cluster.settings())
    vault.put_secrets(opened, "acme", "acme", {"app": {"client-secret": value}})
    assert secrets_of(cluster)["app.client-secret"] == value


def secrets_of(cluster: LocalCluster) -> dict[str, str]:
    root = hvac.Client(url=cluster.settings().vault_url(), token=vault.token_file(cluster.instance).read_text())
    read = root.secrets.kv.v2.read_secret_version("acme/acme/secrets", mount_point="kv", raise_on_deleted_version=True)
    found: dict[str, str] = read["data"]["data"]
    return found


def test_a_killed_openbao_is_back_unsealed_with_what_it_held(cluster: LocalCluster) -> None:
    put_and_get(cluster, "before the kill")
    killed = pids(cluster)["openbao"]

    os.kill(killed, signal.SIGKILL)

    eventually(lambda: pids(cluster).get("openbao", killed) != killed and cluster.run("status").returncode == 0)
    assert secrets_of(cluster)["app.client-secret"] == "before the kill"


def test_openbao_outlives_a_kill_of_its_database(cluster: LocalCluster) -> None:
    put_and_get(cluster, "in PostgreSQL")
    bao, killed = pids(cluster)["openbao"], pids(cluster)["postgres"]

    os.kill(killed, signal.SIGKILL)

    eventually(lambda: pids(cluster).get("postgres", killed) != killed and cluster.run("status").returncode == 0)
    assert secrets_of(cluster)["app.client-secret"] == "in PostgreSQL"
    assert pids(cluster)["openbao"] == bao


def test_secrets_are_added_and_no_version_is_made_of_what_is_there(cluster: LocalCluster) -> None:
    settings, instance = cluster.settings(), cluster.instance
    opened = vault.opened(instance, settings)
    vault.put_secrets(opened, "acme", "merged", {"jira": {"client-id": "a", "client-secret": "b"}})
    vault.put_secrets(opened, "acme", "merged", {"okta": {"client-id": "c"}, "jira": {"client-id": "d"}})
    vault.put_secrets(opened, "acme", "merged", {"okta": {"client-id": "c"}})

    root = hvac.Client(url=settings.vault_url(), token=vault.token_file(instance).read_text())
    read = root.secrets.kv.v2.read_secret_version(
        "acme/merged/secrets", mount_point="kv", raise_on_deleted_version=True
    )

    assert read["data"]["data"] == {"jira.client-id": "d", "jira.client-secret": "b", "okta.client-id": "c"}
    assert read["data"]["metadata"]["version"] == 2


def account_token(cluster: LocalCluster, account: str, audience: str) -> str:
    """A token of a ServiceAccount in pilothouse-system, which is made."""
    api = admin(cluster.instance.pki, cluster.settings().ports["apiserver"])
    path = f"/api/v1/namespaces/pilothouse-system/serviceaccounts/{account}"
    api.apply(path, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}})
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": [audience]}}
    return str(api.create(f"{path}/token", request)["status"]["token"])


def test_the_operator_grants_rights_to_tenants_and_has_none_on_their_secrets(cluster: LocalCluster) -> None:
    put_and_get(cluster, "not the operator's")
    operator = hvac.Client(url=cluster.settings().vault_url())
    operator.auth.kubernetes.login("pilothouse-operator", account_token(cluster, "pilothouse-operator", "vault"))

    operator.sys.create_or_update_acl_policy(
        "pilothouse-acme-acme", 'path "kv/data/acme/acme/secrets" {capabilities=["read"]}'
    )
    operator.auth.kubernetes.create_role("acme", ["acme-worker"], ["acme"], policies=["pilothouse-acme-acme"])
    assert operator.auth.kubernetes.read_role("acme")["bound_service_account_names"] == ["acme-worker"]
    operator.auth.kubernetes.delete_role("acme")
    operator.sys.delete_acl_policy("pilothouse-acme-acme")
    operator.secrets.kv.v2.delete_metadata_and_all_versions("gone/gone/secrets", mount_point="kv")

    refused: list[Callable[[], object]] = [
        lambda: operator.read("kv/data/acme/acme/secrets"),
        lambda: operator.secrets.kv.v2.create_or_update_secret("acme/acme/secrets", {"a": "b"}, mount_point="kv"),
        lambda: operator.sys.create_or_update_acl_policy("pilothouse-operator", 'path "*" {capabilities=["read"]}'),
        lambda: operator.sys.create_or_update_policy("pilothouse-operator", 'path "*" {capabilities=["read"]}'),
        lambda: operator.sys.create_or_update_acl_policy("another", 'path "*" {capabilities=["read"]}'),
        lambda: operator.auth.kubernetes.create_role("pilothouse-operator", ["x"], ["x"], policies=["default"]),
        lambda: operator.sys.list_auth_methods(),
    ]
    for attempt in refused:
        with pytest.raises(hvac.exceptions.Forbidden):
            attempt()


@pytest.mark.parametrize(("account", "audience"), [("another", "vault"), ("pilothouse-operator", "something-else")])
def test_openbao_knows_nobody_else_as_the_operator(cluster: LocalCluster, account: str, audience: str) -> None:
    client = hvac.Client(url=cluster.settings().vault_url())

    with pytest.raises((hvac.exceptions.Forbidden, hvac.exceptions.InvalidRequest)):
        client.auth.kubernetes.login("pilothouse-operator", account_token(cluster, account, audience))


def test_what_opens_openbao_is_its_owners_and_in_no_log(cluster: LocalCluster) -> None:
    folder = cluster.instance.root / "openbao"
    secret = [vault.token_file(cluster.instance).read_text(), cluster.settings().vault_database_password]

    assert {path.name for path in folder.iterdir()} == {"config.json", "root-token", "seal.key"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    logs = "".join(path.read_text(errors="replace") for path in cluster.instance.logs.iterdir())
    assert not [one for one in secret if one in logs + cluster.run("status").stdout]
    running = " ".join(procs.command_line(pid) for pid in pids(cluster).values())
    assert not [one for one in secret if one in running]


def as_a_pod_of_this_machine(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A foreign cluster's OpenBao with what the local node lacks put in its place: the image, a claim, an address."""
    kept = [one for one in copy.deepcopy(objects) if one["kind"] not in ("PersistentVolumeClaim", "Service")]
    pod = kept[-1]["spec"]["template"]["spec"]
    pod["volumes"][-1] = {"name": "data", "emptyDir": {}}
    (container,) = pod["containers"]
    container["image"] = "pilothouse:local"
    config = container["command"][-1].removeprefix("-config=")
    own = "/openbao/data/config.json"
    # All Pods share this machine's ports, and the API server's is not 443.
    edit = "s/0.0.0.0/$POD_IP/; s/kubernetes.default.svc/&:$KUBERNETES_SERVICE_PORT/"
    container["command"] = ["sh", "-c", f'sed "{edit}" {config} > {own}; exec bao server -config={own}']
    container["env"] = [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]
    return kept


def test_a_foreign_clusters_openbao_sets_itself_up(cluster: LocalCluster) -> None:
    kubectl = Kubectl(cluster.kubeconfig)
    objects = in_cluster_vault.objects(in_cluster_vault.seal_key())
    deploy.apply_objects(kubectl, as_a_pod_of_this_machine(objects))
    wait = ("--for=condition=Available", "deployment/vault", "--timeout=60s")
    kubectl.run("wait", f"--namespace={vault.NAMESPACE}", *wait)

    with in_cluster_vault.opened(kubectl) as admin_of_it:
        for value in ("first", "second"):
            vault.put_secrets(admin_of_it, "acme", "acme", {"app": {"client-secret": value}})
        found = admin_of_it.request("GET", "kv/data/acme/acme/secrets") or {}
        assert found["data"]["data"] == {"app.client-secret": "second"}
        with pytest.raises(VaultUnusable, match="permission denied"):
            admin_of_it.request("GET", "sys/policies/acl/pilothouse-operator")
        operator = hvac.Client(url=admin_of_it.address)
        operator.auth.kubernetes.login("pilothouse-operator", account_token(cluster, "pilothouse-operator", "vault"))
        operator.auth.kubernetes.create_role("acme", ["acme-worker"], ["acme"], policies=["pilothouse-acme-acme"])
        with pytest.raises(hvac.exceptions.Forbidden):
            operator.read("kv/data/acme/acme/secrets")
    kubectl.run("delete", f"--namespace={vault.NAMESPACE}", "deployment/vault")


def test_a_killed_store_is_named_and_mended_with_its_data(cluster: LocalCluster) -> None:
    store = redis.Redis.from_url(cluster.settings().redis_url())
    store.set("kept", "yes")
    killed = pids(cluster)["valkey"]

    os.kill(killed, signal.SIGKILL)

    eventually(lambda: pids(cluster).get("valkey", killed) != killed and cluster.run("status").returncode == 0)
    said = cluster.must("status")
    assert "valkey" in said
    assert "killed by SIGKILL" in said
    assert store.get("kept") == b"yes"


def test_postgres_survives_a_kill(cluster: LocalCluster) -> None:
    url = cluster.settings().database_owner_url()
    query(url, "CREATE TABLE kept (v vector(2))")
    query(url, "INSERT INTO kept VALUES ('[1,2]')")
    killed = pids(cluster)["postgres"]

    os.kill(killed, signal.SIGKILL)

    eventually(lambda: pids(cluster).get("postgres", killed) != killed)
    cluster.must("up", "--only-core")
    assert query(url, "SELECT count(*) FROM kept") == 1


@pytest.mark.parametrize("role", ["pilothouse", "pilothouse_worker"])
def test_row_level_security_applies_to_the_products_roles(cluster: LocalCluster, role: str) -> None:
    settings = cluster.settings()
    url = {"pilothouse": settings.database_owner_url(), "pilothouse_worker": settings.database_url()}[role]

    found = query(url, "SELECT rolname || rolsuper || rolbypassrls FROM pg_roles WHERE rolname = current_user")

    assert found == f"{role}falsefalse"


def test_up_of_a_version_that_knew_no_workers_role_makes_it(cluster: LocalCluster) -> None:
    older = {key: value for key, value in asdict(cluster.settings()).items() if key != "worker_database_password"}
    cluster.instance.settings_file.write_text(json.dumps(older))

    cluster.must("up", "--only-core")

    assert query(cluster.settings().database_url(), "SELECT count(*) FROM runs") == 0
    assert {**asdict(cluster.settings()), **older} == asdict(cluster.settings())


def test_up_after_a_killed_supervisor_starts_anew(cluster: LocalCluster) -> None:
    supervisor = cluster.view().supervisor
    assert supervisor is not None
    old = pids(cluster)
    supervisor.signal(signal.SIGKILL)
    eventually(lambda: not supervisor.alive())
    assert "Not running: supervisor" in cluster.run("status").stdout

    cluster.must("up", "--only-core")

    assert not set(old.values()) & set(pids(cluster).values())


def test_down_stops_only_its_own_and_up_keeps_data_and_ports(cluster: LocalCluster) -> None:
    ports = cluster.settings().ports
    redis.Redis.from_url(cluster.settings().redis_url()).set("before-down", "yes")
    put_and_get(cluster, "before down")
    own = list(pids(cluster).values())
    with subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)", str(cluster.instance.root)]
    ) as bystander:
        cluster.must("down")

        assert bystander.poll() is None
        bystander.kill()
    assert all(procs.Identity.of(pid) is None for pid in own)
    assert cluster.run("status").returncode == 1

    cluster.must("down")
    cluster.must("up", "--only-core")
    assert cluster.settings().ports == ports
    assert redis.Redis.from_url(cluster.settings().redis_url()).get("before-down") == b"yes"
    assert secrets_of(cluster)["app.client-secret"] == "before down"


def test_a_lost_root_token_is_explained_and_the_way_out_works(cluster: LocalCluster) -> None:
    put_and_get(cluster, "in the old one")
    folder = cluster.instance.root / "openbao"
    token = vault.token_file(cluster.instance).read_bytes()
    vault.token_file(cluster.instance).unlink()

    ran = cluster.run("up", "--only-core")

    assert ran.returncode == 1
    assert "root token is not in" in ran.stderr
    assert "Traceback" not in ran.stderr
    cluster.must("down")
    aside = folder.rename(folder.with_name("openbao.aside"))
    cluster.must("up", "--only-core")
    with pytest.raises(hvac.exceptions.InvalidPath):
        secrets_of(cluster)
    cluster.must("down")
    shutil.rmtree(folder)
    aside.rename(folder)
    vault.token_file(cluster.instance).write_bytes(token)
    vault.token_file(cluster.instance).chmod(0o600)
    cluster.must("up", "--only-core")
    assert secrets_of(cluster)["app.client-secret"] == "in the old one"


def test_up_of_a_version_that_knew_no_openbao_starts_it(cluster: LocalCluster) -> None:
    """What runs is then a supervisor whose view names fewer processes."""
    pid = cluster.view().supervisor
    older = json.loads(cluster.instance.view_file.read_text())
    del older["processes"]["openbao"]
    cluster.instance.view_file.write_text(json.dumps(older))

    said = cluster.must("up", "--only-core")

    assert "of an older version, without openbao" in said
    assert pid is not None
    assert not pid.alive()
    assert cluster.run("status").returncode == 0


def test_a_port_that_others_took_is_said_and_left(cluster: LocalCluster) -> None:
    cluster.must("down")
    taken = cluster.settings().ports["valkey"]
    with socket.create_server(("127.0.0.1", taken)):
        said = cluster.must("up", "--only-core")

    assert f"port {taken} of valkey is now in use by another program" in said
    assert cluster.settings().ports["valkey"] != taken


def test_a_damaged_database_is_explained_without_a_trace(cluster: LocalCluster) -> None:
    cluster.must("down")
    version = cluster.instance.root / "postgres" / "data" / "PG_VERSION"
    kept = version.read_bytes()
    version.write_bytes(b"9\n")

    ran = cluster.run("up", "--only-core")

    version.write_bytes(kept)
    assert ran.returncode == 1
    assert "What happened:" in ran.stderr
    assert "Not done:" in ran.stderr
    assert "What to do now:" in ran.stderr
    assert "Traceback" not in ran.stderr
    cluster.must("up", "--only-core")
