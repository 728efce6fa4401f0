"""Renews a linked account's access token (RFC 6749, 6) so that no worker spoils what another one has renewed.

Many servers rotate the refresh token with each use, and some take a second use of an old one for theft and revoke all
of the grant. So of all workers only one uses it: who has written ``refreshing`` into the stored entry, which succeeds
for one of several (compare-and-set), has the right for ``CLAIM_SECONDS``; the others wait for what comes of it::

    read ──▶ renewed by another meanwhile? ──▶ done
      ▲  ├─▶ gone, refused ─────────────────▶ the user must link (again)
      │  └─▶ claimed by another ──▶ wait ──┐
      ├────────────────────────────────────┘
      ├── lost ◀── claim ── won ──▶ ask the server ──▶ tokens ──▶ store ──▶ done
                                          ├─ invalid_grant ──▶ store “refused” ──▶ the user must link again
                                          └─ down ──▶ give the claim back ──▶ try later

A worker that dies between the server's answer and the store has lost the new tokens: the next one finds the old ones
refused, and the user is asked to link again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

import structlog

from pilothouse_dataplane.connectors.base import CredentialUnavailable, SecretText
from pilothouse_dataplane.credentials import entry
from pilothouse_dataplane.credentials.advice import Advice
from pilothouse_dataplane.credentials.base import AccountStore, LinkedAccount, StoreUnavailable
from pilothouse_dataplane.credentials.tokens import (
    Client,
    GrantRefused,
    TokenClient,
    TokenResponse,
    administrator_must_act,
)

CLAIM_SECONDS = 20.0
"""Longer than two requests to the authorization server can take."""
WAIT_SECONDS = 8.0
"""How long a worker waits for another one's renewal."""
_POLL_SECONDS = 0.15
_SAVE_WAITS = (0.2, 0.6)
_log = structlog.get_logger(__name__)


class Refresher:
    """Renews the accounts of one connector."""

    def __init__(
        self,
        connector: str,
        accounts: AccountStore,
        tokens: TokenClient,
        client: Callable[[], Client],
        advice: Advice,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """``client`` raises ConnectorError where the registration can't be read; ``clock`` gives Unix seconds."""
        self._connector = connector
        self._accounts = accounts
        self._tokens = tokens
        self._client = client
        self._advice = advice
        self._clock = clock
        self._sleep = sleep

    async def renewed(self, user: str, refused: SecretText | None) -> tuple[LinkedAccount, bool]:
        """An account whose access token is fresh and not the ``refused`` one, and whether it is stored. Raises
        AccountNotLinked, CredentialUnavailable."""
        client = self._client()
        until = self._clock() + WAIT_SECONDS
        while True:
            account = await self._read(user)
            now = self._clock()
            if entry.is_fresh(account, now, refused):
                return account, True
            if account.refresh_token is None:
                raise self._advice.no_longer()
            if entry.number(account, entry.REFRESHING) <= now:
                claim = {**account.extra, entry.REFRESHING: repr(now + CLAIM_SECONDS)}
                claimed = replace(account, extra=claim)
                if await self._put(user, claimed):
                    return await self._ask(user, replace(claimed, version=account.version + 1), client)
            elif now >= until:
                raise CredentialUnavailable(
                    f"Your {self._advice.system} sign-in is just being renewed, so nothing was sent. Ask again in a "
                    "minute.",
                    may_have_acted=False,
                )
            else:
                await self._sleep(_POLL_SECONDS)

    async def save(self, user: str, account: LinkedAccount) -> LinkedAccount | None:
        """Keep renewed tokens whose version is that of the claim. Returns what stands there now, with its version; None
        where the account was unlinked meanwhile. Raises StoreUnavailable."""
        while True:
            if await self._accounts.put(user, self._connector, account):
                return replace(account, version=account.version + 1)
            found = await self._accounts.get(user, self._connector)
            if found is None:
                return None
            if found.linked_at != account.linked_at or not self._is_behind(found, account):
                return found  # linked anew, or renewed by another who came after us
            account = replace(account, version=found.version)

    @staticmethod
    def _is_behind(found: LinkedAccount, ours: LinkedAccount) -> bool:
        """What stands there was made of the tokens that ours have replaced: another worker took our claim for dead,
        and was refused, or is still asking."""
        return entry.is_refused(found) or entry.number(found, entry.ISSUED) < entry.number(ours, entry.ISSUED)

    async def _ask(self, user: str, claimed: LinkedAccount, client: Client) -> tuple[LinkedAccount, bool]:
        refresh = claimed.refresh_token
        assert refresh is not None  # the caller has looked
        began = self._clock()
        form = {"grant_type": "refresh_token", "refresh_token": refresh.reveal()}
        try:
            given = await self._tokens.grant(client, form, (refresh, claimed.access_token))
        except GrantRefused as refusal:
            if not refusal.user_must_act:
                await self._give_back(user, claimed, refusal.error)
                if refusal.ambiguous and claimed.expires_at <= self._clock():
                    raise self._advice.not_renewed(refusal.words or refusal.error) from None
                raise administrator_must_act(self._advice.system, refusal) from None
            _log.info("a linked account is no longer accepted", connector=self._connector, error=refusal.error)
            if await self._put(user, entry.refused(claimed, refusal.error)):
                raise self._advice.no_longer(refusal.words) from None
            return await self.renewed(user, claimed.access_token)  # linked anew meanwhile
        except CredentialUnavailable:
            await self._give_back(user, claimed)
            raise
        return await self._keep(user, _fresh(claimed, given, began), client)

    async def _keep(self, user: str, fresh: LinkedAccount, client: Client) -> tuple[LinkedAccount, bool]:
        for wait in (*_SAVE_WAITS, None):
            try:
                stored = await self.save(user, fresh)
            except StoreUnavailable as error:
                if wait is None:
                    _log.warning("renewed tokens not stored yet", connector=self._connector, error=str(error))
                    return fresh, False
                await self._sleep(wait)
                continue
            if stored is None:
                await revoke(self._tokens, client, fresh)
                raise self._advice.not_linked()
            if entry.is_lost(stored, self._clock()):
                raise self._advice.no_longer()
            return stored, True
        raise AssertionError("the last wait is None")

    async def _give_back(self, user: str, claimed: LinkedAccount, doubted: str = "") -> None:
        extra = {key: value for key, value in claimed.extra.items() if key != entry.REFRESHING}
        if doubted:
            extra[entry.DOUBTED] = doubted
        with suppress(StoreUnavailable):  # the claim ends by itself
            await self._accounts.put(user, self._connector, replace(claimed, extra=extra))

    async def _read(self, user: str) -> LinkedAccount:
        try:
            account = await self._accounts.get(user, self._connector)
        except StoreUnavailable:
            raise self._advice.store_away() from None
        if account is None:
            raise self._advice.not_linked()
        if entry.is_refused(account):
            raise self._advice.no_longer()
        return account

    async def _put(self, user: str, account: LinkedAccount) -> bool:
        try:
            return await self._accounts.put(user, self._connector, account)
        except StoreUnavailable:
            raise self._advice.store_away() from None


def _fresh(claimed: LinkedAccount, given: TokenResponse, began: float) -> LinkedAccount:
    extra = {key: value for key, value in claimed.extra.items() if key not in (entry.REFRESHING, entry.DOUBTED)}
    return replace(
        claimed,
        access_token=given.access_token,
        # a server that does not rotate gives none: the old one stays good
        refresh_token=given.refresh_token or claimed.refresh_token,
        expires_at=given.expires_at,
        scopes=given.scopes or claimed.scopes,
        instance_url=given.instance_url or claimed.instance_url,
        extra={**extra, entry.ISSUED: repr(began)},
    )


async def revoke(tokens: TokenClient, client: Client, account: LinkedAccount) -> str:
    """Revoke both tokens. Returns "" where the server has taken them back, else why it is not known that it did."""
    if not tokens.can_revoke:
        return "it has no way to revoke them"
    parts = [("refresh_token", account.refresh_token), ("access_token", account.access_token)]
    why = ""
    for hint, token in parts:
        if token is None or not token.reveal():
            continue
        try:
            await tokens.revoke(client, token, hint)
        except GrantRefused as refusal:
            why = why or f"it refused ({refusal.words or refusal.error})"
        except CredentialUnavailable:
            why = why or "it could not be reached"
    return why
