"""JSON Schema, both ways.

Guarantees: no argument leaves that the tool's schema does not allow, also where a reference to an earlier result was
filled in since the model wrote it. Data that a tool's ``returns`` does not allow reach nobody: a read fails, a write
that succeeded stays succeeded without them. Schemas refer to nothing outside of themselves (``core.schema``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import structlog

from pilothouse_dataplane.connectors.base import CallContext, Connector, Refused, SystemUnavailable
from pilothouse_dataplane.connectors.wrappers.base import Wrapper
from pilothouse_dataplane.core.messages import Effect, Outcome, Tool, ToolResult
from pilothouse_dataplane.core.report import step_title
from pilothouse_dataplane.core.schema import ArgumentsError, SchemaError, check_arguments, misfit

_log = structlog.get_logger(__name__)


class WithValidation(Wrapper):
    """Checks arguments before, and data after."""

    def __init__(self, inner: Connector, system: str) -> None:
        super().__init__(inner)
        self._system = system

    async def call(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
        try:
            check_arguments(tool.parameters, arguments)
        except ArgumentsError as error:
            raise Refused(f"“{step_title(tool.name)}” was not called: {error}.", asked=False) from error
        return self._checked(tool, await self._inner.call(tool, arguments, context))

    async def find_by_key(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext) -> ToolResult | None:
        found = await self._inner.find_by_key(tool, arguments, context)
        return None if found is None else self._checked(tool, found)

    def _checked(self, tool: Tool, result: ToolResult) -> ToolResult:
        if tool.returns is None or result.data is None or result.outcome is not Outcome.SUCCEEDED:
            return result
        try:
            wrong = misfit(tool.returns, result.data)
        except SchemaError as error:
            wrong = str(error)
        if not wrong:
            return result
        _log.warning("a result does not fit its schema", tool=tool.name, wrong=wrong)
        if tool.effect is Effect.READ:
            raise SystemUnavailable(
                f"{self._system} sent an answer that can't be used: it does not have the form that is expected. "
                "Trying again won't help; a platform operator must look at the connector.",
                may_have_acted=False,
                lasting=True,
            )
        return replace(result, data=None)
