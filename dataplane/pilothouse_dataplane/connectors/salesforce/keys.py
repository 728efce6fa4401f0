"""Once-only: the custom field that carries our idempotency key, where an administrator has made it.

Salesforce has no idempotency keys of its own, but an upsert by an external id creates a record at most once. For that
an object needs a field ``Pilothouse_Key__c``: Text(80), External ID, Unique, which the users may edit. Objects without
it are created plainly, and a creation whose outcome is unknown can't be looked up there.
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from pilothouse_dataplane.connectors.shape import mapping, mappings

_KEPT_SECONDS = 600.0
"""How long an object's description counts: a field that is made meanwhile is used after this long."""
_MOST = 2000
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")


class KeyFields:
    """Which objects have the field, as each user sees them: field-level security may hide it from one of them."""

    FIELD = "Pilothouse_Key__c"

    def __init__(self, clock: Callable[[], float]) -> None:
        """``clock``: monotonic seconds."""
        self._clock = clock
        self._known: OrderedDict[tuple[str, str], tuple[float, bool]] = OrderedDict()

    async def carried_by(self, user: str, name: str, describe: Callable[[], Awaitable[object]]) -> bool:
        """Whether this user's creations of this object can carry the key. ``describe`` reads the object's description
        and may raise ConnectorError."""
        entry = (user, name.casefold())
        until, carried = self._known.get(entry, (0.0, False))
        if self._clock() < until:
            return carried
        fields = mappings(mapping(await describe()).get("fields"))
        carried = any(
            field.get("name") == self.FIELD and field.get("externalId") is True and field.get("createable") is True
            for field in fields
        )
        self._known[entry] = (self._clock() + _KEPT_SECONDS, carried)
        self._known.move_to_end(entry)
        while len(self._known) > _MOST:
            self._known.popitem(last=False)
        return carried


def value_of(key: str) -> str:
    """The field's value for an idempotency key: readable, fit for an address, and as unique as the key."""
    return f"{_UNSAFE.sub('-', key)[:60]}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
