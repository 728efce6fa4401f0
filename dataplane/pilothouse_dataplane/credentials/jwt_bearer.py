"""Mode JWTBearer: the application signs who the user is (RFC 7523), and the system, which knows its key, gives a token.

Salesforce's flow: issuer is the consumer key, subject the user's name there, audience the login server, at most three
minutes of life, RS256 (https://help.salesforce.com/s/articleView?id=xcloud.remoteaccess_oauth_jwt_flow.htm). The answer
tells ``instance_url``, where the token is good, and no lifetime.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pilothouse_api.workerconfig import JWTBearerConfig
from pilothouse_dataplane.connectors.base import AccountNotLinked, CallContext, Credential, SecretText
from pilothouse_dataplane.credentials.advice import Advice
from pilothouse_dataplane.credentials.base import SecretStore
from pilothouse_dataplane.credentials.cache import Flights, UserCache
from pilothouse_dataplane.credentials.exchange import SKEW_SECONDS, KeptToken
from pilothouse_dataplane.credentials.secrets import secret_of
from pilothouse_dataplane.credentials.tokens import GrantRefused, TokenClient, administrator_must_act

ASSERTION_SECONDS = 180
UNTOLD_SECONDS = 900.0
"""How long a token is kept whose lifetime the server did not tell; one that ends sooner is renewed when refused."""
_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"


def signed(config: JWTBearerConfig, key_pem: SecretText, subject: str, now: float) -> SecretText:
    """The assertion, RS256. Raises ValueError where the key can't be used; the message holds nothing of it."""
    # joserfc is imported by those who sign
    from joserfc import jwt
    from joserfc.errors import JoseError
    from joserfc.jwk import RSAKey

    claims = {
        "iss": config.issuer,
        "sub": subject,
        "aud": config.audience,
        "iat": int(now),
        "exp": int(now) + ASSERTION_SECONDS,
    }
    try:
        key = RSAKey.import_key(key_pem.reveal())
        if not key.is_private:
            raise ValueError
        return SecretText(jwt.encode({"alg": "RS256"}, claims, key))
    except (ValueError, TypeError, JoseError):
        raise ValueError("it is not a private RSA key in PEM") from None


class JWTBearer:
    """Signs for the asking user, and for nobody else."""

    def __init__(
        self,
        connector: str,
        config: JWTBearerConfig,
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
        return await self._flights.join(user, lambda: self._ask(context.user_email))

    async def renew(self, context: CallContext, refused: Credential) -> Credential | None:
        user = context.user_email.casefold()
        kept = self._kept.get(user, self._connector)
        if kept is not None and kept.credential.token == refused.token:
            self._kept.drop(user, self._connector)
        fresh = await self.get(context)
        return None if fresh.token == refused.token else fresh

    async def _ask(self, email: str) -> Credential:
        where, now = self._config.private_key, self._clock()
        key = secret_of(self._secrets, where, self._advice)
        try:
            # a signature takes milliseconds of CPU: not on the loop that streams answers
            assertion = await asyncio.to_thread(signed, self._config, key, email, now)
        except ValueError as error:
            raise self._advice.no_secret(where.secret, where.key, f"can't be used: {error}") from None
        form = {"grant_type": _GRANT, "assertion": assertion.reveal()}
        try:
            given = await self._tokens.grant(None, form, (assertion,))
        except GrantRefused as refusal:
            if refusal.user_must_act:
                said = f" (“{refusal.words}”)" if refusal.words else ""
                system = self._advice.system
                raise AccountNotLinked(
                    f"{system} does not let this agent act as {email}{said}, so nothing was done there. Ask your "
                    f"{system} administrator whether you have an account there and may use this application.",
                    asked=False,
                ) from None
            raise administrator_must_act(self._advice.system, refusal) from None
        credential = Credential(given.access_token, email, given.instance_url)
        ends = now + UNTOLD_SECONDS if given.expires_at == float("inf") else given.expires_at
        self._kept.put(email.casefold(), self._connector, KeptToken(credential, ends))
        return credential
