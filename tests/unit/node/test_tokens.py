"""ServiceAccount tokens of a Pod: when they are asked for again."""

from __future__ import annotations

from typing import Any

import pytest

from pilothouse_local.node.projection import TokenWant
from pilothouse_local.node.tokens import LOOK_SECONDS, Tokens

VAULT = TokenWant("vault", 1800)


class Server:
    """Grants tokens t1, t2, … and has a clock that only moves when told."""

    def __init__(self, granted: int | None = None) -> None:
        self.now = 1000.0
        self.asked: list[TokenWant] = []
        self.granted = granted
        self.down = False
        self.tokens = Tokens(self.request, lambda: self.now)

    async def request(self, want: TokenWant) -> dict[str, Any]:
        self.asked.append(want)
        if self.down:
            raise OSError("connection refused")
        answer: dict[str, Any] = {"status": {"token": f"t{len(self.asked)}"}}
        if self.granted is not None:
            answer["spec"] = {"expirationSeconds": self.granted}
        return answer


async def test_a_token_serves_until_four_fifths_of_its_life() -> None:
    server = Server()
    assert await server.tokens.get(VAULT) == "t1"

    server.now += 1800 * 0.8 - 1
    assert await server.tokens.get(VAULT) == "t1"
    assert not server.tokens.due()

    server.now += 1
    assert server.tokens.due()
    assert await server.tokens.get(VAULT) == "t2"
    assert not server.tokens.due()
    assert server.asked == [VAULT, VAULT]


@pytest.mark.parametrize(("wanted", "granted", "renewed"), [(3600, 600, 480.0), (365 * 86400, None, 86400.0)])
async def test_what_the_server_grants_counts_and_a_day_is_the_longest(
    wanted: int, granted: int | None, renewed: float
) -> None:
    server, want = Server(granted), TokenWant("", wanted)
    await server.tokens.get(want)

    server.now += renewed - 1
    assert not server.tokens.due()
    server.now += 1
    assert server.tokens.due()


async def test_each_audience_has_its_own() -> None:
    server = Server()
    other = TokenWant("other", 1800)
    assert await server.tokens.get(VAULT) == "t1"
    assert await server.tokens.get(other) == "t2"
    assert await server.tokens.get(VAULT) == "t1"


async def test_a_wait_is_short_enough_to_notice_that_the_machine_slept() -> None:
    server = Server()
    assert server.tokens.wait() is None
    await server.tokens.get(VAULT)

    assert server.tokens.wait() == LOOK_SECONDS
    server.now += 1800 * 0.8 - 5
    assert server.tokens.wait() == 5
    server.now += 3600
    assert server.tokens.wait() == 1
    assert server.tokens.due()


async def test_a_renewal_that_fails_is_tried_again() -> None:
    server = Server()
    await server.tokens.get(VAULT)
    server.now += 1800
    server.down = True
    with pytest.raises(OSError, match="refused"):
        await server.tokens.get(VAULT)
    assert server.tokens.due()

    server.down = False
    assert await server.tokens.get(VAULT) == "t3"
