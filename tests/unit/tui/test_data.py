"""The clients against in-process servers: Kubernetes (aiohttp), Fleet (gRPC), chat (websockets)."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from joserfc import jwt
from joserfc.jwk import OctKey

from pilothouse_testing.tui_servers import KEY, api_server, fleet_server, gateway, kubeconfig, tenant_json
from pilothouse_tui.cli import main
from pilothouse_tui.data.chat import ChatConnection, converse
from pilothouse_tui.data.fleet import FleetClient
from pilothouse_tui.data.kube import KubeClient
from pilothouse_tui.data.kubeconfig import ClusterAccess, find_kubeconfig, load_access, run_plugin
from pilothouse_tui.data.retry import Backoff, batches
from pilothouse_tui.data.sources import LiveSources
from pilothouse_tui.data.tokens import make_token, parse_duration
from pilothouse_tui.errors import AccessError, ConfigurationError, ToolError, UnreachableError
from pilothouse_tui.model import (
    BreakerState,
    Connected,
    FleetSnapshot,
    KubeObject,
    Lost,
    ObjectDeleted,
    ObjectsListed,
    Session,
    Update,
)


def access(server: str, token: str = "admin") -> ClusterAccess:
    return ClusterAccess("test", server, token=token)


async def collect(stream: AsyncIterator[Update], until: type) -> list[Update]:
    found: list[Update] = []
    async with aclosing(stream):  # type: ignore[type-var]
        async for update in stream:
            found.append(update)
            if isinstance(update, until):
                return found
    return found


def test_kubeconfig_is_found_in_the_documented_order(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / ".kube").mkdir(parents=True)
    (home / ".kube" / "config").write_text("{}")
    state = tmp_path / "state"
    environ = {"HOME": str(home), "PILOTHOUSE_STATE": str(state)}
    assert find_kubeconfig(environ, uid=1000) == [home / ".kube" / "config"]
    state.mkdir()
    (state / "kubeconfig").write_text("{}")
    assert find_kubeconfig(environ, uid=1000) == [state / "kubeconfig"]
    other = tmp_path / "other"
    other.write_text("{}")
    assert find_kubeconfig({**environ, "KUBECONFIG": f"{tmp_path}/none:{other}"}) == [other]
    with pytest.raises(ConfigurationError, match="exists"):
        find_kubeconfig({**environ, "KUBECONFIG": f"{tmp_path}/none"})
    with pytest.raises(ConfigurationError, match="make up"):
        find_kubeconfig({"HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "no")}, uid=1000)


def test_kubeconfig_files_merge_and_paths_are_relative(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_bytes(b"CA")
    first = {"current-context": "b", "contexts": [{"name": "b", "context": {"cluster": "c", "user": "u"}}]}
    second = {
        "clusters": [{"name": "c", "cluster": {"server": "https://h:6443/", "certificate-authority": "ca.crt"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    for name, content in (("1", first), ("2", second)):
        (tmp_path / name).write_text(yaml.safe_dump(content))
    found = load_access([tmp_path / "1", tmp_path / "2"])
    assert (found.server, found.ca, found.token) == ("https://h:6443", b"CA", "t")
    with pytest.raises(ConfigurationError, match="no complete context 'x'"):
        load_access([tmp_path / "1", tmp_path / "2"], "x")


async def test_exec_plugins_give_tokens_and_their_failure_is_told(tmp_path: Path) -> None:
    answer = json.dumps({"status": {"token": "from-plugin"}})
    assert (await run_plugin({"command": "echo", "args": [answer]})).token == "from-plugin"
    with pytest.raises(AccessError, match="Sign in"):
        await run_plugin({"command": str(tmp_path / "absent")})


async def test_objects_are_listed_watched_and_listed_again_when_the_version_is_too_old() -> None:
    async with api_server() as (fake, url), KubeClient(access(url)) as kube:
        fake.watch_codes = [410]
        fake.events.put_nowait({"type": "MODIFIED", "object": tenant_json("acme")})
        fake.events.put_nowait({"type": "BOOKMARK", "object": tenant_json("x")})
        fake.events.put_nowait({"type": "DELETED", "object": tenant_json("acme")})
        sources = LiveSources(kube, FleetClient(kube, "127.0.0.1:1"))
        updates = await asyncio.wait_for(collect(sources.kubernetes(), ObjectDeleted), 10)
    assert any(isinstance(u, Connected) for u in updates)
    listed = [u for u in updates if isinstance(u, ObjectsListed) and u.kind == "Tenant"]
    assert len(listed) == 2
    changed = next(u for u in updates if isinstance(u, KubeObject))
    assert (changed.title, changed.conditions[0].type) == ("Acme", "Ready")
    assert updates[-1] == ObjectDeleted(("Tenant", "acme", "acme"))


async def test_a_refusal_has_three_parts_and_is_tried_again() -> None:
    async with api_server() as (_, url), KubeClient(access(url, "bad")) as kube:
        sources = LiveSources(kube, FleetClient(kube, "127.0.0.1:1"))
        lost = (await asyncio.wait_for(collect(sources.kubernetes(), Lost), 10))[-1]
        assert isinstance(lost, Lost)
        assert "who are you" in lost.message
        assert lost.to_do
        assert lost.retry_in > 0
        with pytest.raises(AccessError):
            await kube.request_fleet_token()


async def test_a_dead_api_server_is_named() -> None:
    async with KubeClient(access("http://127.0.0.1:1")) as kube:
        with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:1 can.t be reached") as caught:
            await kube.get("/version")
    assert "SSLContext" not in str(caught.value)


async def test_keys_services_and_tokens_are_read() -> None:
    async with api_server() as (_, url), KubeClient(access(url)) as kube:
        assert await kube.read_signing_key() == KEY
        assert await kube.find_chat_url() == "ws://127.0.0.1:30080/v1/chat"
        with pytest.raises(UnreachableError, match="No gateway Pod"):
            await kube.find_gateway_pod_ip()


def test_development_tokens_follow_the_contract() -> None:
    token = make_token(KEY, tenant="acme", user="jo.doe@acme.example", ttl_seconds=60, now=1000)
    assert jwt.decode(token, OctKey.import_key(KEY)).claims == {
        "sub": "jo.doe@acme.example", "email": "jo.doe@acme.example", "tenant": "acme", "name": "Jo Doe",
        "aud": "pilothouse", "iat": 1000, "exp": 1060,
    }  # fmt: skip
    assert [parse_duration(t) for t in ("90s", "1h30m", "7d")] == [90, 5400, 604_800]
    for wrong in ("", "1", "1x", "-1h", "1h 2m"):
        with pytest.raises(ConfigurationError):
            parse_duration(wrong)


async def test_the_token_command_prints_a_token(tmp_path: Path) -> None:
    async with api_server() as (_, url):
        arguments = ["token", "--tenant", "globex", "--user", "a@b.example", "--kubeconfig", kubeconfig(tmp_path, url),
                     "--manager", "boss@b.example", "--group", "it", "--group", "hr"]  # fmt: skip
        result = await asyncio.to_thread(CliRunner().invoke, main, arguments)
    assert result.exit_code == 0, result.output
    claims = jwt.decode(result.output.strip(), OctKey.import_key(KEY)).claims
    assert (claims["tenant"], claims["manager"], claims["groups"]) == ("globex", "boss@b.example", ["it", "hr"])


def test_a_missing_kubeconfig_is_one_clear_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    result = CliRunner().invoke(main, ["get", "costs"])
    assert result.exit_code == 1
    assert "→" in result.output
    assert "Traceback" not in result.output


async def test_fleet_carries_one_token_for_many_calls_and_turns_messages_into_the_model() -> None:
    async with api_server() as (api, url), KubeClient(access(url)) as kube, fleet_server() as (fake, address):
        client = FleetClient(kube, address)
        snapshot = await client.snapshot()
        assert snapshot.sessions[0] == Session("acme", "s1", active=True, cost_micros=7)
        assert snapshot.breakers[0].state is BreakerState.HALF_OPEN
        details = [d async for d in client.watch_session("acme", "s9")]
        assert details[0].runs[0].steps[0].running
        changes = [c async for c in client.watch()]
        assert [type(c) for c in changes] == [FleetSnapshot, Session]
        assert fake.seen == ["Bearer sre-1"] * 2
        assert api.tokens == 1


async def test_a_token_that_fleet_refuses_is_replaced_and_the_stream_says_that_it_was_lost() -> None:
    async with api_server() as (_, url), KubeClient(access(url)) as kube, fleet_server() as (fake, address):
        fake.refused = {"Bearer sre-1"}
        sources = LiveSources(kube, FleetClient(kube, address))
        updates = await asyncio.wait_for(collect(sources.fleet(), Session), 10)
        assert isinstance(updates[0], Lost)
        assert "token is not valid" in updates[0].message
        assert [type(u) for u in updates[1:]] == [Connected, FleetSnapshot, Session]


async def test_an_address_that_does_not_answer_is_explained() -> None:
    async with api_server() as (_, url), KubeClient(access(url)) as kube:
        with pytest.raises(UnreachableError, match="--fleet"):
            await FleetClient(kube, "127.0.0.1:1", connect_timeout=0.2).snapshot()


async def test_a_pod_address_of_a_remote_cluster_names_port_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    kube = KubeClient(access("https://cluster.example"))

    async def pod() -> str:
        return "127.0.0.1"

    monkeypatch.setattr(kube, "find_gateway_pod_ip", pod)
    monkeypatch.setattr("pilothouse_tui.data.fleet.GATEWAY_FLEET_PORT", 1)
    with pytest.raises(UnreachableError, match="kubectl port-forward -n pilothouse-system"):
        await FleetClient(kube, "", connect_timeout=0.2).snapshot()


async def good() -> str:
    return "good"


async def test_converse_yields_ready_and_the_run() -> None:
    async with gateway() as (fake, url):
        events = [e["type"] async for e in converse(url, "good", "hi", "s-1")]
    assert events == ["ready", "accepted", "text_delta", "final"]
    assert fake.got[0] == {"type": "hello", "token": "good", "session_id": "s-1"}


async def test_a_refused_token_says_what_to_do() -> None:
    async with gateway() as (_, url):
        with pytest.raises(AccessError) as caught:
            _ = [e async for e in converse(url, "bad", "hi")]
    assert caught.value.to_do == "Sign in again."


async def test_stop_and_decisions_reach_the_gateway() -> None:
    async with gateway() as (_, url), ChatConnection(url, good) as chat:
        await chat.connect()
        async for event in chat.ask("wait"):
            if event["type"] == "accepted":
                await chat.stop()
        assert event["partial"]
        async for event in chat.ask("write"):
            if event["type"] == "approval_required":
                await chat.decide("a1", True)
        assert event["text"] == "True"


async def test_a_restart_keeps_the_session() -> None:
    async with gateway() as (fake, url), ChatConnection(url, good) as chat:
        await chat.connect()
        fake.die = True
        with pytest.raises(UnreachableError, match="restarting"):
            _ = [e async for e in chat.ask("hi")]
        fake.die = False
        await chat.connect_patiently(lambda *_: None)
        assert fake.got[-1]["session_id"] == "s-new"
        assert [e async for e in chat.ask("hi")][-1]["text"] == "42"


async def test_connecting_patiently_waits_and_gives_up() -> None:
    waits: list[float] = []
    chat = ChatConnection("ws://127.0.0.1:1/v1/chat", good)
    with pytest.raises(UnreachableError):
        await chat.connect_patiently(lambda _, wait: waits.append(wait), attempts=3)
    assert len(waits) == 2
    with pytest.raises(ConfigurationError):
        await ChatConnection("http:/nonsense", good).connect()


async def command(*arguments: str) -> tuple[int | None, str]:
    """Exit status and standard output of ``pilothouse`` in a process of its own (it handles Ctrl-C)."""
    code = "from pilothouse_tui.cli import main; main()"
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, *arguments, stdout=pipe, stderr=pipe)
    output, _ = await process.communicate()
    return process.returncode, output.decode()


@pytest.mark.parametrize(("question", "status"), [("hi", 0), ("fail", 1)])
async def test_one_shot_chat_prints_and_exits(question: str, status: int) -> None:
    async with gateway() as (_, url):
        base = ["chat", "--url", url, "--token", "good"]
        shown = await command(*base, question)
        raw = await command(*base, "--json", question)
    assert shown[0] == raw[0] == status
    assert ("4" if status == 0 else "→ Wait.") in shown[1]
    assert json.loads(raw[1].splitlines()[0])["type"] == "ready"


async def test_bursts_are_joined_and_errors_pass() -> None:
    async def burst() -> AsyncIterator[int]:
        for i in range(100):
            yield i
        raise ToolError("a", "b", "c")

    got: list[list[int]] = []

    async def read() -> None:
        async for batch in batches(burst(), 0.01):
            got.append(batch)

    with pytest.raises(ToolError):
        await read()
    assert [i for b in got for i in b] == list(range(100))
    assert len(got) == 1


def test_backoff_grows_to_its_limit() -> None:
    backoff = Backoff(0.5, 4, chance=lambda: 0.0)
    assert [backoff.failed() for _ in range(5)] == [0.5, 1, 2, 4, 4]
    backoff.succeeded()
    assert backoff.failed() == 0.5
