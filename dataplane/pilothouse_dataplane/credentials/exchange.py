"""Mode TokenExchange: what the user signed in with becomes a token for the system, as the same user.

RFC 8693, or Entra's on-behalf-of (which is RFC 7523's grant with two parameters of its own:
https://learn.microsoft.com/entra/identity-platform/v2-oauth2-on-behalf-of-flow). The exchanged token is kept for its
lifetime, so that a run that goes on without the user still has it for that long, and not longer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pilothouse_api.workerconfig import TokenExchangeConfig
from pilothouse_dataplane.connectors.base import CallContext, Credential, SecretText
from pilothouse_dataplane.credentials.advice import Advice
from pilothouse_dataplane.credentials.base import SecretStore
from pilothouse_dataplane.credentials.cache import Flights, UserCache
from pilothouse_dataplane.credentials.secrets import client_of
from pilothouse_dataplane.credentials.tokens import GrantRefused, TokenClient, administrator_must_act

SKEW_SECONDS = 30.0
"""A token that ends sooner is not begun with."""
UNTOLD_SECONDS = 300.0
"""How long a token is kept whose lifetime the server did not tell."""
_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
_ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a type's name
_JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"


@dataclass(frozen=True, slots=True)
class KeptToken:
    """A credential until its token ends."""

    credential: Credential
    expires_at: float
    """Unix seconds."""


class TokenExchange:
    """Exchanges the asking user's sign-in token."""

    def __init__(
        self,
        connector: str,
        config: TokenExchangeConfig,
        secrets: SecretStore,
        tokens: TokenClient,
        kept: UserCache[KeptToken],
        advice: Advice,
        clock: Callable[[], float],
    ) -> None:
        """``clock`` gives Unix seconds."""
        self._connector = connector
        self._config = config
        self._secrets = secrets
        self._tokens = tokens
        self._kept = kept
        self._advice = advice
        self._clock = clock
        self._flights: Flights[Credential] = Flights()

    async def get(self, context: CallContext) -> Credential:
        user = context.user_email.casefold()
        kept = self._kept.get(user, self._connector)
        if kept is not None and kept.expires_at - SKEW_SECONDS > self._clock():
            return kept.credential
        token = context.user_token
        if token is None:
            raise self._advice.sign_in_again()
        # by the token, too: an earlier sign-in's failure is not this one's
        return await self._flights.join((user, token), lambda: self._exchange(context.user_email, token))

    async def renew(self, context: CallContext, refused: Credential) -> Credential | None:
        user = context.user_email.casefold()
        kept = self._kept.get(user, self._connector)
        if kept is not None and kept.credential.token == refused.token:
            self._kept.drop(user, self._connector)
        if context.user_token is None:
            raise self._advice.sign_in_again()
        fresh = await self.get(context)
        return None if fresh.token == refused.token else fresh

    def _form(self, token: SecretText) -> dict[str, str]:
        config = self._config
        if config.grant == "EntraOnBehalfOf":
            form = {
                "grant_type": _JWT_BEARER,
                "assertion": token.reveal(),
                "requested_token_use": "on_behalf_of",
                "scope": " ".join(config.scopes) or f"{config.audience.rstrip('/')}/.default",
            }
        else:
            form = {
                "grant_type": _EXCHANGE,
                "subject_token": token.reveal(),
                "subject_token_type": _ACCESS_TOKEN,
                "requested_token_type": _ACCESS_TOKEN,
                "audience": config.audience,
            }
            if config.scopes:
                form["scope"] = " ".join(config.scopes)
        return form

    async def _exchange(self, email: str, token: SecretText) -> Credential:
        client = client_of(self._secrets, self._config.client_id, self._config.client_secret, self._advice)
        try:
            given = await self._tokens.grant(client, self._form(token), (token,))
        except GrantRefused as refusal:
            # RFC 8693, 2.2.2: a subject token that is not valid is an invalid_request
            if refusal.user_must_act or refusal.error == "invalid_request":
                raise self._advice.sign_in_again(refusal.words) from None
            raise administrator_must_act(self._advice.system, refusal) from None
        credential = Credential(given.access_token, email, given.instance_url)
        ends = min(given.expires_at, self._clock() + 86400)
        if given.expires_at == float("inf"):
            ends = self._clock() + UNTOLD_SECONDS
        self._kept.put(email.casefold(), self._connector, KeptToken(credential, ends))
        return credential
