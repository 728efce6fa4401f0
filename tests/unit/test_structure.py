"""What the layout promises, proved by importing it: pure parts load no IO library, nothing shadows the stdlib."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
IO_LIBRARIES = ("kopf", "grpc", "fastapi", "textual", "httpx", "redis", "asyncpg", "aiohttp", "kubernetes")
PURE = {
    "pilothouse_api": "crds/pilothouse_api",
    "pilothouse_operator.core": "operator/pilothouse_operator/core",
    "pilothouse_operator.manifests": "operator/pilothouse_operator/manifests",
    "pilothouse_dataplane.core": "dataplane/pilothouse_dataplane/core",
    "pilothouse_tui.render": "tui/pilothouse_tui/render",
}


def modules_of(package: str, folder: str) -> list[str]:
    names = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        parts = path.relative_to(ROOT / folder).with_suffix("").parts
        names.append(".".join((package, *(part for part in parts if part != "__init__"))))
    return names


@pytest.mark.parametrize("package", sorted(PURE))
def test_pure_package_loads_no_io_library(package: str) -> None:
    modules = modules_of(package, PURE[package])
    assert modules, f"{package} has no modules: the check would prove nothing"
    script = (
        "import importlib, json, sys\n"
        f"[importlib.import_module(name) for name in {modules!r}]\n"
        f"print(json.dumps([name for name in {IO_LIBRARIES!r} if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


@pytest.mark.parametrize("folder", ["operator", "crds", "proto", "dataplane", "tui", "hack", "charts"])
def test_top_folder_is_no_package(folder: str) -> None:
    """``operator/__init__.py`` would shadow the standard library's ``operator`` and break ``collections``."""
    assert not (ROOT / folder / "__init__.py").exists()


def test_no_test_folder_is_a_package() -> None:
    """A package below tests/ named like a standard module would shadow it; pytest runs with importlib mode instead."""
    inits = [str(p.relative_to(ROOT)) for p in (ROOT / "tests").rglob("__init__.py") if "support" not in p.parts]
    assert inits == []
