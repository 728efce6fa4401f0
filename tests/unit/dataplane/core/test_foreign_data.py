"""Arguments, waits and results as a broken model or system may give them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pilothouse_dataplane.core.messages import Outcome, ToolResult
from pilothouse_dataplane.core.report import bounded_data, plain_result
from pilothouse_dataplane.core.retry import parse_retry_after
from pilothouse_dataplane.core.schema import ArgumentsError, parse_arguments

SCHEMA = {"properties": {"text": {"type": "string"}, "share": {"type": "number"}}}


@pytest.mark.parametrize(
    "text",
    [
        '{"share": NaN}',
        '{"share": Infinity}',
        '{"text": "\\ud800"}',
        '{"text": "\ud800"}',
        '{"text": "a\\u0000b"}',
        '{"a": ' * 100_000,
        "[1]",
        '{"share": ' + "9" * 10_000 + "}",
    ],
    ids=["NaN", "infinity", "half a pair, escaped", "half a pair", "NUL", "deep", "a list", "a long number"],
)
def test_arguments_that_nobody_behind_could_take_are_refused(text: str) -> None:
    with pytest.raises(ArgumentsError):
        parse_arguments(SCHEMA, text)


def test_escapes_that_are_whole_pass() -> None:
    assert parse_arguments(SCHEMA, '{"text": "\\ud83d\\ude00 \\u00e9"}') == {"text": "😀 é"}


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("Sun, 06 Nov 1994 08:49:40 GMT", 3.0),
        ("Sun, 06 Nov 1994 08:49:40 -0000", 3.0),
        ("Sun, 06 Nov 1994 08:49:30 GMT", 0.0),
        ("7", 7.0),
        ("-7", 0.0),
        ("nan", None),
        ("soon", None),
        ("Sun, 99 Nov 99999 08:49:40 GMT", None),
        (None, None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, 784111777.0) == seconds


def test_deep_and_huge_results_fit() -> None:
    deep: Any = "x" * 50_000
    for _ in range(5000):
        deep = {"a": deep}
    text = bounded_data(
        plain_result(ToolResult(Outcome.SUCCEEDED, "ok", {"deep": deep, "wide": ["é\x00"] * 9000})), 8192, "s1"
    )
    assert len(text.encode()) <= 8192
    read = json.loads(text)
    assert (read["step"], read["outcome"], read["truncated"]) == ("s1", "succeeded", True)
    assert "\\u0000" not in text
