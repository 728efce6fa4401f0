"""What holds a tenant's credentials in one worker: made of a configuration, and kept over reloads as long as the place
where they lie is the same. So a reload neither forgets tokens in memory nor asks for new ones.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from pilothouse_api.workerconfig import ConnectorConfig, CredentialsConfig, OAuthConfig, SecretValue, WorkerConfig
from pilothouse_dataplane.connectors.base import CredentialUnavailable
from pilothouse_dataplane.connectors.factory import system_of
from pilothouse_dataplane.credentials.advice import Advice
from pilothouse_dataplane.credentials.base import AccountStore, CredentialSource, SecretStore, StoreUnavailable
from pilothouse_dataplane.credentials.cache import UserCache
from pilothouse_dataplane.credentials.exchange import KeptToken, TokenExchange
from pilothouse_dataplane.credentials.files import FileSecrets
from pilothouse_dataplane.credentials.jwt_bearer import JWTBearer
from pilothouse_dataplane.credentials.linking import Linkable, Linking
from pilothouse_dataplane.credentials.oauth import Held, UserOAuth
from pilothouse_dataplane.credentials.refresh import Refresher
from pilothouse_dataplane.credentials.secrets import client_of, secret_of
from pilothouse_dataplane.credentials.service_account import ServiceAccount
from pilothouse_dataplane.credentials.states import LinkStates
from pilothouse_dataplane.credentials.tokens import Client, TokenClient

_LANDING_SECONDS = 3.0
_FIRST_LOAD_SECONDS = 3.0
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """Of the credentials' store."""

    error: str = ""
    """Why it can't be asked; "" where it can."""
    until: float | None = None
    """While it is away: Unix seconds at which the first of the tokens in memory ends; None: there is none that ends."""


class Backend:
    """The stores of one tenant's credentials, and what is in memory of them."""

    def __init__(
        self,
        config: CredentialsConfig,
        tenant: str,
        secrets: SecretStore,
        accounts: AccountStore | None,
        *,
        error: Callable[[], str],
        work: Callable[[], list[Coroutine[Any, Any, None]]],
        close: Callable[[], Coroutine[Any, Any, None]],
        ready: Callable[[], Coroutine[Any, Any, None]] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``work`` makes what runs in the background, ``ready`` is waited for before it."""
        self.config = config
        self.tenant = tenant
        self.secrets = secrets
        self.accounts = accounts
        self.held: UserCache[Held] = UserCache()
        self.kept: UserCache[KeptToken] = UserCache()
        self.clock = clock
        self.users = 0
        """Configurations that use it."""
        self._error = error
        self._work = work
        self._close = close
        self._ready = ready
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin what runs in the background; at most three seconds. Where the store is away it goes on without."""
        if self._tasks:
            return
        if self._ready is not None:
            try:
                async with asyncio.timeout(_FIRST_LOAD_SECONDS):
                    await self._ready()
            except (StoreUnavailable, TimeoutError) as error:
                _log.warning("the store of credentials does not answer yet", error=str(error))
        self._tasks = [asyncio.create_task(work, name="credentials") for work in self._work()]

    def status(self) -> StoreStatus:
        """For GetStatus."""
        error = self._error()
        if not error:
            return StoreStatus()
        now = self.clock()
        ends = [held.account.expires_at for held in self.held.values()]
        ends += [kept.expires_at for kept in self.kept.values()]
        return StoreStatus(error, min((end for end in ends if now < end < float("inf")), default=None))

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._close()


async def _nothing() -> None:
    return None


def make_backend(config: WorkerConfig, files: dict[str, bytes], database_url: str, worker: str) -> Backend:
    """The backend that a configuration names. Connects to nothing yet."""
    tenant = config.tenant
    if config.credentials.vault is not None:
        from pilothouse_api import names
        from pilothouse_dataplane.credentials.vault import VaultAccounts, VaultSecrets, VaultSession

        vault = config.credentials.vault
        folder = Path(os.environ.get("PILOTHOUSE_CONFIG_DIR", names.CONFIG_DIR))
        session = VaultSession(vault, folder, time.monotonic)
        stored = VaultSecrets(vault, session)

        async def close_session() -> None:
            session.close()

        return Backend(
            config.credentials,
            tenant,
            stored,
            VaultAccounts(vault, session),
            error=lambda: session.error,
            work=lambda: [stored.keep_loaded()],
            close=close_session,
            ready=stored.load,
        )
    mounted = FileSecrets(files)
    if not config.credentials.keys_secret:
        return Backend(config.credentials, tenant, mounted, None, error=lambda: "", work=list, close=_nothing)
    # imported by those who seal: cryptography takes megabytes
    from pilothouse_dataplane.credentials.postgres import SealedAccounts
    from pilothouse_dataplane.credentials.sealing import KeyRings
    from pilothouse_dataplane.ledger.connections import Connections

    keys_secret = config.credentials.keys_secret
    accounts = SealedAccounts(
        Connections(database_url, tenant, f"{worker} accounts"),
        tenant,
        KeyRings(lambda: mounted.all_of(keys_secret)).newest,
        random=os.urandom,
        clock=time.time,
    )
    return Backend(
        config.credentials,
        tenant,
        mounted,
        accounts,
        error=lambda: accounts.error,
        work=lambda: [accounts.keep_swept()],
        close=accounts.aclose,
    )


class Credentials:
    """The sources of one configuration's connectors, over a backend."""

    def __init__(
        self,
        config: WorkerConfig,
        backend: Backend,
        states: LinkStates | None,
        *,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """``states`` is None where accounts can't be linked."""
        self._config = config
        self._backend = backend
        self._clients: list[TokenClient] = []
        self._oauth: dict[str, UserOAuth] = {}
        self._linkable: dict[str, Linkable] = {}
        self.sources: dict[str, CredentialSource] = {c.name: self._source(c) for c in config.connectors}
        """By connector."""
        self.linking: Linking | None = None
        """None where nobody can link an account."""
        if backend.accounts is not None and states is not None:
            self.linking = Linking(
                config.namespace,
                config.tenant,
                self._linkable,
                backend.accounts,
                states,
                backend.held,
                random=random,
                clock=backend.clock,
            )

    @property
    def linkable(self) -> dict[str, Linkable]:
        """Connectors whose accounts users can link, by name."""
        return self._linkable

    async def start(self) -> None:
        """Begin what the backend does in the background."""
        await self._backend.start()

    def status(self) -> StoreStatus:
        """Of the store."""
        return self._backend.status()

    def linked_by_administrator(self, connector: str, email: str) -> bool:
        """Of a connector with mode UserOAuth. Raises CredentialUnavailable."""
        return self._oauth[connector].by_administrator(email)

    async def linked(self, email: str) -> frozenset[str]:
        """Connectors of mode UserOAuth in which this user has an account, her own or one that an administrator has
        linked. Raises StoreUnavailable, CredentialUnavailable."""
        accounts = self._backend.accounts
        own = await accounts.of_user(email.casefold()) if accounts is not None and self._linkable else {}
        return frozenset(name for name, source in self._oauth.items() if name in own or source.by_administrator(email))

    def problem(self, connector: ConnectorConfig) -> str:
        """Why a connector can't be used by anybody: one of its own secrets is missing; "" where none is."""
        for value in _needs(connector):
            try:
                secret_of(self._backend.secrets, value, Advice(system_of(connector)))
            except CredentialUnavailable as error:
                return str(error)
        return ""

    async def aclose(self) -> None:
        """Wait for renewals under way, and close what belongs to this configuration alone."""
        for source in self._oauth.values():
            await source.land(_LANDING_SECONDS)
        for client in self._clients:
            await client.aclose()
        self._backend.users -= 1
        if self._backend.users == 0:
            await self._backend.aclose()

    def _token_client(self, system: str, token_url: str, revocation_url: str = "") -> TokenClient:
        client = TokenClient(system, token_url, self._config.egress, self._backend.clock, revocation_url=revocation_url)
        self._clients.append(client)
        return client

    def _source(self, config: ConnectorConfig) -> CredentialSource:
        system, backend = system_of(config), self._backend
        secrets, clock = backend.secrets, backend.clock
        if config.token_exchange is not None:
            exchange = config.token_exchange
            tokens = self._token_client(system, exchange.token_url)
            return TokenExchange(config.name, exchange, secrets, tokens, backend.kept, Advice(system), clock)
        if config.jwt_bearer is not None:
            bearer = config.jwt_bearer
            tokens = self._token_client(system, bearer.token_url)
            return JWTBearer(config.name, bearer, secrets, tokens, backend.kept, Advice(system), clock)
        if config.service_account is not None:
            return ServiceAccount(config.name, config.service_account, secrets, Advice(system))
        return self._user_oauth(config, config.oauth or OAuthConfig(), system)

    def _user_oauth(self, config: ConnectorConfig, oauth: OAuthConfig, system: str) -> UserOAuth:
        backend, id = self._backend, oauth.client_id
        accounts = backend.accounts
        if accounts is None or id is None or not oauth.token_url or not oauth.authorization_url:
            source = UserOAuth(
                config.name, oauth, backend.secrets, None, None, backend.held, Advice(system), backend.clock
            )
            self._oauth[config.name] = source
            return source
        advice = Advice(system, self_service=True)
        tokens = self._token_client(system, oauth.token_url, oauth.revocation_url)

        def client() -> Client:
            return client_of(backend.secrets, id, oauth.client_secret, advice)

        refresher = Refresher(config.name, accounts, tokens, client, advice, backend.clock)
        source = UserOAuth(
            config.name, oauth, backend.secrets, accounts, refresher, backend.held, advice, backend.clock
        )
        self._linkable[config.name] = Linkable(config, oauth, source, tokens, client, advice)
        self._oauth[config.name] = source
        return source


def _needs(config: ConnectorConfig) -> list[SecretValue]:
    """What a connector's authorization reads from the secrets."""
    needs: list[SecretValue | None] = []
    if config.oauth is not None:
        needs += [config.oauth.client_id, config.oauth.client_secret, config.oauth.accounts]
    if config.token_exchange is not None:
        needs += [config.token_exchange.client_id, config.token_exchange.client_secret]
    if config.jwt_bearer is not None:
        needs += [config.jwt_bearer.private_key]
    if config.service_account is not None:
        needs += [config.service_account.token]
    return [need for need in needs if need is not None]


class BackendKeeper:
    """Hands the same backend out as long as the credentials lie in the same place."""

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self._current: Backend | None = None
        self._place: object = None

    def get(self, config: WorkerConfig, files: dict[str, bytes], database_url: str) -> Backend:
        """Counts the caller as a user of it: ``Credentials.aclose`` gives it back."""
        place = (config.credentials, config.tenant, config.namespace, database_url)
        if self._current is None or place != self._place or self._current.users == 0:
            self._current = make_backend(config, files, database_url, self._worker)
            self._place = place
        elif isinstance(self._current.secrets, FileSecrets):
            self._current.secrets.replace(files)
        self._current.users += 1
        return self._current
