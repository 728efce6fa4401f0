from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
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
