"""``pilothouse approvals``: writes that wait for somebody's yes.

Without ``--as`` the SRE acts through Fleet, and Kubernetes' RBAC decides; with it, an employee or a manager acts
through the gateway's chat, and the approval itself says who may.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pilothouse_tui.cli.commands import cluster_options, fleet_option, gateway_options, output_option
from pilothouse_tui.cli.target import Target, by_prefix, with_fleet
from pilothouse_tui.errors import ConfigurationError
from pilothouse_tui.model import Approval, DecideOutcome, Decision

if TYPE_CHECKING:
    from pilothouse_tui.cli.employee import Employee

F = TypeVar("F", bound=Callable[..., Any])
_DEFAULT_TENANT = "acme"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who acts, and how: the commands' options."""

    tenant: str
    as_user: str
    groups: tuple[str, ...]
    url: str
    token: str
    kubeconfig: str
    context: str
    fleet_address: str


def _caller_options(function: F) -> F:
    for option in (
        fleet_option,
        cluster_options,
        gateway_options,
        click.option("--group", "groups", multiple=True, metavar="NAME", help="With --as: a group they are in."),
        click.option(
            "--as", "as_user", default="", metavar="EMAIL", help="Act as this employee (default: as the SRE, by RBAC)."
        ),
        click.option("--tenant", default="", help=f"Only this tenant (default: all; with --as {_DEFAULT_TENANT})."),
    ):
        function = option(function)
    return function


@click.group()
def approvals() -> None:
    """Approvals: writes that wait for somebody's yes."""


@approvals.command("list")
@output_option
@_caller_options
def list_(output: str, **options: Any) -> None:
    """List what waits, the next to expire first; with --as: what that employee may decide."""
    from pilothouse_tui.render.plain import approval_json, approvals_text, json_text
    from pilothouse_tui.render.text import short_ids

    found = _read(Caller(**options))
    if output == "json":
        click.echo(json_text([approval_json(approval) for approval in found]))
    else:
        ids = short_ids(approval.approval_id for approval in found)
        click.echo(approvals_text(found, ids, datetime.now(UTC), "No approval waits."))


@approvals.command()
@click.argument("id")
@output_option
@_caller_options
def show(id: str, output: str, **options: Any) -> None:
    """Show all that would be done, why somebody is asked, and where its values come from. ID may be abbreviated."""
    from pilothouse_tui.render.approvals import approval_lines
    from pilothouse_tui.render.lines import plain
    from pilothouse_tui.render.plain import approval_json, json_text

    caller = Caller(**options)
    approval = _find(_read(caller), id, "Nothing was shown.")
    if output == "json":
        click.echo(json_text(approval_json(approval)))
        return
    click.echo(plain(approval_lines(approval, datetime.now(UTC), me=caller.as_user)))
    click.echo(
        f"tenant {approval.tenant}, approval {approval.approval_id},"
        f" session {approval.session_id}, run {approval.run_id}"
    )


def _command(word: str, approved: bool, help: str) -> None:
    @approvals.command(word, help=f"{help} ID may be abbreviated. Status 0 only where this answer counts.")
    @click.argument("id")
    @_caller_options
    def run(id: str, **options: Any) -> None:
        from pilothouse_tui.render.approvals import RESULTS
        from pilothouse_tui.render.text import one_line

        caller = Caller(**options)
        try:
            approval = _find(_read(caller), id, "The approval was not answered.")
        except ConfigurationError:
            # A gateway that has just started may not know yet what a worker does: a full id goes through.
            if len(id) < _FULL or not (caller.tenant or caller.as_user):
                raise
            approval = Approval(caller.tenant, id)
        done = _decide(caller, approval, approved)
        counts = done.outcome is DecideOutcome.DECIDED
        said = (
            one_line(done.message)
            or RESULTS[done.outcome]
            or f"{'Approved' if approved else 'Refused'} {one_line(approval.tool)}."
        )
        click.secho(f"{'✓' if counts else '✗'} {said}", fg="green" if counts else "red")
        raise SystemExit(0 if counts else 1)


_FULL = 16
"""Characters from which something may be an id in full."""
_command("approve", True, "Let a write go ahead.")
_command("refuse", False, "Refuse a write: it is not made, and the user is told.")


def _read(caller: Caller) -> list[Approval]:
    if not caller.as_user:

        async def work(target: Target) -> list[Approval]:
            return list((await target.fleet.snapshot(caller.tenant)).approvals)

        return with_fleet(caller.kubeconfig, caller.context, caller.fleet_address, work)

    async def read() -> list[Approval]:
        async with await _employee(caller).connection() as connection:
            await connection.connect()
            return await connection.approvals()

    return asyncio.run(read())


def _decide(caller: Caller, approval: Approval, approved: bool) -> Decision:
    if not caller.as_user:

        async def work(target: Target) -> Decision:
            return await target.actions.decide(approval.tenant, approval.approval_id, approved)

        return with_fleet(caller.kubeconfig, caller.context, caller.fleet_address, work)

    async def decide() -> Decision:
        async with await _employee(caller).connection() as connection:
            await connection.connect()
            return await connection.decide_and_wait(approval.approval_id, approved)

    return asyncio.run(decide())


def _employee(caller: Caller) -> Employee:
    from pilothouse_tui.cli.employee import Employee

    return Employee(
        tenant=caller.tenant or _DEFAULT_TENANT,
        user=caller.as_user,
        groups=caller.groups,
        token=caller.token,
        url=caller.url,
        kubeconfig=caller.kubeconfig,
        context=caller.context,
    )


def _find(found: list[Approval], id: str, not_done: str) -> Approval:
    return by_prefix(found, id, "waiting approval", "pilothouse approvals list", not_done)
