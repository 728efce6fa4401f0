"""The demo's tenant: its objects with this machine's ports, and what its connectors need in Vault. Reads hack/demo."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import yaml

from pilothouse_local.api import Object
from pilothouse_local.deploy import CHECKOUT
from pilothouse_local.errors import BadSettings

FOLDER = CHECKOUT / "hack" / "demo"
_BROWSERS_ADDRESS = re.compile(r"(\.pilothouse-sim\.localhost:)(\d+)")


def objects(node_ports: Mapping[str, int], folder: Path = FOLDER) -> list[Object]:
    """Every object, the namespace first.

    ``node_ports``: a NodePort as manifests name it → the one of this instance, where a browser finds a consent page.
    """
    found: list[Object] = []
    for file in sorted(folder.glob("*.yaml")):
        text = _BROWSERS_ADDRESS.sub(
            lambda match: match[1] + str(node_ports.get(match[2], match[2])), file.read_text(encoding="utf-8")
        )
        found += [document for document in yaml.safe_load_all(text) if document]
    return found


def vault_secrets(folder: Path = FOLDER / "vault") -> dict[str, dict[str, str]]:
    """Secret → key → value; ``@NAME`` in the file stands for the content of the file of that name beside it.

    Raises ``BadSettings``.
    """
    file = folder / "secrets.yaml"
    raw = yaml.safe_load(file.read_text(encoding="utf-8"))
    if not isinstance(raw, dict) or not all(isinstance(keys, dict) for keys in raw.values()):
        raise BadSettings(f"{file} does not hold secrets with keys", "no secret was written", "restore the file")
    return {
        str(secret): {str(key): _value(folder, str(value)) for key, value in keys.items()}
        for secret, keys in raw.items()
    }


def _value(folder: Path, value: str) -> str:
    if not value.startswith("@"):
        return value
    named = folder / value[1:]
    if named.parent != folder or not named.is_file():
        raise BadSettings(f"there is no file {value[1:]} in {folder}", "no secret was written", "restore the file")
    return named.read_text(encoding="utf-8")
