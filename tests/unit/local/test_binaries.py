"""Where the Kubernetes programs come from, in which order, and what is said when they come from nowhere."""

from __future__ import annotations

import hashlib
import http.server
import io
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pilothouse_local import binaries, download
from pilothouse_local.console import Console
from pilothouse_local.errors import BinariesUnavailable


def programs(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or binaries.PROGRAMS:
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    return folder


def never(folder: Path, names: tuple[str, ...], console: Console) -> None:
    raise AssertionError("the cache is warm: nothing may be made")


def refuses(folder: Path, names: tuple[str, ...], console: Console) -> None:
    raise BinariesUnavailable("no way out", "nothing", "none")


def test_assets_come_first(tmp_path: Path) -> None:
    assets = programs(tmp_path / "assets")
    env = {"KUBEBUILDER_ASSETS": str(assets), "XDG_CACHE_HOME": str(programs(tmp_path))}

    assert binaries.obtain(Console(io.StringIO()), env, [("never", never)]) == assets


def test_incomplete_assets_are_said_and_the_cache_is_used(tmp_path: Path) -> None:
    env = {"KUBEBUILDER_ASSETS": str(programs(tmp_path / "assets", "etcd")), "XDG_CACHE_HOME": str(tmp_path)}
    cache = programs(binaries.cache_folder(env))
    out = io.StringIO()

    assert binaries.obtain(Console(out), env, [("never", never)]) == cache
    assert "lacks kube-apiserver, kube-controller-manager" in out.getvalue()


def test_the_next_way_makes_only_what_is_missing(tmp_path: Path) -> None:
    env = {"XDG_CACHE_HOME": str(tmp_path)}
    programs(binaries.cache_folder(env), "etcd")
    made: list[tuple[str, ...]] = []

    def makes(folder: Path, names: tuple[str, ...], console: Console) -> None:
        made.append(names)
        programs(folder, *names)

    out = io.StringIO()
    binaries.obtain(Console(out), env, [("the download", refuses), ("a build", makes)])

    assert made == [("kube-apiserver", "kube-controller-manager")]
    assert "the download did not work: no way out" in out.getvalue()


def test_no_way_at_all_names_each_reason(tmp_path: Path) -> None:
    with pytest.raises(BinariesUnavailable) as caught:
        binaries.obtain(Console(io.StringIO()), {"XDG_CACHE_HOME": str(tmp_path)}, [("a", refuses), ("b", refuses)])

    assert "a: no way out" in caught.value.detail
    assert "b: no way out" in caught.value.detail
    assert "KUBEBUILDER_ASSETS" in caught.value.do_now


def test_runs_without_third_party_packages() -> None:
    """It fills the cache while the Python environment is still being made."""
    hack = Path(binaries.__file__).parents[1]
    script = (
        f"import sys; sys.path.insert(0, {str(hack)!r}); import pilothouse_local.binaries, pilothouse_local.gobuild"
    )

    subprocess.run([sys.executable, "-I", "-S", "-c", script], check=True)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    root = tmp_path / "site"
    root.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(root))

        def log_message(self, *args: object) -> None:
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield root, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def publish(root: Path, content: bytes, checksum: str) -> None:
    folder = root / binaries.KUBERNETES_VERSION / "bin" / "linux" / binaries.machine()
    folder.mkdir(parents=True)
    (folder / "kube-apiserver").write_bytes(content)
    (folder / "kube-apiserver.sha256").write_text(checksum)


def test_a_download_with_the_right_checksum_is_kept(
    site: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(site[0], b"program", hashlib.sha256(b"program").hexdigest())
    monkeypatch.setattr(download, "KUBERNETES_BASE", site[1])

    download.make(tmp_path, ("kube-apiserver",), Console(io.StringIO()))

    assert (tmp_path / "kube-apiserver").read_bytes() == b"program"
    assert (tmp_path / "kube-apiserver").stat().st_mode & 0o111


def test_a_corrupt_download_is_deleted_and_said(
    site: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(site[0], b"tampered", hashlib.sha256(b"program").hexdigest())
    monkeypatch.setattr(download, "KUBERNETES_BASE", site[1])
    folder = tmp_path / "cache"
    folder.mkdir()

    with pytest.raises(BinariesUnavailable, match="corrupt and was deleted"):
        download.make(folder, ("kube-apiserver",), Console(io.StringIO()))

    assert list(folder.iterdir()) == []


def test_etcd_is_taken_out_of_its_archive(
    site: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"etcd-{binaries.ETCD_VERSION}-linux-{binaries.machine()}"
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        entry = tarfile.TarInfo(f"{name}/etcd")
        entry.size = 4
        tar.addfile(entry, io.BytesIO(b"etcd"))
    folder = site[0] / binaries.ETCD_VERSION
    folder.mkdir()
    (folder / f"{name}.tar.gz").write_bytes(archive.getvalue())
    (folder / "SHA256SUMS").write_text(f"{hashlib.sha256(archive.getvalue()).hexdigest()}  {name}.tar.gz\n")
    monkeypatch.setattr(download, "ETCD_BASE", site[1])

    download.make(tmp_path, ("etcd",), Console(io.StringIO()))

    assert (tmp_path / "etcd").read_bytes() == b"etcd"
    assert not list(tmp_path.glob(".etcd*"))


def test_an_unreachable_site_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "KUBERNETES_BASE", "http://127.0.0.1:9")

    with pytest.raises(BinariesUnavailable, match="gave no answer"):
        download.make(tmp_path, ("kube-apiserver",), Console(io.StringIO()))
