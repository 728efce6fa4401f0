"""Durations, percentages and names on the wire."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse_api import parse_duration, parse_percent
from pilothouse_api.meta import camel


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("30s", 30), ("10m", 600), ("1h30m", 5400), ("180d", 180 * 86400), ("1m500ms", 60.5), ("0s", 0)],
)
def test_duration(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "s", "1w", "-1s", "1.5s", "30 s", "30s\n", "٣s"])
def test_what_is_no_duration_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match="such as 500ms, 30s"):
        parse_duration(text)


@given(st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from(["d", "h", "m", "s"])), min_size=1, max_size=4))
def test_duration_is_the_sum_of_its_parts(parts: list[tuple[int, str]]) -> None:
    texts = [f"{number}{unit}" for number, unit in parts]
    assert parse_duration("".join(texts)) == sum(map(parse_duration, texts))


def test_percent() -> None:
    assert parse_percent("2%") == pytest.approx(0.02)
    with pytest.raises(ValueError, match="such as 2%"):
        parse_percent("2")


@pytest.mark.parametrize(
    ("name", "wire"),
    [("daily_budget_usd", "dailyBudgetUSD"), ("price_per_1k", "pricePer1K"), ("url", "url"), ("team_id", "teamID")],
)
def test_names_on_the_wire(name: str, wire: str) -> None:
    assert camel(name) == wire
