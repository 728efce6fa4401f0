"""LiteLLM in an environment of its own under the user's cache folder: measured beside the product, never part of it.

Every package is pinned with hashes (``litellm-requirements.txt``). The environment is made once and kept.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

_NEEDS = Path(__file__).with_name("litellm-requirements.txt")
_SECONDS = 240


class NoLiteLLM(Exception):
    """It can't be installed here; the message says why."""


def version() -> str:
    """The pinned one."""
    lines = _NEEDS.read_text().splitlines()
    return next(line.split("==")[1].split()[0] for line in lines if line.startswith("litellm=="))


def python() -> Path:
    """The environment's interpreter; the environment is made where it is not there. Raises NoLiteLLM."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pilothouse"
    mark = hashlib.sha256(_NEEDS.read_bytes() + sys.version.encode()).hexdigest()[:12]
    home = base / f"litellm-{mark}"
    program = home / "bin" / "python"
    done = home / "complete"
    if not done.exists():
        base.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(home, ignore_errors=True)
        beside = Path(sys.executable).parent / "uv"
        uv = str(beside) if beside.exists() else "uv"
        _run(uv, "venv", "-q", "--python", sys.executable, str(home))
        _run(uv, "pip", "install", "-q", "--require-hashes", "--python", str(program), "-r", str(_NEEDS))
        done.touch()
    return program


def _run(*command: str) -> None:
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoLiteLLM(f"{Path(command[0]).name} did not run: {type(error).__name__}") from error
    if ended.returncode:
        said = [line for line in ended.stderr.splitlines() if line.strip()]
        raise NoLiteLLM(f"{' '.join((Path(command[0]).name, *command[1:3]))} failed: {' '.join(said[:2])[:300]}")
