"""``pilothouse demo``: from nothing to an answered request, in nine steps that each show what they did.

An employee's VPN token is broken and her manager shall know: her agent asks and acts in Okta, ServiceNow, Jira and
Salesforce, as she, and asks her before it takes something away. A colleague without rights asks for the same. The demo
checks what it shows, in the four systems themselves and in their request logs. With ``OPENAI_API_KEY`` or
``OPENAI_BASE_URL`` in the environment a real model plans and answers (``OPENAI_MODEL`` names it) instead of the
stand-in. It can be run again: each run opens another incident. ``CLUSTER`` is local, kind or current.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import yaml

from pilothouse_api.names import SYSTEM_NAMESPACE, worker_name
from pilothouse_local import browser, cluster, demo_tenant, foreign, in_cluster_vault, vault
from pilothouse_local import instance as instances
from pilothouse_local.console import Console
from pilothouse_local.demo_chat import Answer, ask
from pilothouse_local.deploy import CHECKOUT, SIM_NAMESPACE, Kubectl
from pilothouse_local.errors import LocalClusterError
from pilothouse_local.standins import address_of
from pilothouse_local.systems import NAMES, Systems, reached, told
from pilothouse_tui.data.kube import KubeClient
from pilothouse_tui.data.tokens import make_token
from pilothouse_tui.errors import ToolError

TENANT = "acme"
EMPLOYEE = "employee@acme.example"
CONTRACTOR = "contractor@acme.example"
MANAGER = "manager@acme.example"
MANAGER_NAME = "Mona Manager"
"""As ServiceNow shows who watches an incident."""
QUESTION = "My VPN token is broken and my manager needs to know"
LINKED = ("okta", "servicenow", "jira")
"""Connectors whose accounts employees link themselves; Salesforce takes a signed assertion about each."""
TOTP = "token:software:totp"
STORY = {
    "okta.user.manager": "finds her manager",
    "servicenow.incident.create": "opens an incident that the manager watches",
    "jira.issue.search": "finds her issue",
    "salesforce.account.search": "finds who owns the supplier's account",
    "okta.factor.reset": "resets the factor, after her yes",
    "jira.issue.comment": "comments on the issue, after her yes",
}
READY_WITHIN = "60s"
DEMO_FOLDER = CHECKOUT / "hack" / "demo"


class DemoFailed(LocalClusterError):
    """A step of the demo did not end as it should; ``detail`` holds the logs' last lines."""


def run() -> None:
    """Runs all steps. Raises ``LocalClusterError`` for the first that fails; the command prints it and exits with 1."""
    Demo(Console(), os.environ).run()


class Demo:
    """One run of the demo; ``env`` is the process's environment."""

    def __init__(self, console: Console, env: Mapping[str, str]) -> None:
        self._console = console
        self._env = env
        self._where = env.get("CLUSTER") or "local"
        self._instance = instances.locate(env) if self._where == "local" else None
        context = f"kind-{foreign.KIND_CLUSTER}" if self._where == "kind" else None
        self._kubectl = Kubectl(self._instance.kubeconfig if self._instance else None, context)
        self._number = 0

    def run(self) -> None:
        """See ``run`` of the module."""
        began = time.monotonic()
        with self._step("Start the cluster and Pilothouse (pilothouse up)"):
            self._up()
        with self._step(f"Make the tenant {TENANT} (kubectl apply -f hack/demo/)"):
            self._apply()
        with self._step("Wait until it is ready (kubectl wait --for=condition=Ready tenant/acme)"):
            wait = f"--timeout={READY_WITHIN}"
            said = self._kubectl.run("wait", f"--namespace={TENANT}", "--for=condition=Ready", f"tenant/{TENANT}", wait)
            self._console.say(f"   {said.strip()}")
        with ExitStack() as stack:
            chat_url, tokens = self._front_door(stack)
            systems = stack.enter_context(reached(self._kubectl))
            with self._step("Link the employees' own accounts, as each does on the page /accounts"):
                self._link(chat_url, tokens)
            with self._step(f"Ask as {EMPLOYEE}: {QUESTION}"):
                systems.begin()
                answer = self._ask(chat_url, tokens[EMPLOYEE], QUESTION)
                self._all_done(answer)
            with self._step("Look into the four systems: what was done, and whose token each call carried"):
                self._verify_calls(systems, EMPLOYEE)
                self._verify_done(systems, answer)
            with self._step(f"Ask the same as {CONTRACTOR}, who has few rights"):
                before = systems.incidents(MANAGER)
                systems.begin()
                answer = self._ask(chat_url, tokens[CONTRACTOR], QUESTION)
            with self._step("Look into the four systems again: nothing was changed, each refusal was told"):
                self._verify_calls(systems, CONTRACTOR)
                self._verify_refused(systems, before, answer)
            self._console.say(f"\nAll of it worked, in {time.monotonic() - began:.1f} s.")
            self._whats_next(chat_url, tokens[EMPLOYEE])

    @contextmanager
    def _step(self, title: str) -> Iterator[None]:
        """Prints the step's number and time; adds the logs to an error that leaves it."""
        self._number += 1
        self._console.say(f"\n{self._number}. {title}")
        began = time.monotonic()
        try:
            yield
        except DemoFailed:
            raise
        except (LocalClusterError, ToolError, OSError) as error:
            raise self._failed(error) from error
        self._console.say(f"   ({time.monotonic() - began:.1f} s)")

    def _failed(self, error: LocalClusterError | ToolError | OSError | str, not_done: str = "") -> DemoFailed:
        do_now = "read the logs below; `pilothouse status` and `pilothouse logs NAME` show more. It is safe to repeat"
        detail = ""
        if isinstance(error, LocalClusterError):
            not_done, do_now, detail = error.not_done, error.do_now, error.detail
            happened = error.happened
        elif isinstance(error, ToolError):
            happened, not_done, do_now = error.happened, error.not_done, error.to_do
        else:
            happened = str(error)
        happened = f"step {self._number} of the demo failed: {happened}"
        return DemoFailed(
            happened, not_done or "the steps after it", do_now, detail=f"{detail}\n{self._logs()}".strip()
        )

    def _logs(self) -> str:
        """The last lines of what takes part in a request; a Pod that is not there is left out."""
        parts = []
        for namespace, name in (
            (SYSTEM_NAMESPACE, "pilothouse-operator"),
            (SYSTEM_NAMESPACE, "pilothouse-gateway"),
            (TENANT, worker_name(TENANT)),
            *((SIM_NAMESPACE, name) for name in NAMES),
        ):
            try:
                text = self._kubectl.run("logs", f"--namespace={namespace}", f"deployment/{name}", "--tail=12")
            except LocalClusterError:
                continue
            parts.append(f"--- log of {namespace}/{name}\n{text.strip()}")
        return "\n".join(parts)

    def _up(self) -> None:
        if self._instance is not None:
            cluster.up(self._instance, self._console)
        else:
            foreign.up(self._console, kind=self._where == "kind")

    def _apply(self) -> None:
        ports = {}
        if self._instance is not None:
            settings = cluster.require_running(self._instance)
            ports = settings.node_ports
            vault.put_secrets(vault.opened(self._instance, settings), TENANT, TENANT, demo_tenant.vault_secrets())
        else:
            with in_cluster_vault.opened(self._kubectl) as bao:
                vault.put_secrets(bao, TENANT, TENANT, demo_tenant.vault_secrets())
        self._console.say(f"   OAuth clients and a key -> {vault.MOUNT}/{TENANT}/{TENANT}/secrets in OpenBao")
        objects = demo_tenant.objects(ports)
        if self._env.get("OPENAI_API_KEY") or self._env.get("OPENAI_BASE_URL"):
            # The model's objects go in before the tenant that refers to them, after the namespace.
            others = [one for one in objects[1:] if one["kind"] != "ModelRoute"]
            objects = [objects[0], *real_model(self._env), *others]
        said = self._kubectl.run("apply", "--filename=-", stdin=yaml.safe_dump_all(objects))
        for line in said.splitlines():
            self._console.say(f"   {line}")

    def _link(self, chat_url: str, tokens: Mapping[str, str]) -> None:
        gateway = chat_url.replace("ws://", "http://").removesuffix("/v1/chat")
        for user, token in tokens.items():
            for connector in LINKED:
                self._console.say(f"   {user}: {browser.link(gateway, token, connector, user)}")

    def _front_door(self, stack: ExitStack) -> tuple[str, dict[str, str]]:
        """The gateway's WebSocket address and a development token for each user."""

        async def find() -> tuple[str, bytes]:
            kubeconfig = str(self._instance.kubeconfig) if self._instance else ""
            async with KubeClient.from_environment(kubeconfig, self._kubectl.context or "") as kube:
                url = await kube.find_chat_url() if self._instance else ""
                return url, await kube.read_signing_key()

        try:
            url, key = asyncio.run(find())
        except ToolError as error:
            raise self._failed(error) from error
        if not url:
            base = stack.enter_context(address_of(self._kubectl, SYSTEM_NAMESPACE, "pilothouse-gateway", 8080))
            url = base.replace("http://", "ws://") + "/v1/chat"
        users = (EMPLOYEE, CONTRACTOR)
        day = 86400
        return url, {u: make_token(key, tenant=TENANT, user=u, manager=MANAGER, ttl_seconds=day) for u in users}

    def _ask(self, url: str, token: str, text: str) -> Answer:
        answer = asyncio.run(asyncio.wait_for(ask(url, token, text, self._console.say), timeout=60))
        if answer.error:
            raise self._failed(f"the agent answered with an error: {answer.error}", "the request was not answered")
        first = f", the first words after {answer.first_text_seconds:.1f} s" if answer.first_text_seconds else ""
        self._console.say(f"   answered in {answer.seconds:.1f} s{first}")
        return answer

    def _all_done(self, answer: Answer) -> None:
        """Every part of the story was done, and what takes something away was asked for."""
        for tool, what in STORY.items():
            if answer.steps.get(tool) != "done":
                how = answer.steps.get(tool, "not called")
                raise self._failed(f"the agent {what} with {tool}, which was {how}: {answer.sentences.get(tool, '')}")
        if "okta.factor.reset" not in answer.asked:
            raise self._failed("the factor was reset without the employee's yes")

    def _verify_calls(self, systems: Systems, user: str) -> None:
        for name, calls in systems.calls().items():
            for line in told(calls):
                self._console.say(f"   {name}: {line}")
            if strangers := {call.user for call in calls} - {user}:
                raise self._failed(f"{name} was asked with the token of {', '.join(sorted(strangers))}, not of {user}")

    def _verify_done(self, systems: Systems, answer: Answer) -> None:
        number = _named(r"\bINC\d+", answer.sentences["servicenow.incident.create"])
        incident = systems.incident(number, MANAGER)
        if incident.get("caller_id.email") != EMPLOYEE or MANAGER_NAME not in str(incident.get("watch_list")):
            raise self._failed(f"{number} is not {EMPLOYEE}'s, watched by {MANAGER}: {incident}")
        self._console.say(f"   ServiceNow {number}: {incident['short_description']!r}, called in by {EMPLOYEE}, "
                          f"watched by {incident['watch_list']}")  # fmt: skip
        if TOTP in systems.factors(EMPLOYEE):
            raise self._failed(f"Okta still has {EMPLOYEE}'s factor {TOTP}")
        left = ", ".join(sorted(systems.factors(EMPLOYEE)))
        self._console.say(f"   Okta: {TOTP} is gone; {EMPLOYEE} still has {left}")
        key = _named(r"\b[A-Z]+-\d+", answer.sentences["jira.issue.comment"])
        author, text = systems.comments(key, EMPLOYEE)[-1]
        if author != EMPLOYEE or number not in text:
            raise self._failed(f"the newest comment on {key} is of {author or 'nobody'}: {text!r}")
        self._console.say(f"   Jira {key}: {author} wrote {text!r}")
        if number not in answer.text or key not in answer.text:
            raise self._failed(f"the answer does not name {number} and {key}: {answer.text}")

    def _verify_refused(self, systems: Systems, before: set[str], answer: Answer) -> None:
        if new := systems.incidents(MANAGER) - before:
            raise self._failed(f"ServiceNow has {', '.join(new)}, though {CONTRACTOR} may not open incidents")
        if TOTP not in systems.factors(CONTRACTOR):
            raise self._failed(f"Okta has reset {CONTRACTOR}'s factor, though {CONTRACTOR} may not")
        refused = {tool: answer.sentences[tool] for tool, how in answer.steps.items() if how == "refused"}
        for tool, sentence in refused.items():
            self._console.say(f"   {tool}: {sentence}")
        for tool in (
            "servicenow.incident.create",
            "okta.factor.reset",
            "jira.issue.create",
            "salesforce.account.search",
        ):
            if tool not in refused:
                raise self._failed(f"{tool} was {answer.steps.get(tool, 'not called')}, and should have been refused")

    def _whats_next(self, chat_url: str, token: str) -> None:
        page = chat_url.replace("ws://", "http://").removesuffix("/v1/chat")
        chosen = f"KUBECONFIG={self._instance.kubeconfig} " if self._instance else ""
        self._console.say(
            f"\n{self._number + 1}. What to try next\n"
            "   make tui      watch sessions, breakers and costs\n"
            "   make chat     ask in the terminal\n"
            f"   {chosen}kubectl get tn,conn,mr,ro -A\n"
            "   The page in a browser (the link signs in as the employee for a day):\n"
            f"   {page}/#token={token}"
        )
        if self._where != "local":
            self._console.say("   The page needs a port-forward on this cluster: "
                              f"kubectl port-forward -n {SYSTEM_NAMESPACE} svc/pilothouse-gateway 8080")  # fmt: skip


def real_model(env: Mapping[str, str]) -> list[dict[str, Any]]:
    """The Secret (where a key is given) and ModelRoute that replace the stand-in. Raises ``DemoFailed`` without a name
    for a model of an endpoint of one's own."""
    key, base = env.get("OPENAI_API_KEY"), env.get("OPENAI_BASE_URL")
    model = env.get("OPENAI_MODEL") or ("" if base else "gpt-4o-mini")
    if not model:
        raise DemoFailed(
            "OPENAI_BASE_URL is set, but not which model it serves",
            "the tenant was not made",
            "set OPENAI_MODEL to the model's name, as GET $OPENAI_BASE_URL/models lists it",
        )
    provider: dict[str, Any] = {"name": "openai", "type": "OpenAI"}
    objects: list[dict[str, Any]] = []
    if base:
        provider["baseURL"] = base
    if key:
        provider["credentialsSecretRef"] = {"name": "acme-openai"}
        metadata = {"name": "acme-openai", "namespace": TENANT}
        objects.append({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"api-key": key}})
    route: dict[str, Any] = yaml.safe_load((DEMO_FOLDER / "modelroute.yaml").read_text(encoding="utf-8"))
    route["spec"]["providers"] = [provider]
    for tier in route["spec"]["tiers"].values():
        for target in tier["targets"]:
            target.update(provider="openai", model=model)
    return [*objects, route]


def _named(pattern: str, text: str) -> str:
    """The first match in a sentence; "" where there is none."""
    match = re.search(pattern, text)
    return match[0] if match else ""
