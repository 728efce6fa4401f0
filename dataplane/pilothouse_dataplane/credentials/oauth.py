"""Mode UserOAuth: the user's own linked account, or one that an administrator has linked for her.

Her own counts first. It is read from the store, kept in memory for ``FRESH_SECONDS``, and renewed before it ends. Where
the store or the authorization server is away, an access token that is in memory is used until it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import orjson

from pilothouse_api.workerconfig import OAuthConfig
from pilothouse_dataplane.connectors.base import (
    AccountNotLinked,
    CallContext,
    Credential,
    CredentialUnavailable,
    SecretText,
)
from pilothouse_dataplane.credentials import entry
from pilothouse_dataplane.credentials.advice import Advice
from pilothouse_dataplane.credentials.base import AccountStore, LinkedAccount, SecretStore, StoreUnavailable
from pilothouse_dataplane.credentials.cache import Flights, UserCache
from pilothouse_dataplane.credentials.refresh import Refresher
from pilothouse_dataplane.credentials.secrets import secret_of
from pilothouse_dataplane.credentials.tokens import usable_token

FRESH_SECONDS = 3.0
"""How long another worker's unlinking may stay unnoticed here."""
_RENEWED_SECONDS = 10.0
"""A token that the system refuses so soon after it was given won't be accepted by being renewed."""


@dataclass(slots=True)
class Held:
    """An account in memory."""

    account: LinkedAccount
    read_at: float
    """Unix seconds."""
    stored: bool = True
    """False: renewed, and the store was away."""


class AdminAccounts:
    """``accounts.json`` of a Secret: {user e-mail: access token}."""

    def __init__(self, config: OAuthConfig, secrets: SecretStore, advice: Advice) -> None:
        self._where = config.accounts
        self._secrets = secrets
        self._advice = advice
        self._read_from: SecretText | None = None
        self._tokens: Mapping[str, SecretText] = {}

    def token(self, user: str) -> SecretText | None:
        """``user`` casefolded. Raises CredentialUnavailable where the file can't be had or read."""
        where = self._where
        if where is None:
            return None
        text = secret_of(self._secrets, where, self._advice)
        if text != self._read_from:
            try:
                self._tokens = _parse(text.reveal())
            except ValueError as error:
                raise self._advice.no_secret(where.secret, where.key, f"can't be used: {error}") from None
            self._read_from = text
        return self._tokens.get(user)


def _parse(text: str) -> Mapping[str, SecretText]:
    """Raises ValueError, whose message holds nothing of the text."""
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise ValueError("it is not JSON") from None
    if not isinstance(found, dict):
        raise ValueError("it is not an object of e-mails and tokens")  # noqa: TRY004 - of what was read, not passed
    tokens: dict[str, SecretText] = {}
    for number, (email, value) in enumerate(found.items(), 1):
        token = usable_token(value)
        if token is None:
            raise ValueError(f"entry {number} holds no token that can stand in a header")
        tokens[email.strip().casefold()] = token
    return tokens


class UserOAuth:
    """The asking user's credential in one system."""

    def __init__(
        self,
        connector: str,
        config: OAuthConfig,
        secrets: SecretStore,
        accounts: AccountStore | None,
        refresher: Refresher | None,
        held: UserCache[Held],
        advice: Advice,
        clock: Callable[[], float],
    ) -> None:
        """``accounts`` and ``refresher`` are None where users can't link accounts themselves. ``held`` is shared with
        ``Linking``. ``clock`` gives Unix seconds."""
        self._connector = connector
        self._accounts = accounts
        self._refresher = refresher
        self._held = held
        self._advice = advice
        self._clock = clock
        self._admin = AdminAccounts(config, secrets, advice)
        self._flights: Flights[LinkedAccount] = Flights()

    async def get(self, context: CallContext) -> Credential:
        user = context.user_email.casefold()
        account = await self._read(user)
        if account is None:
            token = self._admin.token(user)
            if token is None:
                raise self._advice.not_linked()
            return Credential(token, context.user_email)
        now = self._clock()
        if entry.is_fresh(account, now):
            return _credential(account, context)
        if entry.is_lost(account, now):
            raise self._advice.no_longer()
        if account.refresh_token is None:
            return _credential(account, context)
        try:
            return _credential(await self._renew(user, None), context)
        except CredentialUnavailable:
            if account.expires_at > self._clock():
                return _credential(account, context)
            raise

    async def renew(self, context: CallContext, refused: Credential) -> Credential | None:
        user = context.user_email.casefold()
        account = await self._read(user, anew=True)
        if account is None:
            token = self._admin.token(user)  # it may have been rotated meanwhile
            return None if token is None or token == refused.token else Credential(token, context.user_email)
        now = self._clock()
        if entry.is_fresh(account, now, refused.token):
            return _credential(account, context)
        if account.refresh_token is None or entry.number(account, entry.ISSUED) > now - _RENEWED_SECONDS:
            return None
        return _credential(await self._renew(user, refused.token), context)

    async def linked(self, user: str) -> LinkedAccount | None:
        """What stands in the store; for the accounts page. Raises CredentialUnavailable."""
        return await self._read(user.casefold(), anew=True)

    def by_administrator(self, user: str) -> bool:
        """An administrator has linked it. Raises CredentialUnavailable."""
        return self._admin.token(user.casefold()) is not None

    async def land(self, seconds: float) -> None:
        """Wait for renewals under way: a rotated token must be stored."""
        await self._flights.land(seconds)

    async def _read(self, user: str, *, anew: bool = False) -> LinkedAccount | None:
        """``anew``: memory serves only where the store is away."""
        if self._accounts is None:
            return None
        held = self._held.get(user, self._connector)
        now = self._clock()
        if held is not None and held.stored and not anew and 0 <= now - held.read_at < FRESH_SECONDS:
            return held.account
        try:
            if held is not None and not held.stored and self._refresher is not None:
                found = await self._refresher.save(user, held.account)
            else:
                found = await self._accounts.get(user, self._connector)
        except StoreUnavailable:
            if held is not None and held.account.expires_at > now and not entry.is_refused(held.account):
                return held.account
            raise self._advice.store_away() from None
        if found is None:
            self._held.drop(user, self._connector)
        else:
            self._held.put(user, self._connector, Held(found, now))
        return found

    async def _renew(self, user: str, refused: SecretText | None) -> LinkedAccount:
        return await self._flights.join((user, refused), lambda: self._renew_once(user, refused))

    async def _renew_once(self, user: str, refused: SecretText | None) -> LinkedAccount:
        assert self._refresher is not None  # there is no linked account without one
        try:
            account, stored = await self._refresher.renewed(user, refused)
        except AccountNotLinked:
            self._held.drop(user, self._connector)
            raise
        self._held.put(user, self._connector, Held(account, self._clock(), stored))
        return account


def _credential(account: LinkedAccount, context: CallContext) -> Credential:
    return Credential(account.access_token, account.account or context.user_email, account.instance_url)
