"""The interfaces of this package: sources (one an authorization mode) and stores (one a backend).

::

    wrappers/credentials.py ──▶ CredentialSource (oauth | exchange | jwt_bearer | service_account)
                                     │ oauth: linked accounts        │ all: the app's own secrets
                                     ▼                               ▼
                                AccountStore (Vault, or sealed in PostgreSQL)   SecretStore (Vault, or mounted files)

Errors: ``AccountNotLinked`` (the user must link, or link again) and ``SystemUnavailable`` (the store or the
authorization server did not answer) of ``connectors.base``: to a call, both are the call's own failure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from pilothouse_dataplane.connectors.base import CallContext, Credential, SecretText


class CredentialSource(Protocol):
    """As whom one connector's calls are made."""

    async def get(self, context: CallContext) -> Credential:
        """The user's credential. Raises AccountNotLinked, SystemUnavailable; never another's credential instead."""
        ...

    async def renew(self, context: CallContext, refused: Credential) -> Credential | None:
        """A fresh one, after the system refused that one; None where there is nothing fresher. Raises likewise."""
        ...


@dataclass(frozen=True, slots=True)
class LinkedAccount:
    """What a user's linking of an account gave: tokens, and what is known of them."""

    access_token: SecretText
    refresh_token: SecretText | None
    expires_at: float
    """Unix seconds; ``inf`` where the authorization server gave none."""
    account: str = ""
    """As the system names the user."""
    scopes: tuple[str, ...] = ()
    instance_url: str = ""
    linked_at: float = 0.0
    version: int = 0
    """Of the stored entry; 0: not stored yet. A write names the version that it replaces."""
    extra: Mapping[str, str] = field(default_factory=dict)


class StoreUnavailable(Exception):
    """The store did not answer. Nothing was changed, or it is not known; the platform operator must act."""


class AccountStore(Protocol):
    """Linked accounts of one tenant's users. Each method raises StoreUnavailable."""

    async def get(self, user: str, connector: str) -> LinkedAccount | None: ...

    async def put(self, user: str, connector: str, account: LinkedAccount) -> bool:
        """False: somebody else has written since ``account.version`` was read; nothing was changed. True: it stands
        there; where it replaced version N, as version N + 1."""
        ...

    async def delete(self, user: str, connector: str) -> bool:
        """False: there was none."""
        ...

    async def of_user(self, user: str) -> Mapping[str, LinkedAccount]:
        """By connector."""
        ...


class SecretStore(Protocol):
    """The tenant's own secrets: what OAuth apps and service accounts need."""

    def get(self, secret: str, key: str) -> SecretText:
        """As last read. Raises KeyError where it is not there, StoreUnavailable where nothing was ever read."""
        ...
