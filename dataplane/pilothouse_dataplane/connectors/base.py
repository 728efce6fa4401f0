"""What a connector is, and how its calls fail.

A connector speaks one system's dialect and nothing else: whose credential a call carries, whether it may be made, how
often it is tried and what is remembered of it are wrappers around it (``connectors/wrappers/``), which have the same
interface.

Errors, and who must act::

    ConnectorError              message is a sentence for the user; it holds no token
    ├─ Refused                  the system said no: the user may not, or the argument is wrong
    │  └─ AccountNotLinked      the user must link an account (again)
    │     └─ CredentialRefused  the system no longer takes the credential: a fresh one may do, else the user must act
    ├─ SystemUnavailable        no connection, 429, 5xx, too slow, an unreadable body; retry where it is safe
    │  └─ CredentialUnavailable a store of credentials or an authorization server is away, not the system itself
    └─ InDoubt                  a write may have happened or not, and it can't be found out; the user must look
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
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


class CredentialRefused(AccountNotLinked):
    """The system answered 401: nothing was done, and the credential is no longer good."""


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


class CredentialUnavailable(SystemUnavailable):
    """The user's credential could not be had. Nothing was sent, and it says nothing of the system's health."""


class InDoubt(ConnectorError):
    """A write may have happened or not. It is not sent again, so that it can't happen twice."""


class SecretText:
    """A secret that no log, error or picture of an object shows; ``reveal`` is called where it leaves, and nowhere
    else."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "SecretText(…)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretText) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> str:
        raise TypeError("a secret is not pickled")


@dataclass(frozen=True, slots=True)
class Credential:
    """What a call carries for its user."""

    token: SecretText
    """A bearer token."""
    account: str
    """As whom: the user's e-mail or name in the system, or "service account NAME"."""
    instance_url: str = ""
    """Where the token is good, if the system said so with it (Salesforce's ``instance_url``)."""


@dataclass(frozen=True, slots=True)
class RateLimit:
    """What the system said of its own limit, in headers of an answer."""

    remaining: int
    """Requests that it still takes in this window."""
    reset_seconds: float
    """Until the window begins anew."""


@dataclass(slots=True)
class CallRecord:
    """What the wrappers found out while a call was made; each writes its own part."""

    attempts: int = 0
    """Tries that were begun; 0 where the breaker or the bulkhead let none through."""
    sent: bool = False
    """A request may have left."""
    breaker_state: str = ""
    """Of the connector, at the end: resilience4j's words in lower case."""
    cached: bool = False
    """The result is an earlier one's."""
    account: str = ""
    """As whom the system was asked."""
    limit: RateLimit | None = None
    """What the last answer said."""


@dataclass(frozen=True, slots=True)
class CallContext:
    """For whom a call is made."""

    user_email: str
    key: str
    """Idempotency key: the same for the same step of the same run."""
    deadline: float = math.inf
    """On ``time.monotonic``."""
    user_token: SecretText | None = None
    """What the user signed in with, for token exchange; None where the front door gave none, or the run went on
    without her."""
    credential: Credential | None = None
    """Put in by the credentials wrapper; a connector never looks for one itself."""
    record: CallRecord = field(default_factory=CallRecord)

    @property
    def token(self) -> SecretText:
        """The bearer token. Raises AccountNotLinked where there is none: no call is ever made as nobody."""
        if self.credential is None:
            raise AccountNotLinked("No account is linked, so nothing was done.", asked=False)
        return self.credential.token


class Connector(Protocol):
    """One external system. Every call carries the asking user's own credential (``context.token``)."""

    def describe_tools(self) -> tuple[Tool, ...]:
        """All that can be called."""
        ...

    async def call(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
        """Call a tool once. Raises ConnectorError."""
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


class Discovering(Protocol):
    """A connector that learns its tools from the system itself."""

    async def discover(self, context: CallContext | None) -> bool:
        """Learn the tools anew; True where they changed. ``context`` holds a credential; None: as nobody.
        Raises ConnectorError, and then the tools stay as they were."""
        ...
