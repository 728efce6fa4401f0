"""Who is asking: the interface, and the verifier of development tokens (ARCHITECTURE.md, "Development tokens")."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from pilothouse_api import names
from pilothouse_dataplane.gateway.problems import Problem
from pilothouse_proto.agent.v1 import agent_pb2 as pb

_MAX_TOKEN = 8_192
_LEEWAY = 10
"""Seconds by which clocks may differ."""
_MIN_KEY = 32
"""Bytes: RFC 7518 §3.2 asks for a key no shorter than the hash."""
_MAX_EMAIL = 320
_MAX_GROUPS = 200
_MAX_GROUP = 256
_SIGN_IN_AGAIN = "Get a new token (pilothouse token) and connect again."


@dataclass(frozen=True, slots=True)
class Identity:
    """A verified user of one tenant; ``expires`` is Unix time in seconds, after which nothing new may be asked.

    ``manager_email`` is empty and ``groups`` are none where the identity provider does not tell them: then nobody can
    decide as this user's manager, and this user decides for no group.
    """

    tenant: str
    subject: str
    email: str
    display_name: str
    expires: float
    manager_email: str = ""
    groups: tuple[str, ...] = ()

    def user(self) -> pb.User:
        """As workers are told."""
        return pb.User(
            subject=self.subject,
            email=self.email,
            display_name=self.display_name,
            manager_email=self.manager_email,
            groups=self.groups,
        )


class IdentityVerifier(Protocol):
    """Turns a token into an identity."""

    def verify(self, token: str) -> Identity:
        """Raises :class:`Problem` (UNAUTHENTICATED: the user must act; INTERNAL: the platform operator must)."""


def _refused(why: str) -> Problem:
    return Problem(pb.ERROR_CODE_UNAUTHENTICATED, f"{why} You are not signed in.", _SIGN_IN_AGAIN)


class DevTokenVerifier:
    """Verifies HS256 tokens with the key in a file. The algorithm is pinned, so no header can choose another one;
    the comparison is HMAC's constant-time one (joserfc uses ``hmac.compare_digest``)."""

    def __init__(self, key_file: Path, clock: Callable[[], float] = time.time) -> None:
        self._file = key_file
        self._clock = clock
        self._key: OctKey | None = None
        self._stamp: tuple[int, int, int] | None = None

    def _load(self) -> OctKey:
        try:
            stat = self._file.stat()  # follows the mount's symlinks, so an atomic update has a new inode
            stamp = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            if self._key is None or stamp != self._stamp:
                secret = self._file.read_bytes()
                if len(secret) < _MIN_KEY:
                    raise ValueError(f"the key has {len(secret)} bytes and needs {_MIN_KEY}")
                self._key, self._stamp = OctKey.import_key(secret), stamp
            return self._key
        except (OSError, ValueError) as error:
            raise Problem(
                pb.ERROR_CODE_INTERNAL,
                "The gateway cannot read the key that tokens are checked with. You are not signed in.",
                f"Tell your platform operator to look at Secret {names.DEV_TOKEN_SECRET}: {type(error).__name__}.",
                retryable=True,
            ) from error

    def verify(self, token: str) -> Identity:
        """See :class:`IdentityVerifier`."""
        if not token or len(token) > _MAX_TOKEN:
            raise _refused("The token is empty or too long.")
        try:
            decoded = jwt.decode(token, self._load(), algorithms=["HS256"])
        except (JoseError, ValueError, TypeError, UnicodeError) as error:
            raise _refused("The token is not one that this system signed.") from error
        return self._identity(decoded.claims)

    def _identity(self, claims: dict[str, Any]) -> Identity:
        audience = claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        if names.DEV_TOKEN_AUDIENCE not in audiences:
            raise _refused("The token was made for another system.")
        expires, issued, now = _number(claims.get("exp")), _number(claims.get("iat")), self._clock()
        if expires is None or issued is None:
            raise _refused("The token does not say when it was made and when it ends.")
        if expires <= now - _LEEWAY:
            raise _refused("The token has expired.")
        if issued > now + _LEEWAY:
            raise _refused("The token's time lies in the future.")
        texts = {name: claims.get(name) for name in ("sub", "email", "tenant")}
        absent = [name for name, value in texts.items() if not isinstance(value, str) or not value]
        if absent:
            raise _refused(f"The token lacks {', '.join(absent)}.")
        display = claims.get("name")
        return Identity(
            tenant=str(texts["tenant"]),
            subject=str(texts["sub"]),
            email=str(texts["email"]),
            display_name=display if isinstance(display, str) else "",
            expires=expires,
            manager_email=_manager(claims.get("manager")),
            groups=_groups(claims.get("groups")),
        )


def _manager(claim: object) -> str:
    # Who decides must not be guessed: a claim of another shape is refused, not left out.
    if claim is None:
        return ""
    if not isinstance(claim, str) or len(claim) > _MAX_EMAIL:
        raise _refused("The token's manager is not an e-mail address.")
    return claim


def _groups(claim: object) -> tuple[str, ...]:
    if claim is None:
        return ()
    if not isinstance(claim, list) or len(claim) > _MAX_GROUPS:
        raise _refused(f"The token's groups are not a list of at most {_MAX_GROUPS} names.")
    if any(not isinstance(group, str) or not 0 < len(group) <= _MAX_GROUP for group in claim):
        raise _refused(f"A group in the token is not a name of 1 to {_MAX_GROUP} characters.")
    return tuple(claim)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
