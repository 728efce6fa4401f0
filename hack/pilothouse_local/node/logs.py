"""Containers' output: `<attempt>.log` per start, bounded by copying and truncating, so that processes keep their
descriptors (and a new node can adopt them)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

LIMIT_BYTES = 8 * 1024 * 1024
_CHUNK = 64 * 1024
_FOLLOW_SECONDS = 0.2


def path_of(directory: Path, attempt: int) -> Path:
    """The file that a container's start number `attempt` writes to."""
    return directory / f"{attempt}.log"


def prune(directory: Path, attempt: int) -> None:
    """Keep the current attempt's and the previous attempt's files only."""
    for path in directory.glob("*.log*"):
        number = path.name.split(".", 1)[0]
        if number.isdigit() and int(number) < attempt - 1:
            path.unlink(missing_ok=True)


def rotate(path: Path, limit: int = LIMIT_BYTES) -> bool:
    """Move the content to `<path>.1` where it is over `limit` bytes; the writer appends, so it goes on at the start."""
    try:
        if path.stat().st_size <= limit:
            return False
        shutil.copyfile(path, path.with_name(path.name + ".1"))
        os.truncate(path, 0)
    except FileNotFoundError:
        return False
    return True


def tail(path: Path, lines: int | None) -> tuple[bytes, int]:
    """The last `lines` lines (None: all) of the rotated and the current file, and the current file's size when it was
    read."""
    older = b""
    with contextlib.suppress(FileNotFoundError):
        older = path.with_name(path.name + ".1").read_bytes()
    try:
        current = path.read_bytes()
    except FileNotFoundError:
        current = b""
    text = older + current
    if lines is not None:
        found = text.splitlines(keepends=True)
        text = b"".join(found[-lines:]) if lines > 0 else b""
    return text, len(current)


def last_words(path: Path, limit: int = 2048) -> str:
    """The end of a file, for a termination message."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - limit))
        return file.read().decode(errors="replace").strip()
    return ""


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


async def follow(path: Path, offset: int, ended: Callable[[], bool]) -> AsyncIterator[bytes]:
    """What is written after `offset`, until `ended()` and all has been read; a truncation starts over."""
    while True:
        last = ended()
        size = _size(path)
        offset = 0 if size < offset else offset
        while offset < size:
            with path.open("rb") as file:
                file.seek(offset)
                chunk = file.read(_CHUNK)
            if not chunk:
                break
            offset += len(chunk)
            yield chunk
        if last:
            return
        await asyncio.sleep(_FOLLOW_SECONDS)
