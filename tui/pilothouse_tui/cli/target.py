"""What the SRE's subcommands share: reaching Fleet, abbreviated ids, and a question before what can't be taken back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import click

from pilothouse_tui.errors import ConfigurationError

if TYPE_CHECKING:
    from pilothouse_tui.data.actions import FleetActions
    from pilothouse_tui.data.fleet import FleetClient
    from pilothouse_tui.data.kube import KubeClient

T = TypeVar("T")


class Keyed(Protocol):
    """Something with a tenant and an id."""

    @property
    def key(self) -> tuple[str, str]:
        """Tenant and id."""


K = TypeVar("K", bound=Keyed)


@dataclass(frozen=True, slots=True)
class Target:
    """The cluster's clients, for one command's time."""

    kube: KubeClient
    fleet: FleetClient
    actions: FleetActions

    async def tenants(self, only: str) -> list[str]:
        """The tenant that is named, or all of them."""
        return [only] if only else await self.kube.find_tenants()


def with_fleet(kubeconfig: str, context: str, fleet_address: str, work: Callable[[Target], Awaitable[T]]) -> T:
    """Run ``work`` with the clients. Raises a ToolError."""
    from pilothouse_tui.data.actions import FleetActions
    from pilothouse_tui.data.fleet import FleetClient
    from pilothouse_tui.data.kube import KubeClient

    async def main() -> T:
        async with KubeClient.from_environment(kubeconfig, context) as kube:
            fleet = FleetClient(kube, fleet_address)
            return await work(Target(kube, fleet, FleetActions(fleet)))

    return asyncio.run(main())


def by_prefix(items: Sequence[K], prefix: str, noun: str, where: str, not_done: str) -> K:
    """The only item whose id begins with ``prefix``; an id that is given in full wins. Raises ConfigurationError.

    ``noun`` is what it is, ``where`` the command that lists them.
    """
    exact = [item for item in items if item.key[1] == prefix]
    found = exact or [item for item in items if prefix and item.key[1].startswith(prefix)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise ConfigurationError(f"There is no {noun} {prefix}.", not_done, f"List them with `{where}`.")
    shown = ", ".join(f"{item.key[1]} ({item.key[0]})" for item in found[:5])
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    raise ConfigurationError(
        f"{prefix} stands for {len(found)} {noun}s: {shown}{more}.", not_done, "Write more of the id, or add --tenant."
    )


def ask_first(question: str, yes: bool, not_done: str) -> None:
    """Go on only where ``yes`` is given or the person says so. Raises ConfigurationError where nobody answers."""
    if yes:
        return
    try:
        agreed = click.confirm(question, default=False)
    except click.Abort as error:
        raise ConfigurationError(
            "Nobody answered the question.", not_done, "Answer it at a terminal, or add --yes."
        ) from error
    if not agreed:
        click.echo(f"{not_done} You said no.")
        raise SystemExit(1)
