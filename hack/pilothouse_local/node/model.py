"""What the node's parts say to one another: container states, mounts, and the reasons why a container can't start.

Errors::

    ContainerRefused          the Pod's author must act (or create the object it refers to); tried again soon
    NodeUnusable              whoever runs the node must act; the node does not start
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

Obj = dict[str, Any]
"""A Kubernetes object, or a part of one, as the API's JSON has it."""

UNKNOWN_EXIT = 137
"""Exit code that is reported where nobody saw the process end (kubelet's convention for ContainerStatusUnknown)."""


class ContainerRefused(Exception):
    """A container can't be started as its Pod describes it; the Pod's author must act.

    `reason` is a kubelet waiting reason (ErrImagePull, CreateContainerConfigError, RunContainerError).
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class NodeUnusable(Exception):
    """This machine can't run a node; whoever runs the node must act on the message."""


@dataclass(frozen=True)
class Waiting:
    """Not running, and why."""

    reason: str = "ContainerCreating"
    message: str = ""


@dataclass(frozen=True)
class Running:
    """Running since `started_at` (RFC 3339, UTC)."""

    started_at: str


@dataclass(frozen=True)
class Terminated:
    """Ended. Times are RFC 3339, UTC."""

    exit_code: int
    reason: str
    started_at: str
    finished_at: str
    container_id: str
    message: str = ""


State = Waiting | Running | Terminated


@dataclass
class ContainerState:
    """One container as the node knows it; `status.container_status` renders it."""

    name: str
    image: str
    state: State = field(default_factory=Waiting)
    last: Terminated | None = None
    restart_count: int = 0
    started: bool = False
    ready: bool = False
    container_id: str = ""
    finished: bool = False
    """It has ended and will not be started again."""


@dataclass(frozen=True)
class Mount:
    """A bind mount of `source` (a path under the state folder) at `target` (as the Pod says)."""

    source: str
    target: str
    read_only: bool = False


def timestamp(now: datetime) -> str:
    """RFC 3339 in whole seconds, as metav1.Time is written."""
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def micro_timestamp(now: datetime) -> str:
    """RFC 3339 with microseconds, as metav1.MicroTime is written."""
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
