"""Puts the asking user's credential into the call, and gets a fresh one where the system refuses it.

A 401 says that nothing was done, so the same call is made again, a write, too: once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from pilothouse_dataplane.connectors.base import AccountNotLinked, CallContext, Connector, CredentialRefused
from pilothouse_dataplane.connectors.wrappers.base import Wrapper
from pilothouse_dataplane.core.messages import Tool, ToolResult
from pilothouse_dataplane.credentials.base import CredentialSource

_Result = TypeVar("_Result")


class WithCredentials(Wrapper):
    """Calls with a credential; probes without."""

    def __init__(self, inner: Connector, source: CredentialSource, system: str) -> None:
        """``system`` begins sentences for users."""
        super().__init__(inner)
        self._source = source
        self._system = system

    async def call(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
        result = await self._as_user(context, lambda mine: self._inner.call(tool, arguments, mine))
        return replace(result, account=context.record.account)

    async def find_by_key(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext) -> ToolResult | None:
        found = await self._as_user(context, lambda mine: self._inner.find_by_key(tool, arguments, mine))
        return None if found is None else replace(found, account=context.record.account)

    async def _as_user(self, context: CallContext, work: Callable[[CallContext], Awaitable[_Result]]) -> _Result:
        credential = await self._source.get(context)
        context.record.account = credential.account
        try:
            return await work(replace(context, credential=credential))
        except CredentialRefused as refusal:
            said = str(refusal)
        fresh = await self._source.renew(context, credential)
        if fresh is None:
            raise AccountNotLinked(said)
        context.record.account = fresh.account
        try:
            return await work(replace(context, credential=fresh))
        except CredentialRefused as refusal:
            raise AccountNotLinked(str(refusal)) from None
