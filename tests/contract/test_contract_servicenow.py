from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp.test_utils import TestServer
from servicenow_cases import CASES

from pilothouse_sim.servicenow.app import make_app
from pilothouse_testing.contract import Case, World, place_of

FACTS = {"group": "Network", "item": "Standard Laptop", "ci": "vpn-gw-01", "article": "VPN"}
"""A group, an item whose order the manager approves, a configuration item, words of an article."""


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with TestServer(make_app()) as server:
        world = World("servicenow", place_of("servicenow", str(server.make_url("/")).rstrip("/"), FACTS))
        yield world
        await world.aclose()


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES.all()])
async def test_contract(world: World, case: Case) -> None:
    await case(world)


async def test_every_tool_has_a_case_with_one_who_may_and_one_who_may_not(world: World) -> None:
    assert CASES.missing(world) == []
