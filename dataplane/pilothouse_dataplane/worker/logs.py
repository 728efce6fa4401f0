"""Structured logs: one JSON object a line on standard output, with the run's and session's ids.

Nothing that authenticates is ever handed to a logger; as a second line of defence, fields whose names sound like
credentials are left out.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import orjson
import structlog

_SECRET_NAMES = ("token", "secret", "password", "authorization", "api_key", "cookie")


def _without_secrets(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name in list(event):
        if any(part in name.lower() for part in _SECRET_NAMES):
            event[name] = "(left out)"
    return event


def configure(**fields: str) -> None:
    """Set logging up for the process; ``fields`` stand on every line."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _without_secrets,
            structlog.processors.JSONRenderer(serializer=lambda value, **_: orjson.dumps(value, default=str).decode()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stdout),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(**fields)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
