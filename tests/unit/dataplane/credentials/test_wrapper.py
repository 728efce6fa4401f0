"""The wrapper that puts a credential into a call, what it does when the system refuses it, and what nothing shows."""

from __future__ import annotations

import copy
import logging
import pickle
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import orjson
import pytest
import structlog

from pilothouse_dataplane.connectors.base import (
    AccountNotLinked,
    CallContext,
    Credential,
    CredentialRefused,
    CredentialUnavailable,
    SecretText,
    SystemUnavailable,
)
from pilothouse_dataplane.connectors.wrappers.credentials import WithCredentials
from pilothouse_dataplane.core.messages import Effect, Outcome, Tool, ToolResult
from pilothouse_dataplane.credentials import entry
from pilothouse_dataplane.credentials.base import LinkedAccount
from pilothouse_dataplane.credentials.cache import Flights, UserCache
from pilothouse_dataplane.credentials.exchange import KeptToken
from pilothouse_dataplane.credentials.files import FileSecrets
from pilothouse_dataplane.credentials.oauth import Held
from pilothouse_dataplane.credentials.sealing import KeyMissing, KeyRing, SealError, keys_from
from pilothouse_dataplane.credentials.tokens import Client, GrantRefused, TokenResponse, plain_words, usable_token
from pilothouse_dataplane.worker.begin import Wanted

TOOL = Tool("jira.issue.create", "Creates.", {}, Effect.WRITE)
OLD, NEW = (Credential(SecretText(f"planted-{name}"), f"{name}@jira") for name in ("old", "new"))


class System:
    """A connector that takes some tokens."""

    def __init__(self, *good: Credential) -> None:
        self.good = {credential.token for credential in good}
        self.seen: list[Credential | None] = []
        self.probes = 0

    def describe_tools(self) -> tuple[Tool, ...]:
        return (TOOL,)

    async def call(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
        self.seen.append(context.credential)
        if context.token not in self.good:
            raise CredentialRefused("Jira no longer accepts your linked account.")
        return ToolResult(Outcome.SUCCEEDED, "Done.")

    async def find_by_key(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext) -> ToolResult | None:
        return await self.call(tool, arguments, context) if arguments else None

    async def probe(self) -> None:
        self.probes += 1

    async def aclose(self) -> None:
        pass


class Source:
    def __init__(self, first: Credential | Exception, fresh: Credential | Exception | None = None) -> None:
        self.first = first
        self.fresh = fresh
        self.renewals = 0

    async def get(self, context: CallContext) -> Credential:
        if isinstance(self.first, Exception):
            raise self.first
        return self.first

    async def renew(self, context: CallContext, refused: Credential) -> Credential | None:
        self.renewals += 1
        assert refused == self.first
        if isinstance(self.fresh, Exception):
            raise self.fresh
        return self.fresh


async def test_a_call_carries_the_users_credential_and_the_result_names_the_account() -> None:
    system, context = System(OLD), CallContext("ana@acme.example", "key")
    wrapped = WithCredentials(system, Source(OLD), "Jira")
    result = await wrapped.call(TOOL, {}, context)
    assert result.account == context.record.account == "old@jira"
    assert system.seen == [OLD]
    assert context.credential is None  # nobody outside sees it
    found = await wrapped.find_by_key(TOOL, {"x": 1}, context)
    assert found is not None
    assert found.account == "old@jira"
    assert await wrapped.find_by_key(TOOL, {}, context) is None
    await wrapped.probe()
    assert system.probes == 1


async def test_a_refused_credential_is_renewed_once_and_the_write_made_again() -> None:
    system, source, context = System(NEW), Source(OLD, NEW), CallContext("ana@acme.example", "key")
    result = await WithCredentials(system, source, "Jira").call(TOOL, {}, context)
    assert result.account == context.record.account == "new@jira"
    assert system.seen == [OLD, NEW]
    system = System()
    with pytest.raises(AccountNotLinked) as caught:
        await WithCredentials(system, source, "Jira").call(TOOL, {}, context)
    assert not isinstance(caught.value, CredentialRefused)
    assert caught.value.asked
    assert (len(system.seen), source.renewals) == (2, 2)


@pytest.mark.parametrize(
    ("fresh", "error"),
    [
        (None, AccountNotLinked),
        (AccountNotLinked("Link it.", asked=False), AccountNotLinked),
        (CredentialUnavailable("Away.", may_have_acted=False), CredentialUnavailable),
    ],
)
async def test_without_a_fresh_one_the_call_fails_and_nothing_more_is_sent(
    fresh: Exception | None, error: type[Exception]
) -> None:
    system = System()
    with pytest.raises(error):
        await WithCredentials(system, Source(OLD, fresh), "Jira").call(TOOL, {}, CallContext("a@b", "key"))
    assert len(system.seen) == 1


async def test_a_call_without_a_credential_is_not_made() -> None:
    system = System(OLD)
    source = Source(AccountNotLinked("Link it.", asked=False))
    with pytest.raises(AccountNotLinked):
        await WithCredentials(system, source, "Jira").call(TOOL, {}, CallContext("a@b", "key"))
    assert system.seen == []


# --- nothing shows a secret -------------------------------------------------------------------------------------------
SECRET = SecretText("planted-7f3a")
ACCOUNT = LinkedAccount(SECRET, SECRET, 1.0, "ana", extra={"issued": "1"})
KEEPERS: list[Callable[[], object]] = [
    lambda: SECRET,
    lambda: Credential(SECRET, "ana"),
    lambda: ACCOUNT,
    lambda: Held(ACCOUNT, 1.0),
    lambda: KeptToken(Credential(SECRET, "ana"), 1.0),
    lambda: Client("id", SECRET),
    lambda: TokenResponse(SECRET, SECRET, 1.0, (), "", ""),
    lambda: CallContext("ana", "key", user_token=SECRET, credential=Credential(SECRET, "ana")),
    lambda: Wanted("run", user_token=SECRET),
    lambda: FileSecrets({"secret.app.token": SECRET.reveal().encode()}),
    lambda: KeyRing({1: SECRET}),
    lambda: [SECRET, {"x": SECRET}],
]


@pytest.mark.parametrize("make", KEEPERS)
def test_no_picture_of_an_object_shows_its_secret(make: Callable[[], object]) -> None:
    kept = make()
    assert "planted" not in f"{kept} {kept!r} {kept!s} {vars(kept) if hasattr(kept, '__dict__') else ''}"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError):
            pickle.dumps(kept, protocol)
    with pytest.raises(TypeError):
        orjson.dumps(kept)
    with pytest.raises(TypeError):
        copy.deepcopy(kept)


def test_no_traceback_and_no_log_shows_it(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    def fails(secret: SecretText, client: Client, account: LinkedAccount) -> None:
        raise SystemUnavailable(f"{secret} {client} {account}", may_have_acted=False)

    try:
        fails(SECRET, Client("id", SECRET), ACCOUNT)
    except SystemUnavailable as error:
        whole = traceback.TracebackException.from_exception(error, capture_locals=True)
        assert SECRET.reveal() not in "".join(whole.format())
        assert "SecretText" in "".join(whole.format())
        structlog.get_logger().exception("failed", token=SECRET, account=ACCOUNT, exc_info=True)
        logging.getLogger("x").exception("failed %s", ACCOUNT)
    shown = capsys.readouterr()
    assert SECRET.reveal() not in shown.out + shown.err + caplog.text


def test_what_a_server_says_is_cut_and_its_secrets_are_taken_out() -> None:
    token = "eyJhbGciOi.eyJzdWIi-_~+/=.c2lnbmF0dXJl"
    words = plain_words(f"Bad token {token}\r\n\x1b[31m for planted-7f3a " + "why " * 200, [SECRET])
    assert words.startswith("Bad token … [31m for … why")
    assert len(words) <= 200
    assert plain_words({"a": 1}) == plain_words(None) == ""
    refusal = GrantRefused("invalid_grant", words)
    assert "planted" not in f"{refusal} {refusal!r} {refusal.args}"


@pytest.mark.parametrize("text", ["", "  ", "a b", "a\nb", "a\x00b", "é", "x" * 20_000, None, 7, b"bytes", ["x"]])
def test_what_cannot_stand_in_a_header_is_no_token(text: object) -> None:
    assert usable_token(text) is None
    assert usable_token(" 00D5g!AQ.x \n") == SecretText("00D5g!AQ.x")


# --- entries, seals, memory -------------------------------------------------------------------------------------------
def test_an_entry_survives_its_store_and_what_is_none_is_refused() -> None:
    for account in (ACCOUNT, replace(ACCOUNT, refresh_token=None, expires_at=float("inf"), scopes=("a", "b"))):
        there = orjson.loads(orjson.dumps(entry.to_fields(account)))
        assert entry.from_fields(there, 7) == replace(account, version=7)
    good = entry.to_fields(ACCOUNT)
    bad: list[object] = [None, [], "x", *({**good, name: value} for name, value in (
        ("access_token", None), ("refresh_token", 1), ("expires_at", "x"), ("scopes", "x"), ("extra", []),
        ("account", 1), ("linked_at", None), ("instance_url", 3),
    ))]  # fmt: skip
    for fields in bad:
        with pytest.raises(entry.EntryError) as caught:
            entry.from_fields(fields, 1)
        assert "planted" not in str(caught.value)


def test_a_seal_holds_for_its_own_context_only() -> None:
    import base64

    texts = {"key.1": SecretText(base64.b64encode(b"1" * 32).decode()), "key.x": SECRET, "key.2": SecretText("short")}
    keys, bad = keys_from(texts)
    assert (list(keys), bad) == ([1], ["key.x", "key.2"])
    ring = KeyRing(keys)
    number, sealed = ring.seal(b"content", ("acme", "ana", "jira", "1"), lambda size: b"n" * size)
    assert ring.open(number, sealed, ("acme", "ana", "jira", "1")) == b"content"
    for context in (("acme", "ben", "jira", "1"), ("acme", "anaj", "ira", "1"), ("acmea", "na", "jira", "1"), ()):
        with pytest.raises(SealError):
            ring.open(number, sealed, context)
    for broken in (b"", sealed[:5], sealed[:-1], sealed[:-1] + bytes([sealed[-1] ^ 1]), b"x" + sealed[1:]):
        with pytest.raises(SealError):
            ring.open(number, broken, ("acme", "ana", "jira", "1"))
    with pytest.raises(KeyMissing, match="key 9"):
        ring.open(9, sealed, ())
    with pytest.raises(KeyMissing):
        KeyRing({}).seal(b"", (), lambda size: b"n" * size)


async def test_memory_is_bounded_by_users_and_a_failed_flight_ends() -> None:
    cache: UserCache[int] = UserCache(3)
    for number in range(5):
        cache.put(f"user{number}", "jira", number)
        cache.get("user0", "jira")
    assert [cache.get(f"user{number}", "jira") for number in range(5)] == [0, None, None, 3, 4]
    cache.drop("user0", "jira")
    assert len(cache) == 2
    flights: Flights[int] = Flights()
    turns = 0

    async def work() -> int:
        nonlocal turns
        turns += 1
        if turns == 1:
            raise ValueError
        return turns

    with pytest.raises(ValueError):
        await flights.join("x", work)
    assert await flights.join("x", work) == 2
