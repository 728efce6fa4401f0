"""``pilothouse``: one command whose subcommands come from the entry-point group ``pilothouse.commands``.

A subcommand is imported when it is called (or when help lists it), so ``pilothouse token`` loads no Textual, and an
image without the local cluster's package has no ``up`` in it.
"""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, entry_points, version
from typing import NoReturn

import click

from pilothouse_tui.errors import ToolError

GROUP = "pilothouse.commands"


class EntryPointGroup(click.Group):
    """A click group that finds its commands in the installed distributions."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name in sorted(_points()) if self.get_command(ctx, name) is not None]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        point = _points().get(cmd_name)
        if point is None:
            return None
        try:
            command = point.load()
        except ModuleNotFoundError as error:
            # A package that is left out of this image takes its commands with it; any other import error is a bug.
            if error.name and point.module.startswith(error.name):
                return None
            raise
        return command if isinstance(command, click.Command) else None

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ToolError as error:
            fail(error)


def fail(error: ToolError) -> NoReturn:
    """Print an error's three parts and leave with status 1."""
    click.secho(f"✗ {error.happened}", fg="red", err=True)
    click.echo(f"  {error.not_done}\n  → {error.to_do}", err=True)
    sys.exit(1)


def _points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


@click.group(cls=EntryPointGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("pilothouse"), "-V", "--version", prog_name="pilothouse")
def main() -> None:
    """Pilothouse: AI agents for many customers at once, each acting as the asking employee."""
