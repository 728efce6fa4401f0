"""A system that repeats the token it was sent."""

from __future__ import annotations

import pytest

from pilothouse_dataplane.connectors.base import CredentialRefused, Refused
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
