"""The product's own subcommands. Clients are imported inside of the commands: see the package's docstring."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def cluster_options(function: F) -> F:
    """``--kubeconfig`` and ``--context``."""
    function = click.option("--context", default="", help="Kubeconfig context (default: the current one).")(function)
    return click.option(
        "--kubeconfig",
        default="",
        metavar="FILE",
        help="Default: $KUBECONFIG, else the local cluster's, else ~/.kube/config.",
    )(function)


def fleet_option(function: F) -> F:
    """``--fleet``."""
    return click.option(
        "--fleet",
        "fleet_address",
        default="",
        envvar="PILOTHOUSE_FLEET",
        metavar="HOST:PORT",
        help="Fleet's address (default: a Ready gateway Pod).",
    )(function)


def gateway_options(function: F) -> F:
    """``--url`` and ``--token``: speaking to the gateway as an employee."""
    function = click.option(
        "--token", default="", envvar="PILOTHOUSE_TOKEN", help="The employee's own token (default: one is made)."
    )(function)
    return click.option(
        "--url", default="", envvar="PILOTHOUSE_CHAT_URL", help="ws://HOST:PORT/v1/chat (default: local gateway)."
    )(function)


def output_option(function: F) -> F:
    """``-o``."""
    return click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)(
        function
    )


@click.command()
@cluster_options
@fleet_option
def tui(kubeconfig: str, context: str, fleet_address: str) -> None:
    """Watch tenants, sessions, breakers, costs, approvals and dead letters live, and act on them."""
    from pilothouse_tui.app import run

    run(kubeconfig, context, fleet_address)


@click.command()
@click.option("--tenant", default="acme", show_default=True)
@click.option("--user", default="employee@acme.example", show_default=True, help="The employee's e-mail.")
@click.option("--name", default="", help="The employee's name (default: from the e-mail).")
@click.option("--manager", default="", metavar="EMAIL", help="The employee's manager, who approves for them.")
@click.option("--group", "groups", multiple=True, metavar="NAME", help="A group they are in (may be repeated).")
@click.option("--ttl", default="1h", show_default=True, help="How long it is valid: 90s, 30m, 1h, 7d.")
@cluster_options
def token(
    tenant: str,
    user: str,
    name: str,
    manager: str,
    groups: tuple[str, ...],
    ttl: str,
    kubeconfig: str,
    context: str,
) -> None:
    """Print a development token for one employee (needs to read the signing key's Secret)."""
    from pilothouse_tui.data.kube import KubeClient
    from pilothouse_tui.data.tokens import make_token, parse_duration

    seconds = parse_duration(ttl)

    async def read() -> bytes:
        async with KubeClient.from_environment(kubeconfig, context) as kube:
            return await kube.read_signing_key()

    made = make_token(
        asyncio.run(read()),
        tenant=tenant,
        user=user,
        name=name,
        manager=manager,
        groups=groups,
        ttl_seconds=seconds,
    )
    click.echo(made)


@click.command()
@click.argument("question", nargs=-1)
@click.option("--tenant", default="acme", show_default=True)
@click.option("--user", default="employee@acme.example", show_default=True, help="The employee's e-mail.")
@click.option("--manager", default="", metavar="EMAIL", help="The employee's manager, who approves for them.")
@click.option("--group", "groups", multiple=True, metavar="NAME", help="A group they are in (may be repeated).")
@gateway_options
@click.option("--session", "session_id", default="", metavar="ID", help="Go on with an earlier conversation.")
@click.option("--json", "as_json", is_flag=True, help="Print the raw events, one JSON object a line.")
@click.option("-v", "--verbose", is_flag=True, help="Also each step's start, the worker, and where the time went.")
@cluster_options
def chat(question: tuple[str, ...], session_id: str, as_json: bool, verbose: bool, **options: Any) -> None:
    """Ask the agent as an employee. With QUESTION: answer it and leave.

    Status 1 on an error, 3 where the question waits for somebody's approval.
    """
    from pilothouse_tui.cli.chat import ChatOptions, run_chat
    from pilothouse_tui.cli.employee import Employee

    employee = Employee(**options)
    raise SystemExit(run_chat(" ".join(question), ChatOptions(employee, session_id, as_json, verbose)))


@click.command()
@click.argument("what", type=click.Choice(["sessions", "breakers", "costs"]))
@click.option("--tenant", default="", help="Only this tenant.")
@click.option(
    "--by",
    "by",
    multiple=True,
    type=click.Choice(["tenant", "user", "tier", "provider", "model", "revision"]),
    help="Costs: sums by this, as the ledger holds them (may be repeated).",
)
@click.option("--day", default="", metavar="YYYY-MM-DD", help="Costs: of this day in UTC (default: today).")
@output_option
@cluster_options
@fleet_option
def get(
    what: str,
    tenant: str,
    by: tuple[str, ...],
    day: str,
    output: str,
    kubeconfig: str,
    context: str,
    fleet_address: str,
) -> None:
    """Print live sessions, breakers or costs once; with --by or --day costs as the ledger holds them."""
    from datetime import UTC, date, datetime

    from pilothouse_tui.data.fleet import FleetClient
    from pilothouse_tui.data.kube import KubeClient
    from pilothouse_tui.model import FleetSnapshot
    from pilothouse_tui.render.plain import as_json, as_table

    if by or day:
        from typing import cast

        from pilothouse_tui.cli import costs
        from pilothouse_tui.cli.target import Target, with_fleet
        from pilothouse_tui.model import CostBy, CostSum

        if what != "costs":
            raise click.UsageError("--by and --day go with costs")
        try:
            wanted = date.fromisoformat(day).isoformat() if day else ""
        except ValueError:
            raise click.BadParameter("write a day such as 2026-11-22", param_hint="--day") from None
        kinds = cast("tuple[CostBy, ...]", by or ("tenant",))

        async def work(target: Target) -> tuple[list[tuple[str, CostSum]], list[tuple[str, str]]]:
            return await costs.read(target, tenant, wanted, kinds)

        sums, failed = with_fleet(kubeconfig, context, fleet_address, work)
        costs.show(sums, failed, kinds, output)
        return

    async def read() -> FleetSnapshot:
        async with KubeClient.from_environment(kubeconfig, context) as kube:
            return await FleetClient(kube, fleet_address).snapshot(tenant)

    snapshot = asyncio.run(read())
    click.echo(as_json(what, snapshot) if output == "json" else as_table(what, snapshot, datetime.now(UTC)))
