"""Connectors from the configuration. A connector's module is imported when a configuration names its type."""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from pilothouse_api.workerconfig import ConnectorConfig
from pilothouse_dataplane.connectors.base import AccountNotLinked, Connector


class ConnectorConfigError(ValueError):
    """A connector can't be made; the message goes into the worker's status. The platform operator must act."""


class Credentials:
    """The tokens of one connector, by user."""

    def __init__(self, system: str, accounts: Mapping[str, str], service_token: str | None) -> None:
        self._system = system
        self._accounts = {email.casefold(): token for email, token in accounts.items()}
        self._service_token = service_token

    def token(self, user_email: str) -> str:
        """The token that a call for this user carries. Raises AccountNotLinked; a service account is never a
        silent substitute for a missing link."""
        if self._service_token is not None:
            return self._service_token
        token = self._accounts.get(user_email.casefold())
        if not token:
            raise AccountNotLinked(
                f"Your {self._system} account is not linked, so nothing was done there. "
                f"Link your {self._system} account, then ask again.",
                asked=False,
            )
        return token


def _credentials(config: ConnectorConfig, system: str, files: Mapping[str, bytes]) -> Credentials:
    def read(name: str | None, what: str) -> bytes:
        if name is None or name not in files:
            raise ConnectorConfigError(f"connector {config.name}: {what} {name or ''} is not there".replace("  ", " "))
        return files[name]

    if config.auth_mode == "UserOAuth":
        if config.accounts_file is None:
            return Credentials(system, {}, None)  # nobody has linked an account yet: calls say so
        try:
            accounts = orjson.loads(read(config.accounts_file, "the accounts file"))
        except orjson.JSONDecodeError as error:
            raise ConnectorConfigError(f"connector {config.name}: {config.accounts_file} is not JSON") from error
        if not isinstance(accounts, dict) or not all(isinstance(token, str) for token in accounts.values()):
            raise ConnectorConfigError(
                f"connector {config.name}: {config.accounts_file} must map e-mail addresses to tokens"
            )
        return Credentials(system, accounts, None)
    if config.auth_mode == "ServiceAccount":
        return Credentials(system, {}, read(config.token_file, "the token file").decode().strip())
    raise ConnectorConfigError(f"connector {config.name}: auth mode {config.auth_mode} is not served by this worker")


def make_connector(config: ConnectorConfig, files: Mapping[str, bytes]) -> Connector:
    """The connector of a configuration. Raises ConnectorConfigError."""
    if config.type == "jira":
        from pilothouse_dataplane.connectors.jira.connector import JiraConnector

        return JiraConnector(config.name, config.url, _credentials(config, "Jira", files), config.timeout_seconds)
    raise ConnectorConfigError(f"connector {config.name}: type {config.type} is not served by this worker")
