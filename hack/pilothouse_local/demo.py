"""``pilothouse demo``: from nothing to an answered request, in eight steps that each show what they did.

It checks what it shows: the new issue is fetched from Jira, and nothing may have been created for the contractor. With
``OPENAI_API_KEY`` or ``OPENAI_BASE_URL`` in the environment a real model plans and answers (``OPENAI_MODEL`` names it)
instead of the stand-in. It can be run again: each run files another issue. ``CLUSTER`` is local, kind or current.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import yaml

from pilothouse_api.names import PLAN_STEP, SYSTEM_NAMESPACE, worker_name
from pilothouse_local import browser, cluster, demo_tenant, foreign, vault
from pilothouse_local import instance as instances
from pilothouse_local.console import Console
from pilothouse_local.deploy import CHECKOUT, SIM_NAMESPACE, Kubectl
from pilothouse_local.errors import LocalClusterError
from pilothouse_local.standins import JiraApi, address_of
from pilothouse_tui.data.chat import converse
from pilothouse_tui.data.kube import KubeClient
from pilothouse_tui.data.tokens import make_token
from pilothouse_tui.errors import ToolError

TENANT = "acme"
EMPLOYEE = "employee@acme.example"
CONTRACTOR = "contractor@acme.example"
MANAGER = "manager@acme.example"
SUMMARY = "VPN token expired on my laptop"
QUESTION = f"Which open issues do I have about VPN? Also file a new issue in IT: {SUMMARY}"
REFUSED_QUESTION = "File a new issue in IT: VPN profile for my tablet"
PERMISSION = "Create Issues"
"""The permission that the contractor lacks, as Jira's administration names it (key CREATE_ISSUES)."""
READY_WITHIN = "60s"
DEMO_FOLDER = CHECKOUT / "hack" / "demo"
_MARKS = {
    "STEP_OUTCOME_SUCCEEDED": "done",
    "STEP_OUTCOME_REFUSED": "refused",
    "STEP_OUTCOME_FAILED": "failed",
    "STEP_OUTCOME_UNKNOWN": "outcome unknown",
}


class DemoFailed(LocalClusterError):
    """A step of the demo did not end as it should; ``detail`` holds the logs' last lines."""


@dataclass
class Answer:
    """What came back for one question."""

    text: str = ""
    error: str = ""
    steps: list[str] = field(default_factory=list)
    seconds: float = 0
    first_text_seconds: float | None = None


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
            jira_url = stack.enter_context(address_of(self._kubectl, SIM_NAMESPACE, "jira", 8080))
            chat_url, tokens = self._front_door(stack)
            # The stand-in's own administrator looks at it, with the tokens of its seed; the agent has none of these.
            jira = {
                user: JiraApi(jira_url, f"jira-token-{user.partition('@')[0]}")
                for user in (EMPLOYEE, CONTRACTOR, MANAGER)
            }
            with self._step("Link the employees' own Jira accounts, as each does on the page /accounts"):
                self._link(chat_url, tokens)
            before = jira[MANAGER].keys("IT")
            with self._step(f"Ask as {EMPLOYEE}: {QUESTION}"):
                answer = self._ask(chat_url, tokens[EMPLOYEE], QUESTION)
            with self._step("Look the new issue up in Jira, as the employee"):
                self._verify_created(jira, before, answer)
            before = jira[MANAGER].keys("IT")
            with self._step(f"Ask as {CONTRACTOR}, who may not file issues: {REFUSED_QUESTION}"):
                answer = self._ask(chat_url, tokens[CONTRACTOR], REFUSED_QUESTION)
                self._verify_refused(jira, before, answer)
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
            (SIM_NAMESPACE, "jira"),
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
            vault.put_secrets(self._instance, settings, TENANT, TENANT, demo_tenant.vault_secrets())
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
            self._console.say(f"   {user}: {browser.link(gateway, token, 'jira', user)}")

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
        return url, {user: make_token(key, tenant=TENANT, user=user, ttl_seconds=86400) for user in users}

    def _ask(self, url: str, token: str, text: str) -> Answer:
        answer = asyncio.run(asyncio.wait_for(ask(url, token, text, self._console.say), timeout=60))
        if answer.error:
            raise self._failed(f"the agent answered with an error: {answer.error}", "the request was not answered")
        first = f", the first words after {answer.first_text_seconds:.1f} s" if answer.first_text_seconds else ""
        self._console.say(f"   answered in {answer.seconds:.1f} s{first}")
        return answer

    def _verify_created(self, jira: Mapping[str, JiraApi], before: set[str], answer: Answer) -> None:
        new = sorted(jira[MANAGER].keys("IT") - before)
        if len(new) != 1:
            found = ", ".join(new) or "none"
            raise self._failed(f"one new issue was expected in Jira's project IT; there are: {found}")
        issue = jira[EMPLOYEE].issue(new[0])
        fields = issue["fields"]
        reporter = fields["reporter"]["emailAddress"]
        if reporter != EMPLOYEE:
            raise self._failed(f"{new[0]} was reported by {reporter}, not by {EMPLOYEE}")
        if new[0] not in answer.text:
            raise self._failed(f"the answer does not name the new issue {new[0]}: {answer.text}")
        self._console.say(
            f"   GET /rest/api/3/issue/{new[0]} -> {fields['summary']!r}, status {fields['status']['name']!r}"
        )
        self._console.say(f"   reporter: {fields['reporter']['displayName']} <{reporter}>, created {fields['created']}")

    def _verify_refused(self, jira: Mapping[str, JiraApi], before: set[str], answer: Answer) -> None:
        if new := sorted(jira[MANAGER].keys("IT") - before):
            raise self._failed(f"Jira has the new issue {', '.join(new)}, though {CONTRACTOR} may not create any")
        if PERMISSION.lower() not in answer.text.lower().replace("_", " "):
            raise self._failed(f"the answer does not name the permission {PERMISSION!r}: {answer.text}")
        self._console.say(f"   Jira refused it, the answer names the permission {PERMISSION}, and nothing was created.")

    def _whats_next(self, chat_url: str, token: str) -> None:
        page = chat_url.replace("ws://", "http://").removesuffix("/v1/chat")
        chosen = f"KUBECONFIG={self._instance.kubeconfig} " if self._instance else ""
        self._console.say(
            "\n8. What to try next\n"
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


async def ask(url: str, token: str, text: str, say: Callable[[str], None]) -> Answer:
    """Asks and prints plan, steps and answer as they come, text by whole lines. Raises ``ToolError``."""
    answer, began, line = Answer(), time.monotonic(), ""
    planned: set[object] = set()
    async for event in converse(url, token, text):
        kind = event.get("type")
        if event.get("step_id") == PLAN_STEP:
            if kind == "step_started":
                say(f"   .. {event.get('summary', '')}")
        elif kind == "plan":
            planned |= {step.get("step_id") for step in event.get("steps") or ()}
            say(
                "   plan: "
                + "; ".join(str(step.get("summary") or step.get("tool")) for step in event.get("steps") or ())
            )
        elif kind == "step_started":
            answer.steps.append(str(event.get("tool")))
            if event.get("step_id") not in planned:
                say(f"   -> {event.get('summary') or event.get('tool')}")
        elif kind == "step_finished":
            mark = _MARKS.get(str(event.get("outcome")), str(event.get("outcome")))
            say(f"   <- {event.get('tool')} {mark} in {event.get('duration_ms', 0)} ms: {event.get('summary', '')}")
        elif kind == "text_delta":
            if answer.first_text_seconds is None:
                answer.first_text_seconds = time.monotonic() - began
            *lines, line = (line + str(event.get("text", ""))).split("\n")
            for complete in lines:
                say(f"   | {complete}")
        elif kind == "approval_required":
            answer.error = f"it waits for an approval that the demo's tenant asks for nowhere: {event.get('summary')}"
            break
        elif kind == "final":
            answer.text = str(event.get("text", ""))
        elif kind == "error":
            answer.error = f"{event.get('message', '')} {event.get('user_action', '')}".strip()
    if line:
        say(f"   | {line}")
    answer.seconds = time.monotonic() - began
    return answer
