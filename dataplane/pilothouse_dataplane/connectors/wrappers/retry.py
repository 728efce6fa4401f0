"""Tries again where it is safe, and finds out about writes whose outcome is not known.

::

    the wrappers within ──▶ answered, or refused ──▶ done
      ▲        └──▶ a read, or a write whose request never left, or one that is idempotent ──▶ wait ──┐
      ├────────────────────────────────────────────────────────────────────────────────────────────────┘
      │        └──▶ a write of which nothing is known ──▶ settle: its key is looked up
      └── proven not to have happened, and not able to any more ◀──┤
                                                     found ──▶ done └── not proven ──▶ in doubt

Guarantees: a write that is not idempotent is never sent again before it is proven that the earlier request did nothing.
Waits have jitter, obey ``Retry-After`` and fit into the run. ``find_by_key`` of this wrapper is the whole settling.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from pilothouse_dataplane.connectors.base import (
    CallContext,
    Connector,
    ConnectorError,
    InDoubt,
    Refused,
    SystemUnavailable,
)
from pilothouse_dataplane.connectors.wrappers.base import Clock, Wrapper
from pilothouse_dataplane.core.messages import Effect, Lookup, Outcome, Tool, ToolResult
from pilothouse_dataplane.core.report import step_title
from pilothouse_dataplane.core.retry import Backoff, wait_before_retry

_SETTLE_WAITS = (0.2, 0.5)
"""Seconds before the first looks for a write whose outcome is unknown."""
_SETTLE_WAIT = 1.0
"""Before each later one."""
_FAILED_PROOFS = 3
"""Looks that may fail once one of them would have been the proof."""


class WithRetry(Wrapper):
    """Several tries of one call."""

    def __init__(
        self,
        inner: Connector,
        backoff: Backoff,
        timeout: float,
        system: str,
        *,
        clock: Clock,
        random: Callable[[], float],
    ) -> None:
        """``timeout``: seconds that one request of the connector lasts at most."""
        super().__init__(inner)
        self._backoff = backoff
        self._timeout = timeout
        self._system = system
        self._clock = clock
        self._random = random

    async def call(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
        """Raises InDoubt, too."""
        write = tool.effect is not Effect.READ
        tries = 0
        doubt: SystemUnavailable | None = None
        """The try of an idempotent write of which nothing is known."""
        while True:
            tries += 1
            error: SystemUnavailable
            try:
                return await self._inner.call(tool, arguments, context)
            except Refused as refusal:
                if doubt is None:
                    raise
                # what the first try did may be why the next is refused: a thing that is gone can't be found
                return await self._settled(tool, arguments, context, str(refusal))
            except SystemUnavailable as failure:
                error = failure
            looked = ""
            if write and error.may_have_acted:
                if tool.idempotent:
                    doubt = error
                else:
                    found = await self._absent_or_found(tool, arguments, context, error)
                    if found is not None:
                        return found
                    looked = " It was looked up: nothing was changed."
            wait = self._wait(error, tries, context)
            if wait is None:
                if doubt is not None:
                    return await self._settled(tool, arguments, context, str(error))
                if not looked:
                    raise error
                raise SystemUnavailable(f"{error}{looked}", may_have_acted=False, lasting=True) from error
            await asyncio.sleep(wait)

    async def find_by_key(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext) -> ToolResult | None:
        """Find out whether an earlier write with this key happened. Raises InDoubt where that can't be told.

        It looks until the connector's timeout has passed since now, as the earlier request may still be under way: only
        a look after that proves absence.
        """
        began = self._clock()
        number = failed_proofs = 0
        while tool.lookup is not Lookup.NONE:
            wait = _SETTLE_WAITS[number] if number < len(_SETTLE_WAITS) else _SETTLE_WAIT
            until_proof = began + self._timeout - self._clock()
            wait = min(wait, until_proof) if until_proof > 0 else wait
            if self._clock() + wait >= context.deadline:
                break
            await asyncio.sleep(wait)
            number += 1
            late = self._clock() - began >= self._timeout
            try:
                found = await self._inner.find_by_key(tool, arguments, context)
            except Refused:
                break  # who may not look can't tell
            except ConnectorError:
                failed_proofs += late
                if failed_proofs == _FAILED_PROOFS:
                    break
                continue
            if found is not None:
                return replace(found, outcome=Outcome.SUCCEEDED)
            if late:
                return None
        raise InDoubt(self._in_doubt("", tool))

    async def _absent_or_found(
        self, tool: Tool, arguments: Mapping[str, Any], context: CallContext, error: SystemUnavailable
    ) -> ToolResult | None:
        """None: it is proven that it did not happen. Raises InDoubt."""
        try:
            found = await self.find_by_key(tool, arguments, context)
        except InDoubt:
            raise InDoubt(self._in_doubt(str(error), tool)) from error
        if found is None and tool.lookup is not Lookup.AUTHORITATIVE:
            raise InDoubt(self._in_doubt(str(error), tool)) from error
        return found

    async def _settled(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext, why: str) -> ToolResult:
        """After the last try of an idempotent write. Raises SystemUnavailable where it did not happen, InDoubt."""
        found = await self._absent_or_found(
            tool, arguments, context, SystemUnavailable(why, may_have_acted=True, lasting=True)
        )
        if found is not None:
            return found
        raise SystemUnavailable(f"{why} It was looked up: nothing was changed.", may_have_acted=False, lasting=True)

    def _wait(self, error: SystemUnavailable, tries: int, context: CallContext) -> float | None:
        if error.lasting:
            return None
        return wait_before_retry(
            self._backoff,
            attempt=tries,
            random=self._random(),
            retry_after=error.retry_after,
            remaining=context.deadline - self._clock(),
        )

    def _in_doubt(self, error: str, tool: Tool) -> str:
        what = step_title(tool.name).partition(": ")[2] or tool.name
        return (
            f"{error} Whether {self._system} carried out “{what}” is not known. It was not sent again, so that "
            f"it can't happen twice; please check in {self._system} before you ask again."
        ).lstrip()
