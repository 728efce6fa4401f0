"""Writes a Tenant's policy and role in Vault (or OpenBao), as the operator itself.

hvac is blocking: each call runs in a thread. It is imported when the first Tenant wants Vault.

Errors::

    VaultError             the server did not answer, or did not let the operator in; whoever runs Vault must act
    └── VaultRefusedError  it refused what this Tenant wants; other Tenants are not concerned
        └── RoleTakenError a role of that name is another's; whoever writes the Tenant must choose another name
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pilothouse_operator.core.resources import Json
from pilothouse_operator.manifests.vault import VaultAccess

T = TypeVar("T")

TIMEOUT_SECONDS = 3
LOGIN_MARGIN = 0.8
"""Part of a login's life after which the operator logs in again."""


class VaultError(Exception):
    """Policy or role could not be written; the message is a sentence."""


class VaultRefusedError(VaultError):
    """Vault lets the operator in, and does not do this for it."""


class RoleTakenError(VaultRefusedError):
    """The role belongs to somebody else, so it was left alone."""


@dataclass(frozen=True)
class VaultLogin:
    """As whom the operator comes to Vault."""

    role: str = "pilothouse-operator"
    token_file: Path = Path("/var/run/secrets/pilothouse/vault/token")


@dataclass
class _Session:
    client: Any
    until: float
    ca_file: Path | None = field(default=None)

    def close(self) -> None:
        self.client.adapter.close()
        if self.ca_file is not None:
            self.ca_file.unlink(missing_ok=True)


class Vault:
    """The operator's logins, one a server and auth mount; ``ensure`` and ``remove`` may be called side by side."""

    def __init__(self, login: VaultLogin, clock: Callable[[], float] = time.monotonic) -> None:
        self._login = login
        self._clock = clock
        self._sessions: dict[tuple[str, str, str], _Session] = {}
        self._lock = asyncio.Lock()

    async def ensure(self, access: VaultAccess) -> bool:
        """Make policy and role what they shall be; True where something was written. Raises VaultError."""
        return await self._with_session(access, lambda client: _ensure(client, access))

    async def remove(self, access: VaultAccess) -> None:
        """Remove policy and role, unless they have become another's. Raises VaultError."""
        await self._with_session(access, lambda client: _remove(client, access))

    async def close(self) -> None:
        """End the connections."""
        for session in self._sessions.values():
            session.close()
        self._sessions.clear()

    async def _with_session(self, access: VaultAccess, work: Callable[[Any], T]) -> T:
        async with self._lock:  # few Tenants change at a time, and one login serves all of a server's
            for attempt in (1, 2):
                session = await asyncio.to_thread(self._session, access)
                try:
                    return await asyncio.to_thread(_translated, access, work, session.client)
                except _ForbiddenError as error:
                    self._forget(access)  # the login may have been revoked; what is forbidden to a new one is forbidden
                    if attempt == 2:
                        raise VaultRefusedError(str(error)) from error
        raise AssertionError("unreachable: the second try returns or raises")

    def _session(self, access: VaultAccess) -> _Session:
        place = (access.address, access.auth_mount, access.ca_pem)
        kept = self._sessions.get(place)
        if kept is not None and self._clock() < kept.until:
            return kept
        if kept is not None:
            self._sessions.pop(place).close()
        made = _open(self._login, access, self._clock)
        self._sessions[place] = made
        return made

    def _forget(self, access: VaultAccess) -> None:
        session = self._sessions.pop((access.address, access.auth_mount, access.ca_pem), None)
        if session is not None:
            session.close()


class _ForbiddenError(Exception):
    pass


def _open(login: VaultLogin, access: VaultAccess, clock: Callable[[], float]) -> _Session:
    import hvac

    try:
        token = login.token_file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise VaultError(f"The operator has no token for Vault ({login.token_file}): {error.strerror}") from error
    ca_file = None
    if access.ca_pem:
        with tempfile.NamedTemporaryFile("w", prefix="vault-ca-", suffix=".pem", delete=False) as file:
            file.write(access.ca_pem)
        ca_file = Path(file.name)
    client: Any = hvac.Client(  # type: ignore[no-untyped-call]
        url=access.address, verify=str(ca_file) if ca_file else True, timeout=TIMEOUT_SECONDS
    )
    session = _Session(client, 0.0, ca_file)

    def log_in(client: Any) -> Any:
        return client.auth.kubernetes.login(role=login.role, jwt=token, mount_point=access.auth_mount)

    try:
        said = _translated(access, log_in, client)
    except (VaultError, _ForbiddenError) as error:
        session.close()
        raise VaultError(
            f"{str(error).rstrip('.')}. The operator could not log in with role {login.role} at auth/"
            f"{access.auth_mount}: see docs/vault.md"
        ) from error
    session.until = clock() + LOGIN_MARGIN * float(said["auth"]["lease_duration"] or 60)
    return session


def _translated(access: VaultAccess, work: Callable[[Any], T], client: Any) -> T:
    """Run blocking calls; hvac's and requests' errors become sentences without a token in them."""
    import hvac.exceptions as refusals

    try:
        return work(client)
    except refusals.Forbidden as error:
        raise _ForbiddenError(f"Vault at {access.address} refuses the operator: {_said(error)}") from error
    except (refusals.VaultDown, refusals.InternalServerError, refusals.BadGateway, refusals.RateLimitExceeded) as error:
        raise VaultError(f"Vault at {access.address} can't serve now: {_said(error)}") from error
    except refusals.VaultError as error:
        raise VaultRefusedError(f"Vault at {access.address} answered: {_said(error)}") from error
    except OSError as error:  # requests' own are OSErrors; a broken certificate authority is one, too
        raise VaultError(f"Vault at {access.address} does not answer ({type(error).__name__})") from error


def _said(error: Any) -> str:
    return "; ".join(str(one) for one in error.errors or [type(error).__name__])[:300]


def _ensure(client: Any, access: VaultAccess) -> bool:
    wrote = False
    role = _role(client, access)
    if role is not None and not access.owns(role):
        raise RoleTakenError(
            f'Role "{access.role_name}" at auth/{access.auth_mount} of {access.address} is not this Tenant\'s, so it '
            "was left as it is. Set spec.credentials.vault.role to a name of its own, or remove the role in Vault."
        )
    if not _same_policy(_policy(client, access), access.policy):
        client.sys.create_or_update_acl_policy(name=access.policy_name, policy=access.policy)
        wrote = True
    wanted = access.role
    if role is None or any(role.get(name) != value for name, value in wanted.items()):
        client.write_data(_role_path(access), data=wanted)
        wrote = True
    return wrote


def _remove(client: Any, access: VaultAccess) -> None:
    role = _role(client, access)
    if role is not None and access.owns(role):
        client.delete(_role_path(access))
    if _policy(client, access) is not None:
        client.sys.delete_acl_policy(name=access.policy_name)


def _role_path(access: VaultAccess) -> str:
    return f"auth/{access.auth_mount}/role/{access.role_name}"


def _role(client: Any, access: VaultAccess) -> Json | None:
    answer = client.read(_role_path(access))
    return None if answer is None else dict(answer["data"])


def _policy(client: Any, access: VaultAccess) -> str | None:
    import hvac.exceptions as refusals

    try:
        return str(client.sys.read_acl_policy(name=access.policy_name)["data"]["policy"])
    except refusals.InvalidPath:
        return None


def _same_policy(live: str | None, wanted: str) -> bool:
    try:
        return live is not None and bool(json.loads(live) == json.loads(wanted))
    except ValueError:
        return False
