"""Runs in the child, by path, with the standard library alone: makes the container's mount namespace, then becomes its
program.

It reads one JSON document from standard input: `argv`, `env`, `cwd`, `mounts` (`[source, target, read_only]`), `keep`
(paths that must stay visible), `scratch` (an empty folder of the node's, on which a tmpfs is mounted inside the
namespace only). The node records the process before it sends the document; where the node dies in between, the document
ends early and the launcher does nothing. So no program ever runs that the node's records don't know.

A mount target that does not exist is made without touching the machine's folders: its nearest existing ancestor is
*mirrored*, that is, covered by a tmpfs into which each of its entries is bound, and the missing folders are made there.
Where that ancestor is `/`, the mirror becomes the root (chroot). As an ordinary user all of it happens in a user
namespace that maps the user to itself; exec then drops the powers.

Exit codes: 125 the node went away before the start; 126 the namespace could not be made (the last line of standard
error says why); 127 the program could not be started."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import stat
import sys
from typing import Any

_NEWNS, _NEWUSER = 0x00020000, 0x10000000
_RDONLY, _REMOUNT, _BIND, _REC, _PRIVATE, _NOSUID, _NODEV = 1, 32, 4096, 16384, 1 << 18, 2, 4
_libc = ctypes.CDLL(None, use_errno=True)

FORBIDDEN = (
    "this system does not let processes make a mount namespace ({error}), which the local node needs to give each Pod "
    "its files; nothing was started. Run it as root, or "
    "allow user namespaces (sysctl kernel.unprivileged_userns_clone=1, and on Ubuntu "
    "kernel.apparmor_restrict_unprivileged_userns=0; in Docker: --privileged), or use another cluster: "
    "make demo CLUSTER=kind."
)


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def _mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    _check(
        _libc.mount(source.encode(), target.encode(), kind.encode(), flags, data.encode()),
        f"mount {source} on {target}",
    )


def enter_namespace() -> None:
    """A private mount namespace, through a user namespace where the process may not make one directly. Raises
    OSError."""
    uid, gid = os.getuid(), os.getgid()
    try:
        _check(_libc.unshare(_NEWNS), "unshare")
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EINVAL):
            raise
        _check(_libc.unshare(_NEWUSER | _NEWNS), "unshare")
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    _mount("none", "/", "", _REC | _PRIVATE)


class Mounts:
    """The container's view of the file system, under construction."""

    def __init__(self, scratch: str) -> None:
        _mount("tmpfs", scratch, "tmpfs", _NOSUID | _NODEV, "mode=755")
        # Reached by descriptor from here on: a mount of the Pod's at /tmp may cover the path.
        self._scratch = f"/proc/self/fd/{os.open(scratch, os.O_PATH | os.O_DIRECTORY)}"
        self._devices = {os.stat(scratch).st_dev}
        self._count = 0
        self._volumes: list[str] = []

    def bind(self, source: int, target: str, read_only: bool) -> None:
        """Bind the file or folder behind the descriptor at the absolute path, made where it is missing."""
        is_directory = stat.S_ISDIR(os.fstat(source).st_mode)
        if not os.path.exists(target):
            self._make(target, is_directory)
        place = target
        _mount(f"/proc/self/fd/{source}", place, "", _BIND | _REC)
        if not read_only and is_directory:
            self._volumes.append(target)
        if read_only:
            # A user namespace may not clear the flags that its parent's mount carries: ask for them again.
            flags = os.statvfs(place).f_flag & (
                os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC | os.ST_NOATIME | os.ST_RELATIME
            )
            kept = sum(
                kernel
                for libc, kernel in ((os.ST_NOSUID, 2), (os.ST_NODEV, 4), (os.ST_NOEXEC, 8), (os.ST_NOATIME, 1024))
                if flags & libc
            )
            _mount("none", place, "", _REMOUNT | _BIND | _RDONLY | kept)

    def _make(self, target: str, is_directory: bool) -> None:
        ancestor = os.path.dirname(target)
        while not os.path.isdir(ancestor):
            ancestor = os.path.dirname(ancestor)
        # A missing folder below a volume of the Pod's own is made in that volume, as a container runtime does.
        in_volume = any(ancestor == volume or ancestor.startswith(volume + "/") for volume in self._volumes)
        if not in_volume and not self._is_ours(ancestor):
            self._mirror(ancestor)
        os.makedirs(target if is_directory else os.path.dirname(target), exist_ok=True)
        if not is_directory:
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))

    def _is_ours(self, place: str) -> bool:
        return os.stat(place).st_dev in self._devices

    def _mirror(self, directory: str) -> None:
        origin = os.open(directory, os.O_PATH | os.O_DIRECTORY)
        fresh = f"{self._scratch}/mirror-{self._count}"
        os.mkdir(fresh)
        _mount("tmpfs", fresh, "tmpfs", _NOSUID | _NODEV, "mode=755")
        self._devices.add(os.stat(fresh).st_dev)
        self._count += 1
        base = f"/proc/self/fd/{origin}"
        for name in os.listdir(base):
            source, place = f"{base}/{name}", f"{fresh}/{name}"
            mode = os.lstat(source).st_mode
            if stat.S_ISLNK(mode):
                os.symlink(os.readlink(source), place)
                continue
            if stat.S_ISDIR(mode):
                os.mkdir(place)
            else:
                os.close(os.open(place, os.O_CREAT | os.O_WRONLY, 0o600))
            try:
                _mount(source, place, "", _BIND | _REC)
            except OSError:
                continue  # an entry that can't be bound (a stale mount, say) stays an empty one
        os.close(origin)
        if directory == "/":
            os.chroot(fresh)  # at once, so that links such as /var/run lead to the new root's folders
            os.chdir("/")
        else:
            _mount(fresh, directory, "", _BIND | _REC)


def _shows(path: str, source: int) -> bool:
    """Whether the path still leads to what the descriptor holds. That it merely exists proves nothing: an earlier start
    of the container has left the empty folder that it was bound on in the Pod's volume."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(source))
    except OSError:
        return False


def build(document: dict[str, Any]) -> None:
    """Make the namespace that the document describes and stand in it. Raises OSError."""
    enter_namespace()
    mounts: list[tuple[str, str, bool]] = document["mounts"]
    keep: list[str] = document["keep"]
    # Sources are held open first: a mount at /tmp may well cover the folder that the next source stands in.
    held = [(os.open(source, os.O_PATH), target, read_only) for source, target, read_only in mounts]
    kept = [(os.open(path, os.O_PATH), path) for path in keep if os.path.exists(path)]
    view = Mounts(str(document["scratch"]))
    for source, target, read_only in sorted(held, key=lambda entry: entry[1]):
        view.bind(source, target, read_only)
    for source, path in kept:
        if not _shows(path, source):
            view.bind(source, path, False)
    for source in [entry[0] for entry in held] + [entry[0] for entry in kept]:
        os.close(source)


def main() -> int:
    """Read the document, build the view, become the program."""
    text = sys.stdin.buffer.read()
    if not text.endswith(b"\n"):
        return 125
    document = json.loads(text)
    try:
        build(document)
        os.chdir(document["cwd"])
    except OSError as error:
        permission = error.errno in (errno.EPERM, errno.EACCES, errno.ENOSYS, errno.ENOSPC)
        print(
            FORBIDDEN.format(error=error) if permission else f"the container's files could not be mounted: {error}",
            file=sys.stderr,
        )
        return 126
    if document.get("check"):
        return 0
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    try:
        os.execvpe(document["argv"][0], document["argv"], document["env"])  # noqa: S606  # it becomes the program
    except OSError as error:
        print(f"the program {document['argv'][0]!r} could not be started: {error.strerror}", file=sys.stderr)
    return 127


if __name__ == "__main__":
    sys.exit(main())
