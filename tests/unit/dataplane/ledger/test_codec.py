"""What anybody may write must come back, or be replaced; it never fails a batch."""

from __future__ import annotations

from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse_dataplane.ledger.codec import clean, from_json, to_json
from pilothouse_dataplane.ledger.migrate import scram_verifier
from pilothouse_dataplane.ledger.migrations.statements import split

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_json_comes_back_as_it_was(value: object) -> None:
    assert from_json(to_json(value)) == value


@pytest.mark.parametrize("half", ["\ud800", "a\udfffb"])
def test_half_a_surrogate_pair_comes_back_in_json_and_is_replaced_in_text(half: str) -> None:
    assert from_json(to_json({"x": half})) == {"x": half}
    clean(half).encode()


def test_what_is_no_json_becomes_text() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert "can't be written" in from_json(to_json(deep))
    assert from_json(to_json(MappingProxyType({"a": {1, 2}.__class__}))) == {"a": "<class 'set'>"}
    assert from_json(to_json(float("nan"))) is None


@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_clean_text_is_what_postgresql_holds(text: str) -> None:
    assert "\x00" not in clean(text)
    assert len(clean(text)) == len(text)
    clean(text).encode()


def test_a_password_is_stored_as_postgresql_does() -> None:
    """The example of RFC 7677, whose password is "pencil"."""
    import base64

    verifier = scram_verifier("pencil", base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="))
    assert verifier == (
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"
        "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    )


def test_statements_are_split_outside_of_bodies() -> None:
    sql = "CREATE TABLE a (x int);\n-- why\nCREATE FUNCTION f() AS $$\nBEGIN\n  x;\nEND $$;\nSELECT 1"
    assert [statement.splitlines()[0] for statement in split(sql)] == ["CREATE TABLE a (x int);", "-- why", "SELECT 1"]
