"""A system that repeats the token it was sent."""

from __future__ import annotations

import asyncio
from urllib.parse import quote

import pytest

from pilothouse_dataplane.connectors.base import CredentialRefused, Refused, SecretText
from pilothouse_dataplane.connectors.http import JsonClient, hidden
from pilothouse_testing.oauth import LOOPBACK
from pilothouse_testing.servers import raw_http
from pilothouse_testing.vendor import TOKEN, Vendor, calling


@pytest.mark.parametrize(("status", "kind"), [(401, CredentialRefused), (403, Refused), (400, Refused)])
async def test_a_token_that_an_error_repeats_is_not_told(status: int, kind: type[Exception]) -> None:
    answer = {"errorCode": "E0000011", "errorSummary": f"The token Bearer {TOKEN} is not good"}
    vendor = Vendor().expect("GET /api/v1/users/me", status, answer)
    async with calling(vendor, "okta") as call:
        with pytest.raises(kind, match="The token Bearer … is not good") as error:
            await call("user.me")
    assert TOKEN not in str(error.value)


async def test_a_token_that_a_record_holds_reaches_no_model() -> None:
    user = {"id": "00u1", "profile": {"login": "a@b.example", "displayName": f"x{TOKEN}y", TOKEN: TOKEN}}
    vendor = Vendor().expect("GET /api/v1/users/me", answer=user)
    async with calling(vendor, "okta") as call:
        result = await call("user.me")
    assert TOKEN not in repr(result)
    assert "x…y" in result.summary


@pytest.mark.parametrize("form", ["".join(f"\\u{ord(c):04x}" for c in TOKEN), quote(TOKEN, safe="")])
async def test_a_token_is_hidden_in_whatever_way_an_answer_writes_it(form: str) -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        body = f'{{"login": "{form}", "deep": [{{"{form}": "a \\"{form}\\" b"}}]}}'.encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
        writer.write(b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
        await writer.drain()

    async with raw_http(answer) as server:
        client = JsonClient("Desk", server.url, 2, LOOPBACK)
        response = await client.request("GET", "/x", token=SecretText(TOKEN))
        await client.aclose()
    assert response.body == {"login": "…", "deep": [{"…": 'a "…" b'}]}


@pytest.mark.parametrize("value", [1 << 60, 1 << 80, "é", {"a": [None, 1.5, True]}])
def test_what_holds_no_token_is_left_as_it_is(value: object) -> None:
    assert hidden(value, SecretText(TOKEN)) == value
    assert hidden(value, None) is value


def test_a_token_is_hidden_beside_what_json_can_t_write_and_too_deep_to_look_at() -> None:
    deep: object = TOKEN
    for _ in range(100_000):
        deep = [deep]
    assert hidden([1 << 80, {TOKEN: TOKEN}], SecretText(TOKEN)) == [1 << 80, {"…": "…"}]
    assert hidden(deep, SecretText(TOKEN)) == "…"
