"""``pilothouse get costs --by …``: sums of model calls as PostgreSQL holds them, asked of each tenant's workers."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import Any

import click

from pilothouse_tui.cli.target import Target
from pilothouse_tui.errors import ToolError
from pilothouse_tui.model import CostBy, CostSum
from pilothouse_tui.render.costs import added, sums_text
from pilothouse_tui.render.plain import json_text

_AT_ONCE = 8


async def read(
    target: Target, tenant: str, day: str, by: Sequence[CostBy]
) -> tuple[list[tuple[str, CostSum]], list[tuple[str, str]]]:
    """Sums with their tenant, and the tenants that could not be asked with why. Raises a ToolError where none could."""
    tenants = await target.tenants(tenant)
    slots = asyncio.Semaphore(_AT_ONCE)
    kinds = [each for each in by if each != "tenant"]

    async def of(name: str) -> tuple[str, tuple[CostSum, ...] | ToolError]:
        async with slots:
            try:
                return name, await target.actions.costs(name, day, kinds)
            except ToolError as error:
                return name, error

    answers = await asyncio.gather(*(of(name) for name in tenants))
    failed = [(name, answer) for name, answer in answers if isinstance(answer, ToolError)]
    if failed and len(failed) == len(answers):
        raise failed[0][1]
    sums = [(name, one) for name, answer in answers if not isinstance(answer, ToolError) for one in answer]
    return (sums if "tenant" in by else _over_tenants(sums, kinds)), [(name, e.happened) for name, e in failed]


def _over_tenants(sums: Sequence[tuple[str, CostSum]], by: Sequence[CostBy]) -> list[tuple[str, CostSum]]:
    """Sums of several tenants with the same names become one."""
    groups: dict[tuple[str, ...], list[CostSum]] = {}
    for _, one in sums:
        groups.setdefault(tuple(getattr(one, each) for each in by), []).append(one)
    found: list[tuple[str, CostSum]] = []
    for names, ones in groups.items():
        named: dict[str, Any] = dict(zip(by, names, strict=True))
        found.append(("", dataclasses.replace(added(ones), **named)))
    return found


def show(
    sums: Sequence[tuple[str, CostSum]], failed: Sequence[tuple[str, str]], by: Sequence[CostBy], output: str
) -> None:
    """Print them; who could not be asked goes to standard error."""
    if output == "json":
        click.echo(json_text([{"tenant": tenant} | dataclasses.asdict(one) for tenant, one in sums]))
    else:
        click.echo(sums_text(sums, by, "No model call is booked on that day."))
    for tenant, why in failed:
        click.echo(f"! {tenant} is missing: {why}", err=True)
