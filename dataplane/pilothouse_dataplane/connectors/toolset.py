"""All tools that a tenant's agent has, behind one door: each connector in its wrappers (``wrappers/stack.py``).

To the worker a call has no exceptions: whatever comes of it is a ``ToolResult``. A connector that learns its tools from
the system itself (``Discovering``) is asked for them in the background, first as nobody; where that is not allowed,
``prepare`` asks with the credential of the user whose run begins.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import structlog

from pilothouse_api.workerconfig import ConnectorConfig
from pilothouse_dataplane.connectors.base import (
    AccountNotLinked,
    CallContext,
    CallRecord,
    Connector,
    ConnectorError,
    InDoubt,
    Refused,
)
from pilothouse_dataplane.connectors.discovery import Discovery
from pilothouse_dataplane.connectors.factory import system_of
from pilothouse_dataplane.connectors.wrappers.audit import AuditSink, LogAudit
from pilothouse_dataplane.connectors.wrappers.cache import WithCache
from pilothouse_dataplane.connectors.wrappers.stack import wrap
from pilothouse_dataplane.core.breaker import settings_of
from pilothouse_dataplane.core.catalog import Catalog
from pilothouse_dataplane.core.guard import Guard, GuardRegistry
from pilothouse_dataplane.core.messages import Citation, Lookup, Outcome, Tool, ToolResult
from pilothouse_dataplane.core.report import plain_result
from pilothouse_dataplane.credentials.base import CredentialSource

_MODEL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
"""What models take as a function's name; one that is longer would make every request fail."""
_NO_SOURCES: Mapping[str, CredentialSource] = MappingProxyType({})
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CallReport:
    """What came of a call, and what an operator wants to know of it."""

    result: ToolResult
    attempts: int
    """Tries that were begun; 0 where the breaker or the bulkhead let none through."""
    breaker_state: str
    """Of the connector, at the end: resilience4j's words in lower case."""
    sent: bool
    """A request may have left."""
    seconds: float
    cached: bool = False
    """The result is an earlier one's."""


@dataclass(frozen=True, slots=True)
class Settled:
    """What is known about an earlier write. Neither found nor absent: it is in doubt."""

    result: ToolResult | None
    """It happened; this is what came of it."""
    absent: bool
    """It may be sent again under the same key: it did not happen and can't any more, or the tool is idempotent."""


@dataclass(frozen=True, slots=True)
class _Entry:
    config: ConnectorConfig
    system: str
    connector: Connector
    wrapped: Connector
    guard: Guard


class Toolset:
    """The tools of one loaded configuration."""

    def __init__(
        self,
        connectors: Mapping[str, tuple[ConnectorConfig, Connector]],
        guards: GuardRegistry,
        *,
        clock: Callable[[], float],
        random: Callable[[], float],
        sources: Mapping[str, CredentialSource] = _NO_SOURCES,
        audit: AuditSink | None = None,
        link_url: Callable[[str], str] | None = None,
        tenant: str = "",
        instructions: str = "",
    ) -> None:
        """``clock`` is monotonic, as the calls' deadlines. ``link_url`` gives the page where a user links her account
        of a connector, "" where she can't do that herself. ``instructions``: what the tenant tells its agent, which
        helps to choose tools."""
        self._clock = clock
        self._instructions = instructions
        self._link_url = link_url
        self._entries: dict[str, _Entry] = {}
        for name, (config, connector) in connectors.items():
            system = system_of(config)
            guard = guards.get(f"connector/{name}", settings_of(config.breaker))
            wrapped = wrap(
                connector,
                config,
                sources.get(name),
                guard,
                system=system,
                tenant=tenant,
                audit=audit or LogAudit(),
                clock=clock,
                random=random,
            )
            self._entries[name] = _Entry(config, system, connector, wrapped, guard)
        self._discovery = Discovery(
            {name: entry.connector for name, entry in self._entries.items()},
            sources,
            self._describe,
            clock=clock,
            random=random,
        )
        self._answered: dict[str, float] = {}
        self._catalog = Catalog(())
        self._by_tool: dict[str, str] = {}
        self._counts: Counter[str] = Counter()
        self._describe()

    # --- what there is ------------------------------------------------------------------------------------------------
    @property
    def tools(self) -> tuple[Tool, ...]:
        """As they are known now; they change where a connector discovers its own."""
        return self._catalog.tools

    @property
    def catalog(self) -> Catalog:
        """The tools with an index over their words, which says what a request may need."""
        return self._catalog

    @property
    def connectors(self) -> Mapping[str, Connector]:
        """In their wrappers, by name."""
        return {name: entry.wrapped for name, entry in self._entries.items()}

    def connector_of(self, tool: str) -> str:
        """The name of the connector that has this tool; "" where none has."""
        return self._by_tool.get(tool, "")

    def count(self, connector: str) -> int:
        """How many tools of a connector the agent may call."""
        return self._counts[connector]

    def answered(self, connector: str) -> float | None:
        """When a connector's system last answered a call, on the toolset's clock."""
        return self._answered.get(connector)

    def problem(self, connector: str) -> str:
        """Why a connector has no tools although it was loaded, a sentence; "" where all is well."""
        return self._discovery.problems.get(connector, "")

    # --- its life -----------------------------------------------------------------------------------------------------
    async def start(self, wait: float = 0.0) -> None:
        """Begin to discover; wait at most so many seconds for the first answers."""
        await self._discovery.start(wait)

    @property
    def prepared(self) -> bool:
        """Nothing is to be discovered; ``prepare`` would do nothing."""
        return self._discovery.complete

    async def prepare(self, context: CallContext) -> None:
        """Before a run begins: let discovering connectors that only answer a user be asked as this one. Bounded, and
        raises nothing: tools that are not known then are not there."""
        await self._discovery.prepare(context)

    def forget(self, user_email: str | None, connector: str) -> None:
        """Serve nothing more of what this user (None: anybody) has read: she has linked another account, or none."""
        entry = self._entries.get(connector)
        layer: object = entry.wrapped if entry is not None else None
        while layer is not None:
            if isinstance(layer, WithCache):
                layer.forget(user_email)
            layer = getattr(layer, "_inner", None)

    async def aclose(self) -> None:
        await self._discovery.aclose()
        for entry in self._entries.values():
            await entry.wrapped.aclose()

    # --- calls --------------------------------------------------------------------------------------------------------
    async def call(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext) -> CallReport:
        """Call a tool; every failure is a result. Raises nothing of its own."""
        name = self._by_tool.get(tool.name, "")
        entry = self._entries.get(name)
        if entry is None:  # the run is older than the configuration
            gone = ToolResult(Outcome.FAILED, f"{tool.name} is not available any more and was not called.")
            return CallReport(gone, 0, "", sent=False, seconds=0.0)
        record = CallRecord()
        began = self._clock()
        try:
            result = await entry.wrapped.call(tool, arguments, replace(context, record=record))
            self._answered[name] = self._clock()
        except AccountNotLinked as refusal:
            result = self._not_linked(entry, refusal)
        except Refused as refusal:
            if refusal.asked:
                self._answered[name] = self._clock()
            result = ToolResult(Outcome.REFUSED, str(refusal))
        except InDoubt as doubt:
            result = ToolResult(Outcome.UNKNOWN, str(doubt))
        except ConnectorError as failure:
            result = ToolResult(Outcome.FAILED, str(failure))
        result = _named(plain_result(result), record)
        state, seconds = entry.guard.state.value, self._clock() - began
        return CallReport(result, record.attempts, state, record.sent, seconds, record.cached)

    async def settle(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext) -> Settled:
        """Find out whether an earlier write with this key happened. Raises nothing of its own."""
        entry = self._entries.get(self._by_tool.get(tool.name, ""))
        if entry is None:
            return Settled(None, absent=False)
        record = CallRecord()
        try:
            found = await entry.wrapped.find_by_key(tool, arguments, replace(context, record=record))
        except ConnectorError:
            return Settled(None, absent=tool.idempotent)
        if found is None:
            return Settled(None, absent=tool.idempotent or tool.lookup is Lookup.AUTHORITATIVE)
        return Settled(_named(plain_result(found), record), absent=False)

    def _not_linked(self, entry: _Entry, refusal: AccountNotLinked) -> ToolResult:
        url = self._link_url(entry.config.name) if self._link_url is not None else ""
        if not url:
            return ToolResult(Outcome.REFUSED, str(refusal))
        page = Citation(f"Link your {entry.system} account", url)
        return ToolResult(Outcome.REFUSED, f"{str(refusal).rstrip()} Your accounts page: {url}", citations=(page,))

    def _describe(self) -> None:
        """Take the tools as their connectors describe them now."""
        tools: list[Tool] = []
        owners: dict[str, str] = {}
        model_names: set[str] = set()
        for name, entry in self._entries.items():
            for tool in entry.wrapped.describe_tools():
                model_name = tool.model_name
                # a system that names its own tools must not take another's place
                if not tool.name.startswith(f"{name}.") or model_name in model_names:
                    _log.warning("tool left out: its name is another's", connector=name, tool=tool.name[:100])
                elif not _MODEL_NAME.fullmatch(model_name):
                    _log.warning("tool left out: models don't take its name", connector=name, tool=tool.name[:100])
                else:
                    model_names.add(model_name)
                    owners[tool.name] = name
                    tools.append(tool)
        systems = {name: entry.system for name, entry in self._entries.items()}
        self._catalog = Catalog(tools, systems, self._instructions)
        self._by_tool, self._counts = owners, Counter(owners.values())


def _named(result: ToolResult, record: CallRecord) -> ToolResult:
    """The result with the account that it was had by."""
    return replace(result, account=record.account) if record.account and not result.account else result
