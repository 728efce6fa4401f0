"""Files, logs and processes on this machine, without an API server."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from pilothouse_local.node import atomic, logs, probing, processes
from pilothouse_local.node.model import Mount, NodeUnusable
from pilothouse_local.node.nodeport import NodePorts
from pilothouse_local.node.processes import Launch, Process
from pilothouse_local.node.projection import File


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    try:
        processes.check_machine(tmp_path / "check")
    except NodeUnusable as error:
        pytest.skip(str(error))
    return tmp_path


async def written(path: Path) -> None:
    async for _ in logs.follow(path, 0, lambda: False):
        return


def launch(directory: Path, *argv: str, mounts: tuple[Mount, ...] = ()) -> Launch:
    scratch = directory / "scratch"
    scratch.mkdir(exist_ok=True)
    return Launch(argv, {"PATH": os.environ["PATH"], "ONLY": "this"}, "/", mounts, scratch)


def test_volume_changes_at_once_and_leaves_nothing(tmp_path: Path) -> None:
    volume = tmp_path / "v"
    assert atomic.write_volume(volume, {"a": File(b"1"), "d/b": File(b"2", 0o400)})
    assert not atomic.write_volume(volume, {"a": File(b"1"), "d/b": File(b"2", 0o400)})
    assert (volume / "d/b").read_text() == "2"
    assert (volume / "d/b").stat().st_mode & 0o777 == 0o400
    before = os.readlink(volume / "..data")
    assert atomic.write_volume(volume, {"a": File(b"new")})
    assert (volume / "a").read_text() == "new"
    assert os.readlink(volume / "..data") != before
    assert len(list(volume.iterdir())) == 3


def test_empty_volume_is_written_once(tmp_path: Path) -> None:
    assert atomic.write_volume(tmp_path / "v", {})
    assert not atomic.write_volume(tmp_path / "v", {})


def test_in_place_keeps_the_inode(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    atomic.write_in_place(path, "a long first text\n")
    inode = path.stat().st_ino
    atomic.write_in_place(path, "short\n")
    assert (path.read_text(), path.stat().st_ino) == ("short\n", inode)


def test_broken_records_are_none(tmp_path: Path) -> None:
    (tmp_path / "r").write_text('{"pid": 1')
    assert atomic.read_record(tmp_path / "r") is None
    atomic.write_record(tmp_path / "r", {"pid": 1})
    assert atomic.read_record(tmp_path / "r") == {"pid": 1}


async def test_logs_tail_rotate_and_follow(tmp_path: Path) -> None:
    path = logs.path_of(tmp_path, 0)
    path.write_text("1\n2\n3\n")
    assert logs.tail(path, 2) == (b"2\n3\n", 6)
    assert logs.rotate(path, limit=3)
    assert path.stat().st_size == 0
    assert logs.tail(path, None)[0] == b"1\n2\n3\n"
    path.write_text("4\n")
    assert [chunk async for chunk in logs.follow(path, 0, lambda: True)] == [b"4\n"]


async def test_process_sees_its_mounts_and_nothing_of_ours(machine: Path) -> None:
    config = machine / "config"
    atomic.write_volume(config, {"greeting": File(b"hello")})
    (machine / "hosts").write_text("127.9.0.1 web\n")
    mounts = (
        Mount(str(machine / "hosts"), "/etc/hosts"),
        Mount(str(config), "/etc/pilothouse-test/config", True),
        Mount(str(config), "/var/run/pilothouse-test/deep", True),
        Mount(str(config), "/pilothouse-test-top", True),
    )
    places = ("/etc/pilothouse-test/config", "/var/run/pilothouse-test/deep", "/pilothouse-test-top")
    script = f"cat /etc/hosts {' '.join(place + '/greeting' for place in places)}; echo; env; id -u"
    recorded: list[tuple[int, int]] = []
    output = machine / "0.log"
    process = Process.start(
        launch(machine, "sh", "-c", script, mounts=mounts), output, lambda *who: recorded.append(who)
    )
    assert await process.wait() == 0, output.read_text()
    text = output.read_text()
    assert text.startswith("127.9.0.1 web\nhellohellohello\n")
    assert "ONLY=this" in text
    assert "HOME=" not in text
    assert text.endswith(f"\n{os.getuid()}\n")
    assert recorded[0] == (process.pid, process.ticks)
    for parent in ("/", "/etc", "/var/run"):
        assert not [name for name in os.listdir(parent) if name.startswith("pilothouse-test")]


async def test_a_mount_at_tmp_hides_neither_sources_nor_python(machine: Path) -> None:
    config = machine / "config"
    atomic.write_volume(config, {"a": File(b"1")})
    (machine / "empty").mkdir()
    mounts = (
        Mount(str(machine / "empty"), "/tmp"),
        Mount(str(config), "/tmp/config", True),
        Mount(str(config), "/etc/pilothouse-test/c"),
    )
    code, output = await processes.run_once(
        launch(machine, sys.executable, "-c", "print(open('/tmp/config/a').read())", mounts=mounts), 20
    )
    assert (code, output) == (0, b"1\n")


async def test_read_only_mounts(machine: Path) -> None:
    (machine / "v").mkdir()
    mounts = (Mount(str(machine / "v"), "/etc/pilothouse-test", True),)
    code, output = await processes.run_once(launch(machine, "touch", "/etc/pilothouse-test/x", mounts=mounts), 20)
    assert code != 0
    assert b"Read-only" in output


async def test_stop_ends_the_whole_group(machine: Path) -> None:
    output = machine / "0.log"
    process = Process.start(
        launch(machine, "sh", "-c", "trap '' TERM; sleep 99 & echo $!; wait; sleep 99"), output, lambda *_: None
    )
    await written(output)
    await process.stop(0.3)
    assert process.exit_code == -signal.SIGKILL
    # SIGKILL was sent to the whole group; the kernel may need a moment for those that are not the leader.
    child = int(output.read_text().split()[0])
    async with asyncio.timeout(2):
        while processes.start_ticks(child) is not None:  # noqa: ASYNC110 - another process: nothing to wait on
            await asyncio.sleep(0.01)


async def test_adoption_needs_pid_and_start_time(machine: Path) -> None:
    process = Process.start(launch(machine, "sleep", "99"), machine / "0.log", lambda *_: None)
    adopted = Process.adopt(process.pid, process.ticks)
    assert adopted is not None
    assert Process.adopt(process.pid, process.ticks + 1) is None
    await adopted.stop(5)
    assert await process.wait() == -signal.SIGTERM
    assert adopted.exit_code is None
    assert Process.adopt(process.pid, process.ticks) is None


async def test_nothing_runs_when_the_node_dies_before_the_start(machine: Path) -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", str(processes.LAUNCHER), stdin=asyncio.subprocess.PIPE
    )
    await child.communicate(launch(machine, "touch", str(machine / "ran")).document()[:-5])
    assert child.returncode == 125
    assert "ran" not in os.listdir(machine)


async def test_program_that_is_not_there(machine: Path) -> None:
    code, output = await processes.run_once(launch(machine, "no-such-program"), 20)
    assert code == 127
    assert b"'no-such-program' could not be started" in output


async def test_probes_over_the_wire() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readline()).split()[1]
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" if path == b"/ok" else b"HTTP/1.1 503 No\r\n\r\n")
        writer.close()

    async def run(argv: list[str], timeout: float) -> tuple[int, bytes]:
        return (0, b"") if argv == ["true"] else (1, b"no")

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    container = {"ports": [{"name": "http", "containerPort": port}]}

    async def ask(probe: dict[str, object]) -> bool:
        return (await probing.ask(probe, container, "127.0.0.1", 2, run))[0]

    async with server:
        assert await ask({"httpGet": {"path": "/ok", "port": "http"}})
        assert not await ask({"httpGet": {"path": "/", "port": port}})
        assert not await ask({"httpGet": {"path": "/", "port": "none"}})
        assert await ask({"tcpSocket": {"port": port}})
        assert not await ask({"grpc": {"port": port}})
        assert await ask({"exec": {"command": ["true"]}})
        assert not await ask({"exec": {"command": ["false"]}})
    assert not await ask({"tcpSocket": {"port": port}})


async def test_grpc_probe_against_a_real_server() -> None:
    grpc = pytest.importorskip("grpc")
    from grpc_health.v1 import health, health_pb2, health_pb2_grpc

    server = grpc.aio.server()
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    await servicer.set("bad", health_pb2.HealthCheckResponse.NOT_SERVING)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        assert (await probing.grpc_health("127.0.0.1", port, ""))[0]
        assert await probing.grpc_health("127.0.0.1", port, "bad") == (False, "gRPC health answered NOT_SERVING")
        assert await probing.grpc_health("127.0.0.1", port, "unknown") == (False, "gRPC health answered an error")
    finally:
        await server.stop(None)


async def test_node_port_passes_connections_on_in_turn() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(str(writer.get_extra_info("sockname")[0]).encode() + b":" + await reader.read())
        writer.close()

    servers = [await asyncio.start_server(echo, f"127.9.9.{n}", 0) for n in (1, 2)]
    targets = [server.sockets[0].getsockname()[:2] for server in servers]
    troubles: list[str] = []
    holder = await asyncio.start_server(echo, "127.0.0.1", 0)
    busy = holder.sockets[0].getsockname()[1]
    probe = await asyncio.start_server(echo, "127.0.0.1", 0)
    free = probe.sockets[0].getsockname()[1]
    probe.close()
    await probe.wait_closed()
    ports = NodePorts(lambda _: targets, lambda port, message: troubles.append(message))
    assert not await ports.sync({free, busy})
    assert "is not served" in troubles[0]
    assert await ports.sync({free})
    answers = set()
    for _ in range(2):
        reader, writer = await asyncio.open_connection("127.0.0.1", free)
        writer.write(b"hi")
        writer.write_eof()
        answers.add(await reader.read())
        writer.close()
    assert answers == {b"127.9.9.1:hi", b"127.9.9.2:hi"}
    ports.close()
    for server in (*servers, holder):
        server.close()
