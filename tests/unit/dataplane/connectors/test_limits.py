from __future__ import annotations

import pytest

from pilothouse_dataplane.connectors.base import CallContext, RateLimit
from pilothouse_dataplane.connectors.limits import MAX_RESET_SECONDS, note_limit, parse_rate_limit

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("headers", "limit"),
    [
        ({"X-RateLimit-Remaining": "3", "X-RateLimit-Reset": "1700000030"}, RateLimit(3, 30)),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1700000030000"}, RateLimit(0, 30)),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "45"}, RateLimit(0, 45)),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "2023-11-14T22:14Z"}, RateLimit(0, 40)),
        ({"X-Rate-Limit-Remaining": "599", "X-Rate-Limit-Reset": "1700000060"}, RateLimit(599, 60)),
        ({"RateLimit-Remaining": "0", "RateLimit-Reset": "5"}, RateLimit(0, 5)),
        ({"RateLimit": "limit=100, remaining=50, reset=5"}, RateLimit(50, 5)),
        ({"RateLimit": '"burst";r=10;t=1, "daily";r=0;t=3600'}, RateLimit(0, 3600)),
        ({"RateLimit": '"default";r=50;t=30'}, RateLimit(50, 30)),
        ({"X-RateLimit-Remaining": "2"}, RateLimit(2, 0)),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1600000000"}, RateLimit(0, 0)),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "9" * 14}, RateLimit(0, MAX_RESET_SECONDS)),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "soon"}, RateLimit(0, 0)),
        ({"X-RateLimit-Remaining": "many", "X-RateLimit-Reset": "5"}, None),
        ({"X-RateLimit-Remaining": "-1"}, None),
        ({"X-RateLimit-Remaining": "9" * 400}, None),
        ({"X-RateLimit-Limit": "100"}, None),
        ({"RateLimit": "?" * 100_000}, None),
        ({"RateLimit": '"default";q=100'}, None),
        ({}, None),
    ],
)
def test_each_dialect_and_nonsense(headers: dict[str, str], limit: RateLimit | None) -> None:
    assert parse_rate_limit(headers, NOW) == limit


def test_an_answer_that_says_nothing_takes_nothing_back() -> None:
    context = CallContext("erin@acme.example", "run/s1")
    note_limit({"RateLimit-Remaining": "0", "RateLimit-Reset": "5"}, context, NOW)
    note_limit({}, context, NOW)
    assert context.record.limit == RateLimit(0, 5)
