"""The local cluster's one error tree. A person reads these, so each says three things.

LocalClusterError             what happened, what was not done, what to do now
├── BadSettings               the caller: a setting, a flag or an environment variable is wrong
├── StateUnusable             the caller: the state folder can't be written, is full, or its contents can't be read
│   └── DiskFull
├── PortTaken                 the caller: another program listens where this instance has to
├── BinariesUnavailable       the caller: the Kubernetes programs can be neither found, fetched nor built
├── ProcessFailed             the machine: a process of the stack does not come up (its log's tail is in the message)
├── ClusterUnreachable        retry: the Kubernetes API refused a request or gave no answer
├── VaultUnusable             retry: OpenBao refused a request or gave no answer
└── NotAvailable              the product: a Deployment did not become available in time
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path


class LocalClusterError(Exception):
    """What happened, what was not done because of it, and what the reader can do now."""

    def __init__(self, happened: str, not_done: str, do_now: str, *, detail: str = "") -> None:
        super().__init__(happened)
        self.happened = happened
        self.not_done = not_done
        self.do_now = do_now
        self.detail = detail

    def __str__(self) -> str:
        lines = [
            f"What happened:  {self.happened}",
            f"Not done:       {self.not_done}",
            f"What to do now: {self.do_now}",
        ]
        if self.detail:
            lines += ["", self.detail.rstrip()]
        return "\n".join(lines)


class BadSettings(LocalClusterError):
    """A flag or an environment variable has a value that can't be used."""


class StateUnusable(LocalClusterError):
    """The state folder can't be used as it is."""


class DiskFull(StateUnusable):
    """Too little space is left for the stores to start safely."""


class PortTaken(LocalClusterError):
    """Another program listens on a port that this instance keeps."""


class BinariesUnavailable(LocalClusterError):
    """None of the four ways to get the Kubernetes programs worked."""


class ProcessFailed(LocalClusterError):
    """A process of the stack does not come up."""


class ClusterUnreachable(LocalClusterError):
    """The Kubernetes API refused a request or gave no answer."""


class VaultUnusable(LocalClusterError):
    """OpenBao refused a request or gave no answer."""


class NotAvailable(LocalClusterError):
    """A Deployment did not become available in time."""


@contextlib.contextmanager
def writing(folder: Path, not_done: str) -> Iterator[None]:
    """Turns the operating system's refusals while writing under ``folder`` into errors of this tree."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(
                f"the disk that holds {folder} is full ({error})",
                not_done,
                "free at least 1 GB there, or set PILOTHOUSE_STATE and XDG_CACHE_HOME to folders on a larger disk",
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise StateUnusable(
                f"{error.filename or folder} can't be read or written ({error.strerror})",
                not_done,
                f"give {folder} to the user who runs this command, or set PILOTHOUSE_STATE to another folder",
            ) from error
        raise
