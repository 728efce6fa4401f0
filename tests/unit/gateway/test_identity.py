"""Development tokens: what is accepted, and what is told to whom where it is not."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path

import pytest

from pilothouse_dataplane.gateway.identity import DevTokenVerifier
from pilothouse_dataplane.gateway.problems import Problem
from pilothouse_testing.gateway_fakes import SIGNING_KEY, token


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_bytes(SIGNING_KEY)
    return path


def test_a_good_token(key_file: Path) -> None:
    identity = DevTokenVerifier(key_file).verify(token())
    assert (identity.tenant, identity.subject, identity.email) == ("acme", "acme|ana", "ana@acme.example")
    assert identity.display_name == "Ana"
    assert (identity.manager_email, identity.groups) == ("", ())


def test_manager_and_groups_are_told_to_workers(key_file: Path) -> None:
    user = DevTokenVerifier(key_file).verify(token(manager="boss@acme.example", groups=["it", "leads"])).user()
    assert (user.subject, user.email) == ("acme|ana", "ana@acme.example")
    assert (user.manager_email, list(user.groups)) == ("boss@acme.example", ["it", "leads"])


def _unsigned() -> str:
    _, body, _ = token().split(".")
    header = base64.urlsafe_b64encode(json.dumps({"alg": "none"}).encode()).rstrip(b"=").decode()
    return f"{header}.{body}."


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (token(exp=int(time.time()) - 60), "expired"),
        (token(iat=int(time.time()) + 600), "future"),
        (token(aud="other"), "another system"),
        (token(exp=None), "when it ends"),
        (token(exp=True), "when it ends"),
        (token(tenant=None), "lacks tenant"),
        (token(sub=["x"]), "lacks sub"),
        (token(manager=["boss@acme.example"]), "manager"),
        (token(manager="x" * 321), "manager"),
        (token(groups="it"), "groups"),
        (token(groups=["it", 3]), "A group"),
        (token(groups=[""]), "A group"),
        (token(groups=["x" * 257]), "A group"),
        (token(groups=["x"] * 201), "groups"),
        (token(key=b"x" * 40), "not one that this system signed"),
        (_unsigned(), "not one that this system signed"),
        ("", "empty"),
        ("é" * 100, "not one that this system signed"),
        ("x" * 10_000, "too long"),
    ],
    # a token holds the present time: as a name it would be another one in each process
    ids=lambda value: value if " " in value or len(value) < 10 else "",
)
def test_bad_tokens(key_file: Path, bad: str, why: str) -> None:
    with pytest.raises(Problem, match=why) as refused:
        DevTokenVerifier(key_file).verify(bad)
    assert refused.value.code_name == "ERROR_CODE_UNAUTHENTICATED"
    assert "pilothouse token" in refused.value.user_action


def test_the_key_is_read_again_when_it_changes(key_file: Path) -> None:
    verifier = DevTokenVerifier(key_file)
    verifier.verify(token())
    new = b"another key of at least thirty-two bytes!"
    key_file.write_bytes(new)
    verifier.verify(token(key=new))
    with pytest.raises(Problem):
        verifier.verify(token())


def test_a_missing_or_short_key_is_the_platform_operators(key_file: Path) -> None:
    key_file.write_bytes(b"short")
    with pytest.raises(Problem) as refused:
        DevTokenVerifier(key_file).verify(token())
    assert refused.value.code_name == "ERROR_CODE_INTERNAL"
    assert "pilothouse-dev-tokens" in refused.value.user_action
