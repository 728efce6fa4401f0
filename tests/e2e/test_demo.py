"""The demo end to end, and a conversation that outlives its worker. Given / when / then on the real stack."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time

import pytest

from pilothouse_local.deploy import Kubectl
from pilothouse_local.systems import reached
from pilothouse_testing.stack import EMPLOYEE, TENANT, Demonstrated, answer, chat, pod_processes, post_faults
from pilothouse_tui.data.fleet import FleetClient
from pilothouse_tui.data.kube import KubeClient
from pilothouse_tui.model import Breaker, BreakerState, FleetSnapshot

MANAGER = "manager@acme.example"
pytestmark = pytest.mark.timeout(600)
ANSWERED_WITHIN = 20.0
"""Seconds from the death of a tenant's only worker to the whole answer: most of it is the container's restart."""


def test_the_demo_acts_in_four_systems_as_the_employee_and_is_refused_where_it_must_be(
    demonstrated: Demonstrated,
) -> None:
    # given the whole stack; when the demo has run
    cluster, said = demonstrated
    # then the incident is the employee's own, and her manager watches it
    number = re.search(r"ServiceNow (INC\d+)", said)
    assert number, said
    with reached(Kubectl(cluster.kubeconfig)) as systems:
        incident = systems.incident(number[1], MANAGER)
    assert incident["caller_id.email"] == EMPLOYEE
    assert "Mona Manager" in incident["watch_list"]
    # and she was asked before her factor was reset, and told what else came from elsewhere
    assert "?? May I do this? " in said
    assert "Okta: token:software:totp is gone" in said
    # and every call carried the token of who asked, in all four systems' logs
    for name in ("okta", "servicenow", "jira", "salesforce"):
        lines = re.findall(rf"(?m)^   {name}: (\d+ calls? with the token of \S+)", said)
        assert [line.split()[-1] for line in lines] == [EMPLOYEE, "contractor@acme.example"], (name, lines)
    # and the contractor's refusals were told in the systems' own words
    assert "servicenow.incident.create: ServiceNow refused" in said
    assert "okta.factor.reset: Okta refused" in said
    assert re.search(r"jira\.issue\.create: .*the permission “?Create Issues", said), said
    assert "salesforce.account.search: Salesforce found nothing that you may see" in said
    assert "All of it worked" in said
    assert "/#token=" in said


def test_the_demo_can_be_run_again(demonstrated: Demonstrated) -> None:
    # given a stack in which the demo has run
    cluster, _ = demonstrated
    # when it runs again
    began = time.monotonic()
    said = cluster.must("demo")
    # then it works again, on what is there
    assert "All of it worked" in said
    assert "unchanged" in said
    assert time.monotonic() - began < 60


async def test_a_question_whose_worker_is_killed_goes_on_by_itself(demonstrated: Demonstrated) -> None:
    cluster, _ = demonstrated
    # given an answer that is being written slowly
    post_faults(cluster, tokens_per_second=4)
    try:
        async with chat(cluster) as connection:
            killed_at, events = 0.0, []
            async for event in connection.ask("hello"):
                events.append(event)
                if event["type"] == "text_delta" and not killed_at:
                    # when its worker, the tenant's only one, is killed in the middle of it
                    (process,) = pod_processes(cluster, TENANT, "pilothouse_dataplane.worker")
                    os.kill(process, signal.SIGKILL)
                    killed_at = time.monotonic()
                    post_faults(cluster, tokens_per_second=150)
            # then the next worker goes on with the same question; nobody has to ask again
            kinds = [event["type"] for event in events]
            assert killed_at, f"no text came: {events}"
            assert "resumed" in kinds, events
            assert kinds[-1] == "final", events[-1]
            assert time.monotonic() - killed_at < ANSWERED_WITHIN
            assert [event["sequence"] for event in events] == sorted({event["sequence"] for event in events})
            # and the next message in the same conversation is answered
            last = await asyncio.wait_for(answer(connection, "show IT-1"), 30)
            assert last["type"] == "final", last
            assert "IT-1" in last["text"]
    finally:
        post_faults(cluster, tokens_per_second=150)


async def test_a_connector_that_is_down_is_told_and_its_breaker_opens_and_closes(demonstrated: Demonstrated) -> None:
    cluster, _ = demonstrated
    seen: list[BreakerState] = []
    async with KubeClient.from_environment(str(cluster.kubeconfig)) as kube, chat(cluster) as connection:
        fleet = FleetClient(kube)

        async def watch() -> None:
            async for change in fleet.watch(TENANT):
                breakers = change.breakers if isinstance(change, FleetSnapshot) else (change,)
                seen.extend(b.state for b in breakers if isinstance(b, Breaker) and b.name == "connector/jira")

        watching = asyncio.create_task(watch())
        try:
            # given a Jira that fails
            post_faults(cluster, "jira", error_rate=1)
            # when users ask until its breaker opens
            said = ""
            for _ in range(6):
                last = await asyncio.wait_for(answer(connection, "show IT-1"), 45)
                assert last["type"] == "final", last
                said = last["text"]
                if "Jira is down" in said:
                    break
            # then they read what is down, and the SRE sees it open
            assert "Jira is down" in said, said
            assert BreakerState.OPEN in seen
            # and when Jira works again, the breaker tries it, and closes by itself
            post_faults(cluster, "jira", error_rate=0)
            until = time.monotonic() + 60
            while seen[-1] is not BreakerState.CLOSED or seen.count(BreakerState.CLOSED) < 2:
                assert time.monotonic() < until, seen
                await asyncio.wait_for(answer(connection, "show IT-1"), 45)
                await asyncio.sleep(0.5)
            assert BreakerState.HALF_OPEN in seen
        finally:
            post_faults(cluster, "jira", error_rate=0)
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


async def test_a_model_that_fails_is_told_and_mends(demonstrated: Demonstrated) -> None:
    cluster, _ = demonstrated
    async with chat(cluster) as connection:
        # given a model server that refuses everything
        post_faults(cluster, error_rate=1, status=503)
        try:
            # when the user asks
            last = await asyncio.wait_for(answer(connection, "show IT-1"), 45)
        finally:
            post_faults(cluster, error_rate=0)
        # then the user reads that the model is down, not an empty answer
        assert last["type"] == "error", last
        assert last["code"] == "ERROR_CODE_MODEL_UNAVAILABLE"
        assert last["message"]
