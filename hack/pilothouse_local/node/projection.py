"""What stands in a Pod's volumes, computed from its spec and the objects it refers to (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .environment import Lookup, field_value, keys_of, resource_value
from .model import ContainerRefused, Obj

DEFAULT_MODE = 0o644
DEFAULT_TOKEN_SECONDS = 3600


@dataclass(frozen=True)
class File:
    """A file of a volume: its bytes and permission bits."""

    content: bytes
    mode: int = DEFAULT_MODE


@dataclass(frozen=True)
class TokenWant:
    """A ServiceAccount token that a volume needs: audience ("" means the API server's) and lifetime in seconds."""

    audience: str
    seconds: int


Files = dict[str, File]


def is_empty_dir(volume: Obj) -> bool:
    """True for a volume that is a folder of the Pod's own."""
    return "emptyDir" in volume


def wanted_tokens(volume: Obj) -> set[TokenWant]:
    """The tokens that `render` will ask for."""
    sources = (volume.get("projected") or {}).get("sources") or []
    return {_want(source["serviceAccountToken"]) for source in sources if source.get("serviceAccountToken")}


def render(pod: Obj, volume: Obj, lookup: Lookup, tokens: Mapping[TokenWant, str], ip: str) -> Files:
    """The volume's files by relative path.

    Raises ContainerRefused for a missing object or key that isn't optional, and for kinds of volumes that the node does
    not offer."""
    name = volume["name"]
    if volume.get("configMap") is not None:
        return _from_object("ConfigMap", volume["configMap"], volume["configMap"].get("defaultMode"), lookup)
    if volume.get("secret") is not None:
        return _from_object("Secret", volume["secret"], volume["secret"].get("defaultMode"), lookup)
    if volume.get("downwardAPI") is not None:
        return _downward(pod, volume["downwardAPI"], volume["downwardAPI"].get("defaultMode"), ip)
    if volume.get("projected") is not None:
        mode = volume["projected"].get("defaultMode")
        files: Files = {}
        for source in volume["projected"].get("sources") or []:
            files.update(_projected(pod, source, mode, lookup, tokens, ip))
        return files
    kind = next((key for key in volume if key != "name"), "nothing")
    raise ContainerRefused(
        "CreateContainerConfigError",
        f'volume "{name}" ({kind}) was not mounted: the local node offers configMap, secret, projected, downwardAPI '
        "and emptyDir only",
    )


def _projected(
    pod: Obj, source: Obj, mode: int | None, lookup: Lookup, tokens: Mapping[TokenWant, str], ip: str
) -> Files:
    if source.get("configMap"):
        return _from_object("ConfigMap", source["configMap"], mode, lookup)
    if source.get("secret"):
        return _from_object("Secret", source["secret"], mode, lookup)
    if source.get("downwardAPI"):
        return _downward(pod, source["downwardAPI"], mode, ip)
    if source.get("serviceAccountToken"):
        token = source["serviceAccountToken"]
        return {_safe(token["path"]): File(tokens[_want(token)].encode(), mode or DEFAULT_MODE)}
    raise ContainerRefused(
        "CreateContainerConfigError", f"projected source {sorted(source)} is not one that the local node offers"
    )


def _want(token: Obj) -> TokenWant:
    return TokenWant(token.get("audience") or "", int(token.get("expirationSeconds") or DEFAULT_TOKEN_SECONDS))


def _from_object(kind: str, source: Obj, mode: int | None, lookup: Lookup) -> Files:
    name = source.get("secretName") or source.get("name") or ""
    obj = lookup(kind, name)
    if obj is None:
        if source.get("optional"):
            return {}
        raise ContainerRefused("ContainerCreating", f'{kind.lower()} "{name}" not found')
    entries = keys_of(kind, obj)
    default = DEFAULT_MODE if mode is None else mode
    items = source.get("items")
    if not items:
        return {_safe(key): File(value, default) for key, value in entries.items()}
    files: Files = {}
    for item in items:
        if item["key"] in entries:
            files[_safe(item["path"])] = File(entries[item["key"]], item.get("mode") or default)
        elif not source.get("optional"):
            raise ContainerRefused("ContainerCreating", f'{kind.lower()} "{name}" has no key "{item["key"]}"')
    return files


def _downward(pod: Obj, source: Obj, mode: int | None, ip: str) -> Files:
    files: Files = {}
    for item in source.get("items") or []:
        if item.get("fieldRef"):
            text = field_value(pod, item["fieldRef"]["fieldPath"], ip, "127.0.0.1")
        else:
            reference = item["resourceFieldRef"]
            container: Obj = next(
                (c for c in pod["spec"]["containers"] if c["name"] == reference.get("containerName")), {}
            )
            text = resource_value(container, reference["resource"])
        files[_safe(item["path"])] = File(text.encode(), item.get("mode") or mode or DEFAULT_MODE)
    return files


def _safe(path: str) -> str:
    """The API server checks paths too; a second look is cheap where the files are the machine's own."""
    parts = path.split("/")
    if path.startswith("/") or ".." in parts or parts[0].startswith(".."):
        raise ContainerRefused("CreateContainerConfigError", f'path "{path}" leaves its volume')
    return path
