"""State folder, ports and settings of an instance."""

from __future__ import annotations

import errno
import json
import socket
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from pilothouse_local import instance as instances
from pilothouse_local.errors import BadSettings, DiskFull, LocalClusterError, StateUnusable, writing
from pilothouse_local.instance import Instance


@pytest.mark.parametrize(
    ("env", "uid", "expected"),
    [
        ({"PILOTHOUSE_STATE": "/srv/ph"}, 0, "/srv/ph"),
        ({}, 0, "/var/lib/pilothouse"),
        ({"XDG_STATE_HOME": "/s"}, 1000, "/s/pilothouse"),
        ({"HOME": "/home/a"}, 1000, "/home/a/.local/state/pilothouse"),
    ],
)
def test_state_folder(env: dict[str, str], uid: int, expected: str) -> None:
    assert instances.locate(env, uid=uid).root == Path(expected)


def test_an_empty_state_setting_is_refused() -> None:
    with pytest.raises(BadSettings, match="PILOTHOUSE_STATE"):
        instances.locate({"PILOTHOUSE_STATE": " "})


def test_settings_are_kept_private_and_read_back(tmp_path: Path) -> None:
    instance = Instance(tmp_path)
    settings, said = instances.choose(instance, None)

    instances.save(instance, settings)

    assert instances.load(instance) == settings
    assert said == []
    assert instance.settings_file.stat().st_mode & 0o777 == 0o600
    assert len(set(settings.ports.values())) == len(instances.PORT_NAMES)
    assert 2 <= settings.pod_octet <= 253


def test_settings_of_an_older_version_get_what_they_lack_and_keep_the_rest(tmp_path: Path) -> None:
    instance = Instance(tmp_path)
    settings, _ = instances.choose(instance, None)
    made = ("worker_database_password", "vault_database_password")
    raw = {key: value for key, value in asdict(settings).items() if key not in made}
    instance.settings_file.write_text(json.dumps(raw))

    old = instances.load(instance)
    assert old is not None
    new = instances.completed(old)

    assert all(len(getattr(new, name)) >= 32 for name in made)
    assert replace(new, worker_database_password="", vault_database_password="") == old
    assert instances.completed(new) is new


def test_ports_are_kept_until_somebody_takes_one(tmp_path: Path) -> None:
    instance = Instance(tmp_path)
    settings, _ = instances.choose(instance, None)
    assert instances.choose(instance, settings) == (settings, [])

    with socket.create_server(("127.0.0.1", settings.ports["etcd"])):
        again, said = instances.choose(instance, settings)

    assert again.ports["etcd"] != settings.ports["etcd"]
    assert {**again.ports, "etcd": 0} == {**settings.ports, "etcd": 0}
    assert len(said) == 1


def test_a_second_instances_pods_get_another_network(tmp_path: Path) -> None:
    settings, _ = instances.choose(Instance(tmp_path), None)
    with instances.claim_octet(settings.pod_octet):
        again, said = instances.choose(Instance(tmp_path), settings)

    assert again.pod_octet != settings.pod_octet
    assert "127." in said[0]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"ports": {}}', '{"ports": 1, "x": 2}'])
def test_unreadable_settings_are_explained(tmp_path: Path, text: str) -> None:
    instance = Instance(tmp_path)
    instance.settings_file.write_text(text)

    with pytest.raises(StateUnusable) as caught:
        instances.load(instance)

    assert caught.value.not_done
    assert str(tmp_path) in caught.value.do_now


def test_a_full_disk_is_found_before_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instances, "MINIMUM_FREE", 1 << 62)

    with pytest.raises(DiskFull, match="MB left"):
        instances.prepare_folder(Instance(tmp_path / "state"))


def test_a_file_in_place_of_the_folder_is_explained(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")

    with pytest.raises(StateUnusable, match="not a folder"):
        instances.prepare_folder(Instance(tmp_path / "state"))


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ENOSPC, DiskFull), (errno.EDQUOT, DiskFull), (errno.EACCES, StateUnusable)]
)
def test_refusals_while_writing_become_sentences(number: int, kind: type[LocalClusterError], tmp_path: Path) -> None:
    with pytest.raises(kind) as caught, writing(tmp_path, "nothing was started"):
        raise OSError(number, "refused", str(tmp_path))

    assert str(caught.value).splitlines()[1].endswith("nothing was started")
