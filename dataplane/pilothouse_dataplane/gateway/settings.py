"""What the gateway is told by its environment, each with unit, default and the reason for the default."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pilothouse_api import names


class SettingsError(Exception):
    """The environment lacks something or holds a value that cannot be used; the platform operator must act."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Typed settings of one gateway process; :meth:`from_env` reads them."""

    pod_ip: str
    """Address that HTTP and gRPC bind to (``POD_IP``); required, so that nothing listens wider than the Pod."""

    redis_url: str
    """``redis://…`` of the store of sessions and events (``PILOTHOUSE_REDIS_URL``)."""

    dev_token_key_file: Path
    """File with the HS256 key of development tokens (``PILOTHOUSE_DEV_TOKEN_KEY_FILE``); re-read when it changes."""

    public_url: str = ""
    """Where people reach this gateway, without a slash at its end (``PILOTHOUSE_PUBLIC_URL``); authorization servers
    send browsers back to it. ``""``: no account can be linked. It is never taken from a request, whose Host header a
    stranger may choose."""

    http_port: int = names.GATEWAY_HTTP_PORT
    """TCP port of HTTP and WebSocket."""

    fleet_port: int = names.GATEWAY_FLEET_PORT
    """TCP port of the Fleet gRPC service."""

    hello_timeout: float = 10.0
    """Seconds from connection to a verified hello: long enough for a slow phone, short enough to bound strangers."""

    no_worker_wait: float = 10.0
    """Seconds that an ask waits for a ready worker. A tenant's only worker takes some five seconds to come back after a
    crash: an answer after ten serves a person better than a refusal after two."""

    max_takeovers: int = 4
    """Workers that a run may lose and still go on: a rolling update takes one or two; a question that kills each
    worker which takes it must not go round the whole tenant."""

    takeover_wait: float = 10.0
    """Seconds that a run whose worker is gone waits for another: a killed container is back after about two."""

    decide_timeout: float = 10.0
    """Seconds that a worker may take to note a decision or to list approvals: one transaction in PostgreSQL."""

    confirm_after: float = 3.0
    """Seconds that a decision on a run's own stream may stay unconfirmed; noting it takes milliseconds."""

    action_wait: float = 2.0
    """Seconds that an SRE's action waits for a worker: an SRE would rather hear at once that none is there."""

    link_timeout: float = 15.0
    """Seconds that a worker may take to begin, finish or revoke a link: it asks an authorization server."""

    replay_timeout: float = 90.0
    """Seconds that the replay of a dead letter may take, with the connector's retries."""

    worker_silence: float = 1.6
    """Seconds without an answered health check after which a worker with a run counts as lost; with
    ``probe_interval`` it keeps the promise of 2 seconds."""

    probe_interval: float = 0.2
    """Seconds between health checks of a worker that has runs."""

    accept_timeout: float = 5.0
    """Seconds until a worker's first event of a run; a healthy one accepts in milliseconds."""

    run_deadline: float = 900.0
    """Seconds a run may take in all. The worker keeps the agent's own deadline (30 s by default); this one
    bounds a run in which a person takes time to approve."""

    stop_grace: float = 5.0
    """Seconds between a stop and the moment at which the gateway cuts the run off."""

    send_timeout: float = 10.0
    """Seconds that one frame may wait for a client's buffer before the client counts as gone."""

    ping_interval: float = 20.0
    """Seconds between WebSocket pings; most proxies drop an idle connection after 60."""

    max_text_chars: int = 16_000
    """Characters of one question (the protocol's bound)."""

    max_frame_bytes: int = 256 * 1024
    """Bytes of one frame from a client: 16,000 characters escaped as JSON surrogate pairs take 192 KiB."""

    max_body_bytes: int = 64 * 1024
    """Bytes of an HTTP request's body; no route takes a body that is longer than a name."""

    max_connections: int = 2_000
    """WebSockets at one time; about 25 KB each, so 50 MB at most."""

    session_ttl: int = 86_400
    """Seconds that a session's owner and its worker are remembered after the last question."""

    run_lock_ttl: int = 15
    """Seconds after which another gateway may run a session whose gateway died in mid-run (renewed every third)."""

    drain_timeout: float = 20.0
    """Seconds that runs may take to end after SIGTERM; below the 30 s that Kubernetes grants."""

    fleet_interval: float = 0.1
    """Seconds between two batches of changes to one Fleet client: smooth to the eye, coalesced for the wire."""

    fleet_recheck: float = 60.0
    """Seconds after which a Fleet stream's right is checked again, so that a revoked role ends it."""

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Settings:
        """Read the contract's variables. Raises :class:`SettingsError` naming every one that is missing."""
        required = ("POD_IP", "PILOTHOUSE_REDIS_URL", "PILOTHOUSE_DEV_TOKEN_KEY_FILE")
        missing = [name for name in required if not env.get(name)]
        if missing:
            raise SettingsError(
                f"The gateway did not start: {', '.join(missing)} not set. "
                "Set them in the Deployment (see ARCHITECTURE.md)."
            )
        return cls(
            pod_ip=env["POD_IP"],
            redis_url=env["PILOTHOUSE_REDIS_URL"],
            dev_token_key_file=Path(env["PILOTHOUSE_DEV_TOKEN_KEY_FILE"]),
            public_url=env.get("PILOTHOUSE_PUBLIC_URL", "").rstrip("/"),
        )
