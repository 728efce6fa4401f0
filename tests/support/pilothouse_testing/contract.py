"""Contract tests: the same calls of a connector's tools against a stand-in and, with credentials, a real system.

A system's cases are functions that get a ``World`` and call tools as one of three people. ``Cases`` collects them: for
every tool one that goes through (``allowed``) and one that does not (``denied``), which ``missing`` holds.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from pilothouse_api.egress import EgressRule
from pilothouse_api.workerconfig import ConnectorConfig, ConnectorTypeName, OAuthConfig
from pilothouse_dataplane.connectors.base import CallContext, Connector, Credential, Refused, SecretText
from pilothouse_dataplane.connectors.factory import make_connector
from pilothouse_dataplane.core.messages import Effect, Lookup, Outcome, Tool, ToolResult
from pilothouse_dataplane.core.schema import check_arguments, misfit

PEOPLE = ("employee", "manager", "contractor")


@dataclass(frozen=True)
class Place:
    """Where a system is, and as whom it is asked."""

    url: str
    tokens: Mapping[str, str]
    """Of each of ``PEOPLE``."""
    emails: Mapping[str, str]
    facts: Mapping[str, str] = field(default_factory=dict)
    """What a real system's cases must be told, such as the key of a project."""
    real: bool = False


def place_of(system: str, url: str, facts: Mapping[str, str]) -> Place:
    """The real system where ``PILOTHOUSE_CONTRACT_<SYSTEM>_URL`` is set, else the stand-in at ``url``. ``facts`` are
    the stand-in's; each has a variable ``…_<FACT>`` for the real one."""
    prefix = f"PILOTHOUSE_CONTRACT_{system.upper()}_"
    address = os.environ.get(f"{prefix}URL", "")
    if not address:
        tokens = {who: f"{system}-token-{who}" for who in PEOPLE}
        return Place(url, tokens, {who: f"{who}@acme.example" for who in PEOPLE}, facts)
    return Place(
        address,
        {who: os.environ[f"{prefix}{who.upper()}_TOKEN"] for who in PEOPLE},
        {who: os.environ[f"{prefix}{who.upper()}_EMAIL"] for who in PEOPLE},
        {name: os.environ.get(f"{prefix}{name.upper()}", value) for name, value in facts.items()},
        real=True,
    )


class World:
    """A connector and the three people who use it."""

    def __init__(self, system: ConnectorTypeName, place: Place) -> None:
        config = ConnectorConfig(
            name=system,
            type=system,
            url=place.url,
            auth_mode="UserOAuth",
            oauth=OAuthConfig(),
            timeout_seconds=30 if place.real else 5,
        )
        rule = EgressRule() if place.real else EgressRule(allow_hosts=("127.0.0.1",))
        self.place = place
        self.connector: Connector = make_connector(config, {}, rule)
        self._tools = {t.name.removeprefix(f"{system}."): t for t in self.connector.describe_tools()}

    def tool(self, name: str) -> Tool:
        return self._tools[name]

    def context(self, who: str = "employee", run: str = "", token: str = "") -> CallContext:
        secret = SecretText(token or self.place.tokens[who])
        email = self.place.emails[who]
        return CallContext(email, run or f"contract/{uuid4().hex[:12]}", credential=Credential(secret, email))

    async def call(
        self, name: str, /, who: str = "employee", *, run: str = "", token: str = "", **arguments: Any
    ) -> Any:
        """The data of a call that succeeds; arguments and data are held against the tool's schemas. ``run`` is the
        idempotency key."""
        return (await self.result(name, who, run=run, token=token, **arguments)).data

    async def result(
        self, name: str, /, who: str = "employee", *, run: str = "", token: str = "", **arguments: Any
    ) -> ToolResult:
        tool = self.tool(name)
        check_arguments(tool.parameters, arguments)
        result = await self.connector.call(tool, arguments, self.context(who, run, token))
        assert result.outcome is Outcome.SUCCEEDED
        assert result.summary
        assert tool.returns is not None
        assert misfit(tool.returns, result.data) == ""
        return result

    async def found(self, name: str, /, run: str, who: str = "employee", **arguments: Any) -> ToolResult | None:
        """What ``find_by_key`` says of an earlier call with the idempotency key ``run``."""
        return await self.connector.find_by_key(self.tool(name), arguments, self.context(who, run))

    async def refusal(self, name: str, /, who: str = "contractor", *, token: str = "", **arguments: Any) -> str:
        """The system's refusal of a call."""
        try:
            result = await self.connector.call(self.tool(name), arguments, self.context(who, token=token))
        except Refused as error:
            refused = error
        else:
            raise AssertionError(f"{name} went through as {who}: {result.summary}")
        assert refused.asked, f"the system itself was not asked: {refused}"
        return str(refused)

    async def aclose(self) -> None:
        await self.connector.aclose()


Case = Callable[[World], Awaitable[None]]


class Cases:
    """A system's cases by tool."""

    def __init__(self, system: ConnectorTypeName) -> None:
        self.system = system
        self.of_allowed: dict[str, list[Case]] = {}
        self.of_denied: dict[str, list[Case]] = {}

    def allowed(self, *tools: str) -> Callable[[Case], Case]:
        """The case calls these tools as somebody who may."""
        return self._into(self.of_allowed, tools)

    def denied(self, *tools: str) -> Callable[[Case], Case]:
        """The case calls these tools as somebody who may not, and reads how that is told."""
        return self._into(self.of_denied, tools)

    @staticmethod
    def _into(registry: dict[str, list[Case]], tools: tuple[str, ...]) -> Callable[[Case], Case]:
        def add(case: Case) -> Case:
            for tool in tools:
                registry.setdefault(tool, []).append(case)
            return case

        return add

    def all(self) -> list[Any]:
        """(name, case), each once."""
        both = [*self.of_allowed.values(), *self.of_denied.values()]
        unique = {f"{case.__name__}": case for cases in both for case in cases}
        return list(unique.items())

    def missing(self, world: World) -> list[str]:
        """Tools without a case of either kind, cases of tools that are not there, and writes that don't say how they
        are kept from happening twice."""
        names = {t.name.removeprefix(f"{self.system}."): t for t in world.connector.describe_tools()}
        wrong = [f"{name}: no case with a user who may" for name in names if name not in self.of_allowed]
        wrong += [f"{name}: no case with a user who may not" for name in names if name not in self.of_denied]
        wrong += [f"{name}: no such tool" for name in {*self.of_allowed, *self.of_denied} if name not in names]
        for name, tool in names.items():
            if tool.returns is None:
                wrong.append(f"{name}: no schema of its result")
            if tool.effect is Effect.READ and (tool.lookup is not Lookup.NONE or tool.idempotent or tool.key_by):
                wrong.append(f"{name}: a read has nothing to look up")
        return wrong
