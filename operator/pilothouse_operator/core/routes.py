"""What can be told of a ModelRoute's content without asking a provider: conditions, examples, keys, prices.

``unusable`` says why no configuration can be made of it; what only takes a part of it away (a provider's broken key) is
a ``Problem`` of ``parts``, and the rest goes on; ``remarks`` are sentences that somebody should read.
"""

from __future__ import annotations

import json

from pilothouse_api import ModelRoute
from pilothouse_api.modelroute import TIERS, Target
from pilothouse_api.routing_rules import RuleError, parse
from pilothouse_operator.core.refs import (
    SECRET_INVALID,
    Problem,
    Secrets,
    broken_keys,
    examples_need,
    missing,
    route_needs,
)

RULE_INVALID = "RuleInvalid"
EXAMPLES_INVALID = "ExamplesInvalid"
EXAMPLES_LIMIT = 262_144
"""Bytes of labelled examples: they lie in the workers' Secret, which may have 1 MiB with all else."""


def broken_rule(route: ModelRoute) -> Problem | None:
    """The first condition that can't be read."""
    for number, rule in enumerate(route.spec.routing.conditions):
        try:
            parse(rule.when)
        except RuleError as error:
            return Problem(RULE_INVALID, f"spec.routing.rules[{number}].when: {error}. Correct it with kubectl apply.")
    return None


def unresolved(route: ModelRoute, secrets: Secrets, config_maps: Secrets) -> Problem | None:
    """Why what the route refers to can't be used at all."""
    labelled = examples_need(route)
    needs = route_needs(route) + (() if labelled is None else (labelled,))
    lacking = missing(needs, secrets, config_maps)
    if lacking is not None:
        return lacking
    if labelled is not None:
        why = _broken_examples(config_maps[labelled.secret][labelled.key], route)
        if why is not None:
            return Problem(EXAMPLES_INVALID, f'Key "{labelled.key}" of ConfigMap "{labelled.secret}": {why}')
    broken = broken_keys(route, secrets)
    if broken and all(target.provider in broken for _, target in _targets(route)):
        return Problem(SECRET_INVALID, " ".join(broken.values()))
    return None


def unusable(route: ModelRoute, secrets: Secrets, config_maps: Secrets) -> Problem | None:
    """Why no configuration can be made of the route."""
    return broken_rule(route) or unresolved(route, secrets, config_maps)


def parts(route: ModelRoute, secrets: Secrets) -> Problem | None:
    """What is left out of the configuration, which goes on without it."""
    broken = broken_keys(route, secrets)
    return Problem(SECRET_INVALID, " ".join(broken.values())) if broken else None


def remarks(route: ModelRoute) -> list[str]:
    """What is allowed, and yet worth a look."""
    free = [
        f"{tier} {target.model}"
        for tier, target in _targets(route)
        if not (target.price_per_1k.input or target.price_per_1k.output)
    ]
    if not free:
        return []
    said = ", ".join(free[:5]) + (f" and {len(free) - 5} more" if len(free) > 5 else "")
    return [f"Without a price, so free in every sum and budget: {said}. Set pricePer1K unless it costs nothing."]


def summary(route: ModelRoute) -> str:
    """The tiers with the model that each asks first."""
    first = (
        (tier, min(targets, key=lambda target: target.priority))
        for tier, targets in route.spec.tiers.declared().items()
    )
    return ", ".join(f"{tier} {target.model}" for tier, target in first)[:512]


def _targets(route: ModelRoute) -> list[tuple[str, Target]]:
    declared = route.spec.tiers.declared()
    return [(tier, target) for tier in TIERS for target in declared.get(tier, ())]


def _broken_examples(content: bytes, route: ModelRoute) -> str | None:
    """What is wrong with labelled examples; None where they can be used."""
    if len(content) > EXAMPLES_LIMIT:
        return f"has {len(content) // 1024} KiB; {EXAMPLES_LIMIT // 1024} KiB are the most. Leave examples out."
    declared, seen = route.spec.tiers.declared(), 0
    for number, line in enumerate(content.decode(errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        try:
            example = json.loads(line)
        except (ValueError, RecursionError):
            example = None
        if not isinstance(example, dict) or not isinstance(example.get("text"), str):
            return f'line {number} is not like {{"text": "Order a laptop", "tier": "mid"}}. Correct it.'
        if not isinstance(example.get("tier"), str) or example["tier"] not in declared:
            return f"line {number} names a tier that spec.tiers does not declare. Correct it."
        seen += 1
    return None if seen else "holds no example. Write one JSON object a line."
