"""One instance of the local cluster: its state folder, and the ports, addresses and passwords that it keeps.

Everything lives below one folder, so that a second instance (a test's, beside a demo) is only another folder:
``$PILOTHOUSE_STATE``, else ``/var/lib/pilothouse`` for root, else ``$XDG_STATE_HOME/pilothouse`` (below
``~/.local/state`` by default).
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from pilothouse_local.errors import BadSettings, DiskFull, PortTaken, StateUnusable
from pilothouse_local.pki import write_private

LOOPBACK = "127.0.0.1"
PORT_NAMES = ("apiserver", "etcd", "etcd-peer", "valkey", "postgres", "node")
VAULT_PORT = 8200
"""Vault's own, on an address that no other instance has: Pods and people know it by heart."""
_PORTS = range(20000, 29000)
"""Below the NodePorts (30000 to 32767) and the kernel's ephemeral ports, which any outgoing connection may hold."""
_NODE_PORTS = range(30100, 32768)
_OCTETS = range(2, 254)
MINIMUM_FREE = 1_000_000_000
"""Bytes that must be free: etcd, PostgreSQL and the logs stay below this in a day's work."""


@dataclass(frozen=True)
class Settings:
    """What an instance chose at its first start and keeps: written with mode 0600, since the passwords are in it."""

    ports: dict[str, int]
    pod_octet: int
    """Second octet of the Pods' loopback addresses, 127.<octet>.0.N."""
    redis_password: str
    postgres_password: str
    """Of PostgreSQL's superuser ``postgres``, which only the local cluster itself uses."""
    application_password: str
    """Of the role ``pilothouse``, which owns the database; no superuser, so that row-level security binds it, too."""
    signing_key: str
    """Signs development tokens (HS256)."""
    node_ports: dict[str, int] = field(default_factory=dict)
    """A NodePort as the manifests name it → the one that this instance uses: two instances share one loopback."""
    worker_database_password: str = ""
    """Of the role ``pilothouse_worker``, as which workers use the database. Empty only in the file of an older version:
    ``completed`` makes one."""
    vault_database_password: str = ""
    """Of the role ``openbao``, as which OpenBao uses its own database. Empty as the one before."""

    def vault_host(self) -> str:
        """Where OpenBao listens: a loopback address that Pods never get, since theirs end with 1 to 254."""
        return f"127.{self.pod_octet}.255.255"

    def vault_url(self) -> str:
        return f"http://{self.vault_host()}:{VAULT_PORT}"

    def redis_url(self) -> str:
        return f"redis://:{self.redis_password}@{LOOPBACK}:{self.ports['valkey']}/0"

    def database_owner_url(self) -> str:
        """As the role that owns the schema: migrations use it, nothing else."""
        return f"postgresql://pilothouse:{self.application_password}@{LOOPBACK}:{self.ports['postgres']}/pilothouse"

    def database_url(self) -> str:
        """As the role that the migrations make for workers."""
        return (
            f"postgresql://pilothouse_worker:{self.worker_database_password}"
            f"@{LOOPBACK}:{self.ports['postgres']}/pilothouse"
        )

    def superuser_url(self, database: str) -> str:
        return f"postgresql://postgres:{self.postgres_password}@{LOOPBACK}:{self.ports['postgres']}/{database}"

    def server(self) -> str:
        return f"https://{LOOPBACK}:{self.ports['apiserver']}"


@dataclass(frozen=True)
class Instance:
    """The paths of one instance."""

    root: Path

    @property
    def kubeconfig(self) -> Path:
        return self.root / "kubeconfig"

    @property
    def pki(self) -> Path:
        return self.root / "pki"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def settings_file(self) -> Path:
        return self.root / "settings.json"

    @property
    def view_file(self) -> Path:
        """What the supervisor last saw of its processes."""
        return self.root / "supervisor.json"

    @property
    def lock_file(self) -> Path:
        """Held by the supervisor as long as it lives."""
        return self.root / "supervisor.lock"

    @property
    def up_lock_file(self) -> Path:
        """Held by one ``up`` or ``down`` at a time."""
        return self.root / "up.lock"

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def kubeconfig_of(self, pair: str) -> Path:
        return self.root / f"kubeconfig-{pair}"


def locate(env: Mapping[str, str] | None = None, *, uid: int | None = None) -> Instance:
    """The instance that the environment names; raises ``BadSettings`` for a path that can't be one."""
    env = os.environ if env is None else env
    uid = os.getuid() if uid is None else uid
    chosen = env.get("PILOTHOUSE_STATE")
    if chosen is not None and not chosen.strip():
        raise BadSettings("PILOTHOUSE_STATE is set but empty", "nothing was started", "set it to a folder, or unset it")
    if chosen:
        return Instance(Path(chosen).expanduser().absolute())
    if uid == 0:
        return Instance(Path("/var/lib/pilothouse"))
    base = env.get("XDG_STATE_HOME") or str(Path(env.get("HOME") or Path.home()) / ".local" / "state")
    return Instance(Path(base) / "pilothouse")


def prepare_folder(instance: Instance) -> None:
    """Makes the folders and checks the space; raises ``StateUnusable`` or ``DiskFull`` (``writing`` turns OSErrors)."""
    if instance.root.exists() and not instance.root.is_dir():
        raise StateUnusable(
            f"{instance.root} is not a folder",
            "nothing was started",
            "move that file away, or set PILOTHOUSE_STATE to a folder",
        )
    instance.root.mkdir(parents=True, exist_ok=True)
    # PostgreSQL runs as another user when we are root: it passes through, and lists nothing.
    instance.root.chmod(0o711)
    instance.logs.mkdir(exist_ok=True)
    instance.logs.chmod(0o700)
    free = shutil.disk_usage(instance.root).free
    if free < MINIMUM_FREE:
        raise DiskFull(
            f"the disk of {instance.root} has {free / 1e6:.0f} MB left; the stores need {MINIMUM_FREE / 1e6:.0f} MB",
            "nothing was started",
            "free space there, or set PILOTHOUSE_STATE to a folder on another disk",
        )


def load(instance: Instance) -> Settings | None:
    """The kept settings, or ``None`` before the first start; raises ``StateUnusable`` when they can't be read."""
    try:
        raw = json.loads(instance.settings_file.read_text())
        settings = Settings(**raw)
        if set(settings.ports) != set(PORT_NAMES):
            raise ValueError("the ports are not those of this version")
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, PermissionError) as error:
        raise StateUnusable(
            f"{instance.settings_file} can't be read ({error})",
            "nothing was started, since the passwords and ports of the stores are in it",
            f"restore the file, or remove {instance.root} to begin anew (its data is lost)",
        ) from error
    return settings


def save(instance: Instance, settings: Settings) -> None:
    write_private(instance.settings_file, json.dumps(asdict(settings), indent=1).encode())


def completed(settings: Settings) -> Settings:
    """``settings`` with what an older version did not know yet; itself where nothing is missing."""
    if not settings.worker_database_password:
        settings = replace(settings, worker_database_password=secrets.token_urlsafe(24))
    if not settings.vault_database_password:
        settings = replace(settings, vault_database_password=secrets.token_urlsafe(24))
    return settings


def choose(instance: Instance, kept: Settings | None) -> tuple[Settings, list[str]]:
    """The settings to start with, and a sentence for each kept value that others have taken in the meantime.

    Only for an instance of which nothing runs. Raises ``PortTaken`` when no port is free.
    """
    said: list[str] = []
    start = _start(instance)
    if kept is None:
        kept = Settings(
            ports={},
            pod_octet=_OCTETS[start % len(_OCTETS)],
            redis_password=secrets.token_urlsafe(24),
            postgres_password=secrets.token_urlsafe(24),
            application_password=secrets.token_urlsafe(24),
            signing_key=secrets.token_urlsafe(48),
            worker_database_password=secrets.token_urlsafe(24),
            vault_database_password=secrets.token_urlsafe(24),
        )
    ports = dict(kept.ports)
    for name in PORT_NAMES:
        old = ports.get(name)
        if old is not None and port_is_free(old):
            continue
        ports[name] = _next(start, _PORTS, lambda port: port not in ports.values() and port_is_free(port), "port")
        if old is not None:
            said.append(f"port {old} of {name} is now in use by another program: {name} moves to {ports[name]}")
    octet = kept.pod_octet
    if not octet_is_free(octet):
        octet = _next(start, _OCTETS, octet_is_free, "loopback network")
        said.append(f"another instance's Pods use 127.{kept.pod_octet}.0.0/16: this one's move to 127.{octet}.0.0/16")
    kept_node_ports = {name: port for name, port in kept.node_ports.items() if port_is_free(port)}
    return replace(kept, ports=ports, pod_octet=octet, node_ports=kept_node_ports), said


def with_node_ports(instance: Instance, settings: Settings, wanted: Iterable[int]) -> Settings:
    """``settings`` with a NodePort for each that the manifests name: the same one where nobody listens there."""
    chosen = dict(settings.node_ports)
    for port in wanted:
        if str(port) in chosen:
            continue
        if port_is_free(port):
            chosen[str(port)] = port
        else:
            start = _start(instance)
            chosen[str(port)] = _next(
                start, _NODE_PORTS, lambda one: one not in chosen.values() and port_is_free(one), "NodePort"
            )
    return replace(settings, node_ports=chosen)


def _start(instance: Instance) -> int:
    # Two folders begin at different places, so that a second instance does not race the first one for its ports.
    return int.from_bytes(hashlib.sha256(str(instance.root).encode()).digest()[:4])


def _next(start: int, values: range, free: Callable[[int], bool], what: str) -> int:
    for step in range(len(values)):
        value = values[(start + step) % len(values)]
        if free(value):
            return value
    raise PortTaken(
        f"no {what} between {values.start} and {values.stop} is free",
        "nothing was started",
        "stop other instances (`pilothouse down` with their PILOTHOUSE_STATE) or programs that listen there",
    )


def port_is_free(port: int) -> bool:
    """Whether a program of ours could listen on this loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do: TIME_WAIT is not "in use"
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def claim_octet(octet: int) -> socket.socket:
    """Marks the Pods' loopback network as used by this process until it ends; raises OSError when another holds it."""
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # An abstract address: the kernel frees it with the process, whatever ends that.
        claim.bind(f"\0pilothouse-pods-127.{octet}")
    except OSError:
        claim.close()
        raise
    return claim


def octet_is_free(octet: int) -> bool:
    try:
        claim_octet(octet).close()
    except OSError:
        return False
    return True
