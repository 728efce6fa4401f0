"""What the terminal shows of costs: by tier, each model call, what fell back, and sums out of the ledger."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from click.testing import CliRunner, Result

from pilothouse_testing.tui_fakes import BREAKERS, COSTS, DETAIL, NOW, OBJECTS, SNAPSHOT
from pilothouse_testing.tui_servers import api_server, fleet_server, kubeconfig
from pilothouse_tui.cli import main
from pilothouse_tui.model import Breaker, BreakerState, CostSum, Fleet, ModelCall
from pilothouse_tui.render.costs import call_line, fallback_text, sums_text, tiers_text
from pilothouse_tui.render.detail import session_lines, tenant_page
from pilothouse_tui.render.lines import plain
from pilothouse_tui.state import apply


def fleet() -> Fleet:
    made = Fleet(objects={item.key: item for item in OBJECTS})
    apply(made, [SNAPSHOT], NOW)
    return made


def test_the_overview_tells_costs_by_tier_and_what_falls_back() -> None:
    assert tiers_text(fleet()) == "fast $1.27 · mid $5.01 · power $8.10"
    assert fallback_text(fleet()) == "⇄ calls pass over anthropic · 31 calls fell back today"
    assert tiers_text(Fleet()) == fallback_text(Fleet()) == ""
    tiers = sum(one.cost_micros for one in COSTS[0].sums)
    assert tiers == COSTS[0].cost_micros


def test_a_connector_s_open_breaker_passes_no_provider_over() -> None:
    made = Fleet(breakers={b.key: b for b in BREAKERS if b.name.startswith("connector/")})
    assert fallback_text(made) == ""
    closed = Breaker("acme", "provider/local", BreakerState.CLOSED)
    assert fallback_text(Fleet(breakers={closed.key: closed})) == ""


def test_a_session_s_page_tells_each_model_call() -> None:
    page = plain(session_lines(DETAIL, NOW))

    assert (
        "◆    610 ms  fast local/llama-3-8b  short question, 2 systems, no writes · 700 in, 200 out · $0.0010" in page
    )
    assert "mid anthropic/claude-haiku  ▲ escalated  ⇄ local: no first token within 15 s  fast made a plan" in page
    assert "500 in (320 cached), 40 out · $0.0030" in page
    assert "◇      2 ms  fast local/llama-3-8b  short question, 1 system · answered from the cache" in page
    assert "saved $0.0009" in page
    assert "■     2.7 s  fast" in page
    assert "llama-3-8b  cut off  short question, 1 system · 900 in, 80 out, counted here · $0.0021" in page


def test_a_tenant_s_page_tells_its_models_the_dearest_first() -> None:
    page = plain(tenant_page(fleet(), "acme", "acme", NOW))

    assert "$14.38 today · 1,204 runs" in page
    assert "the ledger's sum of 31s ago" in page
    assert page.index("power anthropic/claude-opus") < page.index("mid   anthropic/claude-haiku")
    assert "⇄ 31 fell back to it" in page
    assert "the ledger was not asked yet" in plain(tenant_page(fleet(), "globex", "globex", NOW))


def test_a_model_s_words_can_t_move_the_cursor() -> None:
    call = ModelCall("p", "m\x1b[2J", "mid", reason="a\nb", fallback="c\x1b]0;x\x07" + "d" * 500)
    line = plain([call_line(call)])
    assert "\x1b" not in line
    assert "\n" not in line
    assert len(line) < 300


def test_sums_are_a_table_with_a_total_without_runs() -> None:
    sums = [("acme", CostSum(tier="mid", calls=2, cost_micros=5, runs=1)), ("acme", CostSum(tier="fast", runs=1))]
    rows = sums_text(sums, ("tenant", "tier"), "nothing").splitlines()
    assert rows[0].split()[:4] == ["TENANT", "TIER", "COST", "CALLS"]
    assert rows[1].split()[:3] == ["acme", "mid", "$0.0000"]
    assert rows[-1].split()[:2] == ["total", "$0.0000"]
    assert sums_text([], ("tier",), "nothing") == "nothing"


async def ask(tmp_path: Path, *arguments: str, tenants: tuple[str, ...] = ("acme",)) -> Result:
    async with api_server() as (api, url), fleet_server() as (_, address):
        api.tenants = list(tenants)
        options = ["--kubeconfig", kubeconfig(tmp_path, url), "--fleet", address]
        return await asyncio.to_thread(CliRunner().invoke, main, ["get", *arguments, *options])


async def test_get_costs_by_tier_asks_the_ledger(tmp_path: Path) -> None:
    result = await ask(tmp_path, "costs", "--by", "tier", "--day", "2026-11-21", tenants=("acme", "globex"))
    assert result.exit_code == 0, result.output
    # two tenants with the same tier are one line; --by tenant keeps them apart
    assert result.output.splitlines()[1].split()[:4] == ["mid", "$3.00", "6", "0"]
    apart = await ask(tmp_path, "costs", "--by", "tenant", "--by", "user", "-o", "json", tenants=("acme", "globex"))
    assert [(one["tenant"], one["user"]) for one in json.loads(apart.output)] == [
        ("acme", "ana@x"),
        ("globex", "ana@x"),
    ]


async def test_get_refuses_what_makes_no_sense(tmp_path: Path) -> None:
    assert "write a day such as" in (await ask(tmp_path, "costs", "--day", "yesterday")).output
    assert "go with costs" in (await ask(tmp_path, "sessions", "--by", "tier")).output
    assert "Invalid value for '--by'" in (await ask(tmp_path, "costs", "--by", "colour")).output
