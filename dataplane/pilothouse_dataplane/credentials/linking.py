"""Linking a user's account: authorization code with PKCE (RFC 6749, RFC 7636, RFC 9700), and taking it back (RFC 7009).

::

    begin ──▶ state, verifier ──▶ kept for 10 minutes, under the state's hash
      └─▶ the browser goes to the authorization server with the state and the verifier's hash
            └─▶ the gateway's call-back ──▶ finish: the state is taken (once), browser and address are compared,
                  the code is exchanged, the account's e-mail is compared with the user's ──▶ stored

It runs in the tenant's own worker, so that no other part ever holds a token. The state names namespace and tenant, so
that the gateway knows whom to ask; what it is worth, only the kept value says.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from urllib.parse import urlencode, urlsplit

import orjson
import structlog

from pilothouse_api.workerconfig import ConnectorConfig, OAuthConfig
from pilothouse_dataplane.connectors.base import SecretText, SystemUnavailable
from pilothouse_dataplane.credentials import entry
from pilothouse_dataplane.credentials.advice import Advice
from pilothouse_dataplane.credentials.base import AccountStore, LinkedAccount, StoreUnavailable
from pilothouse_dataplane.credentials.cache import UserCache
from pilothouse_dataplane.credentials.oauth import Held, UserOAuth
from pilothouse_dataplane.credentials.refresh import revoke
from pilothouse_dataplane.credentials.states import LinkStates
from pilothouse_dataplane.credentials.tokens import (
    Client,
    GrantRefused,
    TokenClient,
    TokenResponse,
    administrator_must_act,
    plain_words,
)
from pilothouse_dataplane.credentials.vendors import userinfo_url, vendor_of

_STATE_BYTES = 32
_HEX = re.compile(r"[0-9a-f]{64}")
_MAX_CODE = 8192
_PUTS = 5
_log = structlog.get_logger(__name__)


class LinkFailed(Exception):
    """It was not linked, or not unlinked. The message is two sentences for the user: what happened, what was not
    done."""

    def __init__(self, message: str, action: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.action = action
        """What to do now, a sentence."""
        self.retryable = retryable


class State(Enum):
    """Of a user's account in one system; the same words as ``LinkState`` in agent.proto."""

    LINKED = "LINKED"
    NOT_LINKED = "NOT_LINKED"
    EXPIRED = "EXPIRED"
    NOT_NEEDED = "NOT_NEEDED"
    BY_ADMINISTRATOR = "BY_ADMINISTRATOR"


@dataclass(frozen=True, slots=True)
class AccountView:
    """What a user sees of her account."""

    connector: str
    system: str
    state: State
    account: str = ""
    scopes: tuple[str, ...] = ()
    linked_at: float = 0.0
    """Unix seconds; 0: not known."""
    expires_at: float = 0.0
    """Likewise."""


@dataclass(frozen=True, slots=True)
class Linkable:
    """A connector whose accounts users can link."""

    config: ConnectorConfig
    oauth: OAuthConfig
    source: UserOAuth
    tokens: TokenClient
    client: Callable[[], Client]
    """Raises CredentialUnavailable."""
    advice: Advice


class Linking:
    """Links and unlinks for one tenant's users."""

    def __init__(
        self,
        namespace: str,
        tenant: str,
        linkable: Mapping[str, Linkable],
        accounts: AccountStore,
        states: LinkStates,
        held: UserCache[Held],
        *,
        random: Callable[[int], bytes],
        clock: Callable[[], float],
    ) -> None:
        """``random`` gives the system's random bytes, ``clock`` Unix seconds."""
        self._place = f"{namespace}.{tenant}"
        self._linkable = linkable
        self._accounts = accounts
        self._states = states
        self._held = held
        self._random = random
        self._clock = clock

    # --- begin --------------------------------------------------------------------------------------------------------
    async def begin(self, email: str, connector: str, redirect_uri: str, browser: str) -> str:
        """The address where the user's browser goes next. ``browser``: SHA-256 of its cookie, hexadecimal. Raises
        LinkFailed."""
        linkable = self._of(connector)
        parts = urlsplit(redirect_uri)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.fragment or not _HEX.fullmatch(browser):
            raise LinkFailed("The request to link an account was not complete. Nothing was linked.", "Begin again.")
        try:
            client = linkable.client()
        except SystemUnavailable as error:
            raise LinkFailed(f"{error} Nothing was linked.", "Ask your administrator.") from None
        state = f"{self._place}.{_text(self._random(_STATE_BYTES))}"
        verifier = _text(self._random(_STATE_BYTES))
        kept = {
            "user": email.casefold(),
            "connector": connector,
            "verifier": verifier,
            "redirect_uri": redirect_uri,
            "browser": browser,
        }
        try:
            await self._states.keep(state, orjson.dumps(kept))
        except StoreUnavailable as error:
            _log.warning("a link can't be begun", error=str(error))
            raise _later("The agent can't remember that you begin to link an account. Nothing was linked.") from None
        return _authorization_url(linkable, client, state, verifier, redirect_uri)

    # --- finish -------------------------------------------------------------------------------------------------------
    async def finish(
        self, state: str, code: str, browser: str, redirect_uri: str, error: str = "", description: str = ""
    ) -> AccountView:
        """The authorization server's call-back. Raises LinkFailed."""
        kept = await self._taken(state)
        if not hmac.compare_digest(kept["browser"], browser) or kept["redirect_uri"] != redirect_uri:
            _log.warning("a link's call-back came from elsewhere", connector=kept["connector"])
            raise LinkFailed(
                "This link was begun in another browser, or under another address. Nothing was linked.",
                "Open your accounts page and begin again; if you did not begin it, do nothing.",
            )
        linkable = self._of(kept["connector"])
        system = linkable.advice.system
        if error or not code or len(code) > _MAX_CODE:
            raise _not_consented(system, error, description)
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": kept["verifier"],
        }
        began = self._clock()
        secrets = (SecretText(code), SecretText(kept["verifier"]))
        try:
            client = linkable.client()
            given = await linkable.tokens.grant(client, form, secrets)
        except GrantRefused as refusal:
            if refusal.user_must_act:
                said = f" (“{refusal.words}”)" if refusal.words else ""
                raise LinkFailed(
                    f"{system} did not accept your consent{said}. Nothing was linked.", "Begin again."
                ) from None
            raise LinkFailed(str(administrator_must_act(system, refusal)), "Ask your administrator.") from None
        except SystemUnavailable as away:
            if away.lasting:
                raise LinkFailed(f"{away} Nothing was linked.", "Ask your administrator.") from None
            raise _later(f"{away} Nothing was linked.") from None
        account = self._account(given, kept["user"], began)
        try:
            email = given.email or await self._email(linkable, given)
        except SystemUnavailable:
            await revoke(linkable.tokens, client, account)
            raise _later(f"{system} does not tell at the moment whose account it is. Nothing was linked.") from None
        if email and email != kept["user"]:
            await revoke(linkable.tokens, client, account)
            raise LinkFailed(
                f"At {system} you were signed in as {email}, and here as {kept['user']}. Nothing was linked: the "
                "agent acts for each person with her own account only.",
                f"Sign out at {system}, begin again, and sign in there as yourself.",
            )
        stored = await self._store(kept["user"], linkable, account, client)
        _log.info("account linked", connector=kept["connector"])
        return self._view(linkable.config.name, linkable.advice.system, stored)

    @staticmethod
    async def _email(linkable: Linkable, given: TokenResponse) -> str:
        """Whose account it is, where the system can be asked; "" where it can't. Raises CredentialUnavailable."""
        scopes = given.scopes or linkable.oauth.scopes
        url = userinfo_url(vendor_of(linkable.config.type), linkable.oauth.token_url, scopes)
        return await linkable.tokens.email_at(url, given.access_token) if url else ""

    async def _taken(self, state: str) -> dict[str, str]:
        gone = LinkFailed(
            "This link was finished already, or was begun more than ten minutes ago. Nothing was linked.",
            "Open your accounts page to see what is linked, and begin again if it is not.",
        )
        if not state.startswith(f"{self._place}.") or len(state) > 512:
            raise gone
        try:
            value = await self._states.take(state)
        except StoreUnavailable as error:
            _log.warning("a link can't be finished", error=str(error))
            raise _later("The agent can't remember which link you have begun. Nothing was linked.") from None
        if value is None:
            raise gone
        kept: dict[str, str] = orjson.loads(value)
        return kept

    def _account(self, given: TokenResponse, user: str, began: float) -> LinkedAccount:
        return LinkedAccount(
            given.access_token,
            given.refresh_token,
            given.expires_at,
            given.email or user,
            given.scopes,
            given.instance_url,
            linked_at=began,
            extra={entry.ISSUED: repr(began)},
        )

    async def _store(self, user: str, linkable: Linkable, account: LinkedAccount, client: Client) -> LinkedAccount:
        """Replaces whatever stands there."""
        connector = linkable.config.name
        try:
            for _ in range(_PUTS):
                before = await self._accounts.get(user, connector)
                account = replace(account, version=before.version if before is not None else 0)
                if await self._accounts.put(user, connector, account):
                    self._held.drop(user, connector)
                    return account
        except StoreUnavailable as error:
            _log.warning("a linked account was not stored", connector=connector, error=str(error))
        await revoke(linkable.tokens, client, account)
        raise _later(f"Your {linkable.advice.system} account can't be kept at the moment. Nothing was linked.")

    # --- unlink -------------------------------------------------------------------------------------------------------
    async def unlink(self, email: str, connector: str) -> str:
        """Revoke and forget. Returns a sentence that says what was done. Raises LinkFailed."""
        user, linkable = email.casefold(), self._of(connector)
        system = linkable.advice.system
        try:
            account = await self._accounts.get(user, connector)
            if account is None:
                return f"Your {system} account is not linked; there was nothing to forget."
            why = await self._revoked(linkable, account)
            await self._accounts.delete(user, connector)
        except StoreUnavailable as error:
            _log.warning("an account was not unlinked", connector=connector, error=str(error))
            raise _later(
                f"The store of linked accounts does not answer. Your {system} tokens are not forgotten."
            ) from None
        self._held.drop(user, connector)
        _log.info("account unlinked", connector=connector, revoked=not why)
        if not why:
            return f"Your {system} account is unlinked: its tokens are revoked at {system} and forgotten here."
        return (
            f"Your {system} account is unlinked: its tokens are forgotten here. They could not be revoked at {system}: "
            f"{why}. To be sure, remove this agent's access in your {system} account's settings."
        )

    async def _revoked(self, linkable: Linkable, account: LinkedAccount) -> str:
        if entry.is_refused(account):
            return ""  # its server has taken them back itself
        try:
            return await revoke(linkable.tokens, linkable.client(), account)
        except SystemUnavailable:
            return "the connector's own registration can't be read"

    # --- look ---------------------------------------------------------------------------------------------------------
    async def linked(self, email: str, linkable: Linkable) -> AccountView:
        """The user's account of one connector. Raises SystemUnavailable where it can't be told."""
        user = email.casefold()
        account = await linkable.source.linked(user)
        name, system = linkable.config.name, linkable.advice.system
        if account is not None:
            return self._view(name, system, account)
        if linkable.source.by_administrator(user):
            return AccountView(name, system, State.LINKED, email)
        return AccountView(name, system, State.NOT_LINKED)

    def _view(self, connector: str, system: str, account: LinkedAccount) -> AccountView:
        state = State.EXPIRED if entry.is_of_no_use(account, self._clock()) else State.LINKED
        expires = account.expires_at if account.expires_at != float("inf") else 0.0
        return AccountView(connector, system, state, account.account, account.scopes, account.linked_at, expires)

    def _of(self, connector: str) -> Linkable:
        found = self._linkable.get(connector)
        if found is None:
            raise LinkFailed(
                "There is no system of this name whose account you can link yourself. Nothing was changed.",
                "Open your accounts page and choose one from the list.",
            )
        return found


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _authorization_url(linkable: Linkable, client: Client, state: str, verifier: str, redirect_uri: str) -> str:
    vendor = vendor_of(linkable.config.type)
    scopes = linkable.oauth.scopes
    if scopes and not {"offline_access", *vendor.scopes} & set(scopes):
        scopes = (*scopes, *vendor.scopes)
    challenge = _text(hashlib.sha256(verifier.encode()).digest())
    query = {
        **vendor.authorize,
        "response_type": "code",
        "client_id": client.id,
        "redirect_uri": redirect_uri,
        **({"scope": " ".join(scopes)} if scopes else {}),
        "state": state,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    url = linkable.oauth.authorization_url
    return f"{url}{'&' if urlsplit(url).query else '?'}{urlencode(query)}"


def _not_consented(system: str, error: str, description: str) -> LinkFailed:
    if error == "access_denied":
        return LinkFailed(f"You did not agree at {system}. Nothing was linked.", "Begin again if you want to link it.")
    words = plain_words(description) or plain_words(error) or "it sent no code"
    return LinkFailed(
        f"{system} did not give its consent (“{words}”). Nothing was linked.", "Begin again, or ask your administrator."
    )


def _later(message: str) -> LinkFailed:
    return LinkFailed(message, "Try again in a minute.", retryable=True)
