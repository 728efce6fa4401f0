"""No secret is found where it should not be: everything that Pilothouse leaves behind is searched for all of them.

Real Valkey, PostgreSQL, OpenBao, worker and gateway processes; the systems, a model that repeats all that it is shown
and a collector of spans are in the test's process, where the secrets on the wire are heard. Accounts are linked, used,
renewed, refused and unlinked, and the systems fail in the nastiest way: they repeat in their answers the credential
that they were sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import grpc.aio
import pytest
from aiohttp import web

from pilothouse_api import names
from pilothouse_local.deploy import CHECKOUT
from pilothouse_proto.agent.v1 import agent_pb2 as agent
from pilothouse_proto.fleet.v1 import fleet_pb2, fleet_pb2_grpc
from pilothouse_testing.estate import (
    CARL,
    ERIN,
    MODEL_KEY,
    MONA,
    ROW_KEY,
    SERVICE_TOKEN,
    Estate,
    app_secrets,
    estate,
    outcomes,
)
from pilothouse_testing.gateway_fakes import FLEET_TOKEN, SIGNING_KEY
from pilothouse_testing.leaks import Answer, Planted, files_dump, forms, postgres_dump, redis_dump
from pilothouse_testing.openbao import ROOT_TOKEN

pytestmark = pytest.mark.timeout(240)
ALLOWED = {"redis, in mid-link": ["code_verifier"]}
"""The only place where a secret may lie in the clear: the verifier waits in Redis for the call-back, ten minutes at
most, under the hash of a state that Redis does not have. (Tokens lie in Vault, or sealed; the application's own secrets
in Vault, or in the worker's mounted folder, which the worker does not write.)"""
READS = """
CALL jira.issue.get {"key": "IT-1"}
CALL okta.user.me {}
CALL servicenow.incident.search {"mine": true}
CALL salesforce.account.search {"name": "NetGuard"}
CALL hub.user.me {}
CALL desk.readNote {"id": "1"}"""
PLACES = ("log worker-1.log", "log gateway.log", "model", "spans", "told", "redis", "postgres tool_calls", "status")


# --- how a system may repeat what it was sent -----------------------------------------------------------------------
def _dialects(said: str) -> list[Any]:
    """Each of the systems' own ways to say what is wrong."""
    return [
        {"errorMessages": [said], "errors": {"key": said}},
        {"errorCode": "E0000001", "errorSummary": said, "errorLink": said, "errorCauses": [{"errorSummary": said}]},
        {"error": {"message": said, "detail": said}, "status": "failure"},
        [{"message": said, "errorCode": "MALFORMED_QUERY", "fields": [said]}],
        {"message": said, "error": said, "error_description": said, "title": said, "detail": said},
    ]


def _escaped(body: Any, said: str) -> str:
    """JSON in which every character of ``said`` is an escape, as RFC 8259 allows and some libraries do with a few."""
    return json.dumps(body).replace(json.dumps(said)[1:-1], "".join(f"\\u{ord(c):04x}" for c in said))


def _json(status: int, make: Callable[[str], str], **headers: str) -> Answer:
    def answer(request: web.Request, _: bytes) -> web.StreamResponse | None:
        said = request.headers.get("Authorization", "")
        if _is_token_path(request) or not said:
            return None
        return web.Response(status=status, text=make(said), content_type="application/json", headers=headers)

    return answer


def _is_token_path(request: web.Request) -> bool:
    return "oauth" in request.path or request.path in ("/authorize", "/me", "/openapi.json")


def _own(request: web.Request, status: int, escape: bool = False) -> web.StreamResponse | None:
    """The refusal in the dialect of the system that was asked."""
    said = request.headers.get("Authorization", "")
    if _is_token_path(request) or not said:
        return None
    jira, okta, servicenow, salesforce, other = _dialects(said)
    of_path = {"/rest/api/3": jira, "/api/v1/": okta, "/api/now/": servicenow, "/services/data": salesforce}
    body = next((body for path, body in of_path.items() if request.path.startswith(path)), other)
    text = _escaped(body, said) if escape else json.dumps(body)
    return web.Response(status=status, text=text, content_type="application/json")


def _page(request: web.Request, _: bytes) -> web.StreamResponse | None:
    said = request.headers.get("Authorization", "")
    if _is_token_path(request) or not said:
        return None
    return web.Response(status=502, text=f"<html><h1>Bad gateway</h1>{said}</html>", content_type="text/html")


def _redirect(request: web.Request, _: bytes) -> web.StreamResponse | None:
    said = request.headers.get("Authorization", "")
    if _is_token_path(request) or not said:
        return None
    return web.Response(status=302, headers={"Location": f"http://127.0.0.1:9/?token={said}", "X-Said": said})


def _abort(request: web.Request, _: bytes) -> web.StreamResponse | None:
    if _is_token_path(request) or request.transport is None:
        return None
    request.transport.abort()
    return web.Response()


def _found(request: web.Request, escape: bool) -> web.StreamResponse | None:
    """A good answer that holds the token: an issue, a note, a user, an incident, an account."""
    said = request.headers.get("Authorization", "")
    if _is_token_path(request) or not said:
        return None
    profile = {"login": ERIN, "email": ERIN, "firstName": said, "lastName": said, "displayName": said}
    bodies: dict[str, Any] = {
        "/rest/api/3/issue/": {"key": "IT-1", "fields": {"summary": said, "status": {"name": said}}},
        "/api/v1/users": {"id": "00u1employee00000000", "status": "ACTIVE", "profile": profile},
        "/api/now/table/incident": {"result": [{"number": "INC0010001", "short_description": said}]},
        "/services/data": {"totalSize": 1, "done": True, "records": [{"Id": "001", "Name": said}]},
        "/notes/": {"id": "1", "text": said},
    }
    body = next((body for path, body in bodies.items() if request.path.startswith(path)), None)
    if body is None:
        return None
    return web.Response(text=_escaped(body, said) if escape else json.dumps(body), content_type="application/json")


ECHOES: dict[str, Answer] = {
    "400 in its dialect": lambda request, _: _own(request, 400),
    "403 in its dialect": lambda request, _: _own(request, 403),
    "404 in its dialect, escaped": lambda request, _: _own(request, 404, escape=True),
    "500 in its dialect": lambda request, _: _own(request, 500),
    "503 in its dialect, escaped": lambda request, _: _own(request, 503, escape=True),
    "429": _json(429, lambda said: json.dumps({"message": said}), **{"Retry-After": "0"}),
    "a proxy's page": _page,
    "broken JSON": _json(200, lambda said: '{"broken": "' + said),
    "a redirect": _redirect,
    "a broken connection": _abort,
    "a good answer": lambda request, _: _found(request, escape=False),
    "a good answer, escaped": lambda request, _: _found(request, escape=True),
}


def _token_echo(status: int, error: str) -> Answer:
    """The token endpoint repeats its form, secret and all; userinfo and revocation repeat what they were sent."""

    def answer(request: web.Request, body: bytes) -> web.StreamResponse | None:
        if "oauth" not in request.path or request.method != "POST" or "authorize" in request.path:
            return None
        if request.path.endswith("auth.do"):
            return None
        form = body.decode()
        text = json.dumps({"error": error, "error_description": f"You sent {form} {request.headers}"})
        return web.Response(status=status, text=text, content_type="application/json")

    return answer


@contextlib.contextmanager
def everywhere(here: Estate, answer: Answer) -> Iterator[None]:
    """Every system answers like that; afterwards each has."""
    for tap in here.taps.values():
        tap.answer, tap.faults = answer, 0
    try:
        yield
    finally:
        for tap in here.taps.values():
            tap.answer = None


# --- what is done ---------------------------------------------------------------------------------------------------
def plant_own(here: Estate) -> None:
    """What no wire shows."""
    for (secret, key), value in app_secrets().items():
        if key != "client-id":
            here.planted.add(f"{secret} {key}", value)
    pem = app_secrets()["salesforce", "private-key"].splitlines()
    here.planted.add("a line of the private key", pem[3])
    here.planted.add("row key", ROW_KEY)
    here.planted.add("model key", MODEL_KEY)
    here.planted.add("service account token", SERVICE_TOKEN)
    here.planted.add("signing key", SIGNING_KEY)
    here.planted.add("Vault root token", ROOT_TOKEN)
    here.planted.add("database password", here.postgres.settings.worker_database_password)
    here.planted.add("database owner's password", here.postgres.settings.application_password)


async def link_all(here: Estate, places: dict[str, bytes]) -> None:
    """Three accounts of Erin's, and what goes wrong on the way."""

    async def look(_: str) -> None:
        for place, content in (await redis_dump(here.redis_url)).items():
            places[f"redis, in mid-link {place}"] = content

    for connector in ("jira", "okta", "servicenow"):
        status, page = await here.link(connector, before=look if connector == "jira" else None)
        assert status == 200, page
    assert (await here.link("jira", CARL))[0] == 200
    for wrong in ({"decision": "deny"}, {"as_whom": MONA}):
        status, _ = await here.link("jira", **wrong)  # type: ignore[arg-type]
        assert status == 400
    for status, error in ((400, "invalid_grant"), (401, "invalid_client"), (500, "server_error"), (400, "odd")):
        with everywhere(here, _token_echo(status, error)):
            for connector in ("jira", "okta"):
                assert (await here.link(connector))[0] != 200
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
        back = await here.consent(browser, "okta", ERIN)
        async with aiohttp.ClientSession() as other, other.get(back) as refused:
            assert refused.status == 400  # another browser
        async with browser.get(back) as done, browser.get(back) as again:
            assert (done.status, again.status) == (200, 400)
            here.said.append((await done.text()).encode() + (await again.text()).encode())


async def work(here: Estate) -> None:
    """Reads, writes, an approval, refusals; as one who may and one who may not."""
    events = await here.ask("look around" + READS)
    assert set(outcomes(events).values()) == {"SUCCEEDED"}, events[-1]
    events = await here.ask(
        'change things\nCALL jira.issue.create {"project": "IT", "summary": "Mouse broken"}\n'
        'CALL servicenow.incident.create {"short_description": "Mouse broken"}\n'
        'CALL okta.factor.reset {"type": "token:software:totp"}\nTHEN\nCALL jira.issue.search {"mine": true}'
    )
    assert outcomes(events)["jira.issue.create"] == "SUCCEEDED", events
    assert outcomes(events).get("okta.factor.reset") == "SUCCEEDED", events
    assert any(e["type"] == "approval_required" for e in events)
    events = await here.ask('try\nCALL jira.issue.create {"project": "IT", "summary": "No"}' + READS, CARL)
    assert outcomes(events)["jira.issue.create"] == "REFUSED"
    assert "not linked" in events[-1]["text"]


async def fail(here: Estate) -> None:
    """Each way of repeating a credential, in each system."""
    reached: dict[str, int] = dict.fromkeys(here.taps, 0)
    for name, answer in ECHOES.items():
        with everywhere(here, answer):
            events = await here.ask(f"look again, {name}" + READS, seconds=40)
            assert events[-1]["type"] == "final", (name, events[-1])
            for system, tap in here.taps.items():
                reached[system] += tap.faults > 0
    # a breaker may have spared a system one or two
    assert all(count >= len(ECHOES) - 4 for count in reached.values()), reached


async def renew(here: Estate, linked_at: float) -> None:
    """401 and a renewal, a renewal that is refused, a write that can't be done."""
    # a token that is refused as soon as it was given is not renewed: renewing would not help
    await asyncio.sleep(max(0.0, linked_at + 10.5 - time.monotonic()))
    await here.operate("jira", "/__sim/oauth", {"expire_all": True})
    events = await here.ask('again\nCALL jira.issue.get {"key": "IT-1"}')
    assert outcomes(events) == {"jira.issue.get": "SUCCEEDED"}
    here.taps["jira"].answer = lambda request, _: _own(request, 503) if request.method == "POST" else None
    events = await here.ask('write\nCALL jira.issue.create {"project": "IT", "summary": "Keyboard broken"}')
    assert outcomes(events)["jira.issue.create"] in ("FAILED", "UNKNOWN"), events
    (worker,) = here.workers.values()
    async with worker.stub() as stub:
        letters = await stub.ListDeadLetters(agent.ListDeadLettersRequest(tenant="acme"))
        assert letters.dead_letters
        here.said.append(letters.SerializeToString())
        request = agent.ReplayDeadLetterRequest(tenant="acme", id=letters.dead_letters[0].id, requested_by="sre")
        here.said.append((await stub.ReplayDeadLetter(request)).SerializeToString())
    here.taps["jira"].answer = _token_echo(400, "invalid_grant")
    await here.operate("jira", "/__sim/oauth", {"expire_all": True})
    events = await here.ask('again\nCALL jira.issue.get {"key": "IT-1"}')
    assert "Link it again" in events[-1]["text"], events[-1]
    here.taps["servicenow"].answer = _token_echo(500, "server_error")
    assert (await here.post("/v1/accounts/servicenow/unlink", ERIN))["status"] == 200
    here.taps["jira"].answer = here.taps["servicenow"].answer = None
    assert (await here.link("jira"))[0] == 200


async def lose_a_worker(here: Estate, config: dict[str, Any], files: dict[str, bytes]) -> None:
    """A run is parked and another is under way when their worker is killed; the next one goes on with both."""
    parked = await here.ask('reset\nCALL okta.factor.reset {"type": "push"}', approve=None)
    wanted = next(e for e in parked if e["type"] == "approval_required")
    here.model.pause = asyncio.Event()
    before = len(here.model.requests)
    asking = asyncio.create_task(here.ask("look, and be interrupted" + READS, seconds=40))
    async with asyncio.timeout(10):
        while len(here.model.requests) == before:  # noqa: ASYNC110 - nobody says when a request has come
            await asyncio.sleep(0.02)
    second = await here.start_worker("worker-2", config, files)
    await here.kill("worker-1")
    here.model.pause.set()
    here.model.pause = None
    events = await asking
    assert any(e["type"] == "resumed" for e in events), events
    assert outcomes(events)["jira.issue.get"] == "SUCCEEDED"
    async with second.stub() as stub:
        decider = agent.User(subject="1", email=ERIN)
        request = agent.DecideRequest(tenant="acme", approval_id=wanted["approval_id"], approved=True, decider=decider)
        decided = await stub.Decide(request)
        assert decided.resume
        call = stub.Converse()
        resume = agent.Resume(tenant="acme", session_id=decided.session_id, run_id=decided.run_id)
        await call.write(agent.ConverseRequest(resume=resume))
        told = [event async for event in call]
        assert told[-1].WhichOneof("event") == "final"
        here.said += [event.SerializeToString() for event in told]


async def stores_away(here: Estate, folder: Path) -> None:
    """The stores of credentials and of runs don't answer, and a configuration can't be read."""
    if here.bao is not None:
        here.bao.freeze()
        events = await here.ask('look\nCALL jira.issue.get {"key": "IT-1"}', MONA, seconds=40)
        assert "can't be looked up" in events[-1]["text"], events[-1]
        here.bao.thaw()
    await asyncio.to_thread(here.postgres.stop)
    events = await here.ask("look" + READS, seconds=40)
    assert events[-1]["type"] == "error"
    await asyncio.to_thread(here.postgres.start)
    good = (folder / "config.json").read_bytes()
    planted = "planted-in-a-configuration-9d0c2f4b"
    here.planted.add("configuration", planted)
    (worker,) = here.workers.values()
    for bad in (
        json.dumps({**json.loads(good), "password": planted}),
        json.dumps({**json.loads(good), "egress": planted}),
        good.decode()[:-1] + f', "x": {planted}',
    ):
        (folder / "config.json").write_text(bad)
        await asyncio.sleep(0.8)
        async with worker.stub() as stub:
            here.said.append((await stub.GetStatus(agent.GetStatusRequest())).SerializeToString())
    (folder / "config.json").write_bytes(good)
    (folder / "database-url").write_text(f"mysql://root:{planted}@127.0.0.1/x")
    await asyncio.sleep(0.8)
    (folder / "database-url").write_text(here.postgres.worker_url)


async def everything(here: Estate) -> dict[str, bytes]:
    """What is left behind, by place."""
    status = b""
    for worker in here.workers.values():
        async with worker.stub() as stub:
            user = agent.User(subject="1", email=ERIN)
            for answer in (
                await stub.GetStatus(agent.GetStatusRequest()),
                await stub.ListTools(agent.ListToolsRequest(tenant="acme")),
                await stub.ListAccounts(agent.ListAccountsRequest(tenant="acme", user=user)),
                await stub.ListApprovals(agent.ListApprovalsRequest(tenant="acme")),
                await stub.ListDeadLetters(agent.ListDeadLettersRequest(tenant="acme")),
            ):
                status += answer.SerializeToString() + str(answer).encode()
        status += await asyncio.to_thread(Path(f"/proc/{worker.process.pid}/cmdline").read_bytes)
    async with aiohttp.ClientSession() as http, http.get(f"{here.gateway}/metrics") as metrics:
        status += await metrics.read()
    async with grpc.aio.insecure_channel(f"{here.gateway_ip}:{names.GATEWAY_FLEET_PORT}") as channel:
        credentials = (("authorization", f"Bearer {FLEET_TOKEN}"),)
        fleet: Any = fleet_pb2_grpc.FleetStub(channel)
        snapshot = await fleet.Watch(fleet_pb2.WatchRequest(), metadata=credentials).read()
        assert snapshot.snapshot.sessions
        status += snapshot.SerializeToString() + str(snapshot).encode()
    return {
        "status": status,
        "model": b"\n".join(here.model.requests),
        "spans": b"\n".join(here.spans),
        "told": b"\n".join(here.said),
        **await redis_dump(here.redis_url),
        **await postgres_dump(here.postgres.superuser_url),
        **files_dump("log", here.logs, "*"),
    }


async def control(here: Estate) -> None:
    """Secrets of a kind of their own where they must be found: a search that finds nothing could be blind."""
    async with aiohttp.ClientSession() as http:  # a token as the systems give it
        made = here.planted.of("jira access token")[-1].decode()[::-1]
        async with http.get(f"{here.gateway}/healthz"):
            here.planted.add("control", made)
    with (here.logs / "worker-1.log").open("a") as log:
        log.write(json.dumps({"event": "x", "header": f"Bearer {made}"}) + "\n")
    with (here.logs / "gateway.log").open("ab") as log_of_gateway:
        log_of_gateway.write(forms(made.encode())["base64/1"] + b"\n")
    # whoever writes it herself finds it in all that knows of her question
    await here.ask(f'keep {made}\nCALL jira.issue.create {{"project": "IT", "summary": "{made}"}}')


@pytest.mark.parametrize("backend", ["Vault", "Kubernetes"])
async def test_no_secret_is_found_in_anything_that_is_left_behind(tmp_path: Path, backend: str) -> None:
    async with estate(tmp_path, vault=backend == "Vault") as here:
        plant_own(here)
        patient = {"breaker": {"minimum_calls": 1000, "window": 1000}}
        config = here.config(
            backend=backend, jira=patient, okta=patient, servicenow=patient, salesforce=patient, desk=patient
        )
        files = here.files(backend)
        await here.start_worker("worker-1", config, files)
        places: dict[str, bytes] = {}
        await link_all(here, places)
        linked_at = time.monotonic()
        await work(here)
        await fail(here)
        await renew(here, linked_at)
        await lose_a_worker(here, config, files)
        await stores_away(here, tmp_path / "config-worker-2")
        places |= await everything(here)
        # what was looked for is what there was, of every kind
        wanted = {
            "jira client-secret", "salesforce private-key", "row key", "model key", "code_verifier", "state",
            "browser cookie", "sign-in token", "jira access token", "jira refresh token", "okta id token",
            "servicenow refresh token", "salesforce assertion", "salesforce access token",
            "jira code", "okta code",
        }  # fmt: skip
        assert wanted <= here.planted.kinds, wanted - here.planted.kinds
        assert ("Vault token" in here.planted.kinds) is (backend == "Vault")
        assert {key.removeprefix("Bearer ") for key in here.model.keys} == {MODEL_KEY}
        leaks = here.planted.found(places, allowed=ALLOWED)
        assert leaks == [], "\n".join(map(str, leaks))
        # the verifier was where it may be, so that the search reaches there; sealed rows are there, too
        assert {leak.kind for leak in here.planted.found(places)} == {"code_verifier"}
        rows = places["postgres linked_accounts"]
        assert bool(rows) is (backend == "Kubernetes")
        # and a secret that does lie somewhere is found there
        await control(here)
        hit = {leak.place for leak in here.planted.found(await everything(here)) if leak.kind == "control"}
        assert {place for place in PLACES if any(found.startswith(place) for found in hit)} >= set(PLACES) - {
            "spans"
        }, hit
        assert ERIN.encode() in places["spans"]
        print(f"{backend}: {len(here.planted)} secrets of {len(here.planted.kinds)} kinds in {len(places)} places")


def test_a_secret_is_found_in_each_of_its_forms(tmp_path: Path) -> None:
    planted = Planted()
    value = 'abc/DEF+ghi="jkl!mno/pqr'
    planted.add("x", value)
    for name, form in forms(value.encode()).items():
        found = planted.found({"here": b"before " + form + b" after"})
        assert [leak.kind for leak in found] == ["x"], name
    import base64

    for number in range(4):  # in the middle of something that is encoded as a whole
        whole = base64.b64encode(b"u" * number + value.encode() + b"more")
        assert planted.found({"here": whole})
    long = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMN"
    planted.add("long", long)
    assert planted.found({"here": f"the token {long[:18]}… is bad".encode()})
    assert planted.found({"here": f"…{long[-17:]}".encode()})
    assert not planted.found({"here": b"nothing of it"})
    assert not planted.found({"here": value.encode()}, allowed={"he": ["x"]})
    (tmp_path / "a.log").write_text(value)
    assert planted.found(files_dump("log", tmp_path, "*"))
    with pytest.raises(ValueError, match="too short"):
        planted.add("short", "abc")
    assert CHECKOUT.is_dir()
