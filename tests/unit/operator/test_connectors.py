"""What a Connector becomes: its part of the workers' configuration, its conditions, its refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from pilothouse_api.egress import EgressRule
from pilothouse_api.workerconfig import (
    ApprovalRule,
    EffectRule,
    JWTBearerConfig,
    OAuthConfig,
    OpenAPIConfig,
    SecretValue,
    ServiceAccountConfig,
    TokenExchangeConfig,
)
from pilothouse_operator.core.connectors import DOCUMENTS_LIMIT
from pilothouse_operator.core.readiness import ConnectorReport
from pilothouse_testing.builders import Json, Modifier, tenant, with_connector, with_oauth, with_system
from pilothouse_testing.operator_world import PLATFORM, World, ready_world

OKTA = "https://acme.okta.example"


def built(*modifiers: Modifier) -> World:
    world = World(tenant("acme", *modifiers))
    world.step()
    return world


def opened(world: World) -> set[int]:
    """Ports that the workers' NetworkPolicy opens."""
    return {rule["ports"][0]["port"] for rule in world.children["NetworkPolicy"]["spec"]["egress"][1:]}


# --- the configuration ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type_", "url", "expected"),
    [
        ("jira", "https://api.atlassian.com/ex/jira/1", ("https://auth.atlassian.com/authorize",
            "https://auth.atlassian.com/oauth/token", "")),
        ("jira", "https://acme.atlassian.net", ("https://auth.atlassian.com/authorize",
            "https://auth.atlassian.com/oauth/token", "")),
        ("jira", "https://evilatlassian.net", ("https://evilatlassian.net/authorize",
            "https://evilatlassian.net/oauth/token", "")),
        ("servicenow", "https://acme.service-now.example/", ("https://acme.service-now.example/oauth_auth.do",
            "https://acme.service-now.example/oauth_token.do", "https://acme.service-now.example/oauth_revoke_token.do")),
        ("salesforce", "https://acme.my.salesforce.example", (
            "https://acme.my.salesforce.example/services/oauth2/authorize",
            "https://acme.my.salesforce.example/services/oauth2/token",
            "https://acme.my.salesforce.example/services/oauth2/revoke")),
        ("okta", OKTA, (f"{OKTA}/oauth2/v1/authorize", f"{OKTA}/oauth2/v1/token", f"{OKTA}/oauth2/v1/revoke")),
    ],
)  # fmt: skip
def test_users_link_accounts_at_the_vendors_own_addresses(type_: str, url: str, expected: tuple[str, str, str]) -> None:
    world = built(with_oauth("sys", type_, url, scopes=["a"]))

    (connector,) = world.config().connectors

    assert connector.oauth == OAuthConfig(
        authorization_url=expected[0],
        token_url=expected[1],
        revocation_url=expected[2],
        client_id=SecretValue(secret="sys-oauth", key="client-id"),
        client_secret=SecretValue(secret="sys-oauth", key="client-secret"),
        scopes=("a",),
    )
    assert world.files()["secret.sys-oauth.client-secret"] == b"planted-sys"


def test_an_authorization_server_of_ones_own_has_no_default_beside_it() -> None:
    own = {"authorizationURL": "https://login.example:444/a", "tokenURL": "https://login.example:445/t"}
    world = built(with_oauth("okta", "okta", OKTA, **own))

    (connector,) = world.config().connectors

    assert connector.oauth is not None
    assert connector.oauth.authorization_url == own["authorizationURL"]
    assert connector.oauth.token_url == own["tokenURL"]
    assert connector.oauth.revocation_url == ""
    assert {443, 445} <= opened(world)  # the workers ask it, too


def test_accounts_that_an_administrator_linked_ask_no_authorization_server() -> None:
    (connector,) = built(with_connector("jira")).config().connectors

    assert connector.oauth is not None
    assert (connector.oauth.authorization_url, connector.oauth.token_url, connector.oauth.client_id) == ("", "", None)


def test_each_mode_names_its_secrets() -> None:
    exchange = {
        "tokenURL": "https://login.example/token", "audience": "jira", "grant": "EntraOnBehalfOf",
        "clientSecretRef": {"name": "exchange"}, "scopes": ["s"],
    }  # fmt: skip
    bearer = {
        "tokenURL": "https://login.example/token", "issuer": "3MVG9", "audience": "https://login.example",
        "privateKeySecretRef": {"name": "jwt"},
    }  # fmt: skip
    client = {"client-id": b"i", "client-secret": b"s"}
    world = built(
        with_system("a", content={"exchange": client}, auth={"mode": "TokenExchange", "tokenExchange": exchange}),
        with_system("b", content={"jwt": {"private-key": b"pem"}}, type="salesforce", apiVersion="v66.0",
                    auth={"mode": "JWTBearer", "jwtBearer": bearer}),
        with_system("c", content={"kb": {"token": b"t"}},
                    auth={"mode": "ServiceAccount", "serviceAccount": {"tokenSecretRef": {"name": "kb"}}}),
    )  # fmt: skip

    exchanging, signing, shared = world.config().connectors

    assert exchanging.token_exchange == TokenExchangeConfig(
        token_url="https://login.example/token",
        audience="jira",
        grant="EntraOnBehalfOf",
        client_id=SecretValue(secret="exchange", key="client-id"),
        client_secret=SecretValue(secret="exchange", key="client-secret"),
        scopes=("s",),
    )
    assert signing.jwt_bearer == JWTBearerConfig(
        token_url="https://login.example/token",
        issuer="3MVG9",
        audience="https://login.example",
        private_key=SecretValue(secret="jwt", key="private-key"),
    )
    assert signing.api_version == "v66.0"
    assert shared.service_account == ServiceAccountConfig(token=SecretValue(secret="kb", key="token"))
    assert not shared.writes_allowed
    assert {"secret.exchange.client-id", "secret.exchange.client-secret", "secret.jwt.private-key",
            "secret.kb.token"} <= world.files().keys()  # fmt: skip


def test_what_a_connector_says_of_its_tools_reaches_the_worker() -> None:
    world = built(
        with_system(
            "jira",
            content={"acme-jira-accounts": {"accounts.json": b"{}"}},
            tools={
                "deny": ["issue.delete"],
                "approvals": [{"match": "issue.edit", "by": "Nobody"}],
                "effects": [{"match": "reports.*", "effect": "Read"}],
            },
            resilience={"rateLimit": {"requestsPerMinute": 120}},
            cache={"ttl": "15s"},
        )
    )

    (connector,) = world.config().connectors

    assert connector.deny == ("issue.delete",)
    assert connector.approvals == (ApprovalRule(match="issue.edit", by="Nobody"),)
    assert connector.effects == (EffectRule(match="reports.*", effect="Read"),)
    assert (connector.requests_per_minute, connector.cache_seconds) == (120, 15)
    (plain,) = built(with_connector("jira")).config().connectors
    assert (plain.requests_per_minute, plain.cache_seconds, plain.deny, plain.effects) == (0, 0, (), ())


SERVICE = {"mode": "ServiceAccount", "serviceAccount": {"tokenSecretRef": {"name": "kb"}}}


def openapi(document: Json, name: str = "kb", **more: Any) -> Modifier:
    content = {"kb": {"token": b"t"}}
    api = {"document": document, **more}
    return with_system(
        name, content=content, type="openapi", url=f"https://{name}.example/v1", auth=SERVICE, openapi=api
    )


def test_a_document_comes_from_a_config_map_or_a_secret_or_is_fetched() -> None:
    ref = {"name": "docs", "key": "api.json"}
    scene = tenant(
        "acme",
        openapi({"configMapKeyRef": ref}, "a", operations=["get*"]),
        openapi({"secretKeyRef": ref}, "b"),
        openapi({"url": "https://docs.example:444/api.json"}, "c"),
    )
    scene.config_maps["docs"] = {"api.json": b"plain"}
    scene.secrets["docs"] = {"api.json": b"secret"}
    world = World(scene)
    world.step()

    by_name = {connector.name: connector.openapi for connector in world.config().connectors}

    assert by_name["a"] == OpenAPIConfig(document_file="document.a", operations=("get*",))
    assert by_name["b"] == OpenAPIConfig(document_file="document.b")
    assert by_name["c"] == OpenAPIConfig(document_url="https://docs.example:444/api.json")
    assert (world.files()["document.a"], world.files()["document.b"]) == (b"plain", b"secret")
    assert 444 in opened(world)


def test_a_document_that_is_not_there_is_named() -> None:
    world = built(openapi({"configMapKeyRef": {"name": "docs", "key": "api.json"}}))
    (kb,) = world.scene.connectors

    resolved = world.condition("ResolvedRefs", kb)

    assert (resolved["status"], resolved["reason"]) == ("False", "ConfigMapNotFound")
    assert resolved["message"].startswith('ConfigMap "docs" with key "api.json" is not there.')
    assert world.config().connectors == ()


def test_documents_that_would_not_fit_keep_only_their_own_connectors_out() -> None:
    ref = {"configMapKeyRef": {"name": "docs", "key": "api.json"}}
    scene = tenant("acme", openapi(ref, "a"), openapi(ref, "b"), with_connector("jira"))
    scene.config_maps["docs"] = {"api.json": b"x" * (DOCUMENTS_LIMIT // 2 + 1)}
    world = World(scene)
    world.step()

    assert [connector.name for connector in world.config().connectors] == ["a", "jira"]
    second = world.condition("ResolvedRefs", scene.connectors[1])
    assert (second["status"], second["reason"]) == ("False", "DocumentTooLarge")
    assert sum(map(len, world.files().values())) < 1024 * 1024


# --- accepted ------------------------------------------------------------------------------------------------------

INWARD = ["http://169.254.169.254/latest", "http://127.0.0.1:8200", "http://vault.globex.svc:8200", "http://10.0.0.7"]


@pytest.mark.parametrize("url", INWARD)
@pytest.mark.parametrize("field", ["url", "tokenURL", "revocationURL", "document", "exchange", "bearer"])
def test_addresses_that_point_inward_are_not_accepted(field: str, url: str) -> None:
    server = {"authorizationURL": "https://login.example/a", "tokenURL": "https://login.example/t"}
    secret = {"name": "s"}
    wrong: dict[str, Modifier] = {
        "url": with_oauth("bad", "okta", url),
        "tokenURL": with_oauth("bad", "okta", OKTA, **server | {"tokenURL": url}),
        "revocationURL": with_oauth("bad", "okta", OKTA, **server, revocationURL=url),
        "document": openapi({"url": url}, "bad"),
        "exchange": with_system("bad", url=OKTA, auth={
            "mode": "TokenExchange", "tokenExchange": {"tokenURL": url, "audience": "a", "clientSecretRef": secret}}),
        "bearer": with_system("bad", url=OKTA, auth={"mode": "JWTBearer", "jwtBearer": {
            "tokenURL": url, "issuer": "i", "audience": "a", "privateKeySecretRef": secret}}),
    }  # fmt: skip
    world = built(wrong[field], with_connector("jira"))

    accepted = world.condition("Accepted", world.scene.connectors[0])

    assert (accepted["status"], accepted["reason"]) == ("False", "EgressDenied")
    assert "egress.allowHosts" in accepted["message"]
    assert [connector.name for connector in world.config().connectors] == ["jira"]
    assert url not in json.dumps(world.children["NetworkPolicy"])
    assert not {8200} & opened(world)
    assert world.condition("ResolvedRefs")["reason"] == "ConnectorNotReady"


def test_what_the_platform_allows_and_the_tenants_own_services_are_accepted() -> None:
    allowed = replace(PLATFORM, egress=EgressRule(allow_hosts=("kb.corp",), allow_networks=("10.1.0.0/16",)))
    world = World(
        tenant(
            "acme",
            with_oauth("a", "okta", "http://kb.corp"),
            with_oauth("b", "okta", "http://10.1.2.3:8443"),
            with_oauth("c", "okta", "http://mock.acme.svc:8080"),
            with_oauth("d", "okta", "http://mock.globex.svc:8080"),
        ),
        allowed,
    )
    world.step()

    assert [connector.name for connector in world.config().connectors] == ["a", "b", "c"]
    assert world.config().egress == EgressRule(
        namespace="acme", allow_hosts=("kb.corp",), allow_networks=("10.1.0.0/16",)
    )


def test_of_two_that_are_the_same_the_older_one_stays() -> None:
    world = built(with_oauth("b", "okta", OKTA), with_oauth("a", "okta", f"{OKTA}/"), with_oauth("c", "okta", OKTA))
    older, newer, other = world.scene.connectors
    older["metadata"]["creationTimestamp"], newer["metadata"]["creationTimestamp"] = "2026-01-01", "2026-02-01"
    newer["spec"]["auth"] = older["spec"]["auth"]
    other["spec"]["auth"] = older["spec"]["auth"]
    other["spec"]["tools"] = {"allow": ["users.*"]}  # shows the agent other tools, so it is no copy
    world.step()

    assert [connector.name for connector in world.config().connectors] == ["b", "c"]
    accepted = world.condition("Accepted", newer)
    assert (accepted["status"], accepted["reason"]) == ("False", "Duplicate")
    assert accepted["message"].startswith('Connector "b" has the same type, url, auth and tools')


# --- what the workers say ------------------------------------------------------------------------------------------


def test_reachable_and_tools_are_what_the_workers_say() -> None:
    world = ready_world(with_connector("jira"), workers=2)
    jira = world.scene.connectors[0]
    assert world.condition("Reachable", jira)["status"] == "Unknown"
    assert "tools" not in jira["status"]

    one, two = world.reports
    down = ConnectorReport("jira", 12, False, "Jira did not answer within 5 s.")
    world.say(down)
    world.step()
    reachable = world.condition("Reachable", jira)
    assert (reachable["status"], reachable["message"]) == ("False", "Jira did not answer within 5 s.")
    assert jira["status"]["tools"] == 12
    assert world.condition("Ready", jira)["status"] == "True"  # it is loaded; its breaker acts on its own

    # one that reaches it is enough, and that nothing has changed writes nothing
    world.reports[two] = replace(world.reports[two], connectors=(replace(down, reachable=True, message=""),))
    world.now += timedelta(minutes=1)
    world.step()
    assert world.condition("Reachable", jira)["status"] == "True"
    assert world.condition("Reachable", jira)["lastTransitionTime"] == "2026-11-23T12:01:00Z"
    world.now += timedelta(minutes=1)
    assert world.decide().statuses == ()
    assert one != two


def test_silence_leaves_what_was_said_and_a_changed_connector_does_not() -> None:
    world = ready_world(with_connector("jira"))
    jira = world.scene.connectors[0]
    world.say(ConnectorReport("jira", 12, True))
    world.step()
    world.reports.clear()
    world.step()
    assert world.condition("Reachable", jira)["status"] == "True"
    assert jira["status"]["tools"] == 12

    jira["metadata"]["generation"] = 2
    jira["spec"]["url"] = "https://other.example"
    world.step()
    assert world.condition("Reachable", jira)["status"] == "Unknown"


def test_reports_of_another_tenant_or_configuration_say_nothing() -> None:
    world = ready_world(with_connector("jira"))
    world.say(ConnectorReport("jira", 99, True))
    (name,) = world.reports
    world.reports[name] = replace(world.reports[name], tenant="globex")
    world.step()
    assert world.condition("Reachable", world.scene.connectors[0])["status"] == "Unknown"


def test_a_connector_that_no_worker_can_use_is_not_ready_and_the_tenant_names_it() -> None:
    world = ready_world(with_connector("jira"), with_connector("other"))
    world.say(
        ConnectorReport("jira", problem="The document can't be read: no paths."), ConnectorReport("other", 3, True)
    )
    world.step()
    jira, other = world.scene.connectors
    ready = world.condition("Ready", jira)
    assert (ready["status"], ready["reason"]) == ("False", "NotUsable")
    assert ready["message"] == "The document can't be read: no paths."
    assert world.condition("Ready", other)["status"] == "True"
    assert world.condition("Ready")["reason"] == "WithoutConnectors"
    assert 'Connector "jira": The document' in world.condition("ResolvedRefs")["message"]


def test_workers_are_asked_again_for_what_no_event_tells() -> None:
    assert ready_world(with_connector("jira")).decide().watched
    assert ready_world().decide().watched  # how they get on with the providers
