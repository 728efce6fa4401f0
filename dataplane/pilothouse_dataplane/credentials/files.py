"""The tenant's secrets as the files of the worker's mounted configuration (backend Kubernetes).

A rotated Secret reaches the mount with the next configuration, which the worker loads within a second of its arrival;
``replace`` then serves the runs under way, too: an old secret is of no use to anybody.
"""

from __future__ import annotations

from collections.abc import Mapping

from pilothouse_api import names
from pilothouse_dataplane.connectors.base import SecretText


class FileSecrets:
    """The newest loaded files."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._texts: dict[str, SecretText] = {}
        self.replace(files)

    def replace(self, files: Mapping[str, bytes]) -> None:
        """Serve these from now on. The same content stays the same object, so that what was made of it is kept."""
        fresh: dict[str, SecretText] = {}
        for name, content in files.items():
            if name.startswith("secret."):
                text = SecretText(content.decode(errors="replace").strip())
                old = self._texts.get(name)
                fresh[name] = old if old == text and old is not None else text
        self._texts = fresh

    def get(self, secret: str, key: str) -> SecretText:
        return self._texts[names.secret_file(secret, key)]

    def all_of(self, secret: str) -> Mapping[str, SecretText]:
        """By key."""
        start = names.secret_file(secret, "")
        return {name[len(start) :]: text for name, text in self._texts.items() if name.startswith(start)}
