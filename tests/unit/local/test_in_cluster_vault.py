"""A foreign cluster's OpenBao: its objects fit together, and hold no secret but the one that they are given."""

from __future__ import annotations

import base64
import json
from typing import Any

from pilothouse_local import deploy, foreign, in_cluster_vault, vault


def by_kind(objects: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(one["kind"], one["metadata"]["name"]): one for one in objects}


def test_what_is_mounted_is_there_and_what_is_configured_is_mounted() -> None:
    key = in_cluster_vault.seal_key()
    found = by_kind(in_cluster_vault.objects(key))
    pod = found["Deployment", "vault"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    config = json.loads(found["ConfigMap", "vault"]["data"]["config.json"])
    mounts = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}

    assert len(base64.b64decode(found["Secret", "vault-seal"]["data"]["key"])) == 32
    assert config["seal"]["static"]["current_key"] == f"file://{mounts['seal']}/key"
    assert config["storage"]["raft"]["path"] == mounts["data"]
    assert container["command"][-1] == f"-config={mounts['config']}/config.json"
    assert ("ServiceAccount", pod["serviceAccountName"]) in found
    assert ("PersistentVolumeClaim", pod["volumes"][2]["persistentVolumeClaim"]["claimName"]) in found
    assert pod["volumes"][1]["secret"]["secretName"] == "vault-seal"
    service = found["Service", "vault"]
    assert service["spec"]["selector"] == found["Deployment", "vault"]["spec"]["template"]["metadata"]["labels"]
    assert f"http://vault.{service['metadata']['namespace']}.svc:{service['spec']['ports'][0]['port']}" == vault.ADDRESS
    others = [one for one in found.values() if one["kind"] != "Secret"]
    assert key not in json.dumps(others)


def test_it_sets_up_what_the_local_one_has() -> None:
    (stanza,) = in_cluster_vault.configuration()["initialize"]
    written = {request["path"]: request["data"] for one in stanza["pilothouse"]["request"] for request in one.values()}

    assert written["sys/policies/acl/pilothouse-operator"] == {"policy": vault.OPERATOR_POLICY}
    assert written["auth/kubernetes/role/pilothouse-operator"] == vault.operator_role()
    assert written["sys/mounts/kv"]["options"] == {"version": "2"}
    admin = written["auth/kubernetes/role/pilothouse-admin"]
    assert (admin["bound_service_account_namespaces"], admin["token_policies"]) == (
        ["pilothouse-vault"],
        ["pilothouse-admin"],
    )
    # A login must be there before its roles, an engine before what is in it.
    paths = list(written)
    assert paths.index("sys/auth/kubernetes") < min(i for i, path in enumerate(paths) if path.startswith("auth/"))


class Cluster(deploy.Kubectl):
    """Holds one Secret, or none, and remembers what was applied."""

    def __init__(self, data: dict[str, str] | None) -> None:
        super().__init__(None)
        object.__setattr__(self, "data", data)
        object.__setattr__(self, "applied", "")

    def run(self, *arguments: str, stdin: str | None = None) -> str:
        if arguments[0] == "get":
            assert "--namespace=pilothouse-vault" in arguments
            held = self.__dict__["data"]
            return "" if held is None else json.dumps({"data": held})
        object.__setattr__(self, "applied", stdin or "")
        return ""


def test_a_key_is_made_once() -> None:
    new = Cluster(None)
    foreign._ensure_vault(new)
    assert "vault-seal" in new.__dict__["applied"]

    kept = base64.b64encode(bytes(range(224, 256))).decode()  # not text, as a random key hardly ever is
    again = Cluster({"key": kept})
    foreign._ensure_vault(again)
    assert kept in again.__dict__["applied"]
