"""ID tokens (OpenID Connect Core 1.0): who signed in, signed RS256 with a key that lives as long as the process.

The key is made when the first one is needed, so that a server that issues none spends neither the time nor the memory.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

KEY_ID = "stand-in-1"


def _encoded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _number(value: int) -> str:
    return _encoded(value.to_bytes((value.bit_length() + 7) // 8, "big"))


class Signer:
    """One server's signing key."""

    def __init__(self) -> None:
        self._made: RSAPrivateKey | None = None

    def _key(self) -> RSAPrivateKey:
        if self._made is None:
            from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

            self._made = generate_private_key(public_exponent=65537, key_size=2048)
        return self._made

    def sign(self, claims: Mapping[str, Any]) -> str:
        """The claims as a JWT."""
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.hashes import SHA256

        head = json.dumps({"alg": "RS256", "kid": KEY_ID}).encode()
        content = f"{_encoded(head)}.{_encoded(json.dumps(claims).encode())}"
        return f"{content}.{_encoded(self._key().sign(content.encode(), PKCS1v15(), SHA256()))}"

    def jwks(self) -> dict[str, Any]:
        """The public key (RFC 7517)."""
        numbers = self._key().public_key().public_numbers()
        key = {
            "kty": "RSA",
            "alg": "RS256",
            "use": "sig",
            "kid": KEY_ID,
            "n": _number(numbers.n),
            "e": _number(numbers.e),
        }
        return {"keys": [key]}
