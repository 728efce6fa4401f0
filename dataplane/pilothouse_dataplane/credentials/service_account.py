"""Mode ServiceAccount: one token for everybody, always named, read-only unless the Connector allows writes."""

from __future__ import annotations

from pilothouse_api.workerconfig import ServiceAccountConfig
from pilothouse_dataplane.connectors.base import CallContext, Credential
from pilothouse_dataplane.credentials.advice import Advice
from pilothouse_dataplane.credentials.base import SecretStore
from pilothouse_dataplane.credentials.secrets import secret_of
from pilothouse_dataplane.credentials.tokens import usable_token


class ServiceAccount:
    """As nobody but itself: who asked is in the run's record, and so is this account's name."""

    def __init__(self, connector: str, config: ServiceAccountConfig, secrets: SecretStore, advice: Advice) -> None:
        self._config = config
        self._secrets = secrets
        self._advice = advice
        self.account = f"service account {config.name or connector}"

    async def get(self, context: CallContext) -> Credential:
        where = self._config.token
        token = usable_token(secret_of(self._secrets, where, self._advice).reveal())
        if token is None:
            raise self._advice.no_secret(where.secret, where.key, "does not hold a token") from None
        return Credential(token, self.account)

    async def renew(self, context: CallContext, refused: Credential) -> Credential | None:
        fresh = await self.get(context)  # it may have been rotated meanwhile
        return None if fresh.token == refused.token else fresh
