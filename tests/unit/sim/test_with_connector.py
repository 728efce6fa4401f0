"""The real Jira connector against the stand-in, and the model stand-in's words for what came of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp.test_utils import TestServer

from pilothouse_api.egress import EgressRule
from pilothouse_dataplane.connectors.base import CallContext, Credential, Refused, SecretText
from pilothouse_dataplane.connectors.http import JsonClient
from pilothouse_dataplane.connectors.jira.connector import JiraConnector
from pilothouse_dataplane.core.messages import ToolResult
from pilothouse_sim.faults import Faults
from pilothouse_sim.jira.app import make_app


@pytest.fixture
async def jira() -> AsyncIterator[JiraConnector]:
    # Search lags, as Jira Cloud's does: what works here works there.
    async with TestServer(make_app(faults=Faults(index_delay_seconds=60))) as server:
        url = str(server.make_url("/")).rstrip("/")
        connector = JiraConnector("jira", JsonClient("Jira", url, 5, EgressRule(allow_hosts=("127.0.0.1",))))
        yield connector
        await connector.aclose()


async def call(jira: JiraConnector, verb: str, user: str = "employee", **arguments: Any) -> ToolResult:
    tool = next(tool for tool in jira.describe_tools() if tool.name == f"jira.issue.{verb}")
    credential = Credential(SecretText(f"jira-token-{user}"), f"{user}@acme.example")
    return await jira.call(tool, arguments, CallContext(f"{user}@acme.example", "key-1", credential=credential))


async def test_search_sees_what_the_user_has_just_created(jira: JiraConnector) -> None:
    created = await call(jira, "create", project="IT", summary="VPN token expired")
    found = await call(jira, "search", mine=True, open=True, text="VPN")
    assert isinstance(created.data, dict)
    assert isinstance(found.data, dict)
    assert {row["key"] for row in found.data["issues"]} == {"IT-1", "IT-3", created.data["key"]}


async def test_comment_and_transition(jira: JiraConnector) -> None:
    await call(jira, "comment", key="IT-3", body="first\n\nsecond")
    await call(jira, "transition", key="IT-3", status="Done")
    read = (await call(jira, "get", key="IT-3")).data
    assert isinstance(read, dict)
    assert (read["status"], read["comments"][0]["body"]) == ("Done", "first\nsecond")


@pytest.mark.parametrize(
    ("verb", "arguments", "words"),
    [
        ("create", {"project": "IT", "summary": "x"}, "Create Issues"),
        ("comment", {"key": "IT-3", "body": "x"}, "permission to comment"),
        ("transition", {"key": "IT-3", "status": "Done"}, "Transition Issues"),
        ("get", {"key": "HR-1"}, "Browse Projects"),
    ],
)
async def test_refusals_name_the_permission(
    jira: JiraConnector, verb: str, arguments: dict[str, Any], words: str
) -> None:
    with pytest.raises(Refused, match=words):
        await call(jira, verb, "contractor", **arguments)
