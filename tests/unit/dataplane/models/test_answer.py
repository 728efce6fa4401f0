from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse_dataplane.models.answer import MAX_ARGUMENT_CHARS, MAX_TOOL_CALLS, Calls, ObjectEnd, as_count
from pilothouse_dataplane.models.base import ModelNonsense

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet=st.sampled_from('ab{}[]"\\\n é')),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=4), VALUES, min_size=1, max_size=4), st.data(), st.booleans())
def test_an_object_is_whole_at_its_last_character_however_it_is_cut(
    value: dict[str, Any], data: st.DataObject, ascii_only: bool
) -> None:
    text = data.draw(st.sampled_from(["", " \n"])) + json.dumps(value, ensure_ascii=ascii_only)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text) - 1), max_size=6)))
    end = ObjectEnd()
    for start, stop in zip([0, *cuts], cuts, strict=False):
        assert not end.feed(text[start:stop]), "too early"
    assert end.feed(text[cuts[-1] if cuts else 0 :]), "not seen"


@pytest.mark.parametrize("text", ["{}", "{ }", "[1]", '"a"', "", "  ", '{"a": "}', "12"])
def test_what_is_no_whole_object(text: str) -> None:
    assert not ObjectEnd().feed(text)


def test_servers_that_give_every_call_the_same_index_and_none_an_id() -> None:
    calls = Calls("p")
    assert calls.begin(0, "a", "x") == []
    assert calls.add(0, '{"n": 1}')
    first = calls.give(0)
    assert calls.begins(0, "b", "x")
    assert calls.begin(0, "b", "x") == []
    calls.add(0, '{"n": 2}')
    assert not calls.begins(0, "b", "x")
    second = calls.begin(1, "b", "y")
    calls.add(1, "{}")
    (third,) = calls.rest()
    given = [first, *second, third]
    assert [call.arguments for call in given if call] == ['{"n": 1}', '{"n": 2}', "{}"]
    assert len({call.id for call in given if call}) == 3, "results are matched by id"


def test_bounds() -> None:
    calls = Calls("p")
    calls.begin(0, "a", "x")
    assert calls.add(0, '{"n": 1}')
    calls.give(0)
    with pytest.raises(ModelNonsense, match="after its end"):
        calls.add(0, "{")
    calls.begin(1, "b", "x")
    with pytest.raises(ModelNonsense, match="arguments of a tool without end"):
        calls.add(1, "[" * (MAX_ARGUMENT_CHARS + 1))
    for number in range(2, MAX_TOOL_CALLS):
        calls.begin(number, str(number), "x")
    with pytest.raises(ModelNonsense, match="more than 64 tools"):
        calls.begin(64, "64", "x")


@pytest.mark.parametrize(("value", "count"), [(3, 3), (2.9, 2), (-1, 0), (True, 0), ("9", 0), (1e300, 0), (None, 0)])
def test_counts(value: object, count: int) -> None:
    assert as_count(value) == count
