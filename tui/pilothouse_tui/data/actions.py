"""The SRE's actions through Fleet, each one call; Kubernetes decides who may (see ``fleet.proto``).

Nothing here tries again by itself: a replay that may have reached the other side is for a person to judge.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from pilothouse_proto.agent.v1 import agent_pb2
from pilothouse_proto.fleet.v1 import fleet_pb2
from pilothouse_tui.data import convert
from pilothouse_tui.data.fleet import STEPS, FleetClient, as_json, cost_sum
from pilothouse_tui.errors import AccessError, ConfigurationError, ToolError
from pilothouse_tui.model import (
    BreakerMode,
    CostBy,
    CostSum,
    DeadLetter,
    DeadLetters,
    Decision,
    Replay,
    StepOutcome,
    Tool,
)

_SECONDS = 15.0
_REPLAY_SECONDS = 90.0
"""A replay waits for the other system, with its retries."""
_AT_ONCE = 8
"""Tenants that are asked side by side: each question goes to a worker of the tenant."""
_MODES = {
    BreakerMode.AUTOMATIC: agent_pb2.BREAKER_MODE_AUTOMATIC,
    BreakerMode.FORCED_OPEN: agent_pb2.BREAKER_MODE_FORCED_OPEN,
    BreakerMode.DISABLED: agent_pb2.BREAKER_MODE_DISABLED,
}
_BY: dict[CostBy, agent_pb2.CostBy.ValueType] = {
    "user": agent_pb2.COST_BY_USER,
    "tier": agent_pb2.COST_BY_TIER,
    "provider": agent_pb2.COST_BY_PROVIDER,
    "model": agent_pb2.COST_BY_MODEL,
    "revision": agent_pb2.COST_BY_REVISION,
}


class FleetActions:
    """The actions over one ``FleetClient``. Each raises a ToolError."""

    def __init__(self, client: FleetClient) -> None:
        self._client = client

    async def dead_letters(
        self, tenants: Sequence[str], *, all_states: bool = False, limit: int = 100, id: str = ""
    ) -> DeadLetters:
        """Dead letters of the tenants, newest first, at most ``limit`` of each.

        A tenant that could not be asked (no worker runs, no right) is named in ``failed`` where others answered.
        """
        if not tenants:
            return DeadLetters()
        at_once = asyncio.Semaphore(_AT_ONCE)
        async with self._client.opened("No dead letter was read.", "list deadletters.pilothouse.dev") as call:

            async def of(tenant: str) -> list[DeadLetter] | ToolError:
                request = fleet_pb2.ListDeadLettersRequest(tenant=tenant, all=all_states, limit=limit, id=id)
                async with at_once:
                    try:
                        response = await call("ListDeadLetters", request, _SECONDS)
                    except ToolError as error:
                        return error
                return [convert.dead_letter({"tenant": tenant} | as_json(raw)) for raw in response.dead_letters]

            answers = await asyncio.gather(*(of(tenant) for tenant in tenants))
        found = [letter for answer in answers if not isinstance(answer, ToolError) for letter in answer]
        failed = [(t, answer) for t, answer in zip(tenants, answers, strict=True) if isinstance(answer, ToolError)]
        if failed and len(failed) == len(tenants):
            raise failed[0][1]
        found.sort(key=lambda letter: letter.created.timestamp() if letter.created else 0.0, reverse=True)
        return DeadLetters(tuple(found), tuple((tenant, error.happened) for tenant, error in failed))

    async def replay(self, tenant: str, id: str, *, force: bool = False) -> Replay:
        """Send a dead letter again under its own idempotency key."""
        request = fleet_pb2.ReplayDeadLetterRequest(tenant=tenant, id=id, force=force)
        async with self._client.opened("Nothing was sent again.", "update deadletters.pilothouse.dev") as call:
            try:
                response = await call("ReplayDeadLetter", request, _REPLAY_SECONDS)
            except (AccessError, ConfigurationError):
                raise
            except ToolError as error:
                # The call may have got to the worker: then the write is under way or done.
                raise type(error)(
                    error.happened,
                    "Whether the write was sent is not known.",
                    f"Look at it with `pilothouse dlq show {id}`; replaying again can't write twice.",
                ) from error
        step = STEPS.get(response.outcome, StepOutcome.UNSPECIFIED)
        letter = convert.dead_letter({"tenant": tenant, "id": id} | as_json(response.dead_letter))
        return Replay(letter, step, response.message)

    async def discard(self, tenant: str, id: str) -> DeadLetter:
        """Close a dead letter that nobody wants any more."""
        request = fleet_pb2.DiscardDeadLetterRequest(tenant=tenant, id=id)
        async with self._client.opened("It was not discarded.", "delete deadletters.pilothouse.dev") as call:
            response = await call("DiscardDeadLetter", request, _SECONDS)
        return convert.dead_letter({"tenant": tenant, "id": id} | as_json(response.dead_letter))

    async def decide(self, tenant: str, approval_id: str, approved: bool) -> Decision:
        """Answer an approval for who is asked."""
        request = fleet_pb2.DecideApprovalRequest(tenant=tenant, approval_id=approval_id, approved=approved)
        async with self._client.opened("The approval was not answered.", "update approvals.pilothouse.dev") as call:
            response = await call("DecideApproval", request, _SECONDS)
        return convert.decision(as_json(response))

    async def set_breaker(self, tenant: str, name: str, mode: BreakerMode) -> None:
        """Force a breaker open, disable it, or give it back to its own judgement, for all workers of the tenant."""
        request = fleet_pb2.SetBreakerRequest(tenant=tenant, name=name, mode=_MODES[mode])
        async with self._client.opened("The breaker was not changed.", "update breakers.pilothouse.dev") as call:
            await call("SetBreaker", request, _SECONDS)

    async def tools(self, tenant: str) -> tuple[Tool, ...]:
        """What the tenant's agent can call, by name."""
        request = fleet_pb2.ListToolsRequest(tenant=tenant)
        async with self._client.opened("No tool was read.", "list tools.pilothouse.dev") as call:
            response = await call("ListTools", request, _SECONDS)
        return tuple(convert.tool(as_json(raw)) for raw in response.tools)

    async def costs(self, tenant: str, day: str = "", by: Sequence[CostBy] = ()) -> tuple[CostSum, ...]:
        """Sums of a day's (UTC; empty: today's) model calls, the dearest first."""
        request = fleet_pb2.ListCostsRequest(tenant=tenant, day=day, by=[_BY[each] for each in by])
        async with self._client.opened("No cost was read.", "list costs.pilothouse.dev") as call:
            response = await call("ListCosts", request, _SECONDS)
        return tuple(cost_sum(raw) for raw in response.sums)
