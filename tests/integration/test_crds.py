"""The CRDs in a real API server say what the typed kinds say, and say it helpfully."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from pydantic import ValidationError

from pilothouse_api import KINDS, Connector, Kind
from pilothouse_api.meta import refused_changes
from pilothouse_api.names import API_VERSION, GROUP, VERSION
from pilothouse_api.rules import VALIDATIONS
from pilothouse_api.schema import crd, structural

INVALID = sorted((Path(__file__).parent / "invalid").glob("*.yaml"))
NAMESPACE = "pilothouse-crd-test"
BY_NAME = {kind.__name__: kind for kind in KINDS}

Object = dict[str, Any]


@pytest.fixture(scope="module")
def api(kubeconfig: Path) -> Iterator[client.CustomObjectsApi]:
    """An API server that serves the four kinds, exactly as they are generated now."""
    connection = config.new_client_from_config(config_file=str(kubeconfig))
    definitions = client.ApiextensionsV1Api(connection)
    for kind in KINDS:
        definition = crd(kind)
        name = definition["metadata"]["name"]
        try:
            definitions.create_custom_resource_definition(definition)
        except ApiException as error:
            if error.status != 409:
                raise
            definitions.patch_custom_resource_definition(name, definition)
        _wait_until_served(definitions, name)
    try:
        client.CoreV1Api(connection).create_namespace({"metadata": {"name": NAMESPACE}})
    except ApiException as error:
        if error.status != 409:
            raise
    custom = client.CustomObjectsApi(connection)
    _wait_until_enforced(custom)
    yield custom
    connection.close()


def _wait_until_served(definitions: client.ApiextensionsV1Api, name: str) -> None:
    for _ in range(100):
        status = definitions.read_custom_resource_definition(name).status
        if any(c.type == "Established" and c.status == "True" for c in (status and status.conditions) or ()):
            return
        time.sleep(0.1)
    pytest.fail(f"{name} was not established within 10 s")


def _wait_until_enforced(custom: client.CustomObjectsApi) -> None:
    """Established comes a moment before the handler; a 404 of a whole kind means not yet."""
    for kind in KINDS:
        for _ in range(100):
            try:
                custom.list_namespaced_custom_object(GROUP, VERSION, NAMESPACE, kind.plural)
                break
            except ApiException as error:
                if error.status != 404:
                    raise
            time.sleep(0.1)


def refusal(api: client.CustomObjectsApi, obj: Object) -> str | None:
    """What the API server says against creating the object; None where it would create it."""
    kind = BY_NAME[obj["kind"]]
    try:
        api.create_namespaced_custom_object(GROUP, VERSION, NAMESPACE, kind.plural, obj, dry_run="All")
    except ApiException as error:
        if error.status not in (400, 422):
            raise
        return str(json.loads(error.body)["message"])
    return None


def typed_refusal(obj: Object) -> list[str] | None:
    """What the typed kind says against the object, a sentence for each error."""
    try:
        BY_NAME[obj["kind"]].model_validate(obj)
    except ValidationError as error:
        # A list whose only entry is wrong is also reported as too short; that says nothing new.
        parts = [part for part in error.errors() if part["type"] != "too_short" or not part["input"]]
        return [part["msg"].removeprefix("Value error, ") for part in parts]
    return None


def rules_of(node: Object) -> set[str]:
    """The messages of all rules in a schema that are asked when an object is created."""
    found = {rule["message"] for rule in node.get(VALIDATIONS, []) if "oldSelf" not in rule["rule"]}
    children = [*node.get("properties", {}).values(), *([node["items"]] if "items" in node else [])]
    return found.union(*map(rules_of, children))


# --- wrong objects that people write -------------------------------------------------------------------------------


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
def test_wrong_object_is_refused_with_a_sentence_that_helps(api: client.CustomObjectsApi, path: Path) -> None:
    text = path.read_text()
    expected = text.splitlines()[0].removeprefix("# expect: ")
    obj = yaml.safe_load(text)

    said = refusal(api, obj)

    assert said is not None, "the API server accepted it"
    assert expected in said
    assert typed_refusal(obj) is not None, "the typed kind accepted it"


def test_there_are_ten_wrong_objects_of_all_kinds() -> None:
    assert len(INVALID) >= 10
    assert {yaml.safe_load(path.read_text())["kind"] for path in INVALID} == set(BY_NAME)


# --- generated objects, valid and slightly broken ------------------------------------------------------------------

REF = st.fixed_dictionaries({"name": st.sampled_from(["acme", "acme-jira", "a.b", "Acme", "a_b", "-a", "x" * 254, ""])})
GOOD_REF = st.fixed_dictionaries({"name": st.sampled_from(["acme", "a.b", "0"])})
DURATION = st.sampled_from(["30s", "1h30m", "180d", "500ms"]) | st.sampled_from(
    ["0s", "00m", "10", "s", "1w", "-1s", ""]
)
MOUNT = st.sampled_from(["kv", "teams/kv-2", "k_8"]) | st.sampled_from(
    ["", "/kv", "kv/", "a//b", "a.b", "*", 'a"', "x" * 129]
)
ROLE = st.sampled_from(["acme", "a.b-c_d", "A"]) | st.sampled_from(["", "a/b", "-a", "a\n", "../a", "x" * 129])
VERSION_TEXT = st.sampled_from(["v66.0", "v100.0"]) | st.sampled_from(["66.0", "v6.0", "v66", "v66.0\n", ""])
MONEY = st.sampled_from(["0", "250", "0.002", "00.10"]) | st.sampled_from(["-1", "1e3", "0.", ".5", "$3", "NaN", 2])
PERCENT = st.sampled_from(["2%", "12.5%", "150%"]) | st.sampled_from(["2", "-2%", "%", "2.%", "1.234%"])
URL = st.sampled_from(["http://a.b:80/v1", "https://x"]) | st.sampled_from(["ftp://x", "https://", "https://a b", "x"])
NAME = st.sampled_from(["local", "anthropic", "x1"])
TIER = st.sampled_from(["fast", "mid", "power"])
TEXT = st.sampled_from(["", "a", "Grüße, 世界 \U0001f680", "x\n", " "])


def often(good: st.SearchStrategy[Any], wild: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Mostly good, so that whole objects are often valid; else every object is refused for some trifle."""
    return st.integers(0, 19).flatmap(lambda n: wild if n == 0 else good)


ref = often(GOOD_REF, REF)
duration = often(st.sampled_from(["30s", "1h30m", "180d"]), DURATION)
money = often(st.sampled_from(["0", "0.002", "250"]), MONEY)
url = often(st.sampled_from(["https://x", "http://a.b:80/v1"]), URL)
count = often(st.integers(1, 20), st.integers(-1, 10**7) | st.sampled_from(["3", True]))
glob = often(st.sampled_from(["*", "issue.*", "user.grant*", "a.b"]), st.sampled_from(["", "a b", "x" * 129, "ä"]))
scopes = st.lists(
    often(st.sampled_from(["read:x", "write:x", "offline"]), st.sampled_from(["", "a b", 'a"'])), max_size=3
)


def obj(**required: st.SearchStrategy[Any]) -> st.SearchStrategy[Object]:
    return st.fixed_dictionaries(required)


def opt(required: Object, **optional: st.SearchStrategy[Any]) -> st.SearchStrategy[Object]:
    return st.fixed_dictionaries(required, optional=optional)


agent = opt(
    {"modelRouteRef": ref},
    instructions=TEXT,
    maxSteps=count,
    deadline=duration,
    budgetUSD=often(st.sampled_from(["0.25", "1"]), MONEY),
    approvalFor=duration,
    image=often(st.just("r/p:1"), st.sampled_from(["", "a b", "x\n"])),
)
tenant_spec = opt(
    {"displayName": often(st.just("Acme"), TEXT), "agent": agent},
    identity=opt(
        {},
        oidc=opt({"issuerURL": url}, audience=often(st.just("p"), TEXT)),
        slack=obj(teamID=often(st.just("T0ACME"), st.sampled_from(["t0", "T", ""])), credentialsSecretRef=ref),
        teams=obj(
            tenantID=often(st.just("7f1c0b7e-5d0a-4c43-9d51-0a8f6c1f2b11"), TEXT),
            appID=st.just("7F1C0B7E-5d0a-4c43-9d51-0a8f6c1f2b11"),
            credentialsSecretRef=ref,
        ),
    ),
    workers=opt({}, minReplicas=st.integers(1, 5), maxReplicas=often(st.integers(3, 9), count)),
    memory=opt({}, shortTermTTL=duration, longTermTTL=duration, contextTokens=often(st.just(4000), count)),
    limits=opt({}, requestsPerMinute=count, dailyBudgetUSD=money),
    credentials=opt(
        {"backend": st.sampled_from(["Vault", "Kubernetes"])},
        vault=opt(
            {"address": url, "role": often(st.just("acme"), ROLE)},
            mount=often(st.just("kv"), TEXT),
            authMount=often(st.just("k8s/eu"), MOUNT),
            caSecretRef=ref,
        ),
    ),
)
AUTH = {
    "oauth": opt({}, clientSecretRef=ref, scopes=scopes, linkedAccountsSecretRef=ref)
    | opt({"clientSecretRef": ref}, authorizationURL=url, tokenURL=url, revocationURL=url),
    "tokenExchange": opt(
        {"tokenURL": url, "audience": st.just("a"), "clientSecretRef": ref},
        scopes=scopes,
        grant=st.sampled_from(["RFC8693", "EntraOnBehalfOf", "rfc8693"]),
    ),
    "jwtBearer": obj(tokenURL=url, issuer=st.just("i"), audience=st.just("a"), privateKeySecretRef=ref),
    "serviceAccount": opt({"tokenSecretRef": ref}, writes=st.sampled_from(["Deny", "Allow"])),
}
key_ref = obj(name=st.sampled_from(["docs", "Docs"]), key=often(st.just("api.json"), st.sampled_from(["a/b", "", "ä"])))
MODES = dict(zip(["UserOAuth", "TokenExchange", "JWTBearer", "ServiceAccount"], AUTH, strict=True))
matching_auth = st.sampled_from(list(MODES)).flatmap(
    lambda mode: obj(mode=st.just(mode), **{MODES[mode]: AUTH[MODES[mode]]})
)
document = st.one_of(
    *(obj(**{place: key_ref}) for place in ("configMapKeyRef", "secretKeyRef")),
    obj(url=url),
    opt({}, url=url, configMapKeyRef=key_ref, secretKeyRef=key_ref),
)
OPENAPI = opt(
    {"document": document},
    operations=st.lists(often(st.sampled_from(["get*", "list"]), st.sampled_from(["", "a b", "ä"])), max_size=2),
)
connector_spec = opt(
    {
        "tenantRef": ref,
        "type": often(st.sampled_from(["jira", "okta", "mcp", "salesforce"]), st.sampled_from(["Jira", "openapi"])),
        "url": url,
        "auth": often(matching_auth, opt({"mode": st.sampled_from(list(MODES))}, **AUTH)),
    },
    tools=opt(
        {},
        allow=st.lists(glob, max_size=3),
        approvals=st.lists(
            often(
                opt({"match": glob}, by=st.sampled_from(["User", "Manager", "Nobody"])),
                opt({"match": glob}, by=st.sampled_from(["User", "Group"]), group=TEXT),
            ),
            max_size=2,
        ),
        deny=st.lists(glob, max_size=3),
        effects=st.lists(opt({"match": glob}, effect=st.sampled_from(["Read", "Write", "Destructive"])), max_size=2),
    ),
    cache=opt({}, ttl=duration),
    openapi=OPENAPI,
    apiVersion=VERSION_TEXT,
    resilience=opt(
        {},
        rateLimit=opt({}, requestsPerMinute=count),
        timeout=duration,
        retry=opt({}, attempts=often(st.integers(1, 10), count)),
        breaker=opt(
            {},
            windowType=st.sampled_from(["Count", "Time"]),
            window=count,
            minimumCalls=often(st.just(1), count),
            openFor=duration,
            failureRatePercent=count,
            slowCallAfter=duration,
            slowCallRatePercent=often(st.just(100), count),
            halfOpenFor=duration,
        ),
    ),
)
target = opt({"provider": NAME, "model": often(st.just("m"), TEXT)}, pricePer1K=opt({}, input=money, output=money))
some_targets = obj(targets=st.lists(target, min_size=1, max_size=2))
targets = obj(targets=st.lists(target, max_size=2))
provider = opt(
    {"name": NAME, "type": st.sampled_from(["OpenAI", "Anthropic"])}, baseURL=url, credentialsSecretRef=ref
) | st.sampled_from([{"name": name, "type": "OpenAI", "baseURL": "http://v"} for name in ("local", "anthropic", "x1")])
route_spec = opt(
    {
        "providers": st.lists(provider, max_size=3)
        | st.just([{"name": name, "type": "OpenAI", "baseURL": "http://v"} for name in ("local", "anthropic", "x1")]),
        "tiers": opt({}, fast=targets, mid=targets, power=targets)
        | obj(fast=some_targets, mid=some_targets, power=some_targets),
        "routing": opt({"default": TIER}, strategy=st.just("Complexity")),
    },
    fallback=st.lists(TIER, max_size=3, unique=True) | st.lists(TIER, max_size=3),
    cache=obj(ttl=duration),
)
step = opt({}, setWeight=often(st.integers(0, 100), st.sampled_from([-1, 101, "5"]))) | opt(
    {}, pause=opt({}, duration=duration)
)
rising = st.lists(st.integers(0, 99), unique=True, max_size=4).map(
    lambda weights: [{"setWeight": weight} for weight in [*sorted(weights), 100]]
)
compare = opt({}, against=st.just("Baseline"), maxDecrease=PERCENT) | opt(
    {}, maxIncrease=st.just("20%"), maxDecrease=PERCENT
)
condition = often(st.sampled_from(["result < 100", "result>=-0.5"]), st.sampled_from(["x < 1", "result < a", "result"]))
metric = (
    opt(
        {"name": st.sampled_from(["success-rate", "queue-depth", "Bad Name"])},
        source=st.sampled_from(["Builtin", "Prometheus"]),
        query=often(st.just("sum(x)"), TEXT),
        successCondition=condition,
        compare=compare,
        failureLimit=count,
    )
    | obj(name=st.just("accuracy"), compare=st.just({"maxDecrease": "2%"}))
    | obj(name=st.just("q"), source=st.just("Prometheus"), query=st.just("x"), successCondition=condition)
)
rollout_spec = opt(
    {
        "tenantRef": ref,
        "template": agent,
        "strategy": obj(canary=obj(steps=rising | rising.flatmap(st.permutations) | st.lists(step, max_size=5))),
    },
    analysis=opt({"metrics": st.lists(metric, max_size=2)}, interval=duration),
    paused=often(st.booleans(), st.just("true")),
)
SPECS = {"Tenant": tenant_spec, "Connector": connector_spec, "ModelRoute": route_spec, "Rollout": rollout_spec}
object_name = often(st.sampled_from(["acme", "a-1"]), st.sampled_from(["a.b", "x" * 41, "x" * 64]))


# Whole objects rarely break one rule alone, so each field is also replaced in an object that is valid otherwise.
VALID: dict[str, Object] = {
    "Tenant": {
        "displayName": "Acme",
        "identity": {
            "oidc": {"issuerURL": "https://x"},
            "slack": {"teamID": "T0ACME", "credentialsSecretRef": {"name": "s"}},
            "teams": {
                "tenantID": "7f1c0b7e-5d0a-4c43-9d51-0a8f6c1f2b11",
                "appID": "7f1c0b7e-5d0a-4c43-9d51-0a8f6c1f2b11",
                "credentialsSecretRef": {"name": "s"},
            },
        },
        "agent": {"modelRouteRef": {"name": "standard"}},
        "credentials": {"backend": "Vault", "vault": {"address": "https://v", "role": "acme"}},
    },
    "Connector": {
        "tenantRef": {"name": "acme"},
        "type": "jira",
        "url": "https://x",
        "auth": {"mode": "UserOAuth", "oauth": {"clientSecretRef": {"name": "s"}}},
    },
    "ModelRoute": {
        "providers": [{"name": name, "type": "OpenAI", "baseURL": "http://v"} for name in ("local", "anthropic")],
        "tiers": {tier: {"targets": [{"provider": "local", "model": "m"}]} for tier in ("fast", "mid")},
        "routing": {"default": "mid"},
    },
    "Rollout": {
        "tenantRef": {"name": "acme"},
        "template": {"modelRouteRef": {"name": "standard"}},
        "strategy": {"canary": {"steps": [{"setWeight": 5}, {"setWeight": 100}]}},
        "analysis": {"metrics": [{"name": "accuracy", "compare": {"maxDecrease": "2%"}}]},
    },
}
some_weights = st.lists(st.sampled_from([{"setWeight": w} for w in (0, 5, 5, 50, 100)] + [{"pause": {}}]), max_size=4)
POKES: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "Tenant": {
        "agent/modelRouteRef": REF,
        "agent/deadline": DURATION,
        "agent/budgetUSD": MONEY,
        "agent/approvalFor": DURATION,
        "agent/image": st.sampled_from(["a b", "r/p:1", "x\n", "ä"]),
        "identity/oidc/issuerURL": URL,
        "identity/slack/teamID": st.sampled_from(["T0", "T01", "E01\n", "t01", "T-1"]),
        "identity/teams/tenantID": st.sampled_from(["7f1c0b7e", "7F1C0B7E-5d0a-4c43-9d51-0a8f6c1f2b11"]),
        "workers": opt({}, minReplicas=st.integers(1, 6), maxReplicas=st.integers(1, 6)),
        "memory": opt({}, workingTTL=DURATION),
        "limits": obj(dailyBudgetUSD=MONEY)
        | opt(
            {},
            requestsPerMinute=st.integers(1, 9),
            softBudgetPercent=st.sampled_from([0, 1, 100, 101]),
            perUser=opt({}, requestsPerMinute=st.integers(0, 9), tokensPerMinute=st.integers(399_999, 400_001)),
        ),
        "credentials/backend": st.sampled_from(["Vault", "Kubernetes"]),
        "credentials/vault/address": URL,
        "credentials/vault/mount": MOUNT,
        "credentials/vault/authMount": MOUNT,
        "credentials/vault/role": ROLE,
        "credentials/vault/caSecretRef": REF,
    },
    "Connector": {
        "tenantRef": REF,
        "url": URL,
        "auth": st.just({"mode": "UserOAuth"})
        | opt(
            {"mode": st.just("UserOAuth"), "oauth": AUTH["oauth"]}, **{k: v for k, v in AUTH.items() if k != "oauth"}
        ),
        "auth/mode": st.sampled_from(list(MODES)),
        "auth/oauth/scopes": st.lists(st.sampled_from(["a:b", "a b", "", 'a"', "a\n"]), max_size=2),
        "auth/oauth": AUTH["oauth"],
        "auth/tokenExchange": AUTH["tokenExchange"],
        "auth/jwtBearer": AUTH["jwtBearer"],
        "auth/serviceAccount": AUTH["serviceAccount"],
        "tools": obj(allow=st.lists(st.sampled_from(["*", "a.b", "a b", "ä", ""]), max_size=2)),
        "tools/deny": st.lists(st.sampled_from(["*", "a.b", "a b", "ä", ""]), max_size=2),
        "tools/effects": st.lists(
            opt({"match": st.sampled_from(["a", "b", "a b"])}, effect=st.sampled_from(["Read", "Write", "None"])),
            max_size=2,
        ),
        "type": st.sampled_from(["okta", "openapi", "mcp", "salesforce", "Jira"]),
        "apiVersion": VERSION_TEXT,
        "cache": opt({}, ttl=DURATION),
        "openapi": OPENAPI,
        "auth/oauth/authorizationURL": URL,
        "auth/oauth/revocationURL": URL,
        "../spec": st.builds(
            lambda type_, linking, more: {
                "tenantRef": {"name": "acme"},
                "type": type_,
                "url": "https://x",
                "auth": {"mode": "UserOAuth", "oauth": {"clientSecretRef": {"name": "s"}, **linking}},
                **more,
            },
            st.sampled_from(["openapi", "mcp", "salesforce"]),
            st.sampled_from([{}, {"authorizationURL": "https://a", "tokenURL": "https://t"}]),
            opt({}, openapi=OPENAPI, apiVersion=VERSION_TEXT),
        ),
        "resilience/rateLimit": opt({}, requestsPerMinute=st.sampled_from([0, 1, 1_000_000, 1_000_001, "1"])),
        "resilience": obj(timeout=DURATION),
        "tools/approvals": st.lists(
            opt(
                {"match": st.just("a")},
                by=st.sampled_from(["User", "Group", "Nobody"]),
                group=st.sampled_from(["", "it"]),
            ),
            max_size=1,
        ),
        "resilience/breaker": opt(
            {},
            windowType=st.sampled_from(["Count", "Time"]),
            window=st.integers(1, 20),
            minimumCalls=st.integers(1, 20),
        )
        | opt({}, slowCallAfter=DURATION, slowCallRatePercent=st.integers(98, 101)),
        "resilience/breaker/halfOpenFor": DURATION,
    },
    "ModelRoute": {
        "providers/0": opt(
            {"name": st.just("local"), "type": st.just("OpenAI")}, baseURL=URL, credentialsSecretRef=REF
        ),
        "providers/1/name": st.sampled_from(["local", "a.b", "A", "ok", "a\n"]),
        "tiers": opt({}, fast=some_targets, mid=some_targets),
        "tiers/fast/targets/0/provider": st.sampled_from(["anthropic", "other"]),
        "tiers/mid/targets/0/provider": st.sampled_from(["anthropic", "other"]),
        "tiers/power": obj(targets=st.sampled_from([[{"provider": p, "model": "m"}] for p in ("local", "other")])),
        "tiers/fast/targets/0/pricePer1K": opt({}, input=MONEY, cachedInput=MONEY),
        "routing/default": TIER,
        "fallback": st.lists(TIER, max_size=2),
        "cache": obj(ttl=DURATION),
        "providers/0/protocol": st.sampled_from(["ChatCompletions", "Responses", "Messages", "messages"]),
        "providers/0/timeouts": opt({}, firstToken=DURATION, whole=DURATION),
        "providers/0/breaker": opt({}, window=st.integers(1, 20), minimumCalls=st.integers(1, 20), openFor=DURATION)
        | opt({}, slowCallAfter=DURATION, slowCallRatePercent=st.integers(98, 101)),
        "tiers/fast/targets/0": opt(
            {"provider": st.just("local"), "model": st.just("m")},
            contextTokens=st.sampled_from([999, 1000, 4096, 4097, 200_000]),
            maxOutputTokens=st.sampled_from([15, 16, 999, 4096, 200_000]),
            reasoning=st.sampled_from(["Low", "High", "low"]),
            weight=st.integers(0, 1001),
            priority=st.integers(-1, 101),
        ),
        "routing/rules": st.lists(
            obj(when=st.sampled_from(["systems > 2", "", "x" * 1001, "not CEL ("]), tier=TIER), max_size=2
        ),
        "routing": opt(
            {"default": st.just("mid")},
            strategy=st.sampled_from(["Complexity", "Embedding", "Fixed", "Luck"]),
            examples=obj(configMapKeyRef=key_ref),
            escalate=st.sampled_from([True, False, "true"]),
        ),
        "hedge": opt(
            {"after": DURATION}, budget=st.sampled_from(["5%", "100%", "99.99%", "100.0%", "101%", "007%", "5", "%"])
        ),
    },
    "Rollout": {
        "template/modelRouteRef": REF,
        "template/budgetUSD": MONEY,
        "template/image": st.sampled_from(["a b", "r/p:1"]),
        "strategy/canary/steps": some_weights,
        "strategy/canary/steps/0": step,
        "analysis/interval": DURATION,
        "analysis/metrics/0/name": st.sampled_from(["luck", "success-rate", "Accuracy", "a.b"]),
        "analysis/metrics/0/source": st.sampled_from(["Builtin", "Prometheus"]),
        "analysis/metrics/0/query": st.just("x"),
        "analysis/metrics/0/successCondition": condition,
        "analysis/metrics/0/compare": opt({}, maxDecrease=PERCENT, maxIncrease=st.just("20%")),
        "analysis/metrics/0": opt(
            {"name": st.just("accuracy")},
            successCondition=st.sampled_from(["result<1", "x < 1", "result", "result < 1e3", "result < 1\n"]),
        ),
    },
}
for pokes in POKES.values():
    pokes["../metadata/name"] = st.sampled_from(["a.b", "x" * 40, "x" * 41, "x" * 63, "x" * 64])


def poke(made: Object, path: str, value: Any) -> None:
    """Set one field; a part of the path that is a number is an index, and ``..`` leaves the spec."""
    node: Any = made if path.startswith("../") else made["spec"]
    *parents, last = (int(part) if part.isdigit() else part for part in path.removeprefix("../").split("/"))
    for part in parents:
        node = node.setdefault(part, {}) if isinstance(part, str) else node[part]
    node[last] = value


def cripple(draw: st.DrawFn, node: Any) -> None:
    """Remove one field somewhere, or give it a value of another type."""
    while isinstance(node, dict) and node:
        key = draw(st.sampled_from(sorted(node)))
        if isinstance(node[key], dict) and node[key] and draw(st.booleans()):
            node = node[key]
            continue
        if draw(st.booleans()):
            del node[key]
        else:
            node[key] = draw(st.sampled_from(["", 7, True, [], {}, "x" * 20_000]))
        return


@st.composite
def objects(draw: st.DrawFn, kind: type[Kind]) -> Object:
    """An object made of parts of which a few are wrong; now and then with a field missing or of another type."""
    made: Object = {
        "apiVersion": API_VERSION,
        "kind": kind.__name__,
        "metadata": {"name": draw(object_name)},
        "spec": copy.deepcopy(draw(SPECS[kind.__name__])),
    }
    if draw(st.integers(0, 4)) == 0:
        cripple(draw, made["spec"])
    return made


def poked(kind: type[Kind], path: str) -> st.SearchStrategy[Object]:
    """A valid object with the field at ``path`` replaced."""

    def with_value(value: Any) -> Object:
        made: Object = {"apiVersion": API_VERSION, "kind": kind.__name__, "metadata": {"name": "acme"}}
        made["spec"] = copy.deepcopy(VALID[kind.__name__])
        poke(made, path, copy.deepcopy(value))
        return made

    return POKES[kind.__name__][path].map(with_value)


def verdicts(api: client.CustomObjectsApi, cases: st.SearchStrategy[Object], examples: int) -> list[list[str] | None]:
    """The typed kind's verdict on each case, after the API server has given the same."""
    found: list[list[str] | None] = []

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(cases)
    def agree(made: Object) -> None:
        server, typed = refusal(api, made), typed_refusal(made)
        assert (server is None) == (typed is None), f"API server: {server}\ntyped kind: {typed}\n{json.dumps(made)}"
        found.append(typed)

    agree()
    return found


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_api_server_and_typed_kind_agree_on_whole_objects(api: client.CustomObjectsApi, kind: type[Kind]) -> None:
    found = verdicts(api, objects(kind), 250)

    # An agreement on nothing but refusals, or nothing but acceptances, would say little.
    accepted = found.count(None)
    assert accepted >= 15
    assert len(found) - accepted >= 15


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_api_server_and_typed_kind_agree_on_each_field(api: client.CustomObjectsApi, kind: type[Kind]) -> None:
    found = [verdict for path in POKES[kind.__name__] for verdict in verdicts(api, poked(kind, path), 50)]

    # A rule that is never the only one broken could be wrong on either side unseen.
    alone = {verdict[0] for verdict in found if verdict is not None and len(verdict) == 1}
    assert rules_of(structural(kind)) - alone == set()


# --- defaults and changes ------------------------------------------------------------------------------------------


def connector(**spec: Any) -> Object:
    return {
        "apiVersion": API_VERSION,
        "kind": "Connector",
        "metadata": {"name": "crd-test"},
        "spec": {
            "tenantRef": {"name": "acme"},
            "type": "jira",
            "url": "https://acme.example/jira",
            "auth": {"mode": "UserOAuth", "oauth": {"linkedAccountsSecretRef": {"name": "accounts"}}},
            **spec,
        },
    }


def test_defaults_of_the_api_server_are_those_of_the_typed_kind(api: client.CustomObjectsApi) -> None:
    approvals = [{"match": "issue.delete"}, {"match": "user.*", "by": "Group", "group": "it-approvers"}]
    made = connector(resilience={"breaker": {"window": 50}}, tools={"approvals": approvals})

    stored = api.create_namespaced_custom_object(GROUP, VERSION, NAMESPACE, "connectors", made, dry_run="All")

    assert stored["spec"] == Connector.model_validate(made).spec.to_api()


@pytest.mark.parametrize("change", [{"type": "okta"}, {"tenantRef": {"name": "other"}}], ids=["type", "tenantRef"])
def test_what_cannot_change_is_refused_by_both(api: client.CustomObjectsApi, change: Object) -> None:
    before = connector()
    api.create_namespaced_custom_object(GROUP, VERSION, NAMESPACE, "connectors", before)
    try:
        with pytest.raises(ApiException) as refused:
            api.patch_namespaced_custom_object(GROUP, VERSION, NAMESPACE, "connectors", "crd-test", {"spec": change})
        said = json.loads(refused.value.body)["message"]
        (expected,) = refused_changes(
            Connector.model_validate(before).spec, Connector.model_validate(connector(**change)).spec
        )
        assert expected in said
    finally:
        api.delete_namespaced_custom_object(GROUP, VERSION, NAMESPACE, "connectors", "crd-test")
