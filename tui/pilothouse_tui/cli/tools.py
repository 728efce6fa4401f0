"""``pilothouse tools`` (for operators) and ``pilothouse accounts`` (for employees). See the package's docstring for the
imports inside of functions."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any

import click

from pilothouse_tui.cli.commands import cluster_options, fleet_option, gateway_options, output_option
from pilothouse_tui.cli.target import Target, ask_first, with_fleet
from pilothouse_tui.model import LinkState, Tool


@click.command()
@click.argument("pattern", default="*")
@click.option("--tenant", required=True, help="Whose agent.")
@click.option("--connector", default="", help="Only this connector's.")
@output_option
@cluster_options
@fleet_option
def tools(
    pattern: str, tenant: str, connector: str, output: str, kubeconfig: str, context: str, fleet_address: str
) -> None:
    """List what a tenant's agent can call: effect, whose approval it takes, how its writes happen once.

    PATTERN is a tool's name or a glob over names, such as 'jira.issue.*'. With -o json also each tool's arguments.
    """
    from pilothouse_tui.render.plain import json_text, tool_json
    from pilothouse_tui.render.tools import tools_text

    async def work(target: Target) -> tuple[Tool, ...]:
        return await target.actions.tools(tenant)

    found = [
        tool
        for tool in with_fleet(kubeconfig, context, fleet_address, work)
        if fnmatchcase(tool.name, pattern) and connector in ("", tool.connector)
    ]
    if output == "json":
        click.echo(json_text([tool_json(tool) for tool in found]))
        return
    nothing = f"The agent of {tenant} has no such tool. Look at the conditions: kubectl get connectors -A"
    click.echo(tools_text(found, nothing))


@click.group()
def accounts() -> None:
    """An employee's linked accounts: in which systems the agent may act as them."""


def _employee_options(function: Any) -> Any:
    function = click.option("--user", default="employee@acme.example", show_default=True, help="The e-mail.")(function)
    return click.option("--tenant", default="acme", show_default=True)(function)


@accounts.command("list")
@_employee_options
@gateway_options
@output_option
@cluster_options
def list_(output: str, **options: Any) -> None:
    """List linked accounts, and say where to link others."""
    from pilothouse_tui.cli.employee import Employee
    from pilothouse_tui.render.plain import account_json, json_text
    from pilothouse_tui.render.tools import accounts_text

    async def read() -> tuple[Any, str]:
        client = await Employee(**options).accounts()
        return await client.read(), client.page

    found, page = asyncio.run(read())
    if output == "json":
        click.echo(json_text([account_json(account) for account in found]))
        return
    click.echo(accounts_text(found, datetime.now(UTC)))
    if any(account.state in (LinkState.NOT_LINKED, LinkState.EXPIRED) for account in found):
        click.echo(f"\nLink accounts in a browser: {page}")


@accounts.command()
@click.argument("connector")
@click.option("--yes", "-y", is_flag=True, help="Don't ask.")
@_employee_options
@gateway_options
@cluster_options
def unlink(connector: str, yes: bool, **options: Any) -> None:
    """Revoke the agent's access to CONNECTOR as this employee, and forget its tokens."""
    from pilothouse_tui.cli.employee import Employee

    ask_first(f"Unlink {connector} of {options['user']}?", yes, "It was not unlinked.")

    async def work() -> str:
        client = await Employee(**options).accounts()
        return await client.unlink(connector)

    click.echo(asyncio.run(work()) or f"Unlinked {connector}.")
