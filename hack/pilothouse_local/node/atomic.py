"""Files that are replaced as a whole: volumes in kubelet's layout, records, and /etc/hosts.

A volume is `..<time>.<random>/` with the files, `..data -> ` that folder, and a link through `..data` for each
top-level name, so that one rename of `..data` changes every file at once."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import time
from pathlib import Path

import orjson

from .model import Obj
from .projection import Files


def write_volume(directory: Path, files: Files) -> bool:
    """Make `directory` hold exactly `files`; True where anything changed."""
    directory.mkdir(parents=True, exist_ok=True)
    data = directory / "..data"
    if data.exists() and _current(data) == {path: (file.content, file.mode) for path, file in files.items()}:
        return False
    fresh = directory / f"..{time.strftime('%Y_%m_%d_%H_%M_%S', time.gmtime())}.{secrets.token_hex(4)}"
    fresh.mkdir(mode=0o755)
    for name, file in files.items():
        target = fresh / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.content)
        target.chmod(file.mode)
    link = directory / "..data_tmp"
    link.unlink(missing_ok=True)
    link.symlink_to(fresh.name)
    link.replace(data)
    tops = {name.split("/", 1)[0] for name in files}
    for top in tops:
        with contextlib.suppress(FileExistsError):
            (directory / top).symlink_to(f"..data/{top}")
    for entry in list(directory.iterdir()):
        if entry.name in (fresh.name, "..data") or entry.name in tops:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
    return True


def _current(data: Path) -> dict[str, tuple[bytes, int]]:
    found: dict[str, tuple[bytes, int]] = {}
    root = data.resolve()
    for path in root.rglob("*"):
        if path.is_file():
            found[str(path.relative_to(root))] = (path.read_bytes(), path.stat().st_mode & 0o7777)
    return found


def write_in_place(path: Path, text: str) -> None:
    """Change a file's content and keep its inode, because it is bind-mounted; a reader may see the old tail for an
    instant, never nothing."""
    raw = text.encode()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        os.pwrite(descriptor, raw, 0)
        os.ftruncate(descriptor, len(raw))
    finally:
        os.close(descriptor)


def write_record(path: Path, record: Obj) -> None:
    """Replace a JSON record; a kill at any moment leaves the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(orjson.dumps(record))
    temporary.replace(path)


def read_record(path: Path) -> Obj | None:
    """The record, or None where there is none that can be read."""
    try:
        record = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    return record if isinstance(record, dict) else None
