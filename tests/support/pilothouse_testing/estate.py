"""All of Pilothouse in processes of its own, between stand-ins in this one: what linking and secrets are tested on.

::

    gateway process ──▶ worker processes (one tenant each) ──▶ stand-ins of the four systems, a desk with an OpenAPI
        │ FakeKube            │ Valkey, PostgreSQL, OpenBao (through a proxy that hears tokens), a model, a collector

Real servers and the product's own entry points, without a Kubernetes: a cluster takes half a minute more. Everything
that a secret could be in is kept: logs, requests to the model, spans, answers of the gateway.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import importlib
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import aiohttp
import grpc.aio
from aiohttp import web

from pilothouse_api import names
from pilothouse_dataplane.ledger.migrate import migrate
from pilothouse_local.deploy import CHECKOUT
from pilothouse_proto.agent.v1 import agent_pb2_grpc
from pilothouse_sim.models import openai
from pilothouse_sim.models.types import Call, Reply
from pilothouse_sim.oauth import JIRA, OKTA, SERVICENOW
from pilothouse_testing.gateway_fakes import SIGNING_KEY, Chat, FakeKube, loopback, pod, tenant_object, token
from pilothouse_testing.leaks import Planted, Wiretap
from pilothouse_testing.openbao import OpenBao, openbao
from pilothouse_testing.postgres import PostgresServer, postgres_server
from pilothouse_testing.servers import valkey

Json = dict[str, Any]
ERIN, MONA, CARL = "employee@acme.example", "manager@acme.example", "contractor@acme.example"
SYSTEMS = ("jira", "okta", "servicenow", "salesforce")
SCOPES = {
    "jira": ["read:jira-work", "write:jira-work", "read:jira-user", "read:me", "offline_access"],
    "okta": [
        "openid", "email", "offline_access", "okta.users.read", "okta.users.manage", "okta.factors.read",
        "okta.factors.manage", "okta.groups.read", "okta.apps.read", "okta.logs.read",
    ],
    "servicenow": ["useraccount"],
}  # fmt: skip
SERVICE_TOKEN = "desk-service-account-0f4b1d9c7e6a4f1b"
MODEL_KEY = "sk-model-key-93b1f1c07a5e4d2d8e77"
ROW_KEY = bytes(range(7, 39))
_CALL = re.compile(r"^CALL (\S+) (\{.*\})$", re.MULTILINE)
_STEPS = re.compile(r"^THEN$", re.MULTILINE)


class Parrot:
    """A model that calls what it is told to, and then repeats all that it was shown: the worst that it could do.

    A question's lines ``CALL tool {json}`` are one plan; after a line ``THEN`` comes the next plan."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.keys: set[str] = set()
        self.pause: asyncio.Event | None = None
        """While it is not set, no answer begins."""

    async def chat(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        self.requests.append(raw)
        self.keys.add(request.headers.get("Authorization", ""))
        if self.pause is not None:
            await self.pause.wait()
        body = json.loads(raw)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        with contextlib.suppress(ConnectionResetError):
            for _, chunk in openai.chunks(_reply(body["messages"]), "parrot", 10, include_usage=True):
                await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
            await response.write(b"data: [DONE]\n\n")
        return response


def _reply(messages: list[Json]) -> Reply:
    asked = max(number for number, message in enumerate(messages) if message["role"] == "user")
    plans = _STEPS.split(openai.text_of(messages[asked]["content"]))
    done = sum(message["role"] == "assistant" and bool(message.get("tool_calls")) for message in messages[asked:])
    if done < len(plans):
        calls = [Call(name.replace(".", "__"), json.loads(text)) for name, text in _CALL.findall(plans[done])]
        if calls:
            return Reply(calls=tuple(calls))
    seen = [openai.text_of(message["content"]) for message in messages[asked + 1 :] if message["role"] == "tool"]
    return Reply("I was shown: " + " | ".join(seen) if seen else "Nothing to do.")


class Desk:
    """A system of its own make, known by its OpenAPI document alone: notes that anybody with the token may read."""

    def __init__(self) -> None:
        self.notes = {"1": "The desk opens at nine."}

    async def document(self, request: web.Request) -> web.Response:
        note = {"type": "object", "properties": {"id": {"type": "string"}, "text": {"type": "string"}}}
        answer = {"200": {"description": "ok", "content": {"application/json": {"schema": note}}}}
        by_id = [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}]
        body = {
            "required": True,
            "content": {"application/json": {"schema": {"type": "object", "properties": {"text": {"type": "string"}}}}},
        }
        paths = {
            "/notes/{id}": {"get": {"operationId": "readNote", "parameters": by_id, "responses": answer}},
            "/notes": {"post": {"operationId": "writeNote", "requestBody": body, "responses": answer}},
        }
        return web.json_response(
            {"openapi": "3.1.0", "info": {"title": "Desk", "version": "1"}, "paths": paths,
             "servers": [{"url": f"{request.scheme}://{request.host}"}]}
        )  # fmt: skip

    async def read(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {SERVICE_TOKEN}":
            return web.json_response({"message": "Who are you?"}, status=401)
        id = request.match_info["id"]
        if id not in self.notes:
            return web.json_response({"message": "There is no such note."}, status=404)
        return web.json_response({"id": id, "text": self.notes[id]})


class Listener:
    """The proxy before OpenBao: a worker's own Vault tokens are known by listening alone."""

    def __init__(self, target: str, planted: Planted) -> None:
        self._target, self._planted = target, planted

    async def handle(self, request: web.Request) -> web.Response:
        headers = {k: v for k, v in request.headers.items() if k.lower() not in ("host", "content-length")}
        if len(value := request.headers.get("X-Vault-Token", "")) > 1:
            self._planted.add("Vault token", value)
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(
                request.method, self._target + str(request.rel_url), data=await request.read(), headers=headers
            ) as answer,
        ):
            body = await answer.read()
            kept = {k: v for k, v in answer.headers.items() if k.lower() in ("content-type", "content-encoding")}
            with contextlib.suppress(ValueError, KeyError, TypeError):
                self._planted.add("Vault token", json.loads(body)["auth"]["client_token"])
            return web.Response(body=body, status=answer.status, headers=kept)


@dataclass
class Worker:
    """One worker process."""

    tenant: str
    name: str
    ip: str
    process: asyncio.subprocess.Process

    @property
    def address(self) -> str:
        return f"{self.ip}:{names.WORKER_GRPC_PORT}"

    @contextlib.asynccontextmanager
    async def stub(self) -> AsyncIterator[Any]:
        """Its gRPC service."""
        async with grpc.aio.insecure_channel(self.address) as channel:
            yield agent_pb2_grpc.AgentStub(channel)


@dataclass
class Estate:
    """What runs, and what it has said so far."""

    folder: Path
    planted: Planted
    kube: FakeKube
    postgres: PostgresServer
    redis_url: str
    bao: OpenBao | None
    bao_url: str
    model: Parrot
    urls: dict[str, str] = field(default_factory=dict)
    taps: dict[str, Wiretap] = field(default_factory=dict)
    workers: dict[str, Worker] = field(default_factory=dict)
    spans: list[bytes] = field(default_factory=list)
    said: list[bytes] = field(default_factory=list)
    """What the gateway has answered to people."""
    gateway_ip: str = ""
    gateway_process: asyncio.subprocess.Process | None = None
    stop: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    @property
    def gateway(self) -> str:
        return f"http://{self.gateway_ip}:{names.GATEWAY_HTTP_PORT}"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    def sign_in(self, user: str, tenant: str = "acme", **claims: Any) -> str:
        """A development token, planted."""
        made = token(tenant, user.partition("@")[0], email=user, manager=MONA, **claims)
        self.planted.add("sign-in token", made)
        return made

    # --- as a browser ---------------------------------------------------------------------------------------------
    async def link(
        self, connector: str, user: str = ERIN, *, tenant: str = "acme", as_whom: str = "", decision: str = "allow",
        before: Callable[[str], Any] | None = None,
    ) -> tuple[int, str]:  # fmt: skip
        """Status and page of a link's end. ``before`` is called with the call-back's address before it is opened."""
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
            back = await self.consent(browser, connector, user, tenant=tenant, as_whom=as_whom, decision=decision)
            if before is not None:
                await before(back)
            async with browser.get(back) as done:
                page = await done.text()
                self.said.append(page.encode() + str(done.headers).encode())
                return done.status, page

    async def consent(
        self, browser: aiohttp.ClientSession, connector: str, user: str, *, tenant: str = "acme", as_whom: str = "",
        decision: str = "allow",
    ) -> str:  # fmt: skip
        """The call-back's address, not opened yet."""
        begun = await self.post(f"/v1/accounts/{connector}/link", user, tenant=tenant, browser=browser)
        for cookie in browser.cookie_jar:
            if cookie.value:
                self.planted.add("browser cookie", cookie.value)
        url = begun["authorization_url"]
        async with browser.get(url) as page:
            action = re.search(r'action="([^"]*)"', await page.text())
            assert action is not None
        form = {"username": as_whom or user, "decision": decision}
        target = urljoin(url, action[1].replace("&amp;", "&"))
        async with browser.post(target, data=form, allow_redirects=False) as sent:
            return sent.headers["Location"]

    async def post(
        self, path: str, user: str, *, tenant: str = "acme", browser: aiohttp.ClientSession | None = None,
        method: str = "POST",
    ) -> Json:  # fmt: skip
        """One of the page's calls; its JSON with ``status``."""
        headers = {"Authorization": f"Bearer {self.sign_in(user, tenant)}"}
        async with contextlib.AsyncExitStack() as stack:
            session = browser if browser is not None else await stack.enter_async_context(aiohttp.ClientSession())
            async with session.request(method, self.gateway + path, headers=headers) as answer:
                raw = await answer.read()
                if not path.endswith("/link") or answer.status != 200:  # that is the browser's way, with the state
                    self.said.append(raw)
                return {**json.loads(raw), "status": answer.status}

    async def ask(
        self, text: str, user: str = ERIN, *, tenant: str = "acme", approve: bool | None = True, seconds: float = 30
    ) -> list[Json]:
        """Every event of a question; the asking user answers what she is asked with ``approve`` (None: not at all)."""
        async with Chat.open(self.gateway) as chat:
            ready = await chat.hello(self.sign_in(user, tenant))
            assert ready["type"] == "ready", ready
            await chat.send(type="ask", text=text)
            events: list[Json] = []
            while not events or events[-1]["type"] not in ("final", "error", "closed"):
                if events and events[-1]["type"] == "parked" and approve is None:
                    break
                events += await chat.until("final", "error", "parked", "approval_required", seconds=seconds)
                if events[-1]["type"] == "approval_required" and approve is not None:
                    await asyncio.sleep(0.3)  # she reads first
                    await chat.send(type="decision", approval_id=events[-1]["approval_id"], approved=approve)
            self.said.append(json.dumps(events).encode())
            return events

    async def keep_spans(self, request: web.Request) -> web.Response:
        """As a collector of OpenTelemetry's spans does."""
        self.spans.append(await request.read())
        return web.Response(content_type="application/x-protobuf")

    async def operate(self, system: str, path: str, body: Json) -> None:
        """``POST /__sim/…`` of a stand-in."""
        async with (
            aiohttp.ClientSession() as session,
            session.post(self.urls[system] + path, json=body) as answer,
        ):
            assert answer.status in (200, 204), await answer.text()

    # --- processes ------------------------------------------------------------------------------------------------
    async def start_worker(self, name: str, config: Mapping[str, Any], files: Mapping[str, bytes]) -> Worker:
        """A worker as its Pod starts it, known to the gateway once it listens."""
        tenant, ip = str(config["tenant"]), loopback()
        mount = self.folder / f"config-{name}"
        mount.mkdir()
        every = {
            "config.json": json.dumps(config).encode(),
            "redis-url": self.redis_url.encode(),
            "database-url": self.postgres.worker_url.encode(),
            **files,
        }
        for file, content in every.items():
            (mount / file).write_bytes(content)
        env = {"POD_IP": ip, "POD_NAME": name, "PILOTHOUSE_CONFIG_DIR": str(mount)}
        env["OTEL_EXPORTER_OTLP_ENDPOINT"] = self.urls["model"]
        env["OTEL_BSP_SCHEDULE_DELAY"] = "200"
        process = await self._start(name, "pilothouse_dataplane.worker", env)
        worker = self.workers[name] = Worker(tenant, name, ip, process)
        await _until(lambda: _listens(ip, names.WORKER_GRPC_PORT), process)
        if (tenant, tenant) not in self.kube.objects["tenants"]:
            self.kube.put("tenants", tenant_object(tenant))
        self.kube.put("pods", pod(tenant, name, ip))
        return worker

    async def kill(self, name: str) -> None:
        """``kill -9``; the API server says so."""
        worker = self.workers.pop(name)
        worker.process.kill()
        await worker.process.wait()
        self.kube.delete("pods", worker.tenant, name)

    async def start_gateway(self) -> None:
        key = self.folder / "signing-key"
        key.write_bytes(SIGNING_KEY)
        self.gateway_ip = loopback()
        env = {
            "POD_IP": self.gateway_ip,
            "PILOTHOUSE_REDIS_URL": self.redis_url,
            "PILOTHOUSE_DEV_TOKEN_KEY_FILE": str(key),
            "PILOTHOUSE_PUBLIC_URL": self.gateway,
            "KUBECONFIG": str(self.kube.kubeconfig(await self.kube.start(), self.folder / "kubeconfig")),
        }
        self.stop.push_async_callback(self.kube.stop)
        self.gateway_process = await self._start("gateway", "pilothouse_dataplane.gateway", env)

        async def ready() -> bool:
            async with aiohttp.ClientSession() as http:
                with contextlib.suppress(aiohttp.ClientError):
                    async with http.get(f"{self.gateway}/readyz") as answer:
                        return answer.status == 200
            return False

        await _until(ready, self.gateway_process)

    async def _start(self, name: str, module: str, env: Mapping[str, str]) -> asyncio.subprocess.Process:
        self.logs.mkdir(exist_ok=True)
        with (self.logs / f"{name}.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", module, env={**_inherited(), **env}, stdout=log, stderr=log
            )

        async def end() -> None:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
                try:
                    await asyncio.wait_for(process.wait(), 15)
                except TimeoutError:
                    process.kill()
                    await process.wait()

        self.stop.push_async_callback(end)
        return process

    async def serve(self, name: str, app: web.Application) -> str:
        """An application in this process, on 127.0.0.1."""
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        self.stop.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.urls[name] = f"http://127.0.0.1:{runner.addresses[0][1]}"
        return self.urls[name]

    def config(self, tenant: str = "acme", *, backend: str = "Vault", **changes: Mapping[str, Any]) -> Json:
        """A worker's configuration with all systems. ``changes``: of connectors, by their names."""
        credentials: Json = {"backend": backend}
        if backend == "Vault":
            assert self.bao is not None
            vault = self.bao.tenant(tenant, tenant)
            self.bao.put_secrets(vault, {f"{s}.{k}": v for (s, k), v in app_secrets().items()})
            self.planted.add("Vault login", Path(vault.token_file).read_bytes())
            credentials["vault"] = {**vault.model_dump(), "address": self.bao_url}
        else:
            credentials["keys_secret"] = "keys"
        return {
            "tenant": tenant,
            "namespace": tenant,
            "display_name": tenant.title(),
            "revision": "r1",
            "agent": {"instructions": "Help.", "max_steps": 8, "deadline_seconds": 25},
            "route": {
                "providers": [
                    {"name": "local", "type": "OpenAI", "base_url": f"{self.urls['model']}/v1",
                     "api_key_file": names.secret_file("model", "api-key")}
                ],
                "tiers": {"mid": [{"provider": "local", "model": "parrot"}]},
                "default_tier": "mid",
            },
            "connectors": [{**one, **changes.get(one["name"], {})} for one in self._connectors()],
            "credentials": credentials,
            "egress": {"allow_hosts": ["127.0.0.1"]},
            "public_url": self.gateway,
        }  # fmt: skip

    def files(self, backend: str = "Vault") -> dict[str, bytes]:
        """What lies beside the configuration."""
        files = {names.secret_file("model", "api-key"): MODEL_KEY.encode()}
        if backend != "Vault":
            files[names.secret_file("keys", "key.1")] = base64.b64encode(ROW_KEY)
            files |= {names.secret_file(s, k): v.encode() for (s, k), v in app_secrets().items()}
        return files

    def _connectors(self) -> list[Json]:
        common: Json = {"timeout_seconds": 3, "attempts": 2}
        made: list[Json] = []
        for profile in (JIRA, OKTA, SERVICENOW):
            name = profile.system
            url = self.urls[name]
            app = {key: {"secret": name, "key": key.replace("_", "-")} for key in ("client_id", "client_secret")}
            oauth = {
                **app, "authorization_url": url + profile.authorize, "token_url": url + profile.token,
                "revocation_url": url + profile.revoke if profile.revoke else "", "scopes": SCOPES[name],
            }  # fmt: skip
            made.append({"name": name, "type": name, "url": url, "auth_mode": "UserOAuth", "oauth": oauth, **common})
        salesforce = self.urls["salesforce"]
        bearer = {
            "token_url": f"{salesforce}/services/oauth2/token", "issuer": "pilothouse",
            "audience": "https://login.salesforce.com",
            "private_key": {"secret": "salesforce", "key": "private-key"},
        }  # fmt: skip
        exchange = {
            "token_url": f"{self.urls['okta']}/idp/oauth2/token", "audience": "api://okta",
            "client_id": {"secret": "okta", "key": "client-id"},
            "client_secret": {"secret": "okta", "key": "client-secret"},
        }  # fmt: skip
        service = {"token": {"secret": "desk", "key": "token"}, "name": "desk reader"}
        return [
            *made,
            {"name": "salesforce", "type": "salesforce", "url": salesforce, "auth_mode": "JWTBearer",
             "jwt_bearer": bearer, **common},
            {"name": "hub", "type": "okta", "url": self.urls["okta"], "auth_mode": "TokenExchange",
             "token_exchange": exchange, **common},
            {"name": "desk", "type": "openapi", "url": self.urls["desk"], "auth_mode": "ServiceAccount",
             "service_account": service, "openapi": {"document_url": f"{self.urls['desk']}/openapi.json"}, **common},
        ]  # fmt: skip


def outcomes(events: list[Json]) -> dict[str, str]:
    """How each tool's last step ended: SUCCEEDED, REFUSED, … A run that went on alone tells steps with ``resumed``."""
    ended = [e for e in events if e["type"] == "step_finished"]
    ended += [step for e in events if e["type"] == "resumed" for step in e["steps"]]
    return {e["tool"]: e["outcome"].removeprefix("STEP_OUTCOME_") for e in ended if e["tool"] != names.PLAN_STEP}


def app_secrets() -> dict[tuple[str, str], str]:
    """(secret, key) → value: the applications' own, as an administrator sets them."""
    made = {(name, "client-id"): "pilothouse" for name in SCOPES}
    made |= {(name, "client-secret"): f"pilothouse-{name}-secret" for name in SCOPES}
    made["salesforce", "private-key"] = (CHECKOUT / "hack/demo/vault/salesforce-jwt.key").read_text()
    made["desk", "token"] = SERVICE_TOKEN
    return made


@contextlib.asynccontextmanager
async def estate(folder: Path, *, vault: bool = True) -> AsyncIterator[Estate]:
    """Stores, stand-ins and a gateway; workers are the caller's to start."""
    planted = Planted()
    with contextlib.ExitStack() as servers:
        redis_url = await asyncio.to_thread(servers.enter_context, valkey(folder))
        postgres = await asyncio.to_thread(servers.enter_context, postgres_server())
        bao = await asyncio.to_thread(servers.enter_context, openbao()) if vault else None
        await migrate(postgres.owner_url, postgres.settings.worker_database_password)
        here = Estate(folder, planted, FakeKube(), postgres, redis_url, bao, "", Parrot())
        async with here.stop:
            for name in SYSTEMS:
                app = importlib.import_module(f"pilothouse_sim.{name}.app").make_app()
                await _tapped(here, name, app)
            desk, app = Desk(), web.Application()
            app.router.add_get("/openapi.json", desk.document)
            app.router.add_get("/notes/{id}", desk.read)
            await _tapped(here, "desk", app)
            app = web.Application(client_max_size=8 << 20)
            app.router.add_post("/v1/chat/completions", here.model.chat)
            app.router.add_post("/v1/traces", here.keep_spans)
            await here.serve("model", app)
            if bao is not None:
                app = web.Application()
                app.router.add_route("*", "/{path:.*}", Listener(bao.url, planted).handle)
                here.bao_url = await here.serve("vault", app)
            await here.start_gateway()
            yield here


def _inherited() -> dict[str, str]:
    """Of this process's environment: what finds programs and code, and nothing that a secret could be in."""
    return {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}


async def _tapped(here: Estate, name: str, app: web.Application) -> None:
    here.taps[name] = Wiretap(name, here.planted)
    app.middlewares.insert(0, here.taps[name].middleware())
    await here.serve(name, app)


async def _listens(host: str, port: int) -> bool:
    with contextlib.suppress(OSError):
        _, writer = await asyncio.open_connection(host, port)
        writer.close()
        return True
    return False


async def _until(condition: Callable[[], Any], process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(30):
        while not await condition():
            assert process.returncode is None, "the process ended"
            await asyncio.sleep(0.05)
