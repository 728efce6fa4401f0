"""The egress rule at the edge: what a connector's client refuses before anything leaves."""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from pilothouse_api.egress import EgressRule, refused_address, refused_url
from pilothouse_dataplane.connectors import http
from pilothouse_dataplane.connectors.base import SecretText, SystemUnavailable
from pilothouse_dataplane.connectors.http import JsonClient

ACME = EgressRule(namespace="acme")
TOKEN = SecretText("planted-token")


@pytest.fixture
async def server() -> AsyncIterator[tuple[TestServer, list[web.Request]]]:
    seen: list[web.Request] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        seen.append(request)
        if request.path == "/away":
            return web.Response(status=307, headers={"Location": "http://169.254.169.254/latest"})
        return web.json_response({"ok": True})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    async with TestServer(app, host="127.0.0.1") as made:
        yield made, seen


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}",
        "http://127.1:{port}",
        "http://2130706433:{port}",
        "http://0x7f000001:{port}",
        "http://0177.0.0.1:{port}",
        "http://[::1]:{port}",
        "http://[::ffff:127.0.0.1]:{port}",
        "http://[::ffff:7f00:1]:{port}",
        "http://[64:ff9b::7f00:1]:{port}",
        "http://0.0.0.0:{port}",
        "http://localhost:{port}",
        "http://localhost.:{port}",
        "http://LOCALHOST:{port}",
        "http://169.254.169.254",
        "http://[fe80::1%25eth0]",
        "http://10.0.0.7",
        "http://192.168.1.1",
        "http://100.64.0.1",
        "http://metadata.google.internal",
        "http://jira.globex.svc",
        "http://jira.globex.svc.cluster.local",
        "http://kubernetes.default.svc",
        "http://kubernetes",
        "http://user:secret@example.com",
        "http://example.com@127.0.0.1:{port}",
        "ftp://example.com",
        "file:///etc/passwd",
        "http://",
        "//example.com",
        "http://example.com:99999",
    ],
)
async def test_addresses_that_point_inward_are_refused_before_anything_leaves(
    server: tuple[TestServer, list[web.Request]], url: str
) -> None:
    made, seen = server
    client = JsonClient("Jira", url.replace("{port}", str(made.port)), 2, ACME)
    with pytest.raises(SystemUnavailable) as refused:
        await client.request("GET", "/x", token=TOKEN)
    await client.aclose()
    assert not seen
    assert not refused.value.may_have_acted
    assert refused.value.lasting
    assert "was not asked" in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("https://acme.atlassian.net", ACME),
        ("https://93.184.216.34", ACME),
        ("http://vault.acme.svc:8200", ACME),
        ("http://vault.acme.svc.cluster.local", ACME),
        ("http://jira.pilothouse-sim.svc:8080", EgressRule(allow_hosts=("*.pilothouse-sim.svc",))),
        ("http://10.20.3.4", EgressRule(allow_networks=("10.20.0.0/16",))),
        ("http://127.0.0.1:9", EgressRule(allow_hosts=("127.0.0.1",))),
    ],
)
def test_what_the_rule_allows(url: str, rule: EgressRule) -> None:
    assert refused_url(url, rule) is None


def test_no_allowed_range_opens_the_metadata_address() -> None:
    wide = EgressRule(allow_networks=("0.0.0.0/0", "169.254.0.0/16"))
    assert "link-local" in str(refused_url("http://169.254.169.254/latest", wide))
    assert "link-local" in str(refused_address("rebound.example", "169.254.169.254", wide))
    assert refused_url("http://169.254.169.254", EgressRule(allow_networks=("169.254.169.254/32",))) is None


class _Names:
    """A resolver whose answers a test gives."""

    answers: ClassVar[list[str]] = [""]

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_INET) -> list[dict[str, Any]]:
        address = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        kind = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [{"hostname": host, "host": address, "port": port, "family": kind, "proto": 0, "flags": 0}]

    async def close(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.1.2.3", "169.254.169.254", "::ffff:127.0.0.1", "0.0.0.0"])
async def test_a_name_that_resolves_inward_is_refused(
    server: tuple[TestServer, list[web.Request]], monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    made, seen = server
    monkeypatch.setattr(http, "DefaultResolver", _Names)
    monkeypatch.setattr(_Names, "answers", [address])
    client = JsonClient("Jira", f"http://jira.example.com:{made.port}", 2, ACME)
    with pytest.raises(SystemUnavailable, match="was not asked") as refused:
        await client.request("POST", "/x", token=TOKEN, body={})
    await client.aclose()
    assert not seen
    assert refused.value.lasting
    assert not refused.value.may_have_acted


async def test_a_name_whose_answer_changes_gains_nothing(
    server: tuple[TestServer, list[web.Request]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: what is connected to is what was judged, each time that the name is resolved."""
    made, seen = server
    monkeypatch.setattr(http, "DefaultResolver", _Names)
    # at first it is an address that may be reached (and where nobody listens), then the one inside
    monkeypatch.setattr(_Names, "answers", ["127.0.0.7", "127.0.0.1"])
    rule = EgressRule(allow_networks=("127.0.0.7/32",))
    client = JsonClient("Jira", f"http://jira.example.com:{made.port}", 1, rule)
    with pytest.raises(SystemUnavailable, match="can't be reached"):
        await client.request("GET", "/x", token=TOKEN)
    client.session(client.base_url).connector.clear_dns_cache()  # type: ignore[union-attr]
    with pytest.raises(SystemUnavailable, match="was not asked"):
        await client.request("GET", "/x", token=TOKEN)
    await client.aclose()
    assert not seen


async def test_redirects_are_not_followed_and_another_base_is_judged_too(
    server: tuple[TestServer, list[web.Request]],
) -> None:
    made, seen = server
    base = f"http://127.0.0.1:{made.port}"
    client = JsonClient("Jira", base, 2, EgressRule(allow_hosts=("127.0.0.1",)))
    with pytest.raises(SystemUnavailable, match="redirects"):
        await client.request("GET", "/away", token=TOKEN)
    with pytest.raises(SystemUnavailable, match="was not asked"):
        await client.request("GET", "/x", token=TOKEN, base_url="http://169.254.169.254")
    assert (await client.request("GET", "/x", token=TOKEN, base_url=base + "/")).body == {"ok": True}
    await client.aclose()
    assert [request.path for request in seen] == ["/away", "/x"]


def test_judging_an_address_costs_next_to_nothing() -> None:
    client = JsonClient("Jira", "https://acme.atlassian.net", 2, EgressRule(namespace="acme", allow_hosts=("*.x",)))
    client._refused(client.base_url)
    began = time.process_time()
    for _ in range(10_000):
        client._refused(client.base_url)
    assert (time.process_time() - began) / 10_000 < 20e-6


async def test_addresses_that_a_system_hands_out_dont_pile_up() -> None:
    client = JsonClient("Jira", "https://acme.atlassian.net", 2, ACME)
    for number in range(1000):
        client._refused(f"https://na{number}.example.com")
    assert len(client._judged) <= 64
