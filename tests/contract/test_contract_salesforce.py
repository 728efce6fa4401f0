from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp.test_utils import TestServer
from salesforce_cases import CASES

from pilothouse_sim.salesforce.app import make_app
from pilothouse_testing.contract import Case, World, place_of

FACTS = {
    # an account that the employee sees and the contractor does not, and whose it is
    "account": "NetGuard",
    "owner_email": "olivia.owner@acme.example",
    # a word of a published article, of a report that the manager has viewed
    "article": "VPN",
    "report": "Open",
    # an external-id field of Case that is not Pilothouse_Key__c
    "external_field": "Ticket_Id__c",
}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    # pages of two records: what is read over several of them there is read so here
    async with TestServer(make_app(batch=2)) as server:
        world = World("salesforce", place_of("salesforce", str(server.make_url("/")).rstrip("/"), FACTS))
        yield world
        await world.aclose()


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES.all()])
async def test_contract(world: World, case: Case) -> None:
    await case(world)


async def test_every_tool_has_a_case_with_one_who_may_and_one_who_may_not(world: World) -> None:
    assert CASES.missing(world) == []


async def test_the_probe_asks_as_nobody(world: World) -> None:
    await world.connector.probe()
