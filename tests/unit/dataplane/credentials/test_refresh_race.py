"""Workers that renew the same accounts in any order: nobody gets another's token, and what is lost is said to be lost.

Each question to the store or the authorization server is held at a gate; hypothesis chooses which one goes next, when
time passes, when a worker dies and when the user unlinks or links anew. The server ends a whole grant where it sees a
refresh token twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse_api.workerconfig import OAuthConfig
from pilothouse_dataplane.connectors.base import (
    AccountNotLinked,
    CallContext,
    Credential,
    CredentialUnavailable,
    SecretText,
)
from pilothouse_dataplane.credentials.advice import Advice
from pilothouse_dataplane.credentials.base import LinkedAccount
from pilothouse_dataplane.credentials.cache import UserCache
from pilothouse_dataplane.credentials.oauth import UserOAuth
from pilothouse_dataplane.credentials.refresh import CLAIM_SECONDS, Refresher
from pilothouse_dataplane.credentials.tokens import Client, GrantRefused, TokenResponse
from pilothouse_testing.oauth import Family, Grants, MemoryAccounts, MemorySecrets

USERS = ("ana@acme.example", "ben@acme.example")
ADVICE = Advice("Jira", self_service=True)
LIFETIME = 300.0


class Gates:
    """Holds every question until the test lets it through."""

    def __init__(self) -> None:
        self.waiting: list[tuple[int, asyncio.Future[None]]] = []
        self.dead: set[int] = set()

    async def __call__(self, worker: int) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append((worker, future))
        await future

    def through(self, number: int) -> None:
        _, future = self.waiting.pop(number % len(self.waiting))
        future.set_result(None)

    def kill(self, worker: int) -> None:
        """Its questions never come back."""
        self.dead.add(worker)
        self.waiting = [(of, future) for of, future in self.waiting if of != worker]


@dataclass
class World:
    now: float = 1_000_000.0
    gates: Gates = field(default_factory=Gates)
    store: MemoryAccounts = field(default_factory=MemoryAccounts)
    disturbed: bool = False
    """Something happened after which an honest “link again” is allowed."""

    def __post_init__(self) -> None:
        self.grants = Grants(clock=lambda: self.now, lifetime=LIFETIME)

    async def link(self, user: str) -> None:
        before = await self.store.get(user, "jira")
        account = linked(self.grants.begin(user), self.now + LIFETIME, self.now)
        version = before.version if before is not None else 0
        assert await self.store.put(user, "jira", LinkedAccount(**{**fields(account), "version": version}))


def fields(account: LinkedAccount) -> dict[str, Any]:
    return {name: getattr(account, name) for name in account.__slots__}


def linked(family: Family, expires_at: float, now: float) -> LinkedAccount:
    return LinkedAccount(
        SecretText(list(family.access)[-1]), SecretText(family.refresh), expires_at, family.user, linked_at=now,
        extra={"issued": repr(now)},
    )  # fmt: skip


class GatedStore:
    """A worker's way to the store: the question travels, and so does the answer."""

    def __init__(self, world: World, worker: int) -> None:
        self._world = world
        self._worker = worker

    async def get(self, user: str, connector: str) -> LinkedAccount | None:
        await self._world.gates(self._worker)
        found = await self._world.store.get(user, connector)
        await self._world.gates(self._worker)
        return found

    async def put(self, user: str, connector: str, account: LinkedAccount) -> bool:
        await self._world.gates(self._worker)
        done = await self._world.store.put(user, connector, account)
        await self._world.gates(self._worker)
        return done

    async def delete(self, user: str, connector: str) -> bool:
        raise AssertionError("a source deletes nothing")

    async def of_user(self, user: str) -> dict[str, LinkedAccount]:
        raise AssertionError("a source lists nothing")


class GatedTokens:
    """A worker's way to the authorization server."""

    can_revoke = True

    def __init__(self, world: World, worker: int) -> None:
        self._world = world
        self._worker = worker

    async def grant(self, client: Client, form: dict[str, str], confidential: object = ()) -> TokenResponse:
        await self._world.gates(self._worker)
        family = self._world.grants.refresh(form["refresh_token"])
        ends = self._world.now + LIFETIME
        access = list(family.access)[-1] if family is not None else ""
        refresh = family.refresh if family is not None else ""
        await self._world.gates(self._worker)
        if family is None:
            raise GrantRefused("invalid_grant", "unknown")
        return TokenResponse(SecretText(access), SecretText(refresh), ends, (), "", "")

    async def revoke(self, client: Client, token: SecretText, hint: str) -> None:
        await self._world.gates(self._worker)
        self._world.grants.revoke(token.reveal())


def source(world: World, worker: int) -> UserOAuth:
    store, tokens = GatedStore(world, worker), GatedTokens(world, worker)

    async def sleep(seconds: float) -> None:
        await world.gates(worker)

    def clock() -> float:
        return world.now

    any_tokens: Any = tokens
    refresher = Refresher("jira", store, any_tokens, lambda: Client("pilothouse"), ADVICE, clock, sleep)
    return UserOAuth("jira", OAuthConfig(), MemorySecrets({}), store, refresher, UserCache(), ADVICE, clock)


async def settle() -> None:
    for _ in range(12):
        await asyncio.sleep(0)


async def ask(world: World, worker: UserOAuth, user: str, refused: Credential | None) -> Credential | None:
    context = CallContext(user, "key")
    try:
        got = await (worker.get(context) if refused is None else worker.renew(context, refused))
    except (AccountNotLinked, CredentialUnavailable):
        return None
    if got is not None:
        assert world.grants.owner(got.token.reveal()) == user  # at no moment another's
    return got


async def play(steps: list[tuple[str, int]]) -> None:
    world = World()
    for user in USERS:
        await world.link(user)
    workers = [source(world, number) for number in range(3)]
    last: dict[str, Credential] = {}
    tasks: list[asyncio.Task[None]] = []

    def begin(worker: int, user: str, renew: bool) -> None:
        async def run() -> None:
            got = await ask(world, workers[worker], user, last.get(user) if renew else None)
            if got is not None:
                last[user] = got

        tasks.append(asyncio.create_task(run()))

    moves: dict[str, Callable[[int], Coroutine[Any, Any, None] | None]] = {
        "get": lambda n: begin(n % 3, USERS[n % 2], False),
        "renew": lambda n: begin(n % 3, USERS[n % 2], True),
        "pass": lambda n: setattr(world, "now", world.now + n % 7),
        "expire": lambda n: setattr(world, "now", world.now + LIFETIME - 20),
    }
    for name, number in steps:
        if name == "through":
            if world.gates.waiting:
                world.gates.through(number)
        elif name == "kill":
            world.gates.kill(number % 3)
            workers[number % 3] = source(world, number % 3)
            world.disturbed = True
        elif name == "unlink":
            account = await world.store.get(USERS[0], "jira")
            if account is not None and account.refresh_token is not None:
                world.grants.revoke(account.refresh_token.reveal())
            await world.store.delete(USERS[0], "jira")
            world.disturbed = True
        elif name == "relink":
            await world.link(USERS[0])
        else:
            if name == "expire" and world.gates.waiting:
                world.disturbed = True  # longer than a claim lasts, while one may be held
            moves[name](number)
        await settle()
    while world.gates.waiting:
        world.gates.through(0)
        world.now += 0.01
        await settle()
    for task in tasks:
        if task.done() and not task.cancelled():
            assert task.exception() is None
        task.cancel()  # of a dead worker
    # afterwards, whatever happened: it works, or it says that she must link again
    world.now += CLAIM_SECONDS + 1
    for user in USERS:
        at_last = source(world, 9)
        context = CallContext(user, "key")
        asked = asyncio.create_task(at_last.get(context))
        while not asked.done():
            await settle()
            if world.gates.waiting:
                world.gates.through(0)
                world.now += 0.01
        error = asked.exception()
        if error is None:
            token = asked.result().token.reveal()
            assert world.grants.owner(token) == user
            if not world.disturbed:
                assert world.grants.user_of(token) == user
        else:
            assert isinstance(error, AccountNotLinked), error
            assert world.disturbed


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ("get", "get", "renew", "expire", "pass", "kill", "unlink", "relink", *["through"] * 8),
        ),
        st.integers(0, 20),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_any_order_leaves_a_usable_link_or_an_honest_word(steps: list[tuple[str, int]]) -> None:
    asyncio.run(play(steps))


QUIET = st.lists(st.tuples(st.sampled_from(("get", "renew", *["through"] * 4)), st.integers(0, 20)), max_size=50)


@settings(max_examples=200, deadline=None)
@given(QUIET)
def test_workers_that_all_live_never_use_a_refresh_token_twice(steps: list[tuple[str, int]]) -> None:
    # all tokens are at their end when it begins, and the server ends a grant on reuse
    asyncio.run(play([("expire", 0), *steps]))


def test_the_race_is_seen_by_these_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the claim, the same play finds a grant that reuse has ended."""
    from pilothouse_dataplane.credentials import entry

    monkeypatch.setattr(entry, "number", lambda account, name: 0.0)

    async def both_put(self: GatedStore, user: str, connector: str, account: LinkedAccount) -> bool:
        await self._world.gates(self._worker)
        there = self._world.store.entries.get((user, connector))
        self._world.store.entries[user, connector] = LinkedAccount(
            **{**fields(account), "version": (there.version if there else 0) + 1}
        )
        return True

    monkeypatch.setattr(GatedStore, "put", both_put)
    steps = [("expire", 0), ("get", 0), ("get", 4), *[("through", n % 2) for n in range(30)]]
    with pytest.raises(AssertionError):
        asyncio.run(play(steps))
