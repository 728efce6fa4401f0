from __future__ import annotations

from collections.abc import AsyncIterator

import jira_cases
import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer
from jira_cases import CASES

from pilothouse_sim.faults import Faults
from pilothouse_sim.jira.app import make_app
from pilothouse_testing.contract import Case, World, place_of


@pytest.fixture
async def world() -> AsyncIterator[World]:
    # search lags, as Jira Cloud's does: what works here works there
    async with TestServer(make_app(faults=Faults(index_delay_seconds=60))) as server:
        url = str(server.make_url("/")).rstrip("/")
        world = World("jira", place_of("jira", url, {"project": "IT", "hidden": "HR-1"}))
        yield world
        await world.aclose()


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES.all()])
async def test_contract(world: World, case: Case) -> None:
    await case(world)


async def test_every_tool_has_a_case_with_one_who_may_and_one_who_may_not(world: World) -> None:
    assert CASES.missing(world) == []


async def test_the_same_through_atlassians_gateway() -> None:
    """Tokens of an OAuth app are good there only; links lead to the site all the same."""
    async with TestServer(make_app()) as server, ClientSession() as session:
        url = str(server.make_url("/")).rstrip("/")
        headers = {"Authorization": "Bearer jira-token-employee"}
        async with session.get(f"{url}/oauth/token/accessible-resources", headers=headers) as answer:
            (site,) = await answer.json()
        place = place_of("jira", f"{url}/ex/jira/{site['id']}", {"project": "IT", "hidden": "HR-1"})
        if place.real:
            pytest.skip("the address of the real system says which of both it is")
        world = World("jira", place)
        try:
            for case in (jira_cases.create_and_get, jira_cases.changes_denied, jira_cases.projects):
                await case(world)
            made = await world.result("issue.create", project="IT", summary="Contract test: a link")
            assert isinstance(made.data, dict)
            assert [c.url for c in made.citations] == [f"{site['url']}/browse/{made.data['key']}"]
        finally:
            await world.aclose()
