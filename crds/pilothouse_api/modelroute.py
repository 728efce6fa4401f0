"""ModelRoute: which models plan and answer, at what price, and what takes over when one fails."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, ClassVar, Literal

from pilothouse_api.meta import (
    AGE,
    HTTPURL,
    Column,
    Duration,
    Kind,
    Label,
    LocalRef,
    Model,
    Money,
    Status,
    about,
    condition_column,
)
from pilothouse_api.rules import ListOf, Rule
from pilothouse_api.workerconfig import Tier

TIERS: tuple[Tier, ...] = ("fast", "mid", "power")


class Provider(Model):
    """An endpoint that serves models."""

    name: Annotated[Label, about("Name by which tiers refer to it.", "anthropic")]
    type: Annotated[
        Literal["OpenAI", "Anthropic"],
        about("The protocol it speaks. OpenAI: also vLLM, Ollama and what else is compatible.", "OpenAI"),
    ]
    base_url: Annotated[
        HTTPURL | None, about("Address of the API. Unset: the vendor's own.", "http://vllm.models:8000/v1")
    ] = None
    credentials_secret_ref: Annotated[
        LocalRef | None,
        about("Secret whose key api-key is sent. Unset: the endpoint wants no key.", {"name": "anthropic"}),
    ] = None

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.baseURL) || has(self.credentialsSecretRef)",
            message="the vendor's own endpoint needs a key: set credentialsSecretRef, "
            "or baseURL where an endpoint of your own wants no key",
            holds=lambda provider: bool(provider.base_url or provider.credentials_secret_ref),
        ),
    )


class Price(Model):
    """USD per 1,000 tokens. Budgets and costs follow it."""

    input: Annotated[Money, about("USD per 1,000 input tokens, as a string.", "0.005")] = Decimal(0)
    output: Annotated[Money, about("USD per 1,000 output tokens, as a string.", "0.005")] = Decimal(0)


class Target(Model):
    """A model at a provider."""

    provider: Annotated[Label, about("Name of one of spec.providers.", "anthropic")]
    model: Annotated[str, about("The model, as the provider names it.", "claude-haiku", min_length=1, max_length=253)]
    price_per_1k: Annotated[Price, about("USD per 1,000 tokens.", {"input": "0.005", "output": "0.005"})] = Price()


class TierTargets(Model):
    """Models of one tier, in the order in which they are tried."""

    targets: Annotated[
        tuple[Target, ...], about("Models in the order in which they are tried.", min_length=1, max_length=8)
    ]


class Tiers(Model):
    """Models by capability and price."""

    fast: Annotated[TierTargets | None, about("Cheap and quick: greetings, look-ups, titles.")] = None
    mid: Annotated[TierTargets | None, about("Most requests.")] = None
    power: Annotated[TierTargets | None, about("Hard ones: many systems, many steps.")] = None

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.fast) || has(self.mid) || has(self.power)",
            message="no tier is declared: set at least one of fast, mid and power",
            holds=lambda tiers: bool(tiers.declared()),
        ),
    )

    def declared(self) -> dict[Tier, tuple[Target, ...]]:
        """Targets by tier, of the tiers that are set."""
        found: dict[Tier, TierTargets | None] = {"fast": self.fast, "mid": self.mid, "power": self.power}
        return {tier: value.targets for tier, value in found.items() if value is not None}


class Routing(Model):
    """How a request gets its tier."""

    strategy: Annotated[
        Literal["Complexity"], about("Complexity: by what the request asks for; in doubt the default.", "Complexity")
    ] = "Complexity"
    default: Annotated[Tier, about("The tier where the strategy does not say; one of spec.tiers.", "mid")]


class Cache(Model):
    """Answers to equal model calls are used again, for one tenant and equal permissions only."""

    ttl: Annotated[Duration, about("How long an answer may be used again.", "1h")]


def _targets_declared(tier: Tier) -> Rule:
    def holds(spec: ModelRouteSpec) -> bool:
        names = {provider.name for provider in spec.providers}
        return all(target.provider in names for target in spec.tiers.declared().get(tier, ()))

    return Rule(
        cel=f"!has(self.tiers.{tier}) || self.tiers.{tier}.targets.all(t, "
        "self.providers.exists(p, p.name == t.provider))",
        message=f"tiers.{tier}.targets names a provider that spec.providers does not declare: "
        "declare it there, or correct the name",
        holds=holds,
    )


_DECLARED_CEL = " || ".join(f"({{0}} == '{tier}' && has(self.tiers.{tier}))" for tier in TIERS)


class ModelRouteSpec(Model):
    """Which models shall be used."""

    providers: Annotated[
        tuple[Provider, ...],
        about(
            "Endpoints that serve models.",
            [{"name": "local", "type": "OpenAI", "baseURL": "http://vllm.models:8000/v1"}],
            min_length=1,
            max_length=16,
        ),
        ListOf("name"),
    ]
    tiers: Annotated[
        Tiers,
        about(
            "Models by capability and price; at least one tier.",
            {"mid": {"targets": [{"provider": "anthropic", "model": "claude-haiku"}]}},
        ),
    ]
    routing: Annotated[Routing, about("How a request gets its tier.", {"strategy": "Complexity", "default": "mid"})]
    fallback: Annotated[
        tuple[Tier, ...],
        about(
            "Tiers to try, in this order, when a tier's models all fail; each one of spec.tiers.",
            ["fast", "mid", "power"],
            max_length=3,
        ),
        ListOf(),
    ] = ()
    cache: Annotated[Cache | None, about("Use answers to equal calls again. Unset: never.", {"ttl": "1h"})] = None

    rules: ClassVar[tuple[Rule, ...]] = (
        *(_targets_declared(tier) for tier in TIERS),
        Rule(
            cel=_DECLARED_CEL.format("self.routing.default"),
            message="routing.default names a tier that spec.tiers does not declare: "
            "declare it there, or choose another",
            holds=lambda spec: spec.routing.default in spec.tiers.declared(),
        ),
        Rule(
            cel=f"self.fallback.all(f, {_DECLARED_CEL.format('f')})",
            message="fallback names a tier that spec.tiers does not declare: "
            "declare it there, or remove it from fallback",
            holds=lambda spec: all(tier in spec.tiers.declared() for tier in spec.fallback),
        ),
    )


class ModelRouteStatus(Status):
    """What the route is."""


class ModelRoute(Kind):
    """Which models plan and answer, at what price, and what takes over when one fails."""

    plural: ClassVar[str] = "modelroutes"
    short_names: ClassVar[tuple[str, ...]] = ("mr",)
    columns: ClassVar[tuple[Column, ...]] = (
        condition_column("Ready", "Ready", "status", "True: every worker that uses it has loaded it."),
        condition_column("Reason", "Ready", "reason", "Why it is ready or not."),
        Column(name="Default", path=".spec.routing.default", description="The tier where the strategy does not say."),
        Column(name="Strategy", path=".spec.routing.strategy", description="How a request gets its tier.", wide=True),
        condition_column("Message", "Ready", "message", "What to do.", wide=True),
        AGE,
    )

    kind: Literal["ModelRoute"] = "ModelRoute"
    spec: Annotated[ModelRouteSpec, about("Which models shall be used.")]
    status: Annotated[ModelRouteStatus, about("What the route is; the operator writes it.")] = ModelRouteStatus()
