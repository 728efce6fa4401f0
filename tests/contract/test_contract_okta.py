from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp.test_utils import TestServer
from okta_cases import CASES

from pilothouse_sim.faults import Faults
from pilothouse_sim.okta.app import make_app
from pilothouse_testing.contract import Case, World, place_of

FACTS = {
    # people who report to the manager; the leaver is deactivated, for good
    "report": "rita.report@acme.example",
    "leaver": "rita.report@acme.example",
    "locked": "lou.locked@acme.example",
    # a group and an app that the report does not have yet
    "group": "VPN Users",
    "app": "Acme VPN",
    # the type of one factor of the employee
    "factor": "token:software:totp",
}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    # search lags, as Okta's does: what works here works there
    async with TestServer(make_app(faults=Faults(index_delay_seconds=60))) as server:
        world = World("okta", place_of("okta", str(server.make_url("/")).rstrip("/"), FACTS))
        yield world
        await world.aclose()


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES.all()])
async def test_contract(world: World, case: Case) -> None:
    await case(world)


async def test_every_tool_has_a_case_with_one_who_may_and_one_who_may_not(world: World) -> None:
    assert CASES.missing(world) == []


async def test_the_probe_asks_as_nobody(world: World) -> None:
    await world.connector.probe()
