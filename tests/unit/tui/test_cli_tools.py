"""``pilothouse tools`` and ``pilothouse accounts`` against an in-process Fleet service and gateway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from click.testing import CliRunner, Result

from pilothouse_proto.agent.v1 import agent_pb2
from pilothouse_testing.tui_servers import api_server, fleet_server, kubeconfig
from pilothouse_tui.cli import main
from pilothouse_tui.cli.printer import Printer
from pilothouse_tui.data.accounts import page_of
from pilothouse_tui.errors import ConfigurationError

RESET = agent_pb2.ToolDescription(
    name="okta.factor.reset", connector="okta", description="Reset a factor.\x1b[2J",
    effect=agent_pb2.EFFECT_DESTRUCTIVE,
    approver=agent_pb2.APPROVER_GROUP, group="it", parameters_json='{"type": "object"}',
)  # fmt: skip
CREATE = agent_pb2.ToolDescription(
    name="jira.issue.create", connector="jira", effect=agent_pb2.EFFECT_WRITE, key_by="entity property"
)
GET = agent_pb2.ToolDescription(name="jira.issue.get", connector="jira", effect=agent_pb2.EFFECT_READ)


@pytest.mark.parametrize(
    ("arguments", "shown", "hidden"),
    [
        ((), ["okta.factor.reset", "destructive", "group it", "entity property"], ["\x1b"]),
        (("jira.issue.*",), ["jira.issue.create", "jira.issue.get"], ["okta"]),
        (("--connector", "okta"), ["okta.factor.reset"], ["jira"]),
        (("nothing.*",), ["has no such tool", "kubectl get connectors"], ["okta"]),
    ],
)
async def test_tools_are_listed(
    tmp_path: Path, arguments: tuple[str, ...], shown: list[str], hidden: list[str]
) -> None:
    async with api_server() as (_, url), fleet_server() as (fleet, address):
        fleet.tools = [RESET, CREATE, GET]
        given = ["tools", "--tenant", "acme", *arguments, "--kubeconfig", kubeconfig(tmp_path, url), "--fleet", address]
        result = await asyncio.to_thread(CliRunner().invoke, main, given)
        as_json = await asyncio.to_thread(CliRunner().invoke, main, [*given, "-o", "json"])
    assert result.exit_code == 0
    assert all(text in result.output for text in shown)
    assert not any(text in result.output for text in hidden)
    assert all(isinstance(tool["parameters"], dict) for tool in json.loads(as_json.output))


class FakeGateway:
    def __init__(self) -> None:
        self.status = 200
        self.seen: list[tuple[str, str, str]] = []

    async def handle(self, request: web.Request) -> web.Response:
        self.seen.append((request.method, request.path, request.headers.get("authorization", "")))
        if self.status != 200:
            body = {"message": "The token has expired.", "user_action": "Sign in again."}
            return web.json_response(body, status=self.status)
        if request.method == "POST":
            return web.json_response({"message": "Your Jira tokens were revoked and forgotten."})
        accounts = [
            {"connector": "jira", "system": "Jira", "state": "LINK_STATE_LINKED", "account": "e@acme.example",
             "scopes": ["read:jira-work"], "linked": {"seconds": 1_700_000_000}},
            {"connector": "okta", "system": "Okta", "state": "LINK_STATE_NOT_LINKED"},
            {"connector": "new", "state": "LINK_STATE_FROM_THE_FUTURE"},
        ]  # fmt: skip
        return web.json_response({"accounts": accounts})


@asynccontextmanager
async def gateway() -> AsyncIterator[tuple[FakeGateway, str]]:
    fake = FakeGateway()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", fake.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    yield fake, f"ws://127.0.0.1:{port}/v1/chat"
    await runner.cleanup()


async def invoke(url: str, *arguments: str, typed: str | None = None) -> Result:
    given = ["accounts", *arguments, "--url", url, "--token", "t0"]
    return await asyncio.to_thread(CliRunner().invoke, main, given, input=typed)


async def test_accounts_are_listed_with_where_to_link_others() -> None:
    async with gateway() as (fake, url):
        result = await invoke(url, "list")
        as_json = await invoke(url, "list", "-o", "json")
    assert result.exit_code == 0
    for text in ("● linked", "e@acme.example", "○ not linked", "? not known", f"http{url[2:-8]}/accounts"):
        assert text in result.output
    assert [account["state"] for account in json.loads(as_json.output)] == ["linked", "not_linked", "unspecified"]
    assert fake.seen[0] == ("GET", "/v1/accounts", "Bearer t0")


async def test_unlinking_asks_first_and_tells_what_was_revoked() -> None:
    async with gateway() as (fake, url):
        refused = await invoke(url, "unlink", "jira", typed="n\n")
        assert (refused.exit_code, fake.seen) == (1, [])
        done = await invoke(url, "unlink", "jira/../x", "--yes")
    assert "revoked and forgotten" in done.output
    assert fake.seen == [("POST", "/v1/accounts/jira/../x/unlink", "Bearer t0")] or fake.seen[0][1].startswith(
        "/v1/accounts/jira%2F"
    )


@pytest.mark.parametrize("status", [401, 400, 503])
async def test_what_the_gateway_refuses_is_told_in_three_parts(status: int) -> None:
    async with gateway() as (fake, url):
        fake.status = status
        result: Any = await invoke(url, "list")
    assert result.exit_code == 1
    assert "✗ The token has expired." in result.output
    assert "→ Sign in again." in result.output


async def test_a_gateway_that_is_not_there_is_told() -> None:
    result = await invoke("ws://127.0.0.1:9/v1/chat", "list")
    assert result.exit_code == 1
    assert "The gateway did not answer" in result.output


@pytest.mark.parametrize("url", ["ftp://x/v1/chat", "nonsense", ""])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        page_of(url)


def test_a_step_that_ended_before_the_run_was_heard_to_go_on_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    printer = Printer(lambda: datetime.now(UTC))
    done = {"step_id": "s1", "tool": "a.b.c", "outcome": "STEP_OUTCOME_SUCCEEDED", "summary": "Asked Okta."}
    late = {"step_id": "s2", "tool": "a.b.d", "outcome": "STEP_OUTCOME_REFUSED", "summary": "Jira said no."}
    printer.event({"type": "step_finished", "run_id": "r", **done})
    printer.event({"type": "resumed", "run_id": "r", "reason": "The approvals are decided.", "steps": [done, late]})
    said = capsys.readouterr().out
    assert (said.count("Asked Okta."), said.count("Jira said no.")) == (1, 1)
