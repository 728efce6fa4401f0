"""Render: pure functions, on fixed data."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from pilothouse_testing.tui_fakes import BREAKERS, DETAIL, NOW, OBJECTS, SESSIONS, SNAPSHOT, ago, tenant
from pilothouse_tui.model import FLEET, BreakerState, Connected, Fleet, Lost, ObjectDeleted, ObjectsListed
from pilothouse_tui.render.chat import lines
from pilothouse_tui.render.detail import session_lines, tenant_page
from pilothouse_tui.render.header import header, link_cell, problems
from pilothouse_tui.render.lines import plain
from pilothouse_tui.render.overview import breaker_rows, session_rows, tenant_rows
from pilothouse_tui.render.plain import as_json, as_table
from pilothouse_tui.render.style import breaker_mark, object_mark
from pilothouse_tui.render.table import Cell, Column, Sort, cut, fit, pieces
from pilothouse_tui.render.text import age, count, duration, money, one_line
from pilothouse_tui.state import apply


def sample() -> Fleet:
    fleet = Fleet()
    apply(fleet, [Connected("Kubernetes"), Connected(FLEET)], NOW)
    apply(fleet, [ObjectsListed(k, tuple(o for o in OBJECTS if o.kind == k)) for k in {o.kind for o in OBJECTS}], NOW)
    apply(fleet, [SNAPSHOT], NOW)
    return fleet


@pytest.mark.parametrize(
    ("micros", "shown"),
    [
        (0, "$0.00"),
        (900, "$0.0009"),
        (49, "$0.0000"),
        (812_400, "$0.8124"),
        (1_204_000, "$1.20"),
        (10**10, "$10,000.00"),
    ],
)
def test_money_keeps_small_costs_visible(micros: int, shown: str) -> None:
    assert money(micros) == shown


def test_ages_durations_and_counts() -> None:
    assert [age(ago(s), NOW) for s in (0, 119, 120, 7200, 172_800)] == ["0s", "119s", "2m", "2h", "2d"]
    assert age(ago(-5), NOW) == "0s"
    assert age(None, NOW) == "–"
    assert [duration(m) for m in (35, 1240, 125_000)] == ["35 ms", "1.2 s", "2 min 5 s"]
    assert [count(n) for n in (950, 9_999, 12_340, 4_100_000)] == ["950", "9,999", "12.3k", "4.1M"]


def test_text_from_outside_can_not_steer_the_terminal() -> None:
    assert "\x1b" not in one_line("a\x1b[2Jb\nc")
    assert "\x1b" not in lines({"type": "final", "text": "\x1b]0;x\x07hi"})[0].text


@given(st.text(max_size=40), st.integers(0, 30))
def test_cut_has_exactly_the_width(text: str, width: int) -> None:
    assert cell_len(cut(one_line(text), width)) == width


@given(st.integers(1, 200))
def test_a_table_never_gets_wider_than_its_room(width: int) -> None:
    columns = [Column("a", 10, 1, keep=3), Column("b", 20, 2, keep=1), Column("c", 5, keep=2, right=True)]
    line = pieces([Cell("x"), Cell("y"), Cell("7")], columns, fit(columns, width))
    assert sum(cell_len(c.text) for c in line) <= width


def test_narrow_tables_lose_the_least_important_columns_first() -> None:
    columns = [Column("a", 10, keep=3), Column("b", 10, keep=1), Column("c", 10, keep=2)]
    assert [i for i, _ in fit(columns, 25)] == [0, 2]
    assert fit(columns, 4) == [(0, 4)]


def test_live_sessions_come_first_and_the_filter_needs_every_word() -> None:
    rows = session_rows(sample(), NOW, Sort(0))
    assert [r.key[1] for r in rows][:3] == ["s-7f31c2", "s-19ab40", "s-c0ffee"]
    assert [r.key[1] for r in session_rows(sample(), NOW, Sort(0), "ACME vpn")] == ["s-7f31c2"]
    assert len(session_rows(sample(), NOW, Sort(0), live_only=True)) == 3


def test_trouble_comes_first_and_is_told_without_colour() -> None:
    rows = tenant_rows(sample(), Sort(1))
    assert [(r.key[1], r.cells[1].text) for r in rows][:3] == [
        ("hooli", "✗ ModelRouteNotFound"),
        ("umbrella", "… updating"),
        ("initech", "! 1 part not Ready"),
    ]
    assert breaker_rows(sample(), NOW, Sort(0))[0].key[1] == "connector/salesforce"
    symbols = [breaker_mark(s).symbol for s in BreakerState]
    assert len(set(symbols)) == len(symbols)


def test_a_tenant_known_to_fleet_only_is_shown() -> None:
    fleet = sample()
    apply(fleet, [ObjectDeleted(("Tenant", "acme", "acme"))], NOW)
    row = next(r for r in tenant_rows(fleet, Sort(0)) if r.key[1] == "acme")
    assert row.cells[1].text == "· no Tenant object"


def test_a_lost_fleet_keeps_its_data_and_says_that_it_is_stale() -> None:
    fleet = sample()
    apply(fleet, [Lost(FLEET, "The gateway went away.", "Wait.", 4.0)], NOW + timedelta(seconds=10))
    later = NOW + timedelta(seconds=12)
    assert len(fleet.sessions) == len(SESSIONS)
    assert link_cell(fleet.links[FLEET], later).text == "○ Fleet stale 12s, retry in 2s"
    assert problems(fleet)[0].text == "Fleet: The gateway went away. Wait."
    apply(fleet, [Connected(FLEET)], later)
    assert link_cell(fleet.links[FLEET], later).text == "● Fleet"
    assert problems(fleet) == []


def test_never_connected_is_down_and_not_stale() -> None:
    fleet = Fleet()
    assert link_cell(fleet.links[FLEET], NOW).text == "… Fleet connecting"
    apply(fleet, [Lost(FLEET, "Refused.", "", 1.0)], NOW)
    assert link_cell(fleet.links[FLEET], NOW).text == "✗ Fleet down, retry in 1s"
    assert "K8s" in "".join(c.text for c in header(fleet, "c", NOW, 60))


def test_an_older_generation_is_not_ready() -> None:
    assert object_mark(replace(tenant("a"), generation=9)).word == "updating"
    assert object_mark(replace(tenant("a"), conditions=())).word == "new"


def test_pages_say_reason_and_message() -> None:
    page = plain(tenant_page(sample(), "initech", "initech", NOW))
    assert "Connector salesforce" in page
    assert "SecretKeyMissing" in page
    assert "has no key clientSecret" in page
    assert "ModelRoute standard" in page
    assert "There is no Tenant object" in plain(tenant_page(Fleet(), "x", "x", NOW))
    session = plain(session_lines(DETAIL, NOW))
    assert session.index("Run 3 running") < session.index("Run 1 answered")
    assert "⊘" in session
    assert "▶     2.0 s  jira.issue.create" in session


def test_get_prints_tables_and_json() -> None:
    table = as_table("breakers", SNAPSHOT, NOW).splitlines()
    assert table[0].split() == ["TENANT", "NAME", "STATE", "FAILURES", "SLOW", "SINCE", "REASON"]
    assert len(table) == len(BREAKERS) + 1
    assert as_table("costs", SNAPSHOT, NOW).splitlines()[-1].split()[:2] == ["total", "$23.42"]
    assert json.loads(as_json("sessions", SNAPSHOT))[0]["last_outcome"] == "answered"


def test_chat_lines() -> None:
    done = {"type": "step_finished", "tool": "jira.x", "summary": "Did it", "outcome": "STEP_OUTCOME_SUCCEEDED",
            "duration_ms": 400}  # fmt: skip
    assert lines(done)[0].text == "✓ jira.x  Did it (400 ms)"
    assert lines({**done, "outcome": "STEP_OUTCOME_FAILED"})[0].text.startswith("✗ jira.x")
    error = lines({"type": "error", "message": "No worker.", "user_action": "Try again."})
    assert [line.text for line in error] == ["✗ No worker.", "  → Try again."]
    final = {"type": "final", "text": "Done", "usage": {"input_tokens": 5, "cost_micros": "1200"}}
    assert [line.text for line in lines(final, streamed=True)] == ["5 tokens · $0.0012"]
    assert lines({"type": "of-a-newer-gateway"}) == []


@pytest.mark.parametrize(
    ("module", "banned"),
    [
        ("pilothouse_tui.render.overview, pilothouse_tui.render.detail, pilothouse_tui.render.header,"
         " pilothouse_tui.render.chat, pilothouse_tui.render.plain, pilothouse_tui.render.deadletters,"
         " pilothouse_tui.state",
         "textual grpc aiohttp kubernetes websockets"),
        ("pilothouse_tui.cli, pilothouse_tui.cli.commands, pilothouse_tui.cli.dlq, pilothouse_tui.cli.approvals,"
         " pilothouse_tui.cli.breakers",
         "textual grpc aiohttp kubernetes websockets joserfc yaml"),
        ("pilothouse_tui.data.kube, pilothouse_tui.data.tokens, pilothouse_tui.data.chat", "textual grpc kubernetes"),
    ],
)  # fmt: skip
def test_imports_stay_lean(module: str, banned: str) -> None:
    code = f"import sys, {module}; print(*(set(sys.modules) & set({banned.split()!r})))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""


def test_one_reason_for_both_links_is_told_once() -> None:
    fleet = Fleet()
    apply(fleet, [Lost("Kubernetes", "It is gone.", "Wait."), Lost(FLEET, "It is gone.", "Wait.")], NOW)
    assert [c.text for c in problems(fleet)] == ["Kubernetes, Fleet: It is gone. Wait."]
