"""What a user may do, as one short text: model answers are used again only between users for whom it is the same."""

from __future__ import annotations

import hashlib

import orjson
import structlog

from pilothouse_dataplane.connectors.base import SystemUnavailable
from pilothouse_dataplane.credentials.base import StoreUnavailable
from pilothouse_dataplane.ledger.base import Asker
from pilothouse_dataplane.worker.runtime import Runtime

_log = structlog.get_logger()


async def permissions_of(runtime: Runtime, asker: Asker) -> str:
    """A hash over her groups and the connectors in which she has an account; "" where that can't be told now, and
    then nothing may be used again."""
    credentials = runtime.credentials
    linked: frozenset[str] = frozenset()
    if credentials is not None:
        try:
            linked = await credentials.linked(asker.email)
        except (SystemUnavailable, StoreUnavailable) as error:
            _log.info("permissions not known, so no model answer is used again", error=str(error))
            return ""
    kept = [sorted(asker.groups), sorted(linked), bool(asker.manager_email)]
    return hashlib.sha256(orjson.dumps(kept)).hexdigest()[:32]
