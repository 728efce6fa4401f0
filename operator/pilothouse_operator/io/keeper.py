"""Keeps in Vault what the Tenants shall have there, beside the reconciles: a Vault that hangs holds nobody up.

Level-triggered: ``want`` says what shall be, a loop makes it so, looks again each ``CHECK_SECONDS``, and tries what
failed again with a growing pause. A server that has just failed is not asked for the next Tenant: it fails at once,
until the pause is over. What it refuses to one Tenant concerns no other. What was written is known as long as the
operator runs; what a stopped one leaves behind grants nothing, since the ServiceAccount that its role is bound to goes
with the Tenant.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pilothouse_operator.core.credentials import VAULT_UNAVAILABLE, VaultState
from pilothouse_operator.core.refs import Problem
from pilothouse_operator.core.resources import Key
from pilothouse_operator.io.vault import RoleTakenError, VaultError, VaultRefusedError
from pilothouse_operator.manifests.vault import VaultAccess

log = logging.getLogger(__name__)

CHECK_SECONDS = 60.0
RETRY_FIRST_SECONDS = 1.0
RETRY_LAST_SECONDS = 60.0
ROLE_TAKEN = "VaultRoleTaken"
REFUSED = "VaultRefused"

_Place = tuple[str, str, str]
"""How a Tenant comes to its server: address, auth mount, authority. One that names a wrong mount or authority fails
for itself only."""


def _place(access: VaultAccess) -> _Place:
    return access.address, access.auth_mount, access.ca_pem


class VaultWriter(Protocol):
    """What ``io.vault.Vault`` does."""

    async def ensure(self, access: VaultAccess) -> bool: ...

    async def remove(self, access: VaultAccess) -> None: ...

    async def close(self) -> None: ...


@dataclass
class _Entry:
    wanted: VaultAccess | None
    made: VaultAccess | None = None
    """What was written last, and must be removed when it is no longer wanted."""
    state: VaultState | None = None
    due: float = 0.0


@dataclass
class _Server:
    """Of one place: when it may be asked again after a failure."""

    problem: Problem
    pause: float
    until: float


class VaultKeeper:
    """Used from one event loop; ``run`` is its task. ``changed`` is told when a Tenant's state has changed."""

    def __init__(self, vault: VaultWriter, changed: Callable[[Key], None]) -> None:
        self._vault = vault
        self._changed = changed
        self._entries: dict[Key, _Entry] = {}
        self._servers: dict[_Place, _Server] = {}
        self._wake = asyncio.Event()

    def want(self, key: Key, access: VaultAccess | None) -> None:
        """What shall be in Vault for a Tenant from now on; None: nothing."""
        entry = self._entries.get(key)
        if entry is None:
            if access is None:
                return
            entry = self._entries[key] = _Entry(access)
        elif entry.wanted == access:
            return
        entry.wanted, entry.due = access, 0.0
        self._wake.set()

    def state(self, key: Key) -> VaultState | None:
        """What came of the last try; None: none was made of what is wanted now."""
        entry = self._entries.get(key)
        return None if entry is None or entry.wanted is None else entry.state

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            for key, entry in list(self._entries.items()):
                if entry.due <= loop.time():
                    try:
                        await self._look_at(key, entry)
                    except Exception:  # one Tenant's trouble must not stop the others
                        log.exception("%s: what it has in Vault could not be looked at", key)
                        entry.due = loop.time() + CHECK_SECONDS
            next_due = min((entry.due for entry in self._entries.values()), default=None)
            try:
                async with asyncio.timeout_at(next_due):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def close(self) -> None:
        """End the connections."""
        await self._vault.close()

    async def _look_at(self, key: Key, entry: _Entry) -> None:
        loop = asyncio.get_running_loop()
        wanted, made = entry.wanted, entry.made
        if made is not None and (wanted is None or not made.same_place(wanted)):
            await self._remove(key, made)
            entry.made = None
        if wanted is None:
            if entry.wanted is None:
                self._entries.pop(key, None)
            return
        problem = await self._ensure(key, wanted)
        if entry.wanted != wanted:  # changed meanwhile: it is due again
            return
        if problem is None:
            entry.made = wanted
        server = self._servers.get(_place(wanted))
        entry.due = loop.time() + CHECK_SECONDS if server is None else max(server.until, loop.time() + 0.1)
        if entry.state is None or entry.state.problem != problem:
            entry.state = VaultState(problem)
            self._changed(key)

    async def _ensure(self, key: Key, access: VaultAccess) -> Problem | None:
        now = asyncio.get_running_loop().time
        place = _place(access)
        server = self._servers.get(place)
        if server is not None and now() < server.until:
            return server.problem
        try:
            wrote = await self._vault.ensure(access)
        except VaultRefusedError as error:
            self._servers.pop(place, None)
            return Problem(ROLE_TAKEN if isinstance(error, RoleTakenError) else REFUSED, str(error))
        except VaultError as error:
            pause = min(server.pause * 2 if server else RETRY_FIRST_SECONDS, RETRY_LAST_SECONDS)
            said = f"{str(error).rstrip('.')}. The policy was not looked at; the workers go on with what they have."
            self._servers[place] = _Server(Problem(VAULT_UNAVAILABLE, said), pause, now() + pause)
            if server is None:
                log.warning("%s: %s", key, error)
            return self._servers[place].problem
        self._servers.pop(place, None)
        if wrote:
            log.info("%s: policy %s and role %s are written", key, access.policy_name, access.role_name)
        return None

    async def _remove(self, key: Key, access: VaultAccess) -> None:
        try:
            await self._vault.remove(access)
            log.info("%s: policy %s and role %s are removed", key, access.policy_name, access.role_name)
        except VaultError as error:
            log.warning("%s: policy %s and role %s are left: %s", key, access.policy_name, access.role_name, error)
