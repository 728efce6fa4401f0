"""A container's command line and environment, computed from its Pod and the ConfigMaps and Secrets it refers to
(pure)."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence

from .model import ContainerRefused, Obj

Lookup = Callable[[str, str], Obj | None]
"""(kind, name) -> the ConfigMap or Secret of the Pod's namespace, or None."""

_REFERENCE = re.compile(r"\$\$|\$\(([^()$]+)\)")
_SUBSCRIPT = re.compile(r"^metadata\.(labels|annotations)\['([^']+)'\]$")


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace `$(NAME)` as Kubernetes does: `$$` is a literal dollar, and unknown names stay as they are."""

    def replace(match: re.Match[str]) -> str:
        if match.group(0) == "$$":
            return "$"
        return variables.get(match.group(1), match.group(0))

    return _REFERENCE.sub(replace, text)


def image_is_local(image: str) -> bool:
    """True where the image's last path segment starts with `pilothouse`: it runs from the node's own Python
    environment."""
    return image.rsplit("/", 1)[-1].startswith("pilothouse")


def check_image(image: str) -> None:
    """Raises ContainerRefused (ErrImagePull) for an image that this node has no way to run."""
    if not image_is_local(image):
        raise ContainerRefused(
            "ErrImagePull",
            f'image "{image}" was not pulled: the local node has no container engine and runs only images whose name '
            'starts with "pilothouse", from its own Python environment. Use such an image, or a cluster with a '
            "container engine (make demo CLUSTER=kind).",
        )


def command_line(container: Obj, variables: Mapping[str, str]) -> list[str]:
    """`command` and `args` with variables expanded; local images have no entrypoint of their own.

    Raises ContainerRefused where both are empty.
    """
    line = [expand(part, variables) for part in [*(container.get("command") or []), *(container.get("args") or [])]]
    if not line:
        raise ContainerRefused(
            "RunContainerError", "no command was given, and local images have no entrypoint: set command or args"
        )
    return line


def field_value(pod: Obj, path: str, ip: str, host_ip: str) -> str:
    """The downward API's `fieldRef`. Raises ContainerRefused for a path that it does not have."""
    meta, spec = pod["metadata"], pod["spec"]
    subscript = _SUBSCRIPT.match(path)
    if subscript:
        return str((meta.get(subscript.group(1)) or {}).get(subscript.group(2), ""))
    simple = {
        "metadata.name": meta["name"],
        "metadata.namespace": meta["namespace"],
        "metadata.uid": meta["uid"],
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName", "default"),
        "status.podIP": ip,
        "status.podIPs": ip,
        "status.hostIP": host_ip,
        "status.hostIPs": host_ip,
    }
    if path in simple:
        return str(simple[path])
    if path in ("metadata.labels", "metadata.annotations"):
        entries = meta.get(path.removeprefix("metadata.")) or {}
        return "\n".join(f'{key}="{_escape(str(value))}"' for key, value in sorted(entries.items()))
    raise ContainerRefused("CreateContainerConfigError", f'fieldRef "{path}" is not one that the downward API has')


def resource_value(container: Obj, resource: str) -> str:
    """The downward API's `resourceFieldRef`: the quantity as written, or 0 where none is set (the node enforces no
    limits)."""
    group, _, name = resource.partition(".")
    return str(((container.get("resources") or {}).get(group) or {}).get(name, "0"))


def keys_of(kind: str, obj: Obj) -> dict[str, bytes]:
    """A ConfigMap's or Secret's entries as bytes."""
    if kind == "Secret":
        return {key: base64.b64decode(value) for key, value in (obj.get("data") or {}).items()}
    entries = {key: str(value).encode() for key, value in (obj.get("data") or {}).items()}
    entries.update({key: base64.b64decode(value) for key, value in (obj.get("binaryData") or {}).items()})
    return entries


def build(
    pod: Obj, container: Obj, lookup: Lookup, base: Mapping[str, str], ip: str, host_ip: str = "127.0.0.1"
) -> dict[str, str]:
    """The container's whole environment: `base`, then `envFrom`, then `env`, later ones winning.

    Raises ContainerRefused (CreateContainerConfigError) for a missing object or key that isn't optional.
    """
    result = dict(base)
    for source in container.get("envFrom") or []:
        result.update(_from_source(source, lookup))
    for entry in container.get("env") or []:
        value = _entry_value(pod, container, entry, lookup, result, ip, host_ip)
        if value is not None:
            result[entry["name"]] = value
    return result


def referenced(pod: Obj) -> set[tuple[str, str]]:
    """Every (kind, name) of ConfigMaps and Secrets that the Pod's volumes use; changes of these are followed while it
    runs."""
    found: set[tuple[str, str]] = set()
    for volume in pod["spec"].get("volumes") or []:
        parts: Sequence[Obj] = (volume.get("projected") or {}).get("sources") or [volume]
        for part in parts:
            if part.get("configMap"):
                found.add(("ConfigMap", str(part["configMap"].get("name", ""))))
            if part.get("secret"):
                found.add(("Secret", str(part["secret"].get("secretName") or part["secret"].get("name") or "")))
    return found


def _from_source(source: Obj, lookup: Lookup) -> dict[str, str]:
    for field, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
        reference = source.get(field)
        if not reference:
            continue
        obj = lookup(kind, reference["name"])
        if obj is None:
            if reference.get("optional"):
                return {}
            raise ContainerRefused("CreateContainerConfigError", f'{kind.lower()} "{reference["name"]}" not found')
        prefix = source.get("prefix", "")
        return {prefix + key: value.decode(errors="replace") for key, value in keys_of(kind, obj).items()}
    return {}


def _entry_value(
    pod: Obj, container: Obj, entry: Obj, lookup: Lookup, so_far: Mapping[str, str], ip: str, host_ip: str
) -> str | None:
    source = entry.get("valueFrom")
    if not source:
        return expand(str(entry.get("value") or ""), so_far)
    if "fieldRef" in source:
        return field_value(pod, source["fieldRef"]["fieldPath"], ip, host_ip)
    if "resourceFieldRef" in source:
        return resource_value(container, source["resourceFieldRef"]["resource"])
    for field, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
        reference = source.get(field)
        if reference:
            return _key_value(kind, reference, lookup)
    raise ContainerRefused(
        "CreateContainerConfigError", f'the source of variable "{entry["name"]}" is not one that the local node knows'
    )


def _key_value(kind: str, reference: Obj, lookup: Lookup) -> str | None:
    obj = lookup(kind, reference["name"])
    entries = keys_of(kind, obj) if obj is not None else {}
    if reference["key"] in entries:
        return entries[reference["key"]].decode(errors="replace")
    if reference.get("optional"):
        return None
    what = (
        f'{kind.lower()} "{reference["name"]}" not found'
        if obj is None
        else f'key "{reference["key"]}" not found in {kind} {reference["name"]}'
    )
    raise ContainerRefused("CreateContainerConfigError", what)


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
