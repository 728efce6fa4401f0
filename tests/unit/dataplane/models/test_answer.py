from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse_dataplane.core.messages import ToolCall
from pilothouse_dataplane.models.answer import (
    MAX_ARGUMENT_CHARS,
    MAX_TEXT_CHARS,
    MAX_TOOL_CALLS,
    Answer,
    Calls,
    ObjectEnd,
    as_count,
)
from pilothouse_dataplane.models.base import ModelDone, ModelNonsense, ModelOverflow, ModelRejected

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


def arguments(calls: list[ToolCall]) -> list[str]:
    return [call.arguments for call in calls]


def test_servers_that_give_every_call_the_same_index_and_none_an_id() -> None:
    calls = Calls("p")
    assert calls.begin(0, "a", "x") == []
    assert arguments(calls.add(0, '{"n": 1}')) == ['{"n": 1}']
    assert calls.begins(0, "b", "x")
    assert calls.begin(0, "b", "x") == []
    assert arguments(calls.add(0, '{"n": 2}')) == ['{"n": 2}']
    assert not calls.begins(0, "b", "x")
    assert calls.begin(1, "b", "y") == []
    assert calls.add(1, "{}") == [], "its arguments may follow"
    assert arguments(calls.rest()) == ["{}"]
    assert arguments(calls.given) == ['{"n": 1}', '{"n": 2}', "{}"]
    assert len({call.id for call in calls.given}) == 3, "results are matched by id"


def test_calls_that_are_written_in_turns_come_in_the_order_in_which_they_began() -> None:
    calls = Calls("p")
    calls.begin(0, "a", "x")
    calls.add(0, '{"n"')
    assert calls.begin(1, "b", "y") == [], "the first one is not over"
    assert calls.add(1, '{"n": 2}') == [], "it may refer to the first one as s1"
    assert arguments(calls.add(0, ": 1}")) == ['{"n": 1}', '{"n": 2}']
    calls.begin(2, "c", "z")
    assert arguments(calls.stop(2, '{"n": 3}')) == ['{"n": 3}'], "arguments that came apart from the pieces"
    assert calls.stop(2) == calls.stop(9) == calls.rest() == []


@pytest.mark.parametrize("cut", ['{"n"', "{", '{"a": {"b": 1}', '{"a": "}'])
def test_half_a_call_is_not_made(cut: str) -> None:
    calls = Calls("p")
    calls.begin(0, "a", "x")
    calls.add(0, cut)
    with pytest.raises(ModelNonsense, match="in the middle of a tool call, so the call was not made"):
        calls.rest()
    with pytest.raises(ModelNonsense, match="in the middle"):
        calls.stop(0)


@given(st.data())
def test_calls_come_whole_once_and_in_order_however_their_pieces_are_mixed(data: st.DataObject) -> None:
    texts = [
        json.dumps({"n": number, "s": data.draw(st.text(max_size=8))}) for number in range(data.draw(st.integers(1, 4)))
    ]
    left = [list(text) for text in texts]
    calls = Calls("p")
    given_out: list[ToolCall] = []
    while any(left):
        number = data.draw(st.sampled_from([n for n, rest in enumerate(left) if rest]))
        # servers begin their calls in order
        number = next((n for n in range(number) if calls.begins(n, str(n), "x")), number)
        if calls.begins(number, str(number), "x"):
            given_out += calls.begin(number, str(number), "x")
        size = data.draw(st.integers(1, 9))
        given_out += calls.add(number, "".join(left[number][:size]))
        del left[number][:size]
    assert calls.rest() == []
    assert arguments(given_out) == texts


def test_bounds() -> None:
    calls = Calls("p")
    calls.begin(0, "a", "x")
    assert calls.add(0, '{"n": 1}')
    with pytest.raises(ModelNonsense, match="after its end"):
        calls.add(0, "{")
    calls.begin(1, "b", "x")
    with pytest.raises(ModelNonsense, match="arguments of a tool without end"):
        calls.add(1, "[" * (MAX_ARGUMENT_CHARS + 1))
    for number in range(2, MAX_TOOL_CALLS):
        calls.begin(number, str(number), "x")
    with pytest.raises(ModelNonsense, match="more than 64 tools"):
        calls.begin(64, "64", "x")


@pytest.mark.parametrize(
    ("read", "written", "cached", "done"),
    [
        (70, 9, 20, ModelDone(70, 9, cached_input_tokens=20)),
        (0, 9, 0, ModelDone(50, 9, estimated=True)),
        (99_999_999, 9, 0, ModelDone(50, 9, estimated=True)),
        (70, 99_999_999, 0, ModelDone(70, 3, estimated=True)),
        (70, 0, 0, ModelDone(70, 3, estimated=True)),
        (70, 9, 71, ModelDone(70, 9, cached_input_tokens=70)),
    ],
)
def test_usage_that_can_not_be_true_is_replaced_by_an_estimate(
    read: int, written: int, cached: int, done: ModelDone
) -> None:
    answer = Answer("p", 200, 4096)
    answer.text("twelve signs")
    answer.read, answer.written, answer.cached, answer.finished = read, written, cached, True
    assert answer.end() == [done]


def test_an_answer_of_nothing_says_why() -> None:
    for stop, overflowed, error in (
        ("length", False, ModelNonsense),
        ("length", True, ModelOverflow),
        ("filter", False, ModelRejected),
        ("refusal", False, ModelRejected),
    ):
        answer = Answer("p", 200, 4096)
        answer.stop, answer.overflowed, answer.finished = stop, overflowed, True  # type: ignore[assignment]
        with pytest.raises(error):
            answer.end()
    answer = Answer("p", 200, 4096)
    with pytest.raises(ModelNonsense, match="without end"):
        answer.text("a" * (MAX_TEXT_CHARS + 1))


@pytest.mark.parametrize(("value", "count"), [(3, 3), (2.9, 2), (-1, 0), (True, 0), ("9", 0), (1e300, 0), (None, 0)])
def test_counts(value: object, count: int) -> None:
    assert as_count(value) == count
