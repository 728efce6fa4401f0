"""Seals linked accounts with AES-256-GCM under the tenant's keys (NIST SP 800-38D: 96-bit random nonces).

What an entry is for (tenant, user, connector, version) is the additional authenticated data: an entry that somebody
copies to another user, or puts back after it was replaced, can't be opened. At most 2**32 entries may be sealed under
one key with random nonces; ten thousand users whose tokens are renewed hourly take 49 years to get there.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping

import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pilothouse_dataplane.connectors.base import SecretText

_log = structlog.get_logger(__name__)
_NONCE_BYTES = 12
_KEY_BYTES = 32
_NAME = re.compile(r"key\.([1-9][0-9]{0,8})")


class SealError(Exception):
    """It can't be sealed or opened; the message says why and holds neither key nor content."""


class KeyMissing(SealError):
    """The key that it is sealed under is not there (any more)."""


def keys_from(texts: Mapping[str, SecretText]) -> tuple[dict[int, SecretText], list[str]]:
    """The keys of a Secret by number, and the names of its entries that are none (``key.N``: base64 of 32 bytes)."""
    keys: dict[int, SecretText] = {}
    bad: list[str] = []
    for name, text in texts.items():
        match = _NAME.fullmatch(name)
        try:
            raw = base64.b64decode(text.reveal(), validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        if match is None or len(raw) != _KEY_BYTES:
            bad.append(name)
        else:
            keys[int(match[1])] = text
    return keys, bad


class KeyRing:
    """The tenant's keys: the highest number seals, all open."""

    def __init__(self, keys: Mapping[int, SecretText]) -> None:
        self._keys = dict(keys)

    @property
    def current(self) -> int:
        """The number of the key that seals. Raises KeyMissing where there is none."""
        if not self._keys:
            raise KeyMissing("the tenant has no key that seals linked accounts")
        return max(self._keys)

    def seal(self, content: bytes, context: tuple[str, ...], random: Callable[[int], bytes]) -> tuple[int, bytes]:
        """The key's number, and the nonce followed by what is sealed. ``random`` must be the system's own."""
        key_id = self.current
        nonce = random(_NONCE_BYTES)
        return key_id, nonce + self._cipher(key_id).encrypt(nonce, content, _aad(context))

    def open(self, key_id: int, sealed: bytes, context: tuple[str, ...]) -> bytes:
        """Raises KeyMissing, SealError."""
        cipher = self._cipher(key_id)
        try:
            return cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _aad(context))
        except (InvalidTag, ValueError):
            raise SealError("it was not sealed for this tenant, user and connector, or was altered") from None

    def _cipher(self, key_id: int) -> AESGCM:
        text = self._keys.get(key_id)
        if text is None:
            raise KeyMissing(f"key {key_id}, which it is sealed under, is not among the tenant's keys any more")
        return AESGCM(base64.b64decode(text.reveal(), validate=True))


def _aad(context: tuple[str, ...]) -> bytes:
    """Each part with its length: no two contexts have the same bytes."""
    parts = [part.encode() for part in context]
    return b"pilothouse-linked-account-1" + b"".join(len(part).to_bytes(4, "big") + part for part in parts)


class KeyRings:
    """The ring of the newest keys; made again when they have changed."""

    def __init__(self, texts: Callable[[], Mapping[str, SecretText]]) -> None:
        """``texts`` gives the Secret's entries as last loaded."""
        self._texts = texts
        self._made_of: Mapping[str, SecretText] | None = None
        self._ring = KeyRing({})

    def newest(self) -> KeyRing:
        texts = self._texts()
        if texts != self._made_of:
            keys, bad = keys_from(texts)
            if bad:
                _log.warning("these keys of linked accounts can't be used: 32 random bytes in base64 each", keys=bad)
            self._ring, self._made_of = KeyRing(keys), texts
        return self._ring
