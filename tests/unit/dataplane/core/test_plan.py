from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse_dataplane.core.messages import Outcome, ToolResult
from pilothouse_dataplane.core.plan import Unresolved, needs, render, resolve
from pilothouse_dataplane.core.timing import Cause, Stopwatch

RESULTS = {"s1": ToolResult(Outcome.SUCCEEDED, "", {"key": "IT-1", "n": 3, "list": [{"who": "ann"}], "a-b": None})}


def test_a_reference_takes_the_place_of_its_value_with_its_type() -> None:
    arguments = {"n": "{{s1.n}}", "text": "about {{ s1.key }}: {{s1.list[0].who}}", "all": ["{{s1.list}}", "{{x}}"]}
    assert needs(arguments) == {"s1"}
    found = resolve(arguments, RESULTS)
    assert found.arguments == {"n": 3, "text": "about IT-1: ann", "all": [[{"who": "ann"}], "{{x}}"]}
    assert found.sources == {"n": "s1", "text": "s1", "all[0]": "s1"}


@pytest.mark.parametrize(
    "text", ["{{s2.key}}", "{{s1.nope}}", "{{s1.list[1]}}", "{{s1.key.x}}", "x {{s1.list}}", "x {{s1}}"]
)
def test_a_reference_that_leads_nowhere(text: str) -> None:
    with pytest.raises(Unresolved):
        resolve({"a": text}, RESULTS)
    assert render(text, RESULTS) is None


def test_what_a_result_holds_is_not_read_as_a_reference() -> None:
    hostile = {"s1": ToolResult(Outcome.SUCCEEDED, "", {"key": "{{s2.secret}}"}), "s2": RESULTS["s1"]}
    assert resolve({"a": "see {{s1.key}}"}, hostile).arguments == {"a": "see {{s2.secret}}"}


@given(st.text("{}s1.[]0ab ", max_size=60))
def test_no_text_breaks_it(text: str) -> None:
    rendered = render(text, RESULTS)
    if "{{" not in text:
        assert rendered == (text.strip() or None)


@given(st.lists(st.tuples(st.sampled_from([Cause.MODEL, Cause.TOOLS, Cause.APPROVAL]), st.booleans(), st.floats(0, 9))))
def test_the_causes_add_up_to_the_whole(moves: list[tuple[Cause, bool, float]]) -> None:
    watch, now = Stopwatch(5.0), 5.0
    for cause, begins, seconds in moves:
        now += seconds
        (watch.begin if begins else watch.end)(cause, now)
    assert watch.split(now).total == pytest.approx(now - 5.0)


def test_the_model_counts_before_the_tools_that_run_meanwhile() -> None:
    watch = Stopwatch(0)
    watch.begin(Cause.MODEL, 1)
    watch.begin(Cause.TOOLS, 2)
    watch.end(Cause.MODEL, 4)
    watch.end(Cause.TOOLS, 7)
    split = watch.split(8)
    assert (split.own, split.model, split.tools) == (2, 3, 3)
