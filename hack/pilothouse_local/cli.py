"""``pilothouse up | down | status | logs | demo``: thin commands over ``cluster``, ``status`` and ``demo``."""

from __future__ import annotations

import functools
import importlib
import os
import subprocess
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import click

from pilothouse_api.names import SYSTEM_NAMESPACE, worker_name
from pilothouse_local import cluster, foreign
from pilothouse_local import instance as instances
from pilothouse_local import status as statuses
from pilothouse_local.console import Console
from pilothouse_local.deploy import SIM_NAMESPACE, Kubectl
from pilothouse_local.errors import BadSettings, LocalClusterError

_P = ParamSpec("_P")
_R = TypeVar("_R")

_STANDINS = ("jira", "servicenow", "salesforce", "okta", "models")
_CLUSTERS = click.Choice(["local", "kind", "current"])
_cluster_option = click.option(
    "--cluster",
    "where",
    type=_CLUSTERS,
    default="local",
    show_default=True,
    envvar="CLUSTER",
    help="local: processes on this machine; kind: a kind cluster (needs Docker); current: your kubectl context.",
)


def _explained(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Prints an error of the local cluster as its three parts, and exits with 1."""

    @functools.wraps(function)
    def wrapped(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return function(*args, **kwargs)
        except LocalClusterError as error:
            click.echo(str(error), err=True)
            raise SystemExit(1) from error
        except KeyboardInterrupt:
            click.echo("\nInterrupted. What was started until now runs on; `pilothouse down` stops it.", err=True)
            raise SystemExit(130) from None

    return wrapped


@click.command()
@_cluster_option
@click.option("--only-core", is_flag=True, help="Start the API, the stores and the node, and install only the kinds.")
@_explained
def up(where: str, only_core: bool) -> None:
    """Start the cluster and install Pilothouse (safe to repeat: it mends what is broken)."""
    if where == "local":
        cluster.up(instances.locate(), Console(), only_core=only_core)
    else:
        foreign.up(Console(), kind=where == "kind")


@click.command()
@_cluster_option
@_explained
def down(where: str) -> None:
    """Stop the cluster; its data stays."""
    if where == "local":
        cluster.down(instances.locate(), Console())
    else:
        foreign.down(Console(), kind=where == "kind")


@click.command()
@_cluster_option
@_explained
def status(where: str) -> None:
    """Show each process and Deployment; exit code 1 when something does not run."""
    if where != "local":
        click.echo(foreign.status(kind=where == "kind"))
        return
    found = statuses.gather(instances.locate())
    click.echo(statuses.render(found))
    if not found.well():
        raise SystemExit(1)


@click.command()
@click.argument("name")
@click.option("--tail", "lines", default=200, show_default=True, help="Lines to print.")
@click.option("--follow", "-f", is_flag=True, help="Go on printing what is added.")
@_explained
def logs(name: str, lines: int, follow: bool) -> None:
    """Print the log of a process (etcd, openbao, …), of operator or gateway, of a stand-in (jira, …), of a tenant."""
    instance = instances.locate()
    if name in (*cluster.PROCESSES, "supervisor"):
        path = instance.log(name)
        if not path.is_file():
            raise BadSettings(
                f"{name} has not written a log yet ({path})", "nothing was printed", "start it with `pilothouse up`"
            )
        if follow:
            os.execvp("tail", ["tail", "-n", str(lines), "-F", str(path)])  # noqa: S606 - tail is meant to take this process's place
        click.echo(cluster.tail(path, lines))
        return
    cluster.require_running(instance)
    kubectl = Kubectl(instance.kubeconfig)
    namespace, deployment = _deployment(name)
    argv = kubectl.argv(
        "logs",
        f"--namespace={namespace}",
        f"deployment/{deployment}",
        f"--tail={lines}",
        *(["--follow"] if follow else []),
    )
    ran = subprocess.run(argv, stderr=None if follow else subprocess.PIPE, text=True, check=False)
    if ran.returncode != 0:
        known = ", ".join([*cluster.PROCESSES, "supervisor", "operator", "gateway", *_STANDINS])
        raise BadSettings(
            f"there is no log of {name}: kubectl found no Pod of deployment {namespace}/{deployment}",
            "nothing was printed",
            f"use one of {known}, or a tenant's name (`kubectl get tenants --all-namespaces`)",
            detail=ran.stderr or "",
        )


def _deployment(name: str) -> tuple[str, str]:
    if name in ("operator", "gateway"):
        return SYSTEM_NAMESPACE, f"pilothouse-{name}"
    if name in _STANDINS:
        return SIM_NAMESPACE, name
    return name, worker_name(name)


@click.command()
@_cluster_option
@_explained
def demo(where: str) -> None:
    """Start everything, make a tenant and ask its agent a question."""
    os.environ["CLUSTER"] = where  # the walk-through goes by it, as `up` does
    # Imported late: the walk-through needs the gateway's client, and `down` must work without it.
    module: Any = importlib.import_module("pilothouse_local.demo")
    module.run()
