from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse_dataplane.core import run as flow
from pilothouse_dataplane.core.messages import Message, Outcome, ToolCall, ToolResult, Usage
from pilothouse_dataplane.core.report import bounded_data
from pilothouse_dataplane.core.schema import ArgumentsError, parse_arguments
from pilothouse_testing.fakes import ECHO, WRITE

LIMITS = flow.Limits(max_steps=3, max_calls_per_round=4)


def begin() -> flow.Transition:
    return flow.start("run", (Message("user", "hello"),), (ECHO, WRITE), LIMITS, deadline=100)


def call(name: str = "fake__thing__read", arguments: str = '{"name": "a"}', call_id: str = "c1") -> ToolCall:
    return ToolCall(call_id, name, arguments)


def think(state: flow.RunState, *calls: ToolCall, text: str = "") -> flow.Transition:
    if text:
        state, _ = flow.advance(state, flow.TextArrived(text), 1)
    return flow.advance(state, flow.ModelFinished(calls, Usage(1, 1, 1)), 1)


def done(step: str, outcome: Outcome = Outcome.SUCCEEDED) -> flow.ToolFinished:
    return flow.ToolFinished(step, ToolResult(outcome, f"{step} {outcome.value}."))


def kinds(actions: tuple[flow.Action, ...]) -> list[str]:
    return [type(action).__name__ for action in actions]


def test_plan_act_observe_answer() -> None:
    state, actions = begin()
    assert kinds(actions) == ["CallModel"]
    state, actions = think(state, call(call_id="x"), call(arguments='{"name": "b"}', call_id="y"))
    assert kinds(actions) == ["ShowPlan", "StartTool", "StartTool"]
    state, actions = flow.advance(state, done("s2"), 2)
    assert kinds(actions) == ["FinishStep"]
    state, actions = flow.advance(state, done("s1"), 3)
    assert kinds(actions) == ["FinishStep", "CallModel"]
    # the results stand in the order of the calls
    assert [m.tool_call_id for m in state.messages if m.role == "tool"] == ["x", "y"]
    state, actions = think(state, text="Here you are.")
    answer = actions[-1]
    assert isinstance(answer, flow.Answer)
    assert (answer.text, answer.partial, answer.usage) == ("Here you are.", False, Usage(2, 2, 2))
    assert flow.advance(state, flow.DeadlineReached(), 200) == (state, ())


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (call(name="no__such"), "There is no tool"),
        (call(arguments="{broken"), "not valid JSON"),
        (call(arguments="[]"), "must be a JSON object"),
        (call(arguments="{}"), "'name' is missing"),
        (call(arguments='{"name": 1}'), "must be of type string"),
        (call(arguments='{"name": "a", "x": 1}'), "there is no argument"),
    ],
)
def test_a_bad_call_is_told_to_the_model_and_never_made(bad: ToolCall, said: str) -> None:
    state, actions = think(begin()[0], bad)
    assert kinds(actions) == ["ShowPlan", "FinishStep", "CallModel"]
    assert said in state.messages[-1].content


def test_a_write_is_not_sent_twice_in_a_run() -> None:
    write = call("fake__thing__write")
    state, _ = think(begin()[0], write)
    state, _ = flow.advance(state, done("s1", Outcome.UNKNOWN), 2)
    state, actions = think(state, call("fake__thing__write", '{"name":"a"}'))
    assert "StartTool" not in kinds(actions)
    assert "not sent again" in state.messages[-1].content


def test_the_deadline_says_what_was_done_and_what_is_not_known() -> None:
    state, _ = think(begin()[0], call(call_id="r"), call("fake__thing__write", call_id="w"))
    state, _ = flow.advance(state, done("s1"), 2)
    state, actions = flow.advance(state, flow.DeadlineReached(), 100)
    answer = actions[-1]
    assert isinstance(answer, flow.Answer)
    assert answer.partial
    assert "Done:\n- s1 succeeded." in answer.text
    assert "Not known, please check:\n- fake.thing.write was cut off" in answer.text


def test_the_model_is_down() -> None:
    _, actions = flow.advance(begin()[0], flow.ModelFailed("The model is down."), 1)
    assert kinds(actions) == ["Fail"]
    state, _ = think(begin()[0], call())
    state, _ = flow.advance(state, done("s1"), 2)
    _, actions = flow.advance(state, flow.ModelFailed("The model is down."), 3)
    answer = actions[-1]
    assert isinstance(answer, flow.Answer)
    assert answer.partial
    assert answer.text.startswith("The model is down, so this answer is not complete.")


turns = st.lists(
    st.tuples(
        st.sampled_from(["", "words", "x" * 70_000]),
        st.lists(
            st.builds(
                ToolCall,
                st.sampled_from(["", "c1", "c2"]),
                st.sampled_from(["fake__thing__read", "fake__thing__write", "nonsense", ""]),
                st.sampled_from(['{"name": "a"}', '{"name": "b"}', "{", "null", "", "[" * 5000]),
            ),
            max_size=8,
        ),
    ),
    min_size=1,
    max_size=6,
)
outcomes = st.lists(st.sampled_from(list(Outcome)), min_size=1, max_size=10)


@given(turns, outcomes, st.integers(0, 40))
def test_every_run_ends_within_its_bounds(
    script: list[tuple[str, list[ToolCall]]], results: list[Outcome], cut: int
) -> None:
    """Endless tool loops, unknown tools, broken arguments, empty answers, a deadline anywhere: one end, in bounds."""
    state, actions = begin()
    model_calls, events, started, finished, ends, seen = 0, 0, set(), set(), 0, 0
    pending: list[flow.Event] = []
    while True:
        for action in actions:
            assert ends == 0, "nothing comes after the end"
            if isinstance(action, flow.CallModel):
                answered = {m.tool_call_id for m in action.messages if m.role == "tool"}
                assert {c.id for m in action.messages for c in m.tool_calls} == answered
                words, calls = script[model_calls % len(script)]
                pending += [flow.TextArrived(words), flow.ModelFinished(tuple(calls), Usage(1, 1, 1))]
                model_calls += 1
            elif isinstance(action, flow.StartTool):
                started.add(action.step.id)
                pending.append(done(action.step.id, results[len(started) % len(results)]))
            elif isinstance(action, flow.FinishStep):
                assert action.step.id not in finished
                finished.add(action.step.id)
            elif isinstance(action, flow.Answer | flow.Fail):
                ends += 1
        if state.phase is flow.Phase.DONE:
            break
        seen += 1
        event = flow.DeadlineReached() if seen == cut else pending.pop(0)
        state, actions = flow.advance(state, event, 1)
        events += 1
        assert events < 200
    assert ends == 1
    assert started <= finished
    assert model_calls <= LIMITS.max_steps + 2


def test_results_are_bounded_and_stay_json() -> None:
    rows = [{"key": f"IT-{i}", "summary": "é" * 200} for i in range(500)]
    for data in ({"issues": rows}, '\\"' * 50_000, {"a": {"b": "\u0000" * 90_000}}):
        text = bounded_data(ToolResult(Outcome.SUCCEEDED, "ok", data), 16_384)
        assert len(text.encode()) <= 16_384
        assert json.loads(text)["truncated"] is True


def test_schema_bounds() -> None:
    schema = {"properties": {"n": {"type": "integer", "minimum": 1, "maximum": 5}}, "required": []}
    assert parse_arguments(schema, '{"n": null}') == {}
    for bad in ('{"n": 9}', '{"n": true}', '{"n": "1"}'):
        with pytest.raises(ArgumentsError):
            parse_arguments(schema, bad)
