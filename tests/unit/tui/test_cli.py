"""The SRE's and the employee's subcommands against an in-process Fleet service, gateway and Kubernetes API."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner, Result

from pilothouse_proto.agent.v1 import agent_pb2
from pilothouse_testing.tui_servers import FakeFleet, FakeKube, api_server, fleet_server, gateway, kubeconfig
from pilothouse_tui.cli import main

OPEN, REPLAYED = agent_pb2.DEAD_LETTER_STATE_OPEN, agent_pb2.DEAD_LETTER_STATE_REPLAYED


def letter(id: str, tenant: str = "acme", **more: Any) -> agent_pb2.DeadLetter:
    made = agent_pb2.DeadLetter(
        id=id, tenant=tenant, user="e@acme.example", tool="jira.issue.create", error="503\x1b[2J twice", attempts=3,
        arguments_json='{"summary": "VPN \\u202e down"}', idempotency_key="r/s1", state=OPEN,
    )  # fmt: skip
    made.created.FromSeconds(1_700_000_000)
    for name, value in more.items():
        setattr(made, name, value)
    return made


def pending(id: str, tenant: str) -> agent_pb2.PendingApproval:
    request = agent_pb2.ApprovalRequired(
        approval_id=id, tool="jira.issue.delete", summary="Delete NET-1", arguments_json='{"issue": "NET-1"}',
        by=agent_pb2.APPROVER_GROUP, approver="it", reason="The policy asks.",
        origins=[agent_pb2.ArgumentOrigin(path="issue", value="NET-1", source="jira.issue.search (s0)")],
    )  # fmt: skip
    return agent_pb2.PendingApproval(tenant=tenant, user="e@acme.example", session_id="s", run_id="r", request=request)


Run = Callable[..., Any]


@asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[tuple[FakeKube, FakeFleet, Run]]:
    async with api_server() as (kube, url), fleet_server() as (fleet, address):
        kube.tenants = ["acme", "globex"]
        file = kubeconfig(folder, url)

        async def run(*arguments: str, typed: str | None = None) -> Result:
            given = [*arguments, "--kubeconfig", file, "--fleet", address]
            return await asyncio.to_thread(CliRunner().invoke, main, given, input=typed)

        yield kube, fleet, run


async def test_dlq_list_shortens_ids_and_names_tenants_that_did_not_answer(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (_, fleet, run):
        fleet.letters = [letter("aaaabbbbcccc1"), letter("aaaabbbbcccc2"), letter("ffff00001111", state=REPLAYED)]
        fleet.down = {"globex"}
        result = await run("dlq", "list")
        assert result.exit_code == 1  # a list with a hole is no success
        assert "globex is missing from the list" in result.output
        lines = result.stdout.splitlines()
        assert lines[0].split()[:3] == ["ID", "TENANT", "AGE"]
        assert sorted(line.split()[0] for line in lines[1:3]) == ["aaaabbbbcccc1", "aaaabbbbcccc2"]
        assert "\x1b" not in result.stdout
        fleet.down = set()
        result = await run("dlq", "list", "--all", "-o", "json")
        assert result.exit_code == 0
        assert {d["state"] for d in json.loads(result.stdout)} == {"open", "replayed"}
        assert json.loads(result.stdout)[0]["arguments"]["summary"].startswith("VPN")
        result = await run("dlq", "list", "--tenant", "globex")
        assert result.stdout.strip() == "There are no open dead letters."


async def test_dlq_show_spells_out_what_a_terminal_would_hide(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (_, fleet, run):
        fleet.letters = [letter("abcd1111", in_doubt=True), letter("abcd2222", tenant="globex")]
        result = await run("dlq", "show", "abcd1")
        assert result.exit_code == 0
        assert '"summary": "VPN \\u202e down"' in result.stdout
        assert "may have happened" in result.stdout
        ambiguous = await run("dlq", "show", "abcd")
        assert ambiguous.exit_code == 1
        assert "stands for 2 dead letters" in ambiguous.output
        assert "--tenant" in ambiguous.output
        missing = await run("dlq", "show", "zz")
        assert (missing.exit_code, "There is no dead letter zz." in missing.output) == (1, True)


async def test_dlq_replay_asks_first_and_its_status_is_the_writes(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (_, fleet, run):
        fleet.letters = [letter("abcd1111"), letter("abcd2222", state=REPLAYED)]

        def replays() -> list[Any]:
            return [r for r in fleet.asked if type(r).__name__ == "ReplayDeadLetterRequest"]

        assert (await run("dlq", "replay", "abcd1", typed="n\n")).exit_code == 1
        nobody = await run("dlq", "replay", "abcd1", typed="")
        assert (nobody.exit_code, "--yes" in nobody.output) == (1, True)
        assert (await run("dlq", "replay", "abcd2", "--yes")).exit_code == 1  # replayed before
        assert replays() == []
        done = await run("dlq", "replay", "abcd1", typed="y\n")
        assert (done.exit_code, "✓ NET-9 is there now." in done.output) == (0, True)
        fleet.outcome = agent_pb2.STEP_OUTCOME_UNKNOWN
        assert (await run("dlq", "replay", "abcd1", "--yes", "--force")).exit_code == 1
        assert [r.force for r in replays()] == [False, True]
        assert (await run("dlq", "discard", "abcd1", "-y")).exit_code == 0


@pytest.mark.parametrize(
    ("code", "parts"),
    [
        (grpc.StatusCode.PERMISSION_DENIED, ("Fleet refused", "Nothing was sent again", "update deadletters")),
        (grpc.StatusCode.UNAVAILABLE, ("was lost", "Whether the write was sent is not known", "can't write twice")),
        (grpc.StatusCode.UNIMPLEMENTED, ("older than this command", "Nothing was sent again", "Upgrade")),
    ],
)
async def test_a_failed_replay_says_what_is_known(tmp_path: Path, code: grpc.StatusCode, parts: Any) -> None:
    async with api_server() as (_, url), fleet_server() as (fleet, address):
        from pilothouse_tui.data.actions import FleetActions
        from pilothouse_tui.data.fleet import FleetClient
        from pilothouse_tui.data.kube import KubeClient
        from pilothouse_tui.errors import ToolError

        async with KubeClient.from_environment(kubeconfig(tmp_path, url)) as kube:
            fleet.failure = (code, "because.")
            with pytest.raises(ToolError) as caught:
                await FleetActions(FleetClient(kube, address)).replay("acme", "abcd")
    for part, said in zip(parts, (caught.value.happened, caught.value.not_done, caught.value.to_do), strict=True):
        assert part in said


async def test_approvals_as_the_sre(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (_, fleet, run):
        fleet.approvals = [pending("1111222233334444", "acme"), pending("5555222233334444", "globex")]
        listed = await run("approvals", "list")
        assert [line.split()[0] for line in listed.stdout.splitlines()] == ["ID", "11112222", "55552222"]
        shown = await run("approvals", "show", "5555")
        assert "issue = NET-1  from jira.issue.search (s0)" in shown.stdout
        assert (await run("approvals", "approve", "5")).exit_code == 0
        fleet.decided = agent_pb2.DECIDE_OUTCOME_ALREADY_DECIDED
        late = await run("approvals", "refuse", "11112222")
        assert (late.exit_code, "Somebody else has decided" in late.output) == (1, True)
        assert [(r.tenant, r.approval_id, r.approved) for r in fleet.asked] == [
            ("globex", "5555222233334444", True), ("acme", "1111222233334444", False),
        ]  # fmt: skip
        assert (await run("approvals", "approve", "9")).exit_code == 1
        assert len(fleet.asked) == 2


async def test_approvals_as_a_manager_go_through_the_chat() -> None:
    async with gateway() as (fake, url):
        base = ("--as", "boss@acme.example", "--url", url, "--token", "good")
        listed = await asyncio.to_thread(CliRunner().invoke, main, ["approvals", "list", *base])
        assert "ap-01234" in listed.stdout
        done = await asyncio.to_thread(CliRunner().invoke, main, ["approvals", "approve", "ap-0", *base])
        assert (done.exit_code, "✓ Noted." in done.output) == (0, True)
    assert fake.got[-1] == {"type": "decision", "approval_id": "ap-0123456789", "approved": True}


async def test_breakers_are_listed_and_set(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (_, fleet, run):
        listed = await run("breakers", "list")
        assert listed.stdout.splitlines()[0].split()[3:5] == ["FAILURES", "SLOW"]
        for word in ("force-open", "disable", "automatic"):
            assert (await run("breakers", word, "connector/jira", "--tenant", "acme")).exit_code == 0
        modes = [agent_pb2.BREAKER_MODE_FORCED_OPEN, agent_pb2.BREAKER_MODE_DISABLED, agent_pb2.BREAKER_MODE_AUTOMATIC]
        assert [r.mode for r in fleet.asked] == modes
        assert (await run("breakers", "disable", "jira", "--tenant", "acme")).exit_code == 1
        assert len(fleet.asked) == 3


Typed = tuple[tuple[bytes, bytes | Callable[[], None]], ...]


async def chat(url: str, question: str, *more: str, typed: Typed = ()) -> tuple[int, str]:
    """Exit status and output of ``pilothouse chat`` at a terminal of its own: ``typed`` is (wait for, then type)."""
    code = "from pilothouse_tui.cli import main; main()"
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, "chat", "--url", url, "--token", "good", *more, *([question] if question else []),
        stdin=theirs, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    os.close(theirs)
    assert process.stdout is not None
    output, waits = b"", list(typed)
    try:
        async with asyncio.timeout(20):
            while block := await process.stdout.read(4096):
                output += block
                if waits and waits[0][0] in output.replace(b"\xe2\x80\xba ", b""):
                    text = waits.pop(0)[1]
                    if callable(text):
                        text()
                    elif text == b"^C":
                        process.send_signal(2)
                    else:
                        os.write(ours, text)
            return await process.wait(), output.decode()
    finally:
        os.close(ours)
        if process.returncode is None:
            process.kill()


@pytest.mark.parametrize(("answer", "text"), [(b"y\n", "Deleted."), (b"\n", "Not deleted.")])
async def test_chat_asks_the_user_and_the_run_goes_on(answer: bytes, text: str) -> None:
    async with gateway() as (fake, url):
        status, output = await chat(url, "park", "-v", typed=((b"Approve? [y/N] ", answer),))
    assert status == 0
    assert fake.got[-1]["approved"] is (answer == b"y\n")
    for part in ("· jira.issue.delete  Delete NET-1", "decides     you", "issue = NET-1  from jira.issue.search (s0)",
                 "text above is void", "✓ Noted.", text, "model 900 ms (90%)"):  # fmt: skip
        assert part in output


async def test_chat_says_who_else_was_asked_and_does_not_wait() -> None:
    async with gateway() as (fake, url):
        status, output = await chat(url, "boss")
    assert status == 3
    assert "boss@acme.example (manager) was asked" in output
    assert "Waiting for boss@acme.example (manager)" in output
    assert "Approve?" not in output
    assert [m["type"] for m in fake.got] == ["hello", "ask"]


async def test_ctrl_c_at_the_question_stops_and_leaves_it_unanswered() -> None:
    async with gateway() as (fake, url):
        status, output = await chat(url, "park", typed=((b"Approve? [y/N] ", b"^C"),))
    assert [m["type"] for m in fake.got] == ["hello", "ask", "stop"]
    assert status in (0, 3)
    assert "pilothouse approvals approve ap-0123456789" in output or "partial" in output


async def test_at_the_prompt_a_parked_run_that_goes_on_is_shown_and_the_next_question_is_answered() -> None:
    async with gateway() as (fake, url):
        typed: Typed = (
            (b"Ctrl-D leaves", b"boss\n"),
            (b"Waiting for boss", fake.boss_decides.set),
            (b"Deleted.", b"hi\n"),
            (b"\n4\n", b"\x04"),
        )
        status, output = await chat(url, "", typed=typed)
    assert status == 0
    assert "void" in output
    assert "Deleted." in output
    assert [m["type"] for m in fake.got] == ["hello", "ask", "ask"]
