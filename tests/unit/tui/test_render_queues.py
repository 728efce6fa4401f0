"""Render of approvals, dead letters, parked runs and the chat's newer events: pure functions, on fixed data."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from pilothouse_testing.tui_fakes import APPROVALS, DETAIL, LETTERS, NOW, PARKED, SNAPSHOT
from pilothouse_tui.data import convert
from pilothouse_tui.model import ApprovalGone, Approver, DecideOutcome, Decision, Fleet, TimeSplit
from pilothouse_tui.render.approvals import approval_lines, approval_page, asks_me, who_decides
from pilothouse_tui.render.chat import approval_question, decision_line, lines, parked_line
from pilothouse_tui.render.deadletters import letter_lines
from pilothouse_tui.render.detail import session_lines
from pilothouse_tui.render.header import header
from pilothouse_tui.render.lines import plain
from pilothouse_tui.render.text import json_lines, short_ids, time_split, visible
from pilothouse_tui.state import apply


def test_a_plan_tells_only_what_is_new_and_a_resumed_run_voids_what_was_streamed() -> None:
    plan = {"type": "plan", "steps": [{"step_id": "s2", "tool": "jira.x", "summary": "Do it"}]}
    assert [line.text for line in lines(plan)] == ["· jira.x  Do it"]
    resumed = {"type": "resumed", "worker": "w2", "reason": "Worker w1 was lost; another one goes on."}
    assert "void" in lines(resumed, streamed=True)[0].text
    assert "void" not in lines(resumed)[0].text
    lapsed = {"type": "approval_decided", "approved": False, "decided_by": ""}
    assert lines(lapsed)[0].text == "⊘ Nobody answered in time, which counts as a refusal."


def test_the_chat_says_whom_it_waits_for_and_what_became_of_an_answer() -> None:
    question = "\n".join(line.text for line in approval_question(APPROVALS[1], "dana@globex.example", NOW))
    assert "group it-admins, not the user was asked" in question
    assert "reason = asked for in INC0010042  from servicenow.incident.get (s1)" in question
    waiting = parked_line(APPROVALS, "s-1", NOW).text
    assert "Without an answer in 100s it counts as refused" in waiting
    late = decision_line(Decision(DecideOutcome.EXPIRED))
    assert late.text == "! It has expired, which counts as a refusal; nothing was changed."


@given(st.sets(st.text("0123456789abcdef", min_size=1, max_size=20), max_size=30))
def test_a_short_id_means_one_thing(ids: set[str]) -> None:
    for full, short in short_ids(ids).items():
        assert full.startswith(short)
        assert len(short) >= min(8, len(full))
        # What is printed can be typed: it stands for this id alone, or is an id in full, which wins.
        assert [i for i in ids if i.startswith(short)] == [full] or short == full


@given(st.dictionaries(st.text(), st.text() | st.lists(st.text())))
def test_what_is_approved_shows_each_character(arguments: dict[str, object]) -> None:
    shown = json_lines(json.dumps(arguments, ensure_ascii=False))
    assert all(line.isprintable() for line in shown)
    # Spelled as JSON spells it, so that what is shown is still the same JSON (beyond the first plane Python spells).
    if not any("\\U" in line for line in shown):
        assert json.loads("\n".join(shown)) == arguments


def test_a_character_that_turns_the_writing_round_is_spelled_out() -> None:
    assert visible("a\u202eb\x9bc\n") == "a\\u202eb\\u009bc\\n"
    hostile = replace(APPROVALS[1], summary="ok\x1b[2J", reason="\u2066", approver="it\r")
    assert plain(approval_lines(hostile, NOW)).replace("\n", "").isprintable()
    letter = replace(LETTERS[0], error="a\x1b[2J\nb", tool="\u202e", resolution="\x07")
    assert plain(letter_lines(letter, NOW)).replace("\n", "").isprintable()


def test_time_is_split_by_cause() -> None:
    split = time_split(TimeSplit(700, 250, 0, 50))
    assert split == "model 700 ms (70%) · tools 250 ms (25%) · approval – · Pilothouse 50 ms (5%)"
    assert plain(session_lines(DETAIL, NOW)).count("· Pilothouse") == 2  # the run under way has none yet


def test_a_parked_run_says_whom_it_waits_for_and_how_long() -> None:
    page = plain(session_lines(PARKED, NOW, APPROVALS[:1]))
    assert "‖ Run 2 waiting" in page
    assert "13m left  jira.issue.delete  waits for boss@acme.example (manager)" in page
    assert "Run 2 running" in plain(session_lines(PARKED, NOW))


def test_who_decides_and_who_is_asked() -> None:
    user = replace(APPROVALS[0], by=Approver.USER, approver="lena@acme.example")
    assert who_decides(user, "Lena@acme.example") == "you"
    assert asks_me(user, "lena@acme.example")
    assert asks_me(APPROVALS[0], "boss@acme.example")
    assert not asks_me(APPROVALS[0], "lena@acme.example")
    # A group of the asking user's own name is still not the user.
    group = replace(APPROVALS[1], approver="dana@globex.example")
    assert not asks_me(group, "dana@globex.example")
    assert who_decides(group, "dana@globex.example") != "you"


def test_a_huge_write_is_cut_on_a_page_and_says_so() -> None:
    huge = replace(APPROVALS[1], arguments=json.dumps({"text": "x" * 50_000}))
    page = plain(approval_page(huge, NOW))
    assert len(page) < 25_000
    assert "more characters: pilothouse approvals show b7a913d07f214c02" in page
    assert len(plain(approval_lines(huge, NOW))) > 50_000


def test_approvals_come_and_go() -> None:
    fleet = Fleet()
    apply(fleet, [SNAPSHOT], NOW)
    assert "‖ 2 approvals" in "".join(c.text for c in header(fleet, "c", NOW, 132))
    for approval in APPROVALS:
        apply(fleet, [ApprovalGone(*approval.key)], NOW)
    assert fleet.approvals == {}
    assert "‖" not in "".join(c.text for c in header(fleet, "c", NOW, 132))
    apply(fleet, [APPROVALS[0], SNAPSHOT], NOW)
    assert len(fleet.approvals) == 2


def test_frames_of_the_chat_and_messages_of_fleet_are_read_alike() -> None:
    request = {"approval_id": "a", "by": "APPROVER_MANAGER", "origins": [{"path": "p", "value": "v", "source": "s"}]}
    frame = {"tenant": "acme", "request": request | {"expires": {"seconds": 1_763_803_800, "nanos": 0}}}
    message = {"tenant": "acme", "request": request | {"expires": "2025-11-22T09:30:00Z"}}
    assert convert.approval(frame) == convert.approval(message)
    assert convert.approval(frame).expires is not None
    nonsense = {"request": {"by": "APPROVER_OF_A_NEWER_GATEWAY", "expires": {"seconds": "x"}, "origins": None}}
    assert convert.approval(nonsense).by is Approver.UNKNOWN


def test_the_making_of_the_plan_is_one_quiet_line_and_a_decision_is_told_once() -> None:
    began = {"type": "step_started", "step_id": "plan", "tool": "plan", "summary": "Working out what to do"}
    ended = {"type": "step_finished", "step_id": "plan", "tool": "plan", "duration_ms": 210}
    assert [line.text for line in (*lines(began), *lines(ended))] == ["· Working out what to do…"]
    assert [line.text for line in lines(ended, verbose=True)] == ["· The plan took 210 ms."]
    decided = {
        "type": "approval_decided",
        "approved": True,
        "decided_by": "e@x",
        "reason": "e@x approved jira.issue.x.",
    }
    assert [line.text for line in lines(decided)] == ["✓ Approved by e@x."]
    sre = {**decided, "decided_by": "system:serviceaccount:pilothouse-system:sre", "reason": ""}
    assert [line.text for line in lines(sre)] == ["✓ Approved by an operator (sre)."]
    refused = {
        "type": "step_finished",
        "step_id": "s1",
        "tool": "t",
        "outcome": "STEP_OUTCOME_REFUSED",
        "summary": "t was not done.",
    }
    assert [line.text for line in lines(refused)] == ["⊘ t  was not done. – refused"]
