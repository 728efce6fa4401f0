"""``pilothouse breakers``: circuit breakers, and taking one out of its own hands."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from pilothouse_tui.cli.commands import cluster_options, fleet_option, output_option
from pilothouse_tui.cli.target import Target, with_fleet
from pilothouse_tui.errors import ConfigurationError
from pilothouse_tui.model import BreakerMode, FleetSnapshot

_DONE = {
    BreakerMode.FORCED_OPEN: "⊗ {name} of {tenant} is forced open: each call fails at once until you give it back.",
    BreakerMode.DISABLED: "○ {name} of {tenant} is disabled: every call passes and nothing is counted.",
    BreakerMode.AUTOMATIC: "● {name} of {tenant} judges for itself again.",
}


@click.group()
def breakers() -> None:
    """Circuit breakers: one for each connector and model provider of a tenant."""


@breakers.command("list")
@click.option("--tenant", default="", help="Only this tenant (default: all).")
@output_option
@cluster_options
@fleet_option
def list_(tenant: str, output: str, kubeconfig: str, context: str, fleet_address: str) -> None:
    """List breakers: state, rates of failed and slow calls, since when and why."""
    from pilothouse_tui.render.plain import as_json, breakers_text

    async def work(target: Target) -> FleetSnapshot:
        return await target.fleet.snapshot(tenant)

    snapshot = with_fleet(kubeconfig, context, fleet_address, work)
    if output == "json":
        click.echo(as_json("breakers", snapshot))
    else:
        click.echo(breakers_text(snapshot.breakers, datetime.now(UTC)))


def _command(word: str, mode: BreakerMode, help: str) -> None:
    @breakers.command(word, help=help)
    @click.argument("name")
    @click.option("--tenant", required=True, help="Whose breaker.")
    @cluster_options
    @fleet_option
    def run(name: str, tenant: str, kubeconfig: str, context: str, fleet_address: str) -> None:
        if name.partition("/")[0] not in ("connector", "provider") or not name.partition("/")[2]:
            raise ConfigurationError(
                f"{name} is not a breaker's name.",
                "The breaker was not changed.",
                "Write connector/NAME or provider/NAME, as `pilothouse breakers list` does.",
            )

        async def work(target: Target) -> None:
            await target.actions.set_breaker(tenant, name, mode)

        with_fleet(kubeconfig, context, fleet_address, work)
        click.echo(_DONE[mode].format(name=name, tenant=tenant))


_command(
    "force-open",
    BreakerMode.FORCED_OPEN,
    "Force NAME open: calls fail at once and users are told, for all of the tenant's workers.",
)
_command("disable", BreakerMode.DISABLED, "Switch NAME off: every call passes, however many fail.")
_command("automatic", BreakerMode.AUTOMATIC, "Give NAME back to its own judgement.")
