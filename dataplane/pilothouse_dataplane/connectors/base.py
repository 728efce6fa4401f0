"""What a connector is, and how its calls fail.

Errors, and who must act::

    ConnectorError              message is a sentence for the user; it holds no token
    ├─ Refused                  the system said no: the user may not, or the argument is wrong
    │  └─ AccountNotLinked      the user must link an account (again)
    └─ SystemUnavailable        no connection, 429, 5xx, too slow, an unreadable body; retry where it is safe
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pilothouse_dataplane.core.messages import Tool, ToolResult


class ConnectorError(Exception):
    """Base of the tree above."""


class Refused(ConnectorError):
    """The external system, or a check before it, said no. The same call will be refused again."""

    def __init__(self, message: str, *, asked: bool = True) -> None:
        super().__init__(message)
        self.asked = asked
        """The system itself said it; else nothing was sent."""


class AccountNotLinked(Refused):
    """The user has no usable credential in the external system."""


class SystemUnavailable(ConnectorError):
    """The external system did not do its part."""

    def __init__(
        self, message: str, *, may_have_acted: bool, retry_after: float | None = None, lasting: bool = False
    ) -> None:
        super().__init__(message)
        self.may_have_acted = may_have_acted
        """The request had left: a write may have happened."""
        self.retry_after = retry_after
        """Seconds, where the system said so."""
        self.lasting = lasting
        """A person must act first (an address, a certificate): the next try would fail in the same way."""


@dataclass(frozen=True, slots=True)
class CallContext:
    """For whom a call is made."""

    user_email: str
    key: str
    """Idempotency key: the same for the same step of the same run."""


class Connector(Protocol):
    """One external system. Every call carries the asking user's own credential."""

    def describe_tools(self) -> tuple[Tool, ...]:
        """All that the connector can do, before ``allow`` is looked at."""
        ...

    async def call(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
        """Call a tool once, without retries. Raises ConnectorError."""
        ...

    async def find_by_key(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext) -> ToolResult | None:
        """Look for what an earlier ``call`` of a write with this key did. None: it was looked for to the end and not
        found; what that proves is said by ``tool.lookup``. Raises ConnectorError where that can't be told."""
        ...

    async def probe(self) -> None:
        """Ask the system whether it is there, without anybody's credential. Raises ConnectorError."""
        ...

    async def aclose(self) -> None:
        """Close its connections."""
        ...
