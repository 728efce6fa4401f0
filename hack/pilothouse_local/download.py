"""The official downloads of the Kubernetes programs and of etcd, each with its published SHA-256.

A file appears under its name only after its checksum matched: it is written beside it and renamed.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import NoReturn

from pilothouse_local.binaries import ETCD_VERSION, KUBERNETES_VERSION, machine
from pilothouse_local.console import Console
from pilothouse_local.errors import BinariesUnavailable

KUBERNETES_BASE = "https://dl.k8s.io"
ETCD_BASE = "https://github.com/etcd-io/etcd/releases/download"
CONNECT_TIMEOUT = 6.0
"""Seconds without an answer or a byte after which a download counts as not reachable: a build is the alternative."""

_NOT_DONE = "the Kubernetes programs were not downloaded"
_DO_NOW = "check the network (HTTPS_PROXY), or let it build them with Go"


def make(folder: Path, programs: tuple[str, ...], console: Console) -> None:
    """Downloads ``programs`` into ``folder``; raises ``BinariesUnavailable`` when unreachable or corrupt."""
    for program in programs:
        if program == "etcd":
            _etcd(folder, console, ETCD_BASE)
        else:
            _kubernetes(folder, program, console, KUBERNETES_BASE)


def _kubernetes(folder: Path, program: str, console: Console, base: str) -> None:
    url = f"{base}/{KUBERNETES_VERSION}/bin/linux/{machine()}/{program}"
    wanted = _text(url + ".sha256").split()[0]
    part = folder / f".{program}.part"
    _fetch(url, wanted, part, console, program)
    part.chmod(0o755)
    part.replace(folder / program)


def _etcd(folder: Path, console: Console, base: str) -> None:
    name = f"etcd-{ETCD_VERSION}-linux-{machine()}"
    lines = [line.split() for line in _text(f"{base}/{ETCD_VERSION}/SHA256SUMS").splitlines()]
    sums = {line[1]: line[0] for line in lines if len(line) == 2}
    wanted = sums.get(f"{name}.tar.gz")
    if wanted is None:
        _fail(f"etcd's SHA256SUMS has no line for {name}.tar.gz")
    archive, part = folder / ".etcd.tar.gz.part", folder / ".etcd.part"
    _fetch(f"{base}/{ETCD_VERSION}/{name}.tar.gz", wanted, archive, console, "etcd")
    try:
        with tarfile.open(archive) as tar, part.open("wb") as out:
            source = tar.extractfile(f"{name}/etcd")
            if source is None:
                _fail(f"{name}.tar.gz holds no program named etcd")
            while chunk := source.read(1 << 20):
                out.write(chunk)
    except (tarfile.TarError, KeyError) as error:
        _fail(f"{name}.tar.gz can't be unpacked ({error})", error)
    finally:
        archive.unlink(missing_ok=True)
    part.chmod(0o755)
    part.replace(folder / "etcd")


def _text(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=CONNECT_TIMEOUT) as answer:  # noqa: S310 - https constants above
            text: bytes = answer.read(1 << 20)
    except (OSError, urllib.error.URLError) as error:
        _fail(f"{url} gave no answer ({error})", error)
    decoded = text.decode("ascii", "replace").strip()
    if not decoded:
        _fail(f"{url} is empty")
    return decoded


def _fetch(url: str, wanted: str, part: Path, console: Console, label: str) -> None:
    digest, done = hashlib.sha256(), 0
    try:
        with urllib.request.urlopen(url, timeout=CONNECT_TIMEOUT) as answer, part.open("wb") as out:  # noqa: S310 - as above
            total = int(answer.headers.get("Content-Length") or 0)
            while chunk := answer.read(1 << 18):
                out.write(chunk)
                digest.update(chunk)
                done += len(chunk)
                console.bar(f"downloading {label}", done / 1e6, total / 1e6, "MB")
            os.fsync(out.fileno())
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        part.unlink(missing_ok=True)
        _fail(f"{url} broke off after {done / 1e6:.0f} MB ({error})", error)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    if digest.hexdigest() != wanted.lower():
        part.unlink()
        _fail(
            f"the download of {label} is corrupt and was deleted "
            f"(SHA-256 {digest.hexdigest()[:16]}…, published {wanted[:16]}…)"
        )


def _fail(happened: str, cause: BaseException | None = None) -> NoReturn:
    raise BinariesUnavailable(happened, _NOT_DONE, _DO_NOW) from cause
