"""A ModelRoute's conditions and what its Tenants' workers are given of it."""

from __future__ import annotations

from typing import Any

import pytest

from pilothouse_operator.core.modelroute import RouteView, User, decide
from pilothouse_operator.core.refs import broken_key
from pilothouse_testing.builders import Modifier, with_provider_key
from pilothouse_testing.operator_world import NOW, ready_world

Json = dict[str, Any]
EXAMPLES = b'{"text": "Hello", "tier": "mid"}\n\n{"text": "Order a laptop", "tier": "mid"}\n'


def with_route(**fields: Any) -> Modifier:
    """Sets fields of the route's spec; those that are objects are merged."""

    def modify(scene: Any) -> None:
        spec = scene.route["spec"]
        for name, value in fields.items():
            spec[name] = {**spec.get(name, {}), **value} if isinstance(value, dict) else value

    return modify


def with_examples(content: bytes) -> Modifier:
    def modify(scene: Any) -> None:
        reference = {"configMapKeyRef": {"name": "routing", "key": "examples.jsonl"}}
        with_route(routing={"strategy": "Embedding", "examples": reference})(scene)
        scene.config_maps["routing"] = {"examples.jsonl": content}

    return modify


def conditions(
    *modifiers: Modifier, said: tuple[str, ...] | None = (), loaded: bool = True
) -> tuple[dict[str, tuple[str, str, str]], Json]:
    """By type: status, reason, message; and the whole status."""
    world = ready_world()
    for modify in modifiers:
        modify(world.scene)
    assert world.scene.route is not None
    digest = world.scene.tenant["status"]["configHash"]
    user = User(world.scene.tenant, digest if loaded else "sha256:other", said)
    view = RouteView(world.scene.route, world.scene.secrets, world.scene.config_maps, (user,))
    decided = decide(view, NOW)
    assert decided is not None
    status = decided["status"]
    return {c["type"]: (c["status"], c["reason"], c["message"]) for c in status["conditions"]}, status


def test_a_route_that_everybody_has_loaded_is_ready_and_says_what_it_is() -> None:
    found, status = conditions()

    assert {type_: said[0] for type_, said in found.items()} == dict.fromkeys(
        ("Accepted", "ResolvedRefs", "Reachable", "Ready"), "True"
    )
    assert (status["tiers"], status["tenants"]) == ("mid llama-3-8b", 1)


def test_a_condition_that_can_t_be_read_is_told_with_its_place_and_nothing_changes() -> None:
    rule = {"rules": [{"when": "systems > 1", "tier": "mid"}, {"when": "system > 2", "tier": "mid"}]}
    found, _ = conditions(with_route(routing=rule))

    assert found["Accepted"][:2] == ("False", "RuleInvalid")
    assert "spec.routing.rules[1].when: “system” is not known; there are systems" in found["Accepted"][2]
    assert "at character 1" in found["Accepted"][2]
    assert found["Ready"][:2] == ("False", "RuleInvalid")

    world = ready_world()
    before = world.config()
    with_route(routing=rule)(world.scene)
    world.step()
    assert world.config() == before
    assert world.condition("ResolvedRefs")["reason"] == "RuleInvalid"


def test_workers_reports_of_the_providers_become_reachable() -> None:
    found, _ = conditions(said=("local refused the key.", "local told 0 tokens."))
    assert found["Reachable"] == ("False", "ProviderProblem", "local refused the key. local told 0 tokens.")
    assert found["Ready"][0] == "True"

    unasked, _ = conditions(said=None)
    assert unasked["Reachable"][:2] == ("Unknown", "NotReported")

    many, _ = conditions(said=tuple(f"Problem {i}." for i in range(9)))
    assert many["Reachable"][2].endswith("Problem 2. And 6 more.")


def test_targets_without_a_price_are_named_and_allowed() -> None:
    free = {"mid": {"targets": [{"provider": "local", "model": "llama-3-8b"}]}}
    found, _ = conditions(with_route(tiers=free))

    assert found["Ready"][0] == "True"
    assert "free in every sum and budget: mid llama-3-8b" in found["Ready"][2]


@pytest.mark.parametrize(
    "key", [b"sk-1\nX-Injected: yes", b"sk\r\n\r\n", b"", b"\n", b"sk 1", "sk-é".encode(), b"sk\x00"]
)
def test_a_key_that_can_t_be_one_keeps_its_provider_out_and_is_not_shown(key: bytes) -> None:
    spec: Json = {
        "providers": [
            {"name": "local", "type": "OpenAI", "baseURL": "http://v"},
            {"name": "other", "type": "OpenAI", "baseURL": "http://w", "credentialsSecretRef": {"name": "other"}},
        ],
        "tiers": {
            "fast": {"targets": [{"provider": "other", "model": "small"}]},
            "mid": {"targets": [{"provider": "other", "model": "a"}, {"provider": "local", "model": "b"}]},
        },
    }

    def broken(scene: Any) -> None:
        with_route(**spec)(scene)
        scene.secrets["other"] = {"api-key": key}

    world = ready_world(broken)
    route = world.config().route
    assert [provider.name for provider in route.providers] == ["local"]
    assert [target.model for target in route.tiers["mid"]] == ["b"]
    assert route.tiers["fast"] == ()
    assert "secret.other.api-key" not in world.files()

    found, _ = conditions(broken)
    assert found["ResolvedRefs"][:2] == ("False", "SecretInvalid")
    assert "Provider other is left out" in found["ResolvedRefs"][2]
    assert "Injected" not in str(found)
    assert found["Ready"][:2] == ("True", "WithoutProviders")
    waiting, _ = conditions(broken, loaded=False)
    assert waiting["Ready"][1:] == ("WorkersNotReady", "Not loaded yet by: acme")


def test_when_no_provider_is_left_what_runs_goes_on() -> None:
    found, _ = conditions(with_provider_key("local-key", b"sk\nx"))
    assert found["Ready"][:2] == ("False", "SecretInvalid")


@pytest.mark.parametrize("key", [b"sk-1", b"sk-1\n", b"sk-1\r\n", b" sk-1 "])
def test_one_end_of_a_line_after_a_key_is_forgiven(key: bytes) -> None:
    assert broken_key(key) is None


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "holds no example"),
        (b'{"text": "a", "tier": "mid"}\nnot json', "line 2 is not like"),
        (b'{"text": "a", "tier": "power"}', "line 1 names a tier that spec.tiers does not declare"),
        (b'{"text": 3, "tier": "mid"}', "line 1 is not like"),
        (b"[" * 100_000, "line 1 is not like"),
        (b"x" * 300_000, "KiB are the most"),
        (b"\xff\xfe", "line 1 is not like"),
        (b'{"text": "a", "tier": ["mid"]}', "line 1 names a tier"),
    ],
)
def test_examples_that_can_t_be_used_are_told_by_line(content: bytes, sentence: str) -> None:
    found, _ = conditions(with_examples(content))

    assert found["ResolvedRefs"][:2] == ("False", "ExamplesInvalid")
    assert sentence in found["ResolvedRefs"][2]


def test_examples_reach_the_workers() -> None:
    world = ready_world(with_examples(EXAMPLES))

    assert world.config().route.examples_file == "routing-examples"
    assert world.files()["routing-examples"] == EXAMPLES
    missing, _ = conditions(with_examples(EXAMPLES), lambda scene: scene.config_maps.clear())
    assert missing["ResolvedRefs"][:2] == ("False", "ConfigMapNotFound")


def test_every_field_reaches_the_workers() -> None:
    target = {
        "provider": "local",
        "model": "m",
        "pricePer1K": {"input": "0.03", "output": "0.06", "cachedInput": "0.003"},
        "priority": 1,
        "weight": 3,
        "contextTokens": 8000,
        "maxOutputTokens": 1000,
        "reasoning": "High",
    }
    provider = {
        "name": "local",
        "type": "OpenAI",
        "baseURL": "http://v",
        "protocol": "Responses",
        "timeouts": {"firstToken": "8s"},
        "breaker": {"openFor": "1m"},
    }

    def full(scene: Any) -> None:
        with_route(
            providers=[provider],
            tiers={"mid": {"targets": [target]}, "power": {"targets": [target]}},
            routing={"rules": [{"when": "writes > 0", "tier": "power"}], "escalate": False, "strategy": "Fixed"},
            fallback=["power"],
            cache={"ttl": "1h"},
            hedge={"after": "1500ms", "budget": "2.5%"},
        )(scene)
        scene.tenant["spec"]["limits"] = {
            "requestsPerMinute": 100,
            "dailyBudgetUSD": "0.0000001",
            "softBudgetPercent": 70,
            "perUser": {"requestsPerMinute": 5},
        }

    config = ready_world(full).config()
    route, made = config.route, config.route.tiers["mid"][0]

    assert (made.priority, made.weight, made.context_tokens, made.max_output_tokens) == (1, 3, 8000, 1000)
    assert (str(made.cached_input_price_per_1k), made.reasoning) == ("0.003", "high")
    assert (route.providers[0].protocol, route.providers[0].timeouts.first_token) == ("Responses", 8.0)
    assert (route.providers[0].breaker.open_seconds, route.providers[0].breaker.minimum_calls) == (60.0, 5)
    assert [(rule.when, rule.tier) for rule in route.rules] == [("writes > 0", "power")]
    assert (route.strategy, route.escalate, route.cache_seconds) == ("Fixed", False, 3600)
    assert route.hedge is not None
    assert (route.hedge.after_seconds, route.hedge.budget_percent) == (1.5, 2.5)
    limits = config.limits
    assert (limits.requests_per_minute, limits.user_requests_per_minute, limits.user_tokens_per_minute) == (100, 5, 0)
    assert (limits.daily_budget_micros, limits.soft_budget_percent) == (1, 70)
