"""What users have granted, and the codes and tokens that stand for it.

    consent ──▶ code ──redeem──▶ grant ──▶ access token (+ refresh token)
                  └─ a second redeem: the grant ends (RFC 6749, 4.1.2)      └─ a refresh gives the next one

A grant ends as a whole: with it all its tokens. Where refresh tokens rotate, an old one serves for the grace time;
used later, it ends the grant, for one of its two users must have stolen it (RFC 9700, 4.14.2). Times are epoch seconds
of the clock. Only SHA-256 digests of tokens are kept, in ``<state>/oauth.json``, which is replaced as a whole at each
change. Codes live in memory: a restart ends a sign-in that is under way.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

CODE_MEMORY_SECONDS = 600
"""How long a used code is remembered, to notice that it comes again."""


class Denied(Exception):
    """A refusal; ``reason`` is a key of ``profiles.COMMON_WORDS``."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Caller:
    """Whose token a request carries. ``scopes`` None: a static token of the seed, for all that its user may."""

    email: str
    scopes: frozenset[str] | None = None
    how: str = "static"
    """``static``, or how the token came to be: ``authorization_code``, ``token_exchange``, ``jwt_bearer``."""
    grant: str = ""
    """Id of the grant; "" for a static token."""

    def has(self, *scopes: str) -> bool:
        """Whether the token carries at least one of ``scopes``."""
        return self.scopes is None or any(scope in self.scopes for scope in scopes)


@dataclass(frozen=True)
class Grant:
    """What one user lets one app do."""

    id: str
    client_id: str
    email: str
    scopes: tuple[str, ...]
    how: str
    created: float
    nonce: str = ""
    """Of the authorization request, for the ID token."""


@dataclass
class Token:
    """A token in force. ``rotated``: when a refresh token was replaced; None: it is the current one."""

    grant: str
    kind: str
    expires: float
    rotated: float | None = None


@dataclass(frozen=True)
class Code:
    """An authorization code, bound to all that the request said. ``used_by``: the grant that it has become."""

    client_id: str
    redirect_uri: str
    challenge: str
    email: str
    scopes: tuple[str, ...]
    expires: float
    nonce: str = ""
    used_by: str = ""


@dataclass(frozen=True)
class Issued:
    """Tokens as they are handed out; ``refresh`` None: there is none."""

    grant: Grant
    access: str
    refresh: str | None
    expires_in: int


@dataclass(frozen=True)
class Settings:
    """What ``POST /__sim/oauth`` changes; seconds."""

    access_token_seconds: float = 3600
    refresh_token_seconds: float = 90 * 86400
    refresh_grace_seconds: float = 30
    code_seconds: float = 60
    token_endpoint_status: int = 0
    """The token and revocation endpoints answer with this status (such as 503); 0: they work."""


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def challenge_of(verifier: str) -> str:
    """PKCE's S256 (RFC 7636, 4.2)."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


class Grants:
    """Grants, codes and tokens of one authorization server. ``secret`` gives an unguessable string at each call."""

    def __init__(
        self,
        settings: Settings,
        *,
        rotates: bool,
        prefix: str,
        state_dir: Path | None,
        clock: Callable[[], float],
        secret: Callable[[], str],
    ) -> None:
        self.settings = settings
        self._rotates = rotates
        self._prefix = prefix
        self._clock = clock
        self._secret = secret
        self._codes: dict[str, Code] = {}
        self._grants: dict[str, Grant] = {}
        self._tokens: dict[str, Token] = {}
        self._file = state_dir / "oauth.json" if state_dir else None
        if self._file and self._file.exists():
            kept = json.loads(self._file.read_text(encoding="utf-8"))
            self._grants = {g["id"]: Grant(**{**g, "scopes": tuple(g["scopes"])}) for g in kept["grants"]}
            self._tokens = {digest: Token(**token) for digest, token in kept["tokens"].items()}

    def new_code(
        self, client_id: str, redirect_uri: str, challenge: str, email: str, scopes: Iterable[str], nonce: str = ""
    ) -> str:
        """A code for what the user has just consented to."""
        now = self._clock()
        self._codes = {d: c for d, c in self._codes.items() if c.expires + CODE_MEMORY_SECONDS > now}
        code = self._secret()
        expires = now + self.settings.code_seconds
        self._codes[_digest(code)] = Code(client_id, redirect_uri, challenge, email, tuple(scopes), expires, nonce)
        return code

    def redeem(self, code: str, client_id: str, redirect_uri: str, verifier: str) -> Grant:
        """The grant that the code stands for. Raises Denied; any wrong attempt spends the code."""
        found = self._codes.get(_digest(code))
        if found is None or found.client_id != client_id:
            raise Denied("code")
        if found.used_by:
            self.end(found.used_by)
            raise Denied("code")
        grant = Grant(
            self._secret()[:12], client_id, found.email, found.scopes, "authorization_code", self._clock(), found.nonce
        )
        self._codes[_digest(code)] = replace(found, used_by=grant.id)
        if self._clock() >= found.expires:
            raise Denied("code")
        if found.redirect_uri != redirect_uri:
            raise Denied("redirect_uri")
        if challenge_of(verifier) != found.challenge:
            raise Denied("verifier")
        return grant

    def grant_directly(self, client_id: str, email: str, scopes: Iterable[str], how: str) -> Grant:
        """A grant without a code: token exchange and JWT bearer."""
        return Grant(self._secret()[:12], client_id, email, tuple(scopes), how, self._clock())

    def issue(self, grant: Grant, *, refreshable: bool) -> Issued:
        """Tokens for a grant."""
        refresh = self._new(grant, "refresh", self.settings.refresh_token_seconds) if refreshable else None
        return self._issued(grant, refresh)

    def refresh(self, token: str, client_id: str, scopes: frozenset[str] | None = None) -> Issued:
        """The next tokens; ``scopes`` narrows the access token. Raises Denied."""
        now = self._clock()
        found = self._tokens.get(_digest(token))
        grant = self._grants.get(found.grant) if found and found.kind == "refresh" else None
        if found is None or grant is None or grant.client_id != client_id or now >= found.expires:
            raise Denied("refresh")
        if found.rotated is not None and now >= found.rotated + self.settings.refresh_grace_seconds:
            self.end(grant.id)
            raise Denied("refresh")
        if scopes is not None and not scopes <= set(grant.scopes):
            raise Denied("scope")
        following: str | None = None
        if self._rotates:
            found.rotated = now if found.rotated is None else found.rotated
            following = self._new(grant, "refresh", self.settings.refresh_token_seconds)
        narrowed = grant if scopes is None else replace(grant, scopes=tuple(sorted(scopes)))
        return self._issued(narrowed, following)

    def _issued(self, grant: Grant, refresh: str | None) -> Issued:
        seconds = self.settings.access_token_seconds
        kept = self._grants.setdefault(grant.id, grant)
        access = self._new(kept, "access" if kept == grant else "access:" + " ".join(grant.scopes), seconds)
        self._save()
        return Issued(grant, access, refresh, max(1, round(seconds)))

    def _new(self, grant: Grant, kind: str, seconds: float) -> str:
        token = self._prefix + self._secret()
        self._tokens[_digest(token)] = Token(grant.id, kind, self._clock() + seconds)
        return token

    def caller(self, token: str) -> Caller | None:
        """Whose access token this is; None for any other, an expired or a revoked one."""
        found = self._tokens.get(_digest(token))
        if found is None or not found.kind.startswith("access") or self._clock() >= found.expires:
            return None
        grant = self._grants[found.grant]
        narrowed = found.kind.partition(":")[2]
        scopes = frozenset(narrowed.split()) if narrowed else frozenset(grant.scopes)
        return Caller(grant.email, scopes, grant.how, grant.id)

    def revoke(self, token: str, client_id: str) -> None:
        """RFC 7009: an access token goes alone, a refresh token with all of its grant; an unknown one is no error."""
        found = self._tokens.get(_digest(token))
        if found is None or self._grants[found.grant].client_id != client_id:
            return
        if found.kind == "refresh":
            self.end(found.grant)
        else:
            del self._tokens[_digest(token)]
            self._save()

    def end(self, grant_id: str) -> None:
        """Ends a grant and all its tokens."""
        self._grants.pop(grant_id, None)
        self._tokens = {d: t for d, t in self._tokens.items() if t.grant != grant_id}
        self._save()

    def end_all(self, email: str | None = None) -> None:
        """Ends every grant, or those of one user."""
        for grant in list(self._grants.values()):
            if email is None or grant.email == email:
                self.end(grant.id)

    def expire_all(self) -> None:
        """Every access token expires now; refresh tokens stay."""
        self._tokens = {d: t for d, t in self._tokens.items() if t.kind == "refresh"}
        self._save()

    def listed(self) -> list[dict[str, object]]:
        """The grants in force, for ``GET /__sim/oauth``: no token, and none can be made of it."""
        now = self._clock()
        alive = [t for t in self._tokens.values() if t.expires > now]
        return [
            {
                **asdict(grant),
                "access_tokens": sum(t.grant == grant.id and t.kind != "refresh" for t in alive),
                "refreshable": any(t.grant == grant.id and t.kind == "refresh" for t in alive),
            }
            for grant in self._grants.values()
        ]

    def approved(self, client_id: str, email: str) -> bool:
        """Whether the user has let the app act, by the consent page."""
        return any(
            g.client_id == client_id and g.email == email and g.how == "authorization_code"
            for g in self._grants.values()
        )

    def _save(self) -> None:
        now = self._clock()
        self._tokens = {d: t for d, t in self._tokens.items() if t.expires > now}
        held = {token.grant for token in self._tokens.values()}
        # A grant without a token stays for a refresh token only, or while it is a user's approval of the app.
        self._grants = {g.id: g for g in self._grants.values() if g.id in held or g.how == "authorization_code"}
        if self._file is None:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        kept = {
            "grants": [asdict(grant) for grant in self._grants.values()],
            "tokens": {digest: asdict(token) for digest, token in self._tokens.items()},
        }
        fresh = self._file.with_suffix(".new")
        fresh.write_text(json.dumps(kept), encoding="utf-8")
        fresh.replace(self._file)
