"""What model calls cost: lines, cells and tables. One sum stands behind all of them, see ``model.CostSum``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pilothouse_tui.model import Breaker, BreakerState, CostBy, CostSum, Fleet, ModelCall, TenantCost
from pilothouse_tui.render.lines import Line
from pilothouse_tui.render.plain import columns
from pilothouse_tui.render.style import BAD, DIM, GOOD, PLAIN, STRONG, WARN
from pilothouse_tui.render.table import Cell
from pilothouse_tui.render.text import count, duration, money, one_line

TIERS = ("fast", "mid", "power")
FALLBACK = "⇄"
"""A call that came after another target had failed."""
_CALL, _CACHED, _ABORTED = "◆", "◇", "■"
_REASON = 70
_OPEN = (BreakerState.OPEN, BreakerState.FORCED_OPEN, BreakerState.HALF_OPEN)


def falls_back(breaker: Breaker) -> bool:
    """Whether calls go past a provider now."""
    return breaker.name.startswith("provider/") and breaker.state in _OPEN


def by_tier(costs: Iterable[TenantCost]) -> dict[str, int]:
    """Micro-dollars by tier, the cheapest tier first; tiers that cost nothing are left out."""
    found: dict[str, int] = {}
    for cost in costs:
        for one in cost.sums:
            found[one.tier] = found.get(one.tier, 0) + one.cost_micros
    order = [*TIERS, *sorted(set(found) - set(TIERS))]
    return {tier: found[tier] for tier in order if found.get(tier)}


def tiers_text(fleet: Fleet) -> str:
    """``fast $1.20 · mid $3.40``; empty before the first call."""
    return " · ".join(f"{tier} {money(micros)}" for tier, micros in by_tier(fleet.costs.values()).items())


def fallback_text(fleet: Fleet) -> str:
    """Which providers are passed over now, and how many calls fell back today; empty where none did."""
    away = sorted({b.name.removeprefix("provider/") for b in fleet.breakers.values() if falls_back(b)})
    calls = sum(one.fallbacks for cost in fleet.costs.values() for one in cost.sums)
    parts = [f"calls pass over {', '.join(away[:3])}{' …' if len(away) > 3 else ''}"] if away else []
    if calls:
        parts.append(f"{count(calls)} call{'s' if calls != 1 else ''} fell back today")
    return f"{FALLBACK} {' · '.join(parts)}" if parts else ""


def call_line(call: ModelCall) -> Line:
    """One model call of a run, in the columns of a step's line."""
    symbol, style = _mark(call)
    tokens = "" if call.cached else f" · {_tokens(call)} · {money(call.cost_micros)}"
    saved = f" · answered from the cache, saved {money(call.saved_micros)}" if call.cached else ""
    line = [
        Cell(f"    {symbol} ", style),
        Cell(f"{duration(call.duration_ms):>9}  ", DIM),
        Cell(f"{call.tier or '?'} ", STRONG),
        Cell(f"{one_line(call.provider)}/{one_line(call.model)}"),
    ]
    # What is out of the ordinary comes first: a narrow terminal shows it, too.
    if call.escalated:
        line.append(Cell("  ▲ escalated", WARN))
    if call.aborted:
        line.append(Cell("  cut off", WARN))
    if call.fallback:
        line.append(Cell(f"  {FALLBACK} {one_line(call.fallback)[:_REASON]}", WARN))
    reason = f"  {one_line(call.reason)[:_REASON]}" if call.reason else ""
    return [*line, Cell(f"{reason}{tokens}{saved}", DIM)]


def _mark(call: ModelCall) -> tuple[str, str]:
    if call.cached:
        return _CACHED, GOOD
    if call.aborted:
        return _ABORTED, BAD
    return _CALL, WARN if call.fallback else PLAIN


def _tokens(call: ModelCall) -> str:
    cached = f" ({count(call.cached_input_tokens)} cached)" if call.cached_input_tokens else ""
    counted = ", counted here" if call.estimated else ""
    return f"{count(call.input_tokens)} in{cached}, {count(call.output_tokens)} out{counted}"


def cost_lines(cost: TenantCost) -> list[Line]:
    """A tenant's day by tier, provider and model, the dearest first."""
    lines: list[Line] = []
    for one in sorted(cost.sums, key=lambda s: (-s.cost_micros, s.tier, s.provider, s.model)):
        parts = [f"{count(one.calls)} calls", f"{count(one.input_tokens)} in, {count(one.output_tokens)} out"]
        if one.cached_calls:
            parts.append(f"{count(one.cached_calls)} from the cache, saved {money(one.saved_micros)}")
        if one.aborted:
            parts.append(f"{count(one.aborted)} cut off")
        if one.escalated:
            parts.append(f"{count(one.escalated)} escalated")
        line = [
            Cell(f"    {money(one.cost_micros):>10}  "),
            Cell(f"{one.tier:<5} ", STRONG),
            Cell(f"{one_line(one.provider)}/{one_line(one.model)}"),
            Cell(f"  {' · '.join(parts)}", DIM),
        ]
        if one.fallbacks:
            line.append(Cell(f"  {FALLBACK} {count(one.fallbacks)} fell back to it", WARN))
        lines.append(line)
    return lines


def sums_text(sums: Sequence[tuple[str, CostSum]], by: Sequence[CostBy], nothing: str) -> str:
    """A table of (tenant, sum), the dearest first, with a total; ``by`` names the columns before the numbers."""
    head = [each.upper() for each in by]
    head += ["COST", "CALLS", "CACHED", "SAVED", "FELL BACK", "CUT OFF", "TOKENS IN", "OF CACHE", "TOKENS OUT", "RUNS"]
    rows = []
    for tenant, one in sorted(sums, key=lambda pair: (-pair[1].cost_micros, pair[0])):
        names = {"tenant": tenant, "user": one.user, "tier": one.tier, "provider": one.provider, "model": one.model}
        names["revision"] = one.revision
        rows.append([*(one_line(names[each]) or "–" for each in by), *_numbers(one)])
    if len(rows) > 1 and by:
        # Runs are not added up: one that used two models is in both lines.
        total = _numbers(added(one for _, one in sums))[:-1]
        rows.append(["total", *([""] * (len(by) - 1)), *total, ""])
    return columns(head, rows, nothing)


def _numbers(one: CostSum) -> list[str]:
    return [
        money(one.cost_micros),
        count(one.calls),
        count(one.cached_calls),
        money(one.saved_micros),
        count(one.fallbacks),
        count(one.aborted),
        count(one.input_tokens),
        count(one.cached_input_tokens),
        count(one.output_tokens),
        count(one.runs),
    ]


def added(sums: Iterable[CostSum]) -> CostSum:
    """One sum of all numbers, without names."""
    total = CostSum()
    for one in sums:
        total = CostSum(
            calls=total.calls + one.calls,
            cached_calls=total.cached_calls + one.cached_calls,
            fallbacks=total.fallbacks + one.fallbacks,
            aborted=total.aborted + one.aborted,
            escalated=total.escalated + one.escalated,
            input_tokens=total.input_tokens + one.input_tokens,
            output_tokens=total.output_tokens + one.output_tokens,
            cached_input_tokens=total.cached_input_tokens + one.cached_input_tokens,
            cost_micros=total.cost_micros + one.cost_micros,
            saved_micros=total.saved_micros + one.saved_micros,
            runs=total.runs + one.runs,
        )
    return total
