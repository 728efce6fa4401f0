"""``pilothouse dlq``: writes that failed for good. See the package's docstring for the imports inside of functions."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from pilothouse_tui.cli.commands import cluster_options, fleet_option, output_option
from pilothouse_tui.cli.target import Target, ask_first, by_prefix, with_fleet
from pilothouse_tui.errors import ToolError
from pilothouse_tui.model import DeadLetter, DeadLetters, DeadLetterState, Replay, StepOutcome

_LIST = "pilothouse dlq list --all"
_MOST = 1000
"""Letters of a tenant in which an abbreviated id is looked for; a full id is found in any number."""
_tenant_option = click.option("--tenant", default="", help="Only this tenant (default: all).")
_yes_option = click.option("--yes", "-y", is_flag=True, help="Don't ask.")


@click.group()
def dlq() -> None:
    """Dead letters: writes that failed for good, with all it takes to send them again."""


@dlq.command("list")
@_tenant_option
@click.option("--all", "all_states", is_flag=True, help="Also replayed and discarded ones.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, _MOST), help="At most, of a tenant.")
@output_option
@cluster_options
@fleet_option
def list_(
    tenant: str, all_states: bool, limit: int, output: str, kubeconfig: str, context: str, fleet_address: str
) -> None:
    """List dead letters, newest first."""
    from pilothouse_tui.render.plain import json_text, letter_json, letters_text
    from pilothouse_tui.render.text import short_ids

    async def work(target: Target) -> DeadLetters:
        return await target.actions.dead_letters(await target.tenants(tenant), all_states=all_states, limit=limit)

    found = with_fleet(kubeconfig, context, fleet_address, work)
    if output == "json":
        click.echo(json_text([letter_json(letter) for letter in found.letters]))
    else:
        nothing = "There are no dead letters." if all_states else "There are no open dead letters."
        ids = short_ids(letter.id for letter in found.letters)
        click.echo(letters_text(found.letters, ids, datetime.now(UTC), nothing))
    for name, why in found.failed:
        click.secho(f"! {name} is missing from the list: {why}", fg="yellow", err=True)
    if found.failed:
        raise SystemExit(1)


@dlq.command()
@click.argument("id")
@_tenant_option
@output_option
@cluster_options
@fleet_option
def show(id: str, tenant: str, output: str, kubeconfig: str, context: str, fleet_address: str) -> None:
    """Show all of a dead letter. ID may be abbreviated."""
    from pilothouse_tui.render.deadletters import letter_lines
    from pilothouse_tui.render.lines import plain
    from pilothouse_tui.render.plain import json_text, letter_json

    async def work(target: Target) -> DeadLetter:
        return await _find(target, tenant, id, "Nothing was shown.")

    letter = with_fleet(kubeconfig, context, fleet_address, work)
    if output == "json":
        click.echo(json_text(letter_json(letter)))
    else:
        click.echo(plain(letter_lines(letter, datetime.now(UTC))))


@dlq.command()
@click.argument("id")
@_tenant_option
@click.option("--force", is_flag=True, help="Also where a later run made the same change, or it is not open any more.")
@_yes_option
@cluster_options
@fleet_option
def replay(id: str, tenant: str, force: bool, yes: bool, kubeconfig: str, context: str, fleet_address: str) -> None:
    """Send a dead letter again, under its own idempotency key. ID may be abbreviated.

    Status 0 only where the write is made.
    """
    from pilothouse_tui.render.deadletters import IN_DOUBT, replay_sentence

    not_done = "Nothing was sent again."

    async def find(target: Target) -> DeadLetter:
        return await _find(target, tenant, id, not_done)

    letter = with_fleet(kubeconfig, context, fleet_address, find)
    _must_be_open(letter, force, not_done)
    if letter.in_doubt:
        click.secho(f"? {IN_DOUBT}", fg="yellow", err=True)
    ask_first(f"Send {_named(letter)} again?", yes, not_done)

    async def work(target: Target) -> Replay:
        return await target.actions.replay(letter.tenant, letter.id, force=force)

    done = with_fleet(kubeconfig, context, fleet_address, work)
    made = done.outcome is StepOutcome.SUCCEEDED
    click.secho(replay_sentence(done), fg="green" if made else "red")
    raise SystemExit(0 if made else 1)


@dlq.command()
@click.argument("id")
@_tenant_option
@_yes_option
@cluster_options
@fleet_option
def discard(id: str, tenant: str, yes: bool, kubeconfig: str, context: str, fleet_address: str) -> None:
    """Close a dead letter that nobody wants any more; it stays in the record. ID may be abbreviated."""
    not_done = "It was not discarded."

    async def find(target: Target) -> DeadLetter:
        return await _find(target, tenant, id, not_done)

    letter = with_fleet(kubeconfig, context, fleet_address, find)
    _must_be_open(letter, False, not_done)
    ask_first(f"Discard {_named(letter)}? Nobody sends it again.", yes, not_done)

    async def work(target: Target) -> DeadLetter:
        return await target.actions.discard(letter.tenant, letter.id)

    with_fleet(kubeconfig, context, fleet_address, work)
    click.echo(f"■ Discarded {_named(letter)}; it stays in the record (`{_LIST}`).")


def _named(letter: DeadLetter) -> str:
    from pilothouse_tui.render.text import one_line

    return f"{one_line(letter.tool)} of {one_line(letter.user)} at {letter.tenant}"


def _must_be_open(letter: DeadLetter, force: bool, not_done: str) -> None:
    if letter.state in (DeadLetterState.REPLAYED, DeadLetterState.DISCARDED) and not force:
        from pilothouse_tui.errors import ConfigurationError

        by = f" by {letter.resolved_by}" if letter.resolved_by else ""
        raise ConfigurationError(
            f"It was {letter.state.value}{by} before.",
            not_done,
            f"See what came of it: `pilothouse dlq show {letter.id}`.",
        )


async def _find(target: Target, tenant: str, id: str, not_done: str) -> DeadLetter:
    """The letter of that id, or of the id that begins so: open ones first, since these are what people type."""
    tenants = await target.tenants(tenant)
    tried: ToolError | None = None
    for what in ({"id": id, "all_states": True}, {"limit": _MOST}, {"limit": _MOST, "all_states": True}):
        found = await target.actions.dead_letters(tenants, **what)
        matching = [letter for letter in found.letters if letter.id.startswith(id)]
        try:
            letter = by_prefix(matching, id, "dead letter", _LIST, not_done)
        except ToolError as error:
            if matching:
                raise
            tried = error
        else:
            return letter
    for name, why in found.failed:
        click.secho(f"! {name} could not be asked: {why}", fg="yellow", err=True)
    assert tried is not None
    raise tried
