"""OpenBao's files, what `put_secrets` sends, and what its errors say."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pilothouse_local import instance as instances
from pilothouse_local import vault
from pilothouse_local.errors import StateUnusable, VaultUnusable
from pilothouse_local.instance import Instance, Settings

Answers = dict[tuple[str, str], tuple[int, Any]]


@pytest.fixture
def instance(tmp_path: Path) -> Instance:
    return Instance(tmp_path)


@pytest.fixture
def settings(instance: Instance) -> Settings:
    return instances.choose(instance, None)[0]


@contextmanager
def server(settings: Settings, answers: Answers) -> Iterator[list[tuple[str, str, Any]]]:
    """Answers at the instance's own address as it is told; yields what it was asked."""
    asked: list[tuple[str, str, Any]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked.append((self.command, self.path, json.loads(body) if body else None))
            status, content = answers.get((self.command, self.path), (204, b""))
            raw = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_PUT = do_POST = do_PATCH = _answer

        def log_message(self, *_: object) -> None:
            pass

    listener = http.server.ThreadingHTTPServer((settings.vault_host(), instances.VAULT_PORT), Handler)
    thread = threading.Thread(target=listener.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield asked
    finally:
        listener.shutdown()
        thread.join()
        listener.server_close()


def initialized(instance: Instance, settings: Settings) -> Answers:
    vault.prepare(instance, settings)
    vault.token_file(instance).write_text("root")
    return {("GET", "/v1/sys/init"): (200, {"initialized": True})}


def test_the_key_is_made_once_and_the_configuration_each_time(instance: Instance, settings: Settings) -> None:
    config = vault.prepare(instance, settings)
    key = (config.parent / "seal.key").read_bytes()
    first = config.read_text()
    config.write_text("damaged")

    assert vault.prepare(instance, settings) == config
    assert (config.parent / "seal.key").read_bytes() == key
    assert config.read_text() == first
    assert {path.stat().st_mode & 0o777 for path in config.parent.iterdir()} == {0o600}
    read = json.loads(first)
    assert read["listener"][0]["tcp"]["address"] == f"127.{settings.pod_octet}.255.255:8200"
    assert key.hex() not in first
    assert str(config.parent / "seal.key") in first


def test_another_key_has_another_database(instance: Instance, settings: Settings) -> None:
    config = vault.prepare(instance, settings)
    url = json.loads(config.read_text())["storage"]["postgresql"]["connection_url"]
    (config.parent / "seal.key").unlink()

    vault.prepare(instance, settings)

    other = json.loads(config.read_text())["storage"]["postgresql"]["connection_url"]
    assert url.rpartition("/")[0] == other.rpartition("/")[0]
    assert url != other


@pytest.mark.parametrize("content", [b"", b"x" * 31, b"x" * 33])
def test_a_damaged_key_is_explained_and_kept(instance: Instance, settings: Settings, content: bytes) -> None:
    key = vault.prepare(instance, settings).parent / "seal.key"
    key.write_bytes(content)

    with pytest.raises(StateUnusable, match="32 bytes"):
        vault.prepare(instance, settings)

    assert key.read_bytes() == content


@pytest.mark.parametrize(("status", "up"), [(200, True), (501, True), (503, False), (500, False)])
def test_sealed_is_not_up(settings: Settings, status: int, up: bool) -> None:
    with server(settings, {("GET", "/v1/sys/health"): (status, {})}):
        assert vault.answers(settings) is up
    assert vault.answers(settings) is False


def test_secrets_of_a_new_tenant_are_one_entry(instance: Instance, settings: Settings) -> None:
    path = "/v1/kv/data/acme/acme/secrets"
    with server(settings, {**initialized(instance, settings), ("GET", path): (404, {"errors": []})}) as asked:
        vault.put_secrets(
            vault.opened(instance, settings), "acme", "acme", {"jira": {"client-id": "i", "client-secret": "s"}}
        )

    assert asked[1:] == [
        ("GET", path, None),
        ("POST", path, {"data": {"jira.client-id": "i", "jira.client-secret": "s"}}),
    ]


def test_a_refusal_is_told_without_what_was_sent(instance: Instance, settings: Settings) -> None:
    path = "/v1/kv/data/acme/acme/secrets"
    answers = {
        **initialized(instance, settings),
        ("GET", path): (404, {"errors": []}),
        ("POST", path): (403, {"errors": ["permission denied"]}),
    }
    with server(settings, answers), pytest.raises(VaultUnusable, match="permission denied") as caught:
        vault.put_secrets(vault.opened(instance, settings), "acme", "acme", {"jira": {"client-secret": "p1anted"}})

    assert "p1anted" not in str(caught.value)
    assert "root" not in caught.value.happened


@pytest.mark.parametrize("broken", [b"<html>", b"[]", b"\xff"])
def test_a_broken_answer_is_explained(instance: Instance, settings: Settings, broken: bytes) -> None:
    answers = {**initialized(instance, settings), ("GET", "/v1/kv/data/acme/acme/secrets"): (500, broken)}
    with server(settings, answers), pytest.raises(VaultUnusable):
        vault.put_secrets(vault.opened(instance, settings), "acme", "acme", {"jira": {"client-secret": "s"}})


def test_no_answer_is_explained(instance: Instance, settings: Settings) -> None:
    with pytest.raises(VaultUnusable, match="gave no answer") as caught:
        vault.put_secrets(vault.opened(instance, settings), "acme", "acme", {})

    assert "pilothouse logs openbao" in caught.value.do_now


def test_a_lost_root_token_is_explained(instance: Instance, settings: Settings) -> None:
    answers = initialized(instance, settings)
    vault.token_file(instance).unlink()
    with server(settings, answers), pytest.raises(StateUnusable, match="root token"):
        vault.put_secrets(vault.opened(instance, settings), "acme", "acme", {})
