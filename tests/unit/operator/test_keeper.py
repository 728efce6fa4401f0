"""The keeper of what is in Vault: it writes what is wanted, removes what is not, and hurries nobody."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from pilothouse_api import Tenant
from pilothouse_operator.core.resources import Key
from pilothouse_operator.io.keeper import VaultKeeper
from pilothouse_operator.io.vault import RoleTakenError, VaultError, VaultRefusedError
from pilothouse_operator.manifests.vault import VaultAccess, access
from pilothouse_testing.builders import tenant, with_vault

ACME, GLOBEX = Key("Tenant", "acme", "acme"), Key("Tenant", "globex", "globex")


def access_of(name: str, **vault: str) -> VaultAccess:
    found = access(Tenant.model_validate(tenant(name, with_vault(**vault)).tenant))
    assert found is not None
    return found


class FakeVault:
    """Remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.error: Exception | None = None
        self.called = asyncio.Event()

    async def ensure(self, access: VaultAccess) -> bool:
        self.asked.append(("ensure", access.role_name))
        self.called.set()
        if self.error is not None:
            raise self.error
        return True

    async def remove(self, access: VaultAccess) -> None:
        self.asked.append(("remove", access.role_name))
        self.called.set()
        if self.error is not None:
            raise self.error

    async def close(self) -> None: ...


class Scene:
    def __init__(self) -> None:
        self.vault = FakeVault()
        self.changed: list[Key] = []
        self.news = asyncio.Event()
        self.keeper = VaultKeeper(self.vault, self._tell)

    def _tell(self, key: Key) -> None:
        self.changed.append(key)
        self.news.set()

    async def told(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.changed) < count:
                self.news.clear()
                await self.news.wait()

    async def asked(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.vault.asked) < count:
                self.vault.called.clear()
                await self.vault.called.wait()


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[Scene]:
    scene = Scene()
    task = asyncio.create_task(scene.keeper.run())
    try:
        yield scene
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_what_is_wanted_is_written_once_and_what_is_not_is_removed() -> None:
    async with running() as scene:
        assert scene.keeper.state(ACME) is None
        scene.keeper.want(ACME, access_of("acme"))
        await scene.told(1)
        state = scene.keeper.state(ACME)
        assert state is not None
        assert state.problem is None
        scene.keeper.want(ACME, access_of("acme"))  # each reconcile says it
        await asyncio.sleep(0.01)
        assert scene.vault.asked == [("ensure", "acme")]

        scene.keeper.want(ACME, access_of("acme", role="other"))
        await scene.asked(3)
        assert scene.vault.asked[1:] == [("remove", "acme"), ("ensure", "other")]

        scene.keeper.want(ACME, None)
        await scene.asked(4)
        assert scene.vault.asked[3:] == [("remove", "other")]
        assert scene.keeper.state(ACME) is None


async def test_a_tenant_that_never_had_anything_there_asks_nobody() -> None:
    async with running() as scene:
        scene.keeper.want(ACME, None)
        await asyncio.sleep(0.01)
        assert scene.vault.asked == []


async def test_a_server_that_fails_is_not_asked_for_the_next_tenant_and_mends_itself() -> None:
    async with running() as scene:
        scene.vault.error = VaultError("Vault does not answer")
        scene.keeper.want(ACME, access_of("acme"))
        scene.keeper.want(GLOBEX, access_of("globex"))
        await scene.told(2)
        assert scene.vault.asked == [("ensure", "acme")]
        for key in (ACME, GLOBEX):
            state = scene.keeper.state(key)
            assert state is not None
            assert state.problem is not None
            assert state.problem.reason == "VaultUnavailable"
            assert state.problem.message.startswith("Vault does not answer. The policy was not looked at")

        scene.vault.error = None
        await scene.told(4)
        assert all((state := scene.keeper.state(key)) and state.problem is None for key in (ACME, GLOBEX))


async def test_a_role_that_is_anothers_is_told_and_holds_up_nobody_else() -> None:
    async with running() as scene:
        scene.vault.error = RoleTakenError("Role is not this Tenant's")
        scene.keeper.want(ACME, access_of("acme"))
        await scene.told(1)
        state = scene.keeper.state(ACME)
        assert state is not None
        assert state.problem is not None
        assert state.problem.reason == "VaultRoleTaken"
        scene.vault.error = None
        scene.keeper.want(GLOBEX, access_of("globex"))
        await scene.told(2)
        # what was never written is not removed either
        scene.keeper.want(ACME, None)
        await asyncio.sleep(0.01)
        assert ("remove", "acme") not in scene.vault.asked


async def test_what_is_refused_to_one_tenant_concerns_no_other() -> None:
    async with running() as scene:
        scene.vault.error = VaultRefusedError("Vault refuses the operator: permission denied")
        scene.keeper.want(ACME, access_of("acme", role="pilothouse-operator"))
        await scene.told(1)
        scene.vault.error = VaultError("no handler for route auth/nowhere")
        scene.keeper.want(Key("Tenant", "lost", "lost"), access_of("lost", authMount="nowhere"))
        await scene.told(2)
        scene.vault.error = None
        scene.keeper.want(GLOBEX, access_of("globex"))
        await scene.told(3)
        states = [scene.keeper.state(key) for key in (ACME, GLOBEX)]
        assert [state and state.problem and state.problem.reason for state in states] == ["VaultRefused", None]


async def test_a_surprise_stops_nobody() -> None:
    async with running() as scene:
        scene.vault.error = RuntimeError("a library's own")
        scene.keeper.want(ACME, access_of("acme"))
        await scene.asked(1)
        scene.vault.error = None
        scene.keeper.want(GLOBEX, access_of("globex"))
        await scene.told(1)
        assert scene.changed == [GLOBEX]


async def test_what_can_not_be_removed_is_left_and_stops_nothing() -> None:
    async with running() as scene:
        scene.keeper.want(ACME, access_of("acme"))
        await scene.told(1)
        scene.vault.error = VaultError("Vault does not answer")
        scene.keeper.want(ACME, None)
        await scene.asked(2)
        scene.vault.error = None
        scene.keeper.want(GLOBEX, access_of("globex"))
        await scene.told(2)
