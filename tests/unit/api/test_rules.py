"""What each kind accepts and refuses, and with which sentence."""

from __future__ import annotations

import copy
import re
from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from pilothouse_api import Connector, Kind, ModelRoute, Rollout, Tenant
from pilothouse_api.meta import refused_changes

Object = dict[str, Any]

TENANT: Object = {"displayName": "Acme", "agent": {"modelRouteRef": {"name": "standard"}}}
CONNECTOR: Object = {
    "tenantRef": {"name": "acme"},
    "type": "jira",
    "url": "https://acme.example/jira",
    "auth": {"mode": "UserOAuth", "oauth": {"clientSecretRef": {"name": "acme-jira-oauth"}}},
}
ROUTE: Object = {
    "providers": [
        {"name": "local", "type": "OpenAI", "baseURL": "http://vllm.models:8000/v1"},
        {"name": "anthropic", "type": "Anthropic", "credentialsSecretRef": {"name": "anthropic"}},
    ],
    "tiers": {
        "fast": {"targets": [{"provider": "local", "model": "llama-3-8b", "pricePer1K": {"input": "0.002"}}]},
        "mid": {"targets": [{"provider": "anthropic", "model": "claude-haiku"}]},
    },
    "routing": {"default": "mid"},
}
ROLLOUT: Object = {
    "tenantRef": {"name": "acme"},
    "template": {"modelRouteRef": {"name": "standard"}},
    "strategy": {"canary": {"steps": [{"setWeight": 5}, {"pause": {"duration": "10m"}}, {"setWeight": 100}]}},
    "analysis": {"metrics": [{"name": "success-rate", "compare": {"maxDecrease": "2%"}}]},
}
SPECS: dict[type[Kind], Object] = {Tenant: TENANT, Connector: CONNECTOR, ModelRoute: ROUTE, Rollout: ROLLOUT}


def read(kind: type[Kind], spec: Object, name: str = "acme") -> Kind:
    metadata = {"name": name, "namespace": "acme", "generation": 2, "uid": "u-1", "managedFields": [{"manager": "me"}]}
    return kind.model_validate({"apiVersion": "pilothouse.dev/v1alpha1", "metadata": metadata, "spec": spec})


def changed(spec: Object, path: str, value: Any) -> Object:
    """A copy with one field set; a part of the path that is a number is an index."""
    out = copy.deepcopy(spec)
    *parents, last = (int(part) if part.isdigit() else part for part in path.split("/"))
    node: Any = out
    for part in parents:
        node = node.setdefault(part, {}) if isinstance(part, str) else node[part]
    node[last] = value
    return out


@pytest.mark.parametrize("kind", SPECS, ids=lambda kind: kind.__name__)
def test_smallest_object_is_read_and_unknown_fields_are_ignored(kind: type[Kind]) -> None:
    read_back = read(kind, {**SPECS[kind], "fromTheFuture": {"a": 1}})

    assert (read_back.metadata.name, read_back.metadata.generation, read_back.metadata.uid) == ("acme", 2, "u-1")
    assert kind.model_validate(read_back.to_api()) == read_back


VAULT: Object = {"address": "https://v:8200", "role": "acme"}
STEPS = "strategy/canary/steps"
METRIC = "analysis/metrics/0"


@pytest.mark.parametrize(
    ("kind", "path", "value", "sentence"),
    [
        (Tenant, "workers", {"minReplicas": 5}, "raise maxReplicas or lower minReplicas"),
        (Tenant, "agent/deadline", "0s", "must be a duration above zero"),
        (Tenant, "agent/deadline", "30s\n", "must be a duration above zero"),
        (Tenant, "agent/modelRouteRef/name", "Standard", "must be the name of an object"),
        (Tenant, "agent/budgetUSD", "0.00", "must be above zero, else no request could be answered"),
        (Rollout, "template/approvalFor", "0h", "must be a duration above zero"),
        (Tenant, "limits", {"dailyBudgetUSD": "-1"}, "must be an amount in USD that is not negative"),
        (Tenant, "limits", {"dailyBudgetUSD": 250}, "must be an amount in USD that is not negative"),
        (Tenant, "credentials", {"backend": "Vault"}, "backend Vault needs vault"),
        (Tenant, "identity", {"oidc": {"issuerURL": "http://login.example"}}, "starts with https://"),
        (Connector, "auth/mode", "JWTBearer", "jwtBearer goes with mode JWTBearer"),
        (Connector, "auth/mode", "JWTBearer", "oauth goes with mode UserOAuth"),
        (Connector, "auth/oauth", {}, "no user could link an account"),
        (Connector, "tools", {"allow": ["issue.*", "issue.*"]}, "Duplicate value"),
        (Connector, "tools", {"approvals": [{"match": "a"}, {"match": "a", "by": "Manager"}]}, "Duplicate value"),
        (Connector, "resilience", {"breaker": {"window": 5}}, "lower minimumCalls or raise window"),
        (Connector, "resilience", {"breaker": {"slowCallRatePercent": 60}}, "set slowCallAfter, or remove"),
        (Connector, "tools", {"approvals": [{"match": "a", "by": "Group"}]}, "group goes with by Group"),
        (Connector, "tools", {"approvals": [{"match": "a", "group": "it"}]}, "group goes with by Group"),
        (Connector, "auth/oauth/authorizationURL", "https://a", "authorizationURL and tokenURL are one server's"),
        (Connector, "auth/oauth/tokenURL", "https://a", "authorizationURL and tokenURL are one server's"),
        (Connector, "type", "mcp", "openapi and mcp have no authorization server of their own"),
        (Connector, "type", "openapi", "openapi goes with type openapi and with no other"),
        (Connector, "openapi", {"document": {"url": "https://a"}}, "openapi goes with type openapi and with no other"),
        (Connector, "openapi", {"document": {}}, "set exactly one of url, configMapKeyRef and secretKeyRef"),
        (
            Connector,
            "openapi",
            {"document": {"url": "https://a", "secretKeyRef": {"name": "a", "key": "b"}}},
            "set exactly one of url, configMapKeyRef and secretKeyRef",
        ),
        (
            Connector,
            "openapi",
            {"document": {"secretKeyRef": {"name": "a", "key": "b/c"}}},
            "must be a key of the object",
        ),
        (Connector, "openapi", {"document": {"url": "https://a"}, "operations": ["a b"]}, "must be an operation's id"),
        (Connector, "apiVersion", "v66.0", "apiVersion goes with type salesforce"),
        (Connector, "apiVersion", "66.0", "must be a version of Salesforce's API"),
        (Connector, "tools", {"deny": ["a", "a"]}, "Duplicate value"),
        (Connector, "tools", {"effects": [{"match": "a", "effect": "Read"}] * 2}, "Duplicate value"),
        (Connector, "cache", {"ttl": "0s"}, "must be a duration above zero"),
        (Tenant, "credentials", {"backend": "Vault", "vault": VAULT | {"role": "a/b"}}, "must be a role's name"),
        (Tenant, "credentials", {"backend": "Vault", "vault": VAULT | {"mount": "/kv/"}}, "must be a mount's path"),
        (
            Tenant,
            "credentials",
            {"backend": "Vault", "vault": VAULT | {"authMount": "a/../b"}},
            "must be a mount's path",
        ),
        (Connector, "url", "acme.example/jira", "must be an address that starts with http:// or https://"),
        (ModelRoute, "providers/0", {"name": "local", "type": "OpenAI"}, "the vendor's own endpoint needs a key"),
        (ModelRoute, "providers/1/name", "local", "Duplicate value"),
        (ModelRoute, "tiers/fast/targets/0/provider", "vllm", "tiers.fast.targets names a provider"),
        (ModelRoute, "tiers/fast/targets/0/pricePer1K/input", "-0.1", "that is not negative"),
        (ModelRoute, "tiers", {}, "no tier is declared"),
        (ModelRoute, "routing/default", "power", "routing.default names a tier"),
        (ModelRoute, "fallback", ["mid", "power"], "fallback names a tier"),
        (ModelRoute, "fallback", ["mid", "mid"], "Duplicate value"),
        (ModelRoute, "tiers/fast/targets", [], "at least 1 item"),
        (ModelRoute, "providers/0/protocol", "Messages", "protocol Messages goes with type Anthropic"),
        (ModelRoute, "providers/1/protocol", "Responses", "protocol Messages goes with type Anthropic"),
        (ModelRoute, "providers/0/timeouts", {"firstToken": "0s"}, "must be a duration above zero"),
        (ModelRoute, "providers/0/breaker", {"window": 4}, "minimumCalls (5 where it is not set) is above window"),
        (ModelRoute, "tiers/fast/targets/0/pricePer1K/cachedInput", "-1", "that is not negative"),
        (ModelRoute, "tiers/fast/targets/0/contextTokens", 4096, "leaves no room for the request"),
        (ModelRoute, "tiers/fast/targets/0/reasoning", "low", "Input should be 'Low', 'Medium' or 'High'"),
        (ModelRoute, "tiers/fast/targets/0/weight", 0, "greater than or equal to 1"),
        (ModelRoute, "routing/rules", [{"when": "systems > 2", "tier": "power"}], "routing.rules names a tier"),
        (ModelRoute, "routing/rules", [{"when": "", "tier": "mid"}], "at least 1 character"),
        (
            ModelRoute,
            "routing/examples",
            {"configMapKeyRef": {"name": "a", "key": "b"}},
            "examples go with strategy Embedding",
        ),
        (ModelRoute, "hedge", {"after": "1s", "budget": "101%"}, "at most 100%"),
        (ModelRoute, "hedge", {"after": "0s"}, "must be a duration above zero"),
        (
            Tenant,
            "limits",
            {"requestsPerMinute": 10, "perUser": {"requestsPerMinute": 11}},
            "perUser.requestsPerMinute is above",
        ),
        (Tenant, "limits", {"perUser": {"tokensPerMinute": 400_001}}, "perUser.tokensPerMinute is above"),
        (Tenant, "limits", {"softBudgetPercent": 101}, "less than or equal to 100"),
        (Rollout, STEPS, [{"setWeight": 50}, {"setWeight": 25}, {"setWeight": 100}], "must be above the one before"),
        (Rollout, STEPS, [{"setWeight": 100}, {"setWeight": 100}], "must be above the one before"),
        (Rollout, STEPS, [{"setWeight": 50}], "the last setWeight must be 100"),
        (Rollout, STEPS, [{"setWeight": 100, "pause": {}}], "a step is either setWeight or pause"),
        (Rollout, STEPS, [{}, {"setWeight": 100}], "a step is either setWeight or pause"),
        (Rollout, METRIC, {"name": "queue", "source": "Prometheus", "successCondition": "result < 1"}, "needs query"),
        (Rollout, METRIC, {"name": "accuracy"}, "set exactly one of successCondition and compare"),
        (Rollout, METRIC, {"name": "accuracy", "compare": {}}, "set exactly one of maxDecrease"),
        (Rollout, METRIC, {"name": "luck", "compare": {"maxDecrease": "2%"}}, "no builtin metric has this name"),
        (Rollout, METRIC, {"name": "accuracy", "successCondition": "x < 1"}, "must compare result with a number"),
        (Rollout, METRIC, {"name": "accuracy", "compare": {"maxDecrease": "2"}}, "must be a percentage"),
    ],
)
def test_wrong_object_is_refused_with_what_to_change(kind: type[Kind], path: str, value: Any, sentence: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(sentence)):
        read(kind, changed(SPECS[kind], path, value))


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        (Tenant, "workers", {"minReplicas": 4}),
        (Tenant, "agent/deadline", "1m30s"),
        (Tenant, "credentials", {"backend": "Vault", "vault": {"address": "https://v:8200", "role": "acme"}}),
        (Tenant, "limits", {"dailyBudgetUSD": "0"}),
        (Tenant, "agent/budgetUSD", "0.001"),
        (Connector, "resilience", {"breaker": {"windowType": "Time", "window": 5, "minimumCalls": 50}}),
        (Connector, "resilience", {"breaker": {"slowCallAfter": "1s", "slowCallRatePercent": 60}}),
        (Connector, "tools", {"approvals": [{"match": "a", "by": "Group", "group": "it"}]}),
        (Connector, "auth", {"mode": "ServiceAccount", "serviceAccount": {"tokenSecretRef": {"name": "kb"}}}),
        (Connector, "auth/oauth", {"clientSecretRef": {"name": "a"}, "revocationURL": "https://a/revoke"}),
        (Connector, "tools", {"approvals": [{"match": "a", "by": "Nobody"}], "deny": ["b"]}),
        (Connector, "tools", {"effects": [{"match": "a", "effect": "Read"}, {"match": "b", "effect": "Destructive"}]}),
        (Connector, "resilience", {"rateLimit": {"requestsPerMinute": 1}}),
        (Connector, "cache", {"ttl": "15s"}),
        (ModelRoute, "fallback", ["mid", "fast"]),
        (Rollout, STEPS, [{"pause": {}}, {"setWeight": 0}, {"setWeight": 100}, {"pause": {"duration": "1h"}}]),
        (Rollout, METRIC, {"name": "q", "source": "Prometheus", "query": "x", "successCondition": "result >= -0.5"}),
    ],
)
def test_right_object_is_accepted(kind: type[Kind], path: str, value: Any) -> None:
    read(kind, changed(SPECS[kind], path, value))


@pytest.mark.parametrize(("kind", "limit"), [(Tenant, 40), (Rollout, 40), (Connector, 63), (ModelRoute, 63)])
def test_names_are_short_enough_for_what_is_made_of_them(kind: type[Kind], limit: int) -> None:
    read(kind, SPECS[kind], name="x" * limit)
    for name in ("x" * (limit + 1), "a.b"):
        with pytest.raises(ValidationError, match="it becomes part of other names"):
            read(kind, SPECS[kind], name=name)


def test_what_cannot_change() -> None:
    before = Connector.model_validate({"spec": CONNECTOR}).spec
    after = Connector.model_validate({"spec": {**CONNECTOR, "type": "okta", "url": "https://okta.example"}}).spec

    assert refused_changes(before, before) == ()
    (message,) = refused_changes(before, after)
    assert message.startswith("type cannot change")


def test_money_is_exact_and_stays_text() -> None:
    route = ModelRoute.model_validate({"spec": ROUTE})

    price = route.spec.tiers.declared()["fast"][0].price_per_1k

    assert price.input == Decimal("0.002")
    assert price.to_api() == {"input": "0.002", "output": "0"}


def test_condition_is_found_by_type() -> None:
    tenant = Tenant.model_validate(
        {"spec": TENANT, "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "WorkersReady"}]}}
    )

    ready = tenant.status.condition("Ready")

    assert ready is not None
    assert ready.reason == "WorkersReady"
    assert tenant.status.condition("Accepted") is None


def test_each_type_has_what_goes_with_it() -> None:
    account = {"mode": "ServiceAccount", "serviceAccount": {"tokenSecretRef": {"name": "kb"}}}
    document = {"document": {"configMapKeyRef": {"name": "docs", "key": "openapi.json"}}}
    linking = {"clientSecretRef": {"name": "a"}, "authorizationURL": "https://a/a", "tokenURL": "https://a/t"}
    read(Connector, {**CONNECTOR, "type": "openapi", "auth": account, "openapi": document})
    read(Connector, {**CONNECTOR, "type": "mcp", "auth": {"mode": "UserOAuth", "oauth": linking}})
    read(Connector, {**CONNECTOR, "type": "salesforce", "apiVersion": "v66.0"})
    vault = read(Tenant, {**TENANT, "credentials": {"backend": "Vault", "vault": VAULT}})
    assert isinstance(vault, Tenant)
    assert vault.spec.credentials.vault is not None
    assert vault.spec.credentials.vault.to_api() == VAULT | {"mount": "kv", "authMount": "kubernetes"}
