"""Processes by identity, the supervisor's words, and what status says."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from pilothouse_local import cluster, deploy, pki, procs, status
from pilothouse_local import instance as instances
from pilothouse_local.console import Console
from pilothouse_local.deploy import Readiness
from pilothouse_local.foreign import images
from pilothouse_local.instance import Instance
from pilothouse_local.procs import Identity
from pilothouse_local.specs import Spec
from pilothouse_local.status import ProcessStatus, Status
from pilothouse_local.supervisor import Supervisor, describe


def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])


def test_a_reused_pid_is_never_signalled() -> None:
    with sleeper() as process:
        real = Identity.of(process.pid)
        assert real is not None
        earlier = dataclasses.replace(real, started=real.started - 1)
        other_boot = dataclasses.replace(real, boot="another")

        assert not earlier.alive()
        assert not earlier.signal(signal.SIGKILL)
        assert not other_boot.signal(signal.SIGKILL)
        assert process.poll() is None

        assert real.signal(signal.SIGKILL)
        process.wait()
        assert not real.alive()
        assert not real.signal(signal.SIGKILL)


def test_an_identity_survives_json_and_rejects_anything_else() -> None:
    me = Identity.of(os.getpid())
    assert me is not None

    assert Identity.from_json(json.loads(json.dumps(me.to_json()))) == me
    for broken in (None, [], {}, {"pid": "1", "started": 2, "boot": "x"}):
        assert Identity.from_json(broken) is None


def test_stop_kills_what_does_not_listen() -> None:
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", stubborn], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        identity = Identity.of(process.pid)
        assert identity is not None

        killed = procs.stop([identity], signal.SIGTERM, 0.2)

        assert killed == [identity]
        assert process.wait() == -signal.SIGKILL


@pytest.mark.parametrize(
    ("code", "text"), [(0, "exit code 0"), (3, "exit code 3"), (-9, "killed by SIGKILL"), (-99, "killed by signal 99")]
)
def test_an_exit_in_words(code: int, text: str) -> None:
    assert describe(code) == text


def test_the_supervisor_restarts_what_ends_and_waits_for_what_is_required(tmp_path: Path) -> None:
    """In a process of its own, since it owns signals and children."""
    script = f"""
from pathlib import Path
from pilothouse_local.instance import Instance
from pilothouse_local.specs import Spec
from pilothouse_local.supervisor import Supervisor
instance = Instance(Path({str(tmp_path)!r}))
instance.logs.mkdir()
env = {{"PATH": "/usr/bin:/bin"}}
Supervisor(instance, [
    Spec("first", ("sleep", "60"), ready=lambda: True, env=env),
    Spec("second", ("sleep", "60"), ready=lambda: True, requires=("first",), env=env),
    Spec("missing", ("no-such-program-here",), ready=lambda: True, env=env),
]).run()
"""
    instance = Instance(tmp_path)

    def wait(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 15
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.05)

    with subprocess.Popen([sys.executable, "-c", script]) as supervisor:
        wait(lambda: cluster.view(instance).identity("second") is not None)
        wait(lambda: cluster.view(instance).processes["missing"]["failures"] >= 2)
        first = cluster.view(instance).identity("first")
        assert first is not None
        first.signal(signal.SIGKILL)
        wait(lambda: cluster.view(instance).identity("first") not in (None, first))
        assert cluster.view(instance).processes["first"]["last_exit"] == "killed by SIGKILL"
        assert "could not be started" in cluster.view(instance).processes["missing"]["last_exit"]
        left = [cluster.view(instance).identity(name) for name in ("first", "second")]

        supervisor.send_signal(signal.SIGTERM)

        assert supervisor.wait(15) == 0
        assert not any(one.alive() for one in left if one)
        assert cluster.view(instance).processes["first"]["state"] == "stopped"


def test_a_long_log_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pilothouse_local.supervisor.LOG_LIMIT", 100)
    instance = Instance(tmp_path)
    instance.logs.mkdir()
    instance.log("etcd").write_text("x" * 300 + "end")

    Supervisor(instance, [Spec("etcd", (), ready=lambda: True)])._rotate()

    assert instance.log("etcd").stat().st_size == 0
    assert (instance.logs / "etcd.log.1").read_text().endswith("end")
    assert (instance.logs / "etcd.log.1").stat().st_size == 100


def process(name: str, state: str = "running", pid: int | None = 7, **more: Any) -> ProcessStatus:
    base = ProcessStatus(name, state, pid, 5_000_000, 75.0, 0, "")
    return dataclasses.replace(base, **more)


def test_status_names_what_does_not_run() -> None:
    processes = [process("etcd"), process("valkey", "dead", None, memory=0, age=0.0, last_exit="killed by SIGKILL")]
    found = Status(processes, [Readiness("acme", "acme-worker", 2, 1, "1 of 2 Pods ready")], "", "/state")

    text = status.render(found)

    assert not found.well()
    assert "Not running: valkey" in text
    assert "killed by SIGKILL" in text
    assert "1m15s" in text
    assert "1/2" in text


def test_status_of_a_folder_where_nothing_ever_ran(tmp_path: Path) -> None:
    text = status.render(status.gather(Instance(tmp_path)))

    assert "Nothing runs" in text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "-"), (59, "59s"), (185, "3m05s"), (7440, "2h04m"), (3 * 86400 + 7200, "3d02h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert status.duration(seconds) == text


def deployment(**status_fields: int) -> dict[str, object]:
    return {
        "metadata": {"namespace": "n", "name": "d", "generation": 2},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "d"}}},
        "status": status_fields,
    }


def pod(ready: str) -> dict[str, object]:
    return {
        "metadata": {"namespace": "n", "name": "d-1", "labels": {"app": "d"}},
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
    }


def test_a_deployment_counts_only_when_its_pods_say_so_too() -> None:
    done = {"observedGeneration": 2, "updatedReplicas": 1, "availableReplicas": 1}

    assert deploy._judge(deployment(**done), [pod("True")]).waiting_for == ""
    assert deploy._judge(deployment(**done), [pod("False")]).waiting_for == "0 of 1 Pods ready"
    assert "not seen" in deploy._judge(deployment(**{**done, "observedGeneration": 1}), [pod("True")]).waiting_for
    assert "revision" in deploy._judge(deployment(**{**done, "updatedReplicas": 0}), [pod("True")]).waiting_for


def test_certificates_belong_together_and_are_made_once(tmp_path: Path) -> None:
    pki.ensure(tmp_path / "pki", datetime.datetime.now(datetime.UTC))
    folder = tmp_path / "pki"
    before = (folder / "ca.crt").read_bytes()
    ca = x509.load_pem_x509_certificate(before)
    for name in ("apiserver", "node", "admin", "controller-manager", "apiserver-kubelet-client"):
        x509.load_pem_x509_certificate((folder / f"{name}.crt").read_bytes()).verify_directly_issued_by(ca)
        assert (folder / f"{name}.key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(ValueError, match=r"[Ii]ssuer"):
        x509.load_pem_x509_certificate((folder / "etcd-client.crt").read_bytes()).verify_directly_issued_by(ca)

    pki.ensure(folder, datetime.datetime.now(datetime.UTC))

    assert (folder / "ca.crt").read_bytes() == before


def workload(image: str) -> dict[str, Any]:
    return {"kind": "Deployment", "spec": {"template": {"spec": {"containers": [{"image": image}]}}}}


def test_images_of_our_own_are_found() -> None:
    objects = [workload("ghcr.io/x/pilothouse:dev"), workload("valkey/valkey:9"), {"kind": "ConfigMap"}]

    assert images(objects) == ["ghcr.io/x/pilothouse:dev"]


def test_node_ports_that_others_use_are_moved(tmp_path: Path) -> None:
    instance = Instance(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        objects: list[dict[str, Any]] = [{"kind": "Service", "spec": {"ports": [{"port": 80, "nodePort": taken}]}}]
        settings, _ = instances.choose(instance, None)
        settings = instances.with_node_ports(instance, settings, deploy.node_ports(objects))
        again = instances.with_node_ports(instance, settings, deploy.node_ports(objects))

    deploy.move_node_ports(objects, settings.node_ports)

    assert again == settings
    assert objects[0]["spec"]["ports"][0]["nodePort"] not in (taken, None)


def test_console_says_a_long_wait_seldom_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Console().waiting("nothing special"):
        threading.Event().wait(0.7)

    assert capsys.readouterr().out == ""
