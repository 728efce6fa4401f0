"""A read's result serves the same user again for a while.

Guarantees: only reads that succeeded are kept, a user never gets another's, and after a write of hers through this
connector (or a refusal, which may mean that her rights have changed) nothing that was read before is served any more.
Bounded in entries and bytes; what was not used longest goes first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from pilothouse_dataplane.connectors.base import CallContext, Connector, Refused
from pilothouse_dataplane.connectors.wrappers.base import Clock, Wrapper
from pilothouse_dataplane.core.messages import Effect, Outcome, Tool, ToolResult

_Key = tuple[str, str, bytes]


@dataclass(frozen=True, slots=True)
class _Kept:
    result: ToolResult
    account: str
    until: float
    size: int


class WithCache(Wrapper):
    """Keeps results for ``seconds``."""

    def __init__(
        self, inner: Connector, seconds: float, clock: Clock, *, max_entries: int = 500, max_bytes: int = 2 << 20
    ) -> None:
        super().__init__(inner)
        self._seconds = seconds
        self._clock = clock
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._kept: OrderedDict[_Key, _Kept] = OrderedDict()
        self._bytes = 0
        self._forgotten = 0
        """Rises with each forgetting: a read that was under way then may have seen what was before."""

    async def call(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
        user = context.user_email
        if tool.effect is not Effect.READ:
            try:
                return await self._inner.call(tool, arguments, context)
            finally:
                self.forget(user)
        key = _key(user, tool, arguments)
        if key is not None and (kept := self._get(key)) is not None:
            context.record.cached = True
            context.record.account = kept.account
            return kept.result
        before = self._forgotten
        try:
            result = await self._inner.call(tool, arguments, context)
        except Refused as refusal:
            if refusal.asked:
                self.forget(user)
            raise
        if key is not None and before == self._forgotten and result.outcome is Outcome.SUCCEEDED:
            self._put(key, result, context.record.account)
        return result

    async def find_by_key(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext) -> ToolResult | None:
        try:
            return await self._inner.find_by_key(tool, arguments, context)
        finally:
            self.forget(context.user_email)  # it is looked for because a write may have happened

    def forget(self, user_email: str | None) -> None:
        """Serve nothing more of what this user (None: anybody) has read."""
        self._forgotten += 1
        user = None if user_email is None else user_email.casefold()
        for key in [key for key in self._kept if user is None or key[0] == user]:
            self._drop(key)

    def _get(self, key: _Key) -> _Kept | None:
        kept = self._kept.get(key)
        if kept is None:
            return None
        if self._clock() >= kept.until:
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return kept

    def _put(self, key: _Key, result: ToolResult, account: str) -> None:
        size = _size(result) + len(key[2])
        if size > self._max_bytes // 4:
            return
        if key in self._kept:
            self._drop(key)
        self._kept[key] = _Kept(result, account, self._clock() + self._seconds, size)
        self._bytes += size
        while self._bytes > self._max_bytes or len(self._kept) > self._max_entries:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: _Key) -> None:
        self._bytes -= self._kept.pop(key).size


def _key(user: str, tool: Tool, arguments: Mapping[str, Any]) -> _Key | None:
    """None where the arguments have no canonical form: such a call is not kept."""
    try:
        return user.casefold(), tool.name, orjson.dumps(arguments, option=orjson.OPT_SORT_KEYS)
    except (TypeError, ValueError):
        return None


def _size(result: ToolResult) -> int:
    """Bytes, roughly; an object in memory is larger than its JSON."""
    try:
        return 200 + 3 * len(orjson.dumps([result.summary, result.data], default=str, option=orjson.OPT_NON_STR_KEYS))
    except (TypeError, ValueError):
        return 1 << 30
