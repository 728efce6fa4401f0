"""JWTs that clients bring: read, and checked as far as a stand-in must.

``RS256`` against a PEM (public key or certificate), ``HS256`` against a shared secret. Pure.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

from pilothouse_sim.oauth.grants import Denied

LEEWAY_SECONDS = 30
MAX_LENGTH = 16_384


def _part(text: str) -> bytes:
    if not text or set(text) - set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"):
        raise Denied("assertion")
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error:
        raise Denied("assertion") from None


def _object(text: str) -> Mapping[str, Any]:
    try:
        value = json.loads(_part(text))
    except ValueError:
        raise Denied("assertion") from None
    if not isinstance(value, dict):
        raise Denied("assertion")
    return value


def read(token: str, *, key: str | None, now: float) -> Mapping[str, Any]:
    """The claims. ``key`` None: the signature is not looked at; else a PEM or a shared secret. Raises Denied.

    ``exp`` must be there and lie in the future, ``nbf`` in the past, with a leeway of 30 s.
    """
    parts = token.split(".")
    if len(token) > MAX_LENGTH or len(parts) != 3:
        raise Denied("assertion")
    header, claims, signature = _object(parts[0]), _object(parts[1]), _part(parts[2])
    if header.get("alg") in (None, "none"):
        raise Denied("assertion_signature")
    if key is not None and not _signed(key, str(header["alg"]), f"{parts[0]}.{parts[1]}".encode(), signature):
        raise Denied("assertion_signature")
    expires, not_before = claims.get("exp"), claims.get("nbf", 0)
    if not isinstance(expires, int | float) or not isinstance(not_before, int | float):
        raise Denied("assertion")
    if now >= expires + LEEWAY_SECONDS or now < not_before - LEEWAY_SECONDS:
        raise Denied("assertion_expired")
    return claims


def _signed(key: str, algorithm: str, content: bytes, signature: bytes) -> bool:
    if not key.lstrip().startswith("-----BEGIN"):
        # The key decides the algorithm, never the token's header: else a public key would serve as an HMAC secret.
        return algorithm == "HS256" and hmac.compare_digest(
            hmac.new(key.encode(), content, hashlib.sha256).digest(), signature
        )
    if algorithm != "RS256":
        return False
    # Imported late: most stand-ins never see such an assertion.
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import padding, rsa
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from cryptography.x509 import load_pem_x509_certificate

    pem = key.encode()
    public = load_pem_x509_certificate(pem).public_key() if b"CERTIFICATE" in pem else load_pem_public_key(pem)
    if not isinstance(public, rsa.RSAPublicKey):
        return False
    try:
        public.verify(signature, content, padding.PKCS1v15(), SHA256())
    except InvalidSignature:
        return False
    return True


def email_of(claims: Mapping[str, Any]) -> str:
    """The e-mail address that a user's token names; "" where it names none."""
    for name in ("email", "preferred_username", "upn", "sub"):
        value = claims.get(name)
        if isinstance(value, str) and "@" in value:
            return value.lower()
    return ""
