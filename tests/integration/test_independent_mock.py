"""The providers against two servers that know nothing of each other: an independent mock, and the project's stand-in.

The same cases pass against both. Each case is a question; the servers are told what to answer to it.
"""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

import pytest
from aiohttp.test_utils import TestClient, TestServer

from pilothouse_api.workerconfig import ProviderConfig, RouteConfig, TargetConfig
from pilothouse_dataplane.core.guard import GuardRegistry
from pilothouse_dataplane.core.messages import Effect, Message, ModelRequest, Tool, ToolCall
from pilothouse_dataplane.models.base import (
    ModelDenied,
    ModelDone,
    ModelError,
    ModelEvent,
    ModelExhausted,
    ModelOverflow,
    ModelRateLimited,
    ModelText,
    ModelToolCall,
    ModelUnavailable,
)
from pilothouse_dataplane.models.cost import ModelCallRecord
from pilothouse_dataplane.models.gateway import ModelGateway
from pilothouse_dataplane.models.providers import make_provider
from pilothouse_sim.faults import Faults
from pilothouse_sim.models.app import make_app
from pilothouse_testing import aimock

Protocol = Literal["ChatCompletions", "Responses", "Messages"]
PROTOCOLS: tuple[Protocol, ...] = ("ChatCompletions", "Responses", "Messages")
SERVERS = ("aimock", "stand-in")
SEARCH = Tool(
    "jira.issue.search",
    "Search issues",
    {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
    Effect.READ,
)
GET = Tool("jira.issue.get", "Read an issue", {"type": "object", "properties": {"key": {}}}, Effect.READ)
ODD = 'a "quote", a brace }{ and an Ümlaut — \\ 🙂'


@dataclass(frozen=True)
class Case:
    """What a server says to a question, and what the provider must make of it."""

    name: str
    text: str = ""
    calls: tuple[tuple[str, dict[str, Any]], ...] = ()
    thoughts: str = ""
    length: bool = False
    usage: tuple[int, int] = (50, 9)
    error: str = ""
    """The stand-in's name of the fault."""
    status: int = 0
    bodies: dict[str, dict[str, str]] = field(default_factory=dict)
    """The mock's error, by vendor."""
    raises: type[ModelError] | None = None
    cut: bool = False

    def question(self, protocol: Protocol) -> str:
        return f"case {self.name} of {protocol}"

    def fixture(self, protocol: Protocol) -> dict[str, Any]:
        """For the independent mock."""
        match = {"userMessage": self.question(protocol)}
        if self.status:
            error = self.bodies["anthropic" if protocol == "Messages" else "openai"]
            return {"match": match, "response": {"error": error, "status": self.status, "retryAfter": 2}}
        told: dict[str, Any] = {}
        if self.text:
            told["content"] = self.text
        if self.calls:
            told["toolCalls"] = [{"name": name, "arguments": given} for name, given in self.calls]
        if self.thoughts:
            told["reasoning"] = self.thoughts
        if self.length:
            told["finishReason"] = "length"
        read, wrote = self.usage
        told["usage"] = {"prompt_tokens": read, "completion_tokens": wrote, "total_tokens": read + wrote}
        made: dict[str, Any] = {"match": match, "response": told}
        return {**made, "truncateAfterChunks": 4} if self.cut else made

    def scripted(self, protocol: Protocol) -> dict[str, Any]:
        """For the stand-in."""
        said: dict[str, Any] = {"match": self.question(protocol), "times": -1, "text": self.text, "error": self.error}
        said["calls"] = [{"name": name, "arguments": given} for name, given in self.calls]
        said["thoughts"] = self.thoughts
        said["usage"] = {"prompt": self.usage[0], "completion": self.usage[1], "cached": 0, "stored": 0, "thoughts": 0}
        return {**said, "finish": "length"} if self.length else said


def refused(
    name: str, status: int, raises: type[ModelError], openai: dict[str, str], anthropic: dict[str, str]
) -> Case:
    bodies = {"openai": openai, "anthropic": anthropic}
    return Case(name, error=name, status=status, bodies=bodies, raises=raises)


CASES = (
    Case("text", text="Your issue IT-1 is open; nobody works on it yet."),
    Case("odd_text", text=f"It says: {ODD}\nand goes on."),
    Case("call", calls=(("jira__issue__search", {"text": "VPN"}),)),
    Case("odd_call", calls=(("jira__issue__search", {"text": ODD, "deep": {"a": [1, None, {"b": "}"}]}}),)),
    Case("two_calls", calls=(("jira__issue__search", {"text": "VPN"}), ("jira__issue__get", {"key": "IT-1"}))),
    Case("no_arguments", calls=(("jira__issue__get", {}),)),
    Case("text_and_call", text="I look.", calls=(("jira__issue__search", {"text": "VPN"}),)),
    Case("thoughts", text="It is open.", thoughts="Let me see what the user may want to know."),
    Case("length", text="This answer was cut in the mid", length=True),
    refused("rate_limit", 429, ModelRateLimited,
            {"message": "Rate limit reached", "type": "requests", "code": "rate_limit_exceeded"},
            {"message": "This would exceed your rate limit", "type": "rate_limit_error"}),
    refused("overloaded", 503, ModelUnavailable,
            {"message": "The engine is overloaded", "type": "server_error"},
            {"message": "Overloaded", "type": "overloaded_error"}),
    refused("server_error", 500, ModelUnavailable,
            {"message": "The server had an error", "type": "server_error"},
            {"message": "Internal server error", "type": "api_error"}),
    refused("invalid_key", 401, ModelDenied,
            {"message": "Incorrect API key provided", "type": "invalid_request_error", "code": "invalid_api_key"},
            {"message": "invalid x-api-key", "type": "authentication_error"}),
    refused("model_not_found", 404, ModelDenied,
            {"message": "The model does not exist", "type": "invalid_request_error", "code": "model_not_found"},
            {"message": "model: none", "type": "not_found_error"}),
    refused("billing", 402, ModelExhausted,
            {"message": "Insufficient Balance", "type": "insufficient_balance"},
            {"message": "Billing is not set up", "type": "billing_error"}),
    refused("billing_hard_limit", 400, ModelExhausted,
            {"message": "Billing hard limit has been reached", "type": "invalid_request_error",
             "code": "billing_hard_limit_reached"},
            {"message": "Your credit balance is too low.", "type": "invalid_request_error"}),
    refused("context_length", 400, ModelOverflow,
            {"message": "This model's maximum context length is 8192 tokens.", "type": "invalid_request_error",
             "code": "context_length_exceeded"},
            {"message": "prompt is too long: 209000 tokens > 200000 maximum", "type": "invalid_request_error"}),
    Case("cut", text="This answer never comes to its end, since the connection breaks before that.", cut=True,
         error="cut", raises=ModelUnavailable),
)  # fmt: skip
FOLLOW_UP = "case follow up"


def follow_up(protocol: Protocol) -> dict[str, Any]:
    match = {"userMessage": f"{FOLLOW_UP} of {protocol}", "hasToolResult": True}
    return {"match": match, "response": {"content": "IT-1 is open."}}


@pytest.fixture(scope="module")
def independent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[aimock.Aimock | str]:
    """The mock, or why there is none here."""
    fixtures = [case.fixture(protocol) for case in CASES for protocol in PROTOCOLS]
    fixtures += [follow_up(protocol) for protocol in PROTOCOLS]
    with contextlib.ExitStack() as stack:
        try:
            yield stack.enter_context(aimock.running(fixtures, tmp_path_factory.mktemp("aimock")))
        except aimock.Unavailable as error:
            yield str(error)


@asynccontextmanager
async def serving(which: str, independent: aimock.Aimock | str) -> AsyncIterator[str]:
    """The address of one of the servers."""
    if which == "aimock":
        if isinstance(independent, str):
            pytest.skip(f"the independent mock can't be installed here: {independent}")
        yield independent.url
        return
    app = make_app(faults=Faults(ttft_ms=(0, 0), tokens_per_second=0), rng=random.Random(1))
    async with TestClient(TestServer(app)) as client:
        answers = [case.scripted(protocol) for case in CASES for protocol in PROTOCOLS]
        answers += [
            {
                "match": follow_up(protocol)["match"]["userMessage"],
                "results": True,
                "times": -1,
                "text": "IT-1 is open.",
            }
            for protocol in PROTOCOLS
        ]
        async with client.post("/__sim/script", json={"answers": answers}) as answer:
            assert answer.status == 200, await answer.text()
        yield str(client.make_url("")).rstrip("/")


def provider_config(protocol: Protocol, url: str, name: str = "p") -> ProviderConfig:
    kind: Literal["OpenAI", "Anthropic"] = "Anthropic" if protocol == "Messages" else "OpenAI"
    base = url if protocol == "Messages" else f"{url}/v1"
    return ProviderConfig(name=name, type=kind, protocol=protocol, base_url=base, api_key_file="key")


def asking(question: str, *more: Message) -> ModelRequest:
    system = Message("system", "You help Acme's employees.")
    return ModelRequest((system, Message("user", question), *more), (SEARCH, GET))


async def collect(protocol: Protocol, url: str, request: ModelRequest, **target: Any) -> list[ModelEvent]:
    provider = make_provider(provider_config(protocol, url), {"key": b"key-of-a-test"})
    try:
        target_config = TargetConfig(provider="p", model="some-model", **target)
        return [event async for event in provider.stream(target_config, request)]
    finally:
        await provider.aclose()


@pytest.mark.parametrize("which", SERVERS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_a_case(which: str, protocol: Protocol, case: Case, independent: aimock.Aimock | str) -> None:
    thinking = {"reasoning": "low", "max_output_tokens": 4096} if case.thoughts else {}
    async with serving(which, independent) as url:
        if case.raises is not None:
            with pytest.raises(case.raises) as raised:
                await collect(protocol, url, asking(case.question(protocol)))
            assert "key-of-a-test" not in str(raised.value)
            if case.raises is ModelRateLimited and isinstance(raised.value, ModelRateLimited):
                assert raised.value.retry_after == 2
            return
        events = await collect(protocol, url, asking(case.question(protocol)), **thinking)
    assert "".join(event.text for event in events if isinstance(event, ModelText)) == case.text
    calls = [event.call for event in events if isinstance(event, ModelToolCall)]
    assert [(call.name, json.loads(call.arguments)) for call in calls] == list(case.calls)
    assert len({call.id for call in calls}) == len(calls)
    done = events[-1]
    assert isinstance(done, ModelDone)
    assert (done.input_tokens, done.output_tokens, done.estimated) == (*case.usage, False)
    if case.length and not (which == "aimock" and protocol == "Responses"):  # it does not tell the reason there
        assert done.stop == "length"


@pytest.mark.parametrize("which", SERVERS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_tools_result_goes_back_with_its_call(
    which: str, protocol: Protocol, independent: aimock.Aimock | str
) -> None:
    call = ToolCall("call_1", "jira__issue__search", '{"text": "VPN"}')
    other = ToolCall("call_2", "jira__issue__get", "{}")
    told = (
        Message("assistant", "I look.", (call, other)),
        Message("tool", '{"issues": [{"key": "IT-1"}]}', (), "call_1"),
        Message("tool", "not found", (), "call_2"),
    )
    request = asking(f"{FOLLOW_UP} of {protocol}", *told)
    async with serving(which, independent) as url:
        events = await collect(protocol, url, request)
        if isinstance(independent, aimock.Aimock) and which == "aimock":
            body = json.dumps(independent.requests()[-1])
            assert "call_1" in body
            assert "call_2" in body
    assert "".join(event.text for event in events if isinstance(event, ModelText)) == "IT-1 is open."


@pytest.mark.parametrize("which", SERVERS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_the_gateway_asks_the_next_target_and_charges_for_the_answer(
    which: str, protocol: Protocol, independent: aimock.Aimock | str
) -> None:
    """The first target's address refuses connections; the second answers."""
    records: list[ModelCallRecord] = []
    case = CASES[0]
    async with serving(which, independent) as url:
        configs = (provider_config(protocol, "http://127.0.0.1:9", "down"), provider_config(protocol, url, "up"))
        price = Decimal("0.01")
        targets = tuple(
            TargetConfig(provider=name, model="m", input_price_per_1k=price, output_price_per_1k=price, priority=place)
            for place, name in enumerate(("down", "up"))
        )
        route = RouteConfig(providers=configs, tiers={"fast": targets}, default_tier="fast")
        made = {config.name: make_provider(config, {"key": b"key-of-a-test"}) for config in configs}
        gateway = ModelGateway(route, made, GuardRegistry(lambda: 0.0), clock=lambda: 0.0, random=lambda: 0.5)
        try:
            request = asking(case.question(protocol))
            events = [event async for event in gateway.stream(request, deadline=10, on_call=records.append)]
        finally:
            await gateway.aclose()
    assert "".join(event.text for event in events if isinstance(event, ModelText)) == case.text
    assert records[-1].provider == "up"
    assert records[-1].usage.cost_micros == sum(case.usage) * 10
