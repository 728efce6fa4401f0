"""The worker's configuration: read from the mounted Secret, checked as a whole, swapped as a whole.

A change is noticed by looking at the mount twice a second (names, times and the ``..data`` link: no inotify, which a
bind mount or a network file system may not give). Runs that are under way keep the configuration that they began with.
A configuration that can't be loaded changes nothing: the worker goes on with the old one and says why in its status.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import structlog
from pydantic import ValidationError

from pilothouse_api.workerconfig import WorkerConfig, digest

POLL_SECONDS = 0.5
_MAX_FILE_BYTES = 1 << 20
_log = structlog.get_logger()


class ConfigError(ValueError):
    """The configuration on disk can't be used; the message holds no secret. The platform operator must act."""


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """One configuration with all of its files."""

    config: WorkerConfig
    files: dict[str, bytes]
    hash: str
    redis_url: str
    database_url: str
    """Holds the password: for the ledger alone."""


def read_files(directory: Path) -> dict[str, bytes]:
    """All regular files of the mount whose names don't begin with ``..``. Raises ConfigError."""
    files: dict[str, bytes] = {}
    try:
        for path in sorted(directory.iterdir()):
            if path.name.startswith("..") or not path.is_file():
                continue
            if path.stat().st_size > _MAX_FILE_BYTES:
                raise ConfigError(f"{path.name} is larger than 1 MB")
            files[path.name] = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"the configuration can't be read: {error.strerror}") from error
    return files


def check(files: dict[str, bytes]) -> LoadedConfig:
    """The configuration in these files. Raises ConfigError with what to change."""
    if "config.json" not in files:
        raise ConfigError("config.json is not there")
    try:
        config = WorkerConfig.model_validate_json(files["config.json"])
    except ValidationError as error:
        # the input is left out: it may hold what nobody should read in a status
        faults = [f"{'.'.join(map(str, e['loc'])) or 'config.json'}: {e['msg']}" for e in error.errors()[:5]]
        raise ConfigError("; ".join(faults)) from None
    redis_url = files.get("redis-url", b"").decode(errors="replace").strip()
    if not redis_url.startswith(("redis://", "rediss://")):
        raise ConfigError("redis-url is missing or is not the address of a Redis")
    database_url = files.get("database-url", b"").decode(errors="replace").strip()
    if not database_url.startswith("postgresql://"):
        raise ConfigError("database-url is missing or is not the address of a PostgreSQL (postgresql://…)")
    providers = {provider.name for provider in config.route.providers}
    for tier, targets in config.route.tiers.items():
        for target in targets:
            if target.provider not in providers:
                raise ConfigError(f"tier {tier}: there is no provider {target.provider}")
    if not config.route.tiers.get(config.route.default_tier):
        raise ConfigError(f"the default tier {config.route.default_tier} has no target")
    for provider in config.route.providers:
        if provider.api_key_file is not None and provider.api_key_file not in files:
            raise ConfigError(f"provider {provider.name}: the file {provider.api_key_file} is not there")
    if len({connector.name for connector in config.connectors}) != len(config.connectors):
        raise ConfigError("two connectors have the same name")
    return LoadedConfig(config, files, digest(files), redis_url, database_url)


def fingerprint(directory: Path) -> tuple[object, ...]:
    """Changes when the mount does; cheap to take."""
    try:
        link = os.readlink(directory / "..data") if (directory / "..data").is_symlink() else ""
        entries = sorted(
            (entry.name, entry.stat().st_mtime_ns, entry.stat().st_size)
            for entry in os.scandir(directory)
            if not entry.name.startswith("..")
        )
    except OSError as error:
        return ("unreadable", error.errno)
    return (link, *entries)


class ConfigWatcher:
    """Follows the mount and hands each usable configuration to ``apply``."""

    def __init__(self, directory: Path, apply: Callable[[LoadedConfig], Awaitable[None]]) -> None:
        self._directory = directory
        self._apply = apply
        self._seen: tuple[object, ...] | None = None
        self._hash = ""
        self.error = ""
        """Why the newest configuration on disk is not the loaded one; "" when it is."""

    async def poll(self) -> None:
        """Look once. Never raises for what is on disk."""
        seen = fingerprint(self._directory)
        if seen == self._seen:
            return
        try:
            files = read_files(self._directory)
            if fingerprint(self._directory) != seen:
                return  # it changed while it was read: the next look takes it whole
            self._seen = seen
            loaded = check(files)
            if loaded.hash != self._hash:
                await self._apply(loaded)
                self._hash = loaded.hash
                _log.info("configuration loaded", config_hash=loaded.hash, revision=loaded.config.revision)
            self.error = ""
        except ConfigError as error:
            self._seen = seen
            self.error = str(error)
            _log.warning("configuration refused", reason=self.error)
