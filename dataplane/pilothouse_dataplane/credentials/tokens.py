"""An authorization server's token and revocation endpoints (RFC 6749, RFC 7009), as a client that trusts no answer.

Each request is one that has no effect in the system that the token is for: whatever fails here, the call that needed
the token was not sent. So every failure from here is a ``CredentialUnavailable`` that may not have acted.

Errors never hold a token or a body: at most the server's ``error`` and ``error_description``, cut, with all that was
sent in confidence and all that looks like a token taken out (``plain_words``).
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_plus

import orjson

from pilothouse_api.egress import EgressRule
from pilothouse_dataplane.connectors.base import CredentialUnavailable, SecretText, SystemUnavailable
from pilothouse_dataplane.connectors.http import JsonClient, JsonResponse

TIMEOUT_SECONDS = 5.0
_MAX_WORDS = 200
_MAX_TOKEN = 16_384
_MAX_LIFETIME = 10 * 365 * 86400.0
_TOKEN = re.compile(r"[\x21-\x7e]+")
"""Visible ASCII, so that it can stand in a header. Wider than RFC 6750's b64token: Salesforce's tokens hold a "!"."""
_ERROR = re.compile(r"[a-zA-Z0-9_.-]{1,60}")
_SECRET_LIKE = re.compile(r"[A-Za-z0-9_\-.~+/=%!|:]{20,}")
_USER_MUST_ACT = frozenset({"invalid_grant", "interaction_required", "consent_required", "login_required"})
"""The grant itself is no longer good (RFC 6749, 5.2), or the user has to agree again (OpenID Connect Core, 3.1.2.6)."""


class GrantRefused(Exception):
    """The authorization server said no. The message is its own words, cleaned; "" where it said nothing."""

    def __init__(self, error: str, words: str, status: int = 400) -> None:
        super().__init__(words or error)
        self.error = error
        self.words = words
        self.status = status

    @property
    def user_must_act(self) -> bool:
        """The grant is lost; else the application's registration or the request is wrong, which an administrator
        must correct."""
        return self.error in _USER_MUST_ACT

    @property
    def ambiguous(self) -> bool:
        """It may be the one or the other: ServiceNow answers both with 401, ``server_error`` and “access_denied”."""
        return self.status in (401, 403) and not self.user_must_act and self.error != "invalid_client"


@dataclass(frozen=True, slots=True)
class TokenResponse:
    """What a token endpoint gave."""

    access_token: SecretText
    refresh_token: SecretText | None
    expires_at: float
    """Unix seconds; ``inf`` where the server did not say."""
    scopes: tuple[str, ...]
    instance_url: str
    email: str
    """Of the ID token, casefolded; "" where there is none."""


@dataclass(frozen=True, slots=True)
class Client:
    """The application, as the authorization server knows it."""

    id: str
    secret: SecretText | None = None


def usable_token(text: object) -> SecretText | None:
    """A token that can stand in a header, without white space around it; None for anything else."""
    if not isinstance(text, str):
        return None
    token = text.strip()
    return SecretText(token) if len(token) <= _MAX_TOKEN and _TOKEN.fullmatch(token) else None


def plain_words(text: object, secrets: Iterable[SecretText] = ()) -> str:
    """At most 200 characters of what a server said, without control characters, secrets and what looks like one."""
    if not isinstance(text, str):
        return ""
    words = text[:4000]
    for secret in secrets:
        if len(secret.reveal()) >= 4:
            words = words.replace(secret.reveal(), "…")
    words = _SECRET_LIKE.sub("…", words)
    words = " ".join("".join(c if c.isprintable() else " " for c in words).split())
    return words[:_MAX_WORDS].rstrip(". ")


class TokenClient:
    """Asks one authorization server. ``system`` is what people call the system that it belongs to."""

    def __init__(
        self,
        system: str,
        token_url: str,
        egress: EgressRule,
        clock: Callable[[], float],
        *,
        revocation_url: str = "",
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        """``clock`` gives Unix seconds."""
        self._http = JsonClient(f"{system}'s authorization server", token_url, timeout_seconds, egress)
        self._revocation_url = revocation_url
        self._clock = clock
        self._basic = False
        """The server wants the client's name and password in a header, as it has said (RFC 6749, 2.3.1)."""

    @property
    def can_revoke(self) -> bool:
        """It has a revocation endpoint."""
        return bool(self._revocation_url)

    async def aclose(self) -> None:
        await self._http.aclose()

    async def grant(
        self, client: Client | None, form: Mapping[str, str], confidential: Iterable[SecretText] = ()
    ) -> TokenResponse:
        """Ask for a token. ``confidential`` (with the client's secret) appears in no error. Raises GrantRefused,
        CredentialUnavailable."""
        secrets = [*confidential, *([client.secret] if client is not None and client.secret is not None else ())]
        response = await self._post(client, form, "")
        if not 200 <= response.status < 300:
            raise self._refusal(response, secrets) from None
        return self._read(response.body)

    async def revoke(self, client: Client | None, token: SecretText, hint: str) -> None:
        """RFC 7009: a token that the server does not know counts as revoked. ``hint``: ``refresh_token`` or
        ``access_token``. Raises GrantRefused, CredentialUnavailable."""
        response = await self._post(
            client, {"token": token.reveal(), "token_type_hint": hint}, self._revocation_url, reads_body=False
        )
        if not 200 <= response.status < 300:
            raise self._refusal(response, [token, *([client.secret] if client and client.secret else ())]) from None

    async def email_at(self, url: str, token: SecretText) -> str:
        """The e-mail of the token's user as a userinfo endpoint tells it (OpenID Connect Core, 5.3), casefolded; ""
        where it tells none. Raises CredentialUnavailable."""
        try:
            response = await self._http.request("GET", "", token=token, base_url=url)
        except SystemUnavailable as error:
            raise CredentialUnavailable(str(error), may_have_acted=False, lasting=error.lasting) from None
        if response.status == 429 or response.status >= 500:
            raise self._refusal(response, (token,))
        return _email_of(response.body.get("email") if isinstance(response.body, dict) else None)

    async def _post(
        self, client: Client | None, form: Mapping[str, str], url: str, *, reads_body: bool = True
    ) -> JsonResponse:
        response = await self._send(client, form, url, basic=self._basic)
        if response.status == 401 and not self._basic and client is not None and client.secret is not None:
            # no grant is used up by a client that was not recognised: ask again in the other way
            again = await self._send(client, form, url, basic=True)
            self._basic = _code(again.body) != "invalid_client" and again.status != 401
            return again if self._basic else response
        return response

    async def _send(self, client: Client | None, form: Mapping[str, str], url: str, *, basic: bool) -> JsonResponse:
        sent = dict(form)
        header: SecretText | None = None
        if client is not None and basic and client.secret is not None:
            pair = f"{quote_plus(client.id)}:{quote_plus(client.secret.reveal())}"
            header = SecretText(base64.b64encode(pair.encode()).decode())
        elif client is not None:
            sent["client_id"] = client.id
            if client.secret is not None:
                sent["client_secret"] = client.secret.reveal()
        try:
            return await self._http.request("POST", "", token=header, form=sent, base_url=url, scheme="Basic")
        except SystemUnavailable as error:
            raise CredentialUnavailable(
                str(error), may_have_acted=False, retry_after=error.retry_after, lasting=error.lasting
            ) from None

    def _refusal(self, response: JsonResponse, secrets: Iterable[SecretText]) -> Exception:
        code = _code(response.body)
        if response.status == 429 or response.status >= 500:
            return CredentialUnavailable(
                f"{self._http.system} failed ({response.status}), so nothing was sent.",
                may_have_acted=False,
                retry_after=response.retry_after,
            )
        said = response.body.get("error_description") if isinstance(response.body, dict) else ""
        return GrantRefused(code or f"http_{response.status}", plain_words(said, secrets), response.status)

    def _read(self, body: Any) -> TokenResponse:
        token = usable_token(body.get("access_token")) if isinstance(body, dict) else None
        if token is None or str(body.get("token_type") or "Bearer").casefold() != "bearer":
            raise CredentialUnavailable(
                f"{self._http.system} gave no token that can be used, so nothing was sent.", may_have_acted=False
            )
        scope = body.get("scope")
        instance = body.get("instance_url")
        return TokenResponse(
            access_token=token,
            refresh_token=usable_token(body.get("refresh_token")),
            expires_at=self._clock() + _lifetime(body.get("expires_in")),
            scopes=tuple(scope.split()[:100]) if isinstance(scope, str) else (),
            instance_url=instance if isinstance(instance, str) and len(instance) <= 500 else "",
            email=_email(body.get("id_token")),
        )


def _code(body: Any) -> str:
    code = body.get("error") if isinstance(body, dict) else None
    return code if isinstance(code, str) and _ERROR.fullmatch(code) else ""


def _lifetime(value: object) -> float:
    """Seconds; some servers send the number as text. What is not a number is not known."""
    try:
        seconds = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else math.inf
    except ValueError:
        return math.inf
    return seconds if 0 <= seconds <= _MAX_LIFETIME else math.inf


def _email(id_token: object) -> str:
    """Of an ID token that came from the token endpoint itself, where the connection vouches for it instead of its
    signature (OpenID Connect Core, 3.1.3.7, rule 6)."""
    parts = id_token.split(".") if isinstance(id_token, str) and len(id_token) <= _MAX_TOKEN else []
    if len(parts) != 3:
        return ""
    try:
        claims = orjson.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except ValueError:
        return ""
    return _email_of(claims.get("email") if isinstance(claims, dict) else None)


def _email_of(email: object) -> str:
    return email.strip().casefold() if isinstance(email, str) and "@" in email and len(email) <= 320 else ""


def administrator_must_act(system: str, refusal: GrantRefused) -> CredentialUnavailable:
    """The error of a call that got no token because of the application's own registration."""
    said = f" ({refusal.error}: “{refusal.words}”)" if refusal.words else f" ({refusal.error})"
    return CredentialUnavailable(
        f"{system}'s authorization server does not accept this agent's own registration{said}, so nothing was sent. "
        "Trying again won't help; an administrator must correct the connector's client id, secret or scopes.",
        may_have_acted=False,
        lasting=True,
    )
