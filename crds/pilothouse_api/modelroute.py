"""ModelRoute: which models plan and answer, at what price, and what takes over when one fails."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, ClassVar, Literal

from pilothouse_api.connector import Breaker
from pilothouse_api.meta import (
    AGE,
    HTTPURL,
    Bool,
    Column,
    Duration,
    Int,
    KeyRef,
    Kind,
    Label,
    LocalRef,
    Model,
    Money,
    Status,
    about,
    condition_column,
)
from pilothouse_api.routing_rules import MAX_LENGTH
from pilothouse_api.rules import ListOf, Rule, matches
from pilothouse_api.workerconfig import Tier

TIERS: tuple[Tier, ...] = ("fast", "mid", "power")


class ProviderTimeouts(Model):
    """Bounds of one streaming call; past one of them the next target is tried."""

    connect: Annotated[Duration, about("Until the connection stands.", "2s")] = "2s"
    first_token: Annotated[Duration, about("From the request to the first token.", "15s")] = "15s"  # noqa: S105
    between_tokens: Annotated[Duration, about("From one token to the next.", "10s")] = "10s"
    whole: Annotated[Duration, about("From the request to the last token.", "2m")] = "2m"


class ProviderBreaker(Breaker):
    """When to stop calling a provider, with resilience4j's semantics. A call is as slow as its first token."""

    minimum_calls: Annotated[
        Int,
        about("Calls in the window before its rates count; at most window with windowType Count.", 5, ge=1, le=10_000),
    ] = 5
    open_for: Annotated[Duration, about("How long calls fail at once before some are tried again.", "15s")] = "15s"

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.windowType != 'Count' || self.minimumCalls <= self.window",
            message="minimumCalls (5 where it is not set) is above window, so the breaker could never open: "
            "lower minimumCalls or raise window",
            holds=lambda breaker: breaker.window_type != "Count" or breaker.minimum_calls <= breaker.window,
        ),
        *Breaker.rules[1:],
    )


class Provider(Model):
    """An endpoint that serves models."""

    name: Annotated[Label, about("Name by which tiers refer to it.", "anthropic")]
    type: Annotated[
        Literal["OpenAI", "Anthropic"],
        about("The protocol it speaks. OpenAI: also vLLM, Ollama and what else is compatible.", "OpenAI"),
    ]
    protocol: Annotated[
        Literal["ChatCompletions", "Responses", "Messages"] | None,
        about(
            "Which of the type's protocols: ChatCompletions or Responses with OpenAI, Messages with Anthropic. Unset: "
            "ChatCompletions, or Messages.",
            "Responses",
        ),
    ] = None
    base_url: Annotated[
        HTTPURL | None, about("Address of the API. Unset: the vendor's own.", "http://vllm.models:8000/v1")
    ] = None
    credentials_secret_ref: Annotated[
        LocalRef | None,
        about("Secret whose key api-key is sent. Unset: the endpoint wants no key.", {"name": "anthropic"}),
    ] = None
    timeouts: Annotated[ProviderTimeouts, about("Bounds of one call.", {"firstToken": "8s"})] = ProviderTimeouts()
    breaker: Annotated[ProviderBreaker, about("When to stop calling the provider.", {"openFor": "15s"})] = (
        ProviderBreaker()
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.baseURL) || has(self.credentialsSecretRef)",
            message="the vendor's own endpoint needs a key: set credentialsSecretRef, "
            "or baseURL where an endpoint of your own wants no key",
            holds=lambda provider: bool(provider.base_url or provider.credentials_secret_ref),
        ),
        Rule(
            cel="!has(self.protocol) || (self.protocol == 'Messages') == (self.type == 'Anthropic')",
            message="protocol Messages goes with type Anthropic, ChatCompletions and Responses with OpenAI: "
            "correct one of the two, or remove protocol",
            holds=lambda provider: (
                provider.protocol is None or (provider.protocol == "Messages") == (provider.type == "Anthropic")
            ),
        ),
    )


class Price(Model):
    """USD per 1,000 tokens. Budgets and costs follow it."""

    input: Annotated[Money, about("USD per 1,000 input tokens, as a string.", "0.005")] = Decimal(0)
    output: Annotated[Money, about("USD per 1,000 output tokens, as a string.", "0.005")] = Decimal(0)
    cached_input: Annotated[
        Money | None,
        about(
            "USD per 1,000 input tokens that the provider served from its prompt cache, as a string. Unset: the input "
            "price.",
            "0.0005",
        ),
    ] = None


class Target(Model):
    """A model at a provider."""

    provider: Annotated[Label, about("Name of one of spec.providers.", "anthropic")]
    model: Annotated[str, about("The model, as the provider names it.", "claude-haiku", min_length=1, max_length=253)]
    price_per_1k: Annotated[Price, about("USD per 1,000 tokens.", {"input": "0.005", "output": "0.005"})] = Price()
    priority: Annotated[
        Int, about("The lowest is tried first, the others when it fails; equal ones share by weight.", 0, ge=0, le=100)
    ] = 0
    weight: Annotated[Int, about("Share of the calls among targets of one priority.", 1, ge=1, le=1000)] = 1
    context_tokens: Annotated[
        Int | None,
        about(
            "The model's window, input and output. A longer request goes to a target with a larger one. Unset: it is "
            "tried, and the provider's refusal counts.",
            200000,
            ge=1000,
            le=100_000_000,
        ),
    ] = None
    max_output_tokens: Annotated[
        Int, about("Most tokens of one answer, with what the model thinks.", 4096, ge=16, le=1_000_000)
    ] = 4096
    reasoning: Annotated[
        Literal["Low", "Medium", "High"] | None,
        about("How much the model thinks before it answers. Unset: its own default.", "Low"),
    ] = None

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.contextTokens) || self.maxOutputTokens < self.contextTokens",
            message="maxOutputTokens (4096 where it is not set) leaves no room for the request in contextTokens: "
            "lower maxOutputTokens or raise contextTokens",
            holds=lambda target: target.context_tokens is None or target.max_output_tokens < target.context_tokens,
        ),
    )


class TierTargets(Model):
    """Models of one tier; priority and weight say in which order they are tried."""

    targets: Annotated[
        tuple[Target, ...],
        about(
            "Models of this tier; priority and weight say in which order they are tried.", min_length=1, max_length=8
        ),
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


class RoutingRule(Model):
    """An operator's own word, before the strategy's."""

    when: Annotated[
        str,
        about(
            "A condition over systems, connectors, effects, groups, role, user, rounds, writes, length, earlier_turns "
            "and failed_calls, in a small part of CEL: ||, &&, !, comparisons, in.",
            'systems >= 3 || "finance" in groups',
            min_length=1,
            max_length=MAX_LENGTH,
        ),
    ]
    tier: Annotated[Tier, about("The tier where it holds; one of spec.tiers.", "power")]


class Examples(Model):
    """Requests with the tier that they need."""

    config_map_key_ref: Annotated[
        KeyRef,
        about(
            'Key of a ConfigMap with a JSON object a line: {"text": "Order a laptop", "tier": "mid"}.',
            {"name": "routing", "key": "examples.jsonl"},
        ),
    ]


class Routing(Model):
    """How a request gets its tier."""

    strategy: Annotated[
        Literal["Complexity", "Embedding", "Fixed"],
        about(
            "Complexity: by what the request asks for. Embedding: as the labelled examples most like it. Fixed: always "
            "the default. In doubt the default.",
            "Complexity",
        ),
    ] = "Complexity"
    default: Annotated[Tier, about("The tier where the strategy does not say; one of spec.tiers.", "mid")]
    conditions: Annotated[
        tuple[RoutingRule, ...],
        about(
            "Conditions that come before the strategy; the first that holds decides.",
            [{"when": '"finance" in groups', "tier": "power"}],
            max_length=32,
            alias="rules",
        ),
    ] = ()
    examples: Annotated[
        Examples | None, about("Labelled requests, with strategy Embedding. Unset: those that Pilothouse brings along.")
    ] = None
    escalate: Annotated[
        Bool,
        about("Whether a plan that can't be carried out is made again, once, by the next higher tier.", True),
    ] = True

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.examples) || self.strategy == 'Embedding'",
            message="examples go with strategy Embedding and with no other: set strategy to Embedding, "
            "or remove examples",
            holds=lambda routing: routing.examples is None or routing.strategy == "Embedding",
        ),
    )


class Hedge(Model):
    """A second target is asked beside the first where that is slow; who answers first counts, both are paid."""

    after: Annotated[Duration, about("Time without a first token after which the second is asked.", "1500ms")]
    budget: Annotated[
        str,
        about("Most of a worker's calls that are asked twice.", "5%", max_length=8),
        matches(
            r"(100|[0-9]{1,2}(\.[0-9]{1,2})?)%", "must be a percentage with its sign, at most 100%, such as 2% or 12.5%"
        ),
    ] = "5%"


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
    hedge: Annotated[
        Hedge | None, about("Ask a second target where the first is slow. Unset: never.", {"after": "1500ms"})
    ] = None

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
        Rule(
            cel=f"self.routing.rules.all(r, {_DECLARED_CEL.format('r.tier')})",
            message="routing.rules names a tier that spec.tiers does not declare: declare it there, or choose another",
            holds=lambda spec: all(rule.tier in spec.tiers.declared() for rule in spec.routing.conditions),
        ),
    )


class ModelRouteStatus(Status):
    """What the route is."""

    tiers: Annotated[
        str | None,
        about("The tiers with their first models.", "fast llama-3-8b, mid claude-haiku", max_length=512),
    ] = None
    tenants: Annotated[Int | None, about("Tenants that use it.", 1, ge=0)] = None


class ModelRoute(Kind):
    """Which models plan and answer, at what price, and what takes over when one fails."""

    plural: ClassVar[str] = "modelroutes"
    short_names: ClassVar[tuple[str, ...]] = ("mr",)
    columns: ClassVar[tuple[Column, ...]] = (
        condition_column("Ready", "Ready", "status", "True: every worker that uses it has loaded it."),
        condition_column("Reason", "Ready", "reason", "Why it is ready or not."),
        Column(name="Strategy", path=".spec.routing.strategy", description="How a request gets its tier."),
        Column(name="Default", path=".spec.routing.default", description="The tier where the strategy does not say."),
        Column(name="Tenants", path=".status.tenants", type="integer", description="Tenants that use it."),
        Column(name="Tiers", path=".status.tiers", description="The tiers with their first models.", wide=True),
        condition_column("Message", "Ready", "message", "What to do.", wide=True),
        AGE,
    )

    kind: Literal["ModelRoute"] = "ModelRoute"
    spec: Annotated[ModelRouteSpec, about("Which models shall be used.")]
    status: Annotated[ModelRouteStatus, about("What the route is; the operator writes it.")] = ModelRouteStatus()
