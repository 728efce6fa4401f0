"""The tenant's credentials in Vault or OpenBao (backend Vault): Kubernetes auth, KV version 2.

What the worker's role must be allowed, for the mount ``kv`` and the prefix ``acme/acme`` (the operator writes it)::

    path "kv/data/acme/acme/secrets"      { capabilities = ["read"] }
    path "kv/data/acme/acme/users/*"      { capabilities = ["create", "update", "read"] }
    path "kv/metadata/acme/acme/users/*"  { capabilities = ["create", "update", "list", "delete"] }

KV keeps earlier versions of an entry: a linked account is told to keep one only, so that replaced tokens are gone.

hvac is synchronous: its requests run on a few threads, each with a client of its own, and each is bounded in time. A
token is renewed at half of its lease; where that does not give as much again, the worker logs in anew, with the
ServiceAccount token as the kubelet has renewed it.
"""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import structlog

from pilothouse_api.workerconfig import VaultConfig
from pilothouse_dataplane.connectors.base import SecretText
from pilothouse_dataplane.credentials import entry
from pilothouse_dataplane.credentials.base import LinkedAccount, StoreUnavailable

REQUEST_SECONDS = 2.0
ANSWER_SECONDS = 5.0
"""The longest that a question takes, with a login before it."""
POLL_SECONDS = 3.0
"""Between looks at the secrets: a rotated one is in use within 5 s."""
_THREADS = 4
_RENEW_AT = 0.5
"""Of the lease."""
_Result = TypeVar("_Result")
_log = structlog.get_logger(__name__)


class VaultSession:
    """Requests with the worker's own Vault token."""

    def __init__(self, config: VaultConfig, folder: Path, clock: Callable[[], float]) -> None:
        """``folder`` holds the configuration's files, ``clock`` is monotonic. Connects to nothing yet."""
        self._config = config
        self._authority = str(folder / config.ca_file) if config.ca_file else ""
        self._clock = clock
        self._pool: ThreadPoolExecutor | None = None
        self._clients = threading.local()
        self._places = asyncio.Semaphore(2 * _THREADS)
        self._logging_in = asyncio.Lock()
        self._token: SecretText | None = None
        self._lease = 0.0
        self._renew_after = 0.0
        self._renewable = False
        self.error = ""
        """Why the last request had no answer; "" where it had."""

    async def ask(self, work: Callable[[Any], _Result]) -> _Result | None:
        """``work`` with an hvac client on a thread; None where the path is not there. Raises StoreUnavailable."""
        import hvac.exceptions as vault

        try:
            async with asyncio.timeout(ANSWER_SECONDS), self._places:
                token = await self._current()
                try:
                    answer = await self._run(work, token)
                except (vault.Forbidden, vault.Unauthorized):
                    # revoked, or its policies are newer than it: once more with a new one
                    if self._token == token:
                        self._token = None
                    answer = await self._run(work, await self._current())
        except vault.InvalidPath:
            self.error = ""
            return None
        except Exception as error:
            self.error = f"{self._config.address}: {_said(error)}"
            raise StoreUnavailable(self.error) from None
        self.error = ""
        return answer

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[[Any], _Result], token: SecretText | None) -> _Result:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="vault")

        def on_thread() -> _Result:
            client = getattr(self._clients, "client", None)
            if client is None:
                import hvac

                make: Any = hvac.Client  # it carries no types
                client = self._clients.client = make(
                    url=self._config.address,
                    token="-",  # noqa: S106 - none: without it one of the environment or of ~/.vault-token is taken
                    timeout=REQUEST_SECONDS,
                    verify=self._authority or True,
                )
                client.session.trust_env = False
            client.token = token.reveal() if token is not None else None
            return work(client)

        return await asyncio.get_running_loop().run_in_executor(self._pool, on_thread)

    async def _current(self) -> SecretText:
        """The token, logged in for or renewed where it is time."""
        if self._token is not None and self._clock() < self._renew_after:
            return self._token
        async with self._logging_in:
            if self._token is not None and self._clock() < self._renew_after:
                return self._token
            if self._token is not None and self._renewable and await self._renewed(self._token):
                return self._token
            return await self._login()

    async def _renewed(self, token: SecretText) -> bool:
        import hvac.exceptions as vault

        def renew(client: Any) -> Any:
            return client.auth.token.renew_self()

        try:
            auth = (await self._run(renew, token))["auth"]
        except vault.VaultDown:
            raise
        except vault.VaultError:
            return False  # also at the end of its longest life, where OpenBao answers 500
        if auth["lease_duration"] < self._lease * _RENEW_AT:
            return False  # its longest life comes to its end
        self._renew_after = self._clock() + auth["lease_duration"] * _RENEW_AT
        return True

    async def _login(self) -> SecretText:
        config = self._config
        jwt = SecretText((await asyncio.to_thread(Path(config.token_file).read_text)).strip())

        def login(client: Any) -> Any:
            return client.auth.kubernetes.login(
                role=config.role, jwt=jwt.reveal(), use_token=False, mount_point=config.auth_mount
            )

        began = self._clock()
        auth = (await self._run(login, None))["auth"]
        token = SecretText(auth["client_token"])
        self._lease = float(auth["lease_duration"]) or 3600.0  # 0: it does not end
        self._renewable = bool(auth["renewable"])
        self._renew_after = began + self._lease * _RENEW_AT
        self._token = token
        return token


def _said(error: BaseException) -> str:
    """For the operator. A response's text may quote what was sent, so of Vault's only the kind and known words."""
    import hvac.exceptions as vault
    import requests

    if isinstance(error, vault.VaultDown):
        return "it is sealed, or not initialised"
    if isinstance(error, vault.Forbidden):
        return "it denies the worker's role this (permission denied)"
    if isinstance(error, vault.VaultError):
        return f"it answered with an error ({type(error).__name__})"
    if isinstance(error, (TimeoutError, requests.Timeout)):
        return "it did not answer in time"
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not valid"
    if isinstance(error, requests.RequestException):
        return "it can't be reached"
    if isinstance(error, OSError):
        return f"the worker's own token can't be read ({error.strerror})"
    return f"its answer can't be read ({type(error).__name__})"


class VaultSecrets:
    """The tenant's secrets: one entry, read every ``POLL_SECONDS`` and kept while Vault is away."""

    def __init__(self, config: VaultConfig, session: VaultSession) -> None:
        self._config = config
        self._session = session
        self._texts: dict[str, SecretText] | None = None

    def get(self, secret: str, key: str) -> SecretText:
        if self._texts is None:
            raise StoreUnavailable(self._session.error or "the secrets were not read yet")
        return self._texts[f"{secret}.{key}"]

    async def load(self) -> None:
        """Read once. Raises StoreUnavailable, and then what was read before stays."""
        path, mount = f"{self._config.prefix}/secrets", self._config.mount
        found = await self._session.ask(
            lambda client: client.secrets.kv.v2.read_secret_version(
                path=path, mount_point=mount, raise_on_deleted_version=True
            )
        )
        fresh: dict[str, SecretText] = {}
        for name, value in (found["data"]["data"] if found else {}).items():
            text = SecretText(value.strip() if isinstance(value, str) else "")
            old = (self._texts or {}).get(name)
            fresh[name] = old if old is not None and old == text else text
        if self._texts is not None and fresh != self._texts:
            _log.info("the tenant's credentials have changed in Vault")
        self._texts = fresh

    async def keep_loaded(self) -> None:
        """Read again and again; ends when it is cancelled."""
        told = ""
        while True:
            try:
                await self.load()
                if told:
                    _log.info("Vault answers again")
                told = ""
            except StoreUnavailable as error:
                if str(error) != told:
                    told = str(error)
                    _log.warning("Vault does not answer; what was read before stays in use", error=told)
            await asyncio.sleep(POLL_SECONDS)


class VaultAccounts:
    """Linked accounts: ``<prefix>/users/<user>/<connector>``, the user's e-mail as base64url, written with
    check-and-set. An account that is linked anew after it was forgotten begins again at version 1."""

    def __init__(self, config: VaultConfig, session: VaultSession) -> None:
        self._config = config
        self._session = session

    def _path(self, user: str, connector: str = "") -> str:
        name = base64.urlsafe_b64encode(user.encode()).decode().rstrip("=")
        return f"{self._config.prefix}/users/{name}" + (f"/{connector}" if connector else "")

    async def get(self, user: str, connector: str) -> LinkedAccount | None:
        path, mount = self._path(user, connector), self._config.mount
        found = await self._session.ask(
            lambda client: client.secrets.kv.v2.read_secret_version(
                path=path, mount_point=mount, raise_on_deleted_version=True
            )
        )
        if found is None:
            return None
        version = int(found["data"]["metadata"]["version"])
        fields = found["data"]["data"]
        try:
            if not isinstance(fields, Mapping) or fields.get("user") != user or fields.get("connector") != connector:
                raise entry.EntryError("it was written for another user or connector")
            return entry.from_fields(fields, version)
        except entry.EntryError as error:
            _log.warning(
                "a linked account can't be read; its user must link it again", connector=connector, why=str(error)
            )
            return entry.unreadable(version, "it can't be read any more")

    async def put(self, user: str, connector: str, account: LinkedAccount) -> bool:
        path, mount = self._path(user, connector), self._config.mount
        fields = {**entry.to_fields(account), "user": user, "connector": connector}

        def write(client: Any) -> bool:
            import hvac.exceptions as vault

            if not account.version:
                with suppress(vault.Forbidden):  # a narrower policy: replaced tokens stay for as long as KV keeps them
                    client.secrets.kv.v2.update_metadata(path=path, mount_point=mount, max_versions=1)
            try:
                client.secrets.kv.v2.create_or_update_secret(
                    path=path, secret=fields, cas=account.version, mount_point=mount
                )
            except vault.InvalidRequest as error:
                if "check-and-set" in str(error):
                    return False
                raise
            return True

        return bool(await self._session.ask(write))

    async def delete(self, user: str, connector: str) -> bool:
        there = await self.get(user, connector) is not None
        path, mount = self._path(user, connector), self._config.mount
        await self._session.ask(
            lambda client: client.secrets.kv.v2.delete_metadata_and_all_versions(path=path, mount_point=mount)
        )
        return there

    async def of_user(self, user: str) -> Mapping[str, LinkedAccount]:
        path, mount = self._path(user), self._config.mount
        found = await self._session.ask(lambda client: client.secrets.kv.v2.list_secrets(path=path, mount_point=mount))
        accounts: dict[str, LinkedAccount] = {}
        for connector in found["data"]["keys"] if found else ():
            account = await self.get(user, connector)
            if account is not None:
                accounts[connector] = account
        return accounts
