"""The stores' settings: what a foreign cluster gets, and what a failed migration says."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pilothouse_local import deploy, foreign, in_cluster, stores
from pilothouse_local import instance as instances
from pilothouse_local.errors import BadSettings, ProcessFailed
from pilothouse_local.instance import Instance, Settings


def by_kind(objects: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(one["kind"], one["metadata"]["name"]): one for one in objects}


def test_a_foreign_clusters_stores_and_their_secret_agree() -> None:
    found = by_kind(in_cluster.stores({}))
    data = found["Secret", "pilothouse-stores"]["stringData"]

    assert set(in_cluster.NEEDED_KEYS) < set(data)
    assert data["redis-url"] == f"redis://:{data['password']}@valkey.pilothouse-system.svc:6379/0"
    place = "postgres.pilothouse-system.svc:5432/pilothouse"
    assert data["database-url"] == f"postgresql://pilothouse_worker:{data['database-worker-password']}@{place}"
    assert data["database-owner-url"] == f"postgresql://pilothouse:{data['database-owner-password']}@{place}"
    assert len({value for key, value in data.items() if key.endswith("password")}) == 4
    for app in ("valkey", "postgres"):
        deployment = found["Deployment", app]
        assert found["Service", app]["spec"]["selector"] == deployment["spec"]["template"]["metadata"]["labels"]
        assert not any(value in json.dumps(deployment) for value in data.values())
        for entry in deployment["spec"]["template"]["spec"]["containers"][0]["env"]:
            assert entry["valueFrom"]["secretKeyRef"]["key"] in data


def test_a_secret_of_an_older_version_is_completed_and_keeps_its_password() -> None:
    old = {"redis-url": "redis://:p4ss@valkey.pilothouse-system.svc:6379/0", "password": "p4ss"}

    new = in_cluster.secret_data(old)

    assert in_cluster.made_here(old)
    assert {key: new[key] for key in old} == old
    assert in_cluster.secret_data(new) == new
    assert not in_cluster.made_here({"redis-url": "redis://mine:6379/0", "password": "p4ss"})


class OneSecret(deploy.Kubectl):
    """A cluster that holds the stores' Secret, or none, and remembers what was applied."""

    def __init__(self, data: dict[str, str] | None) -> None:
        super().__init__(None)
        self.data = data
        self.applied: list[dict[str, Any]] = []

    def run(self, *arguments: str, stdin: str | None = None) -> str:
        if arguments[0] == "apply":
            self.applied += yaml.safe_load_all(stdin or "")
            return ""
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in (self.data or {}).items()}
        return json.dumps({"data": encoded}) if self.data is not None else ""


def test_a_foreign_cluster_gets_what_its_secret_lacks_and_a_persons_secret_is_left_alone() -> None:
    bare, older = OneSecret(None), OneSecret({"redis-url": "redis://:p@valkey.pilothouse-system.svc:6379/0"})
    foreign._ensure_stores(bare)
    foreign._ensure_stores(older)
    assert ("Deployment", "postgres") in by_kind(bare.applied)
    assert ("Deployment", "postgres") in by_kind(older.applied)

    own = OneSecret(dict.fromkeys(in_cluster.NEEDED_KEYS, "mine"))
    foreign._ensure_stores(own)
    assert own.applied == []

    incomplete = OneSecret({"redis-url": "redis://mine:6379/0"})
    with pytest.raises(BadSettings, match="lacks database-url, database-owner-url"):
        foreign._ensure_stores(incomplete)
    assert incomplete.applied == []


def test_up_gives_every_key_that_the_chart_takes_from_the_stores_secret(settings: Settings) -> None:
    text = (deploy.CHECKOUT / "charts" / "install.yaml").read_text()
    taken: set[str] = set()

    def look(node: Any) -> None:
        if isinstance(node, dict):
            if node.get("name") == deploy.STORES_SECRET and "key" in node:
                taken.add(node["key"])
            node = list(node.values())
        for child in node if isinstance(node, list) else ():
            look(child)

    look(list(yaml.safe_load_all(text)))

    assert taken == {*in_cluster.NEEDED_KEYS, "database-worker-password"}
    assert set(deploy.stores_secret(settings)["stringData"]) == taken


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return instances.choose(Instance(tmp_path), None)[0]


def test_a_migration_gets_the_owners_address_and_the_workers_password(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\nenv > {tmp_path}/env\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))

    stores.migrate(settings)

    given = (tmp_path / "env").read_text().splitlines()
    assert f"PILOTHOUSE_DATABASE_URL={settings.database_owner_url()}" in given
    assert f"PILOTHOUSE_WORKER_DATABASE_PASSWORD={settings.worker_database_password}" in given
    assert settings.worker_database_password in settings.database_url()


@pytest.mark.parametrize(
    ("script", "said"),
    [("echo no such table >&2; exit 3", "exit code 3"), ("echo no such table; exec sleep 30", "did not end within")],
)
def test_a_failed_migration_is_explained_with_its_last_lines(
    script: str, said: str, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(stores, "_MIGRATED_WITHIN", 1.0)

    with pytest.raises(ProcessFailed, match=said) as caught:
        stores.migrate(settings)

    assert "no such table" in caught.value.detail
    assert caught.value.not_done
