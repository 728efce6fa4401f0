"""Which statuses are worth another try, and after how long: as both SDKs decide it."""

from __future__ import annotations

import anthropic
import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse_dataplane.models.base import ModelError, ModelExhausted, ModelUnavailable
from pilothouse_dataplane.models.errors import Fault, event_error, read_body, read_fault, status_error

OPENAI = openai.AsyncOpenAI(api_key="k")
ANTHROPIC = anthropic.AsyncAnthropic(api_key="k")
WAITS = st.sampled_from(["0", "1", "2.5", "-3", "x", "", "nan", "Fri, 01 Jan 2100 00:00:00 GMT"])


def error_wait(error: ModelError) -> float:
    return (error.retry_after if isinstance(error, ModelUnavailable) else None) or 0.0


@given(
    st.integers(400, 599).filter(lambda status: status != 402),
    st.sampled_from([None, "true", "false", "TRUE"]),
    st.none() | WAITS,
    st.none() | st.sampled_from(["0", "1500", "x", "-1"]),
)
def test_statuses_and_headers(status: int, should: str | None, seconds: str | None, millis: str | None) -> None:
    given_headers = {"x-should-retry": should, "retry-after": seconds, "retry-after-ms": millis}
    headers = httpx2.Headers({name: value for name, value in given_headers.items() if value is not None})
    response = httpx2.Response(status, headers=headers, request=httpx2.Request("POST", "http://x.test"))
    error = status_error("p", status, None, headers, 1_790_000_000.0)
    again = isinstance(error, ModelUnavailable) and error.again
    assert again == ANTHROPIC._should_retry(response)
    if error_wait(error) < 120:  # a longer one is not waited for: there by the SDK, here by the gateway
        assert again == OPENAI._should_retry(response)
    if isinstance(error, ModelUnavailable):
        theirs = ANTHROPIC._parse_retry_after_header(headers)
        if theirs is None or theirs != theirs:
            assert error.retry_after is None
        elif seconds and seconds.startswith("Fri") and millis in (None, "x"):
            assert error.retry_after is not None
            assert error.retry_after > 1e9
        else:
            assert error.retry_after == max(0.0, theirs)


def test_an_exhausted_account_is_not_asked_again_though_sdks_do() -> None:
    body = b'{"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}'
    error = status_error("p", 429, read_body(body), {"retry-after": "1"}, 0.0)
    assert isinstance(error, ModelExhausted)
    assert isinstance(status_error("p", 402, None, {}, 0.0), ModelExhausted)


@pytest.mark.parametrize(
    ("value", "detail", "codes", "status"),
    [
        ({"error": "model is loading"}, "model is loading", set(), 0),
        ({"error": {"message": "m", "code": 429, "type": "T"}}, "m", {"t"}, 429),
        ([{"error": {"message": "m", "status": "RESOURCE_EXHAUSTED", "code": 429}}], "m", {"resource_exhausted"}, 429),
        ({"detail": "Not Found"}, "Not Found", set(), 0),
        ({"error": {"message": 7, "code": True, "type": ["x"]}}, "", set(), 0),
        ({"error": "invalid_client", "error_description": "No."}, "No.", set(), 0),
        ({"message": "Your key sk-abcdef123 and my-own-key-1 are wrong"}, "Your key … and … are wrong", set(), 0),
        (
            {"message": "1 error:\n {'type': 'missing', 'input': 'the prompt'}"},
            "1 error: {'type': 'missing', …",
            set(),
            0,
        ),
        ({"message": "a" * 9000}, "a" * 200, set(), 0),
    ],
)
def test_shapes_of_errors(value: object, detail: str, codes: set[str], status: int) -> None:
    assert read_fault(value, ("my-own-key-1",)) == Fault(detail, frozenset(codes), status)


@pytest.mark.parametrize("value", [None, 7, [], [1], {}, {"error": None}, {"error": {}}, {"choices": []}, "x"])
def test_what_is_no_error(value: object) -> None:
    assert read_fault(value) is None


FIELDS = st.sampled_from(["error", "message", "code", "type", "details", "detail", "status", "error_code"])
BODIES: st.SearchStrategy[object] = st.recursive(
    st.none() | st.integers() | st.text() | st.booleans(),
    lambda inner: st.lists(inner) | st.dictionaries(FIELDS, inner),
)


@given(BODIES)
def test_no_body_breaks_the_reading_of_errors(value: object) -> None:
    fault = read_fault(value)
    if fault is not None:
        assert len(fault.detail) <= 200
        assert str(event_error("p", fault)).startswith("The ")
        assert str(status_error("p", 400, fault, {}, 0.0)).startswith("The ")
