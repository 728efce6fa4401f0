"""What an SRE does through Fleet: each action is authorized by Kubernetes, then made by any worker of the tenant.

ListDeadLetters     list   deadletters.pilothouse.dev
ReplayDeadLetter    update deadletters.pilothouse.dev
DiscardDeadLetter   delete deadletters.pilothouse.dev
DecideApproval      update approvals.pilothouse.dev
SetBreaker          update breakers.pilothouse.dev
ListTools           list   tools.pilothouse.dev
ListCosts           list   costs.pilothouse.dev         all in the tenant's namespace
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from pilothouse_dataplane.gateway.approvals import Approvals
from pilothouse_dataplane.gateway.calls import WorkerCalls
from pilothouse_dataplane.gateway.fleet.auth import Authorizer, Caller, Denied, Unauthenticated, Unavailable
from pilothouse_dataplane.gateway.problems import Problem
from pilothouse_dataplane.gateway.settings import Settings
from pilothouse_dataplane.gateway.workers import Directory
from pilothouse_proto.agent.v1 import agent_pb2 as agent
from pilothouse_proto.fleet.v1 import fleet_pb2 as pb
from pilothouse_proto.fleet.v1 import fleet_pb2_grpc

log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]
M = TypeVar("M", bound=Message)
_MAX_LETTERS = 500
_PASSED_ON = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)
"""What a worker says of the request itself; its other statuses tell of the worker, and are told as UNAVAILABLE."""


def bearer(context: Context) -> str | None:
    """The caller's token, where one came."""
    for name, value in context.invocation_metadata() or ():
        if name == "authorization":
            text = value.decode(errors="replace") if isinstance(value, bytes) else value
            scheme, _, token = text.partition(" ")
            return token.strip() if scheme.lower() == "bearer" else None
    return None


@contextlib.asynccontextmanager
async def refused(context: Context) -> AsyncIterator[None]:
    """End the call with the fitting status where the authorizer refuses inside the block."""
    try:
        yield
    except Unauthenticated as error:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, str(error))
    except Denied as error:
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, str(error))
    except Unavailable as error:
        await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))


class FleetActions(fleet_pb2_grpc.FleetServicer):
    """The part of ``fleet.proto`` that acts."""

    def __init__(
        self,
        *,
        settings: Settings,
        authorizer: Authorizer,
        calls: WorkerCalls,
        approvals: Approvals,
        directory: Directory,
    ) -> None:
        self._settings = settings
        self._authorizer = authorizer
        self._calls = calls
        self._approvals = approvals
        self._directory = directory

    async def _permit(self, context: Context, verb: str, resource: str, tenant: str, **needed: str) -> Caller:
        absent = [name for name, value in {"tenant": tenant, **needed}.items() if not value]
        if absent:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, f"{' and '.join(absent)} must be set. Nothing was done. Set it."
            )
        async with refused(context):
            caller = await self._authorizer.permit(
                bearer(context), verb, resource, tenant, self._directory.table.tenants()
            )
            log.info("fleet: %s: %s %s of %s %s", caller.name, verb, resource, tenant, needed or "")
            return caller
        raise AssertionError("unreachable: refused() has ended the call")

    async def _ask(
        self,
        context: Context,
        tenant: str,
        method: str,
        request: Message,
        answer: type[M],
        *,
        seconds: float,
        again: bool,
    ) -> M:
        async with self._told(context, changes=not again):
            return await self._calls.call(
                tenant, method, request, answer, wait=self._settings.action_wait, timeout=seconds, again=again
            )
        raise AssertionError("unreachable: _told() has ended the call")

    @contextlib.asynccontextmanager
    async def _told(self, context: Context, *, changes: bool) -> AsyncIterator[None]:
        """End the call with a sentence where no worker could be asked, or the one that was did not answer."""
        try:
            yield
        except Problem as problem:
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"{problem.message} {problem.user_action}")
        except grpc.aio.AioRpcError as error:
            if error.code() in _PASSED_ON:
                await context.abort(error.code(), error.details() or error.code().name)
            log.warning("fleet: a worker did not answer: %s: %s", error.code().name, error.details())
            known = "Whether it was done is not known: look before you try again." if changes else "Try again."
            # UNAVAILABLE is what a worker says whose ledger is away; what its other failures say is for the log.
            said = f": {error.details()}" if error.code() == grpc.StatusCode.UNAVAILABLE else ""
            await context.abort(
                grpc.StatusCode.UNAVAILABLE, f"The worker did not answer ({error.code().name}{said}). {known}"
            )

    async def ListDeadLetters(self, request: pb.ListDeadLettersRequest, context: Context) -> pb.ListDeadLettersResponse:
        """Newest first; at most 500."""
        await self._permit(context, "list", "deadletters", request.tenant)
        asked = agent.ListDeadLettersRequest(
            tenant=request.tenant, all=request.all, limit=min(request.limit, _MAX_LETTERS), id=request.id
        )
        seconds = self._settings.decide_timeout
        found = await self._ask(
            context,
            request.tenant,
            "ListDeadLetters",
            asked,
            agent.ListDeadLettersResponse,
            seconds=seconds,
            again=True,
        )
        return pb.ListDeadLettersResponse(dead_letters=found.dead_letters)

    async def ReplayDeadLetter(
        self, request: pb.ReplayDeadLetterRequest, context: Context
    ) -> pb.ReplayDeadLetterResponse:
        """Asked of one worker, once: what it does to the other system is for a person to judge."""
        caller = await self._permit(context, "update", "deadletters", request.tenant, id=request.id)
        asked = agent.ReplayDeadLetterRequest(
            tenant=request.tenant, id=request.id, requested_by=caller.name, force=request.force
        )
        seconds = self._settings.replay_timeout
        done = await self._ask(
            context,
            request.tenant,
            "ReplayDeadLetter",
            asked,
            agent.ReplayDeadLetterResponse,
            seconds=seconds,
            again=False,
        )
        return pb.ReplayDeadLetterResponse(dead_letter=done.dead_letter, outcome=done.outcome, message=done.message)

    async def DiscardDeadLetter(
        self, request: pb.DiscardDeadLetterRequest, context: Context
    ) -> pb.DiscardDeadLetterResponse:
        """Close it; it stays in the record."""
        caller = await self._permit(context, "delete", "deadletters", request.tenant, id=request.id)
        asked = agent.DiscardDeadLetterRequest(tenant=request.tenant, id=request.id, requested_by=caller.name)
        seconds = self._settings.decide_timeout
        done = await self._ask(
            context,
            request.tenant,
            "DiscardDeadLetter",
            asked,
            agent.DiscardDeadLetterResponse,
            seconds=seconds,
            again=False,
        )
        return pb.DiscardDeadLetterResponse(dead_letter=done.dead_letter)

    async def DecideApproval(self, request: pb.DecideApprovalRequest, context: Context) -> pb.DecideApprovalResponse:
        """Answer for whoever is asked; the run goes on in the background."""
        caller = await self._permit(context, "update", "approvals", request.tenant, approval_id=request.approval_id)
        decider = agent.User(subject=caller.name, email=caller.name, display_name=caller.name, groups=caller.groups)
        async with self._told(context, changes=True):
            decided = await self._approvals.decide(
                request.tenant,
                request.approval_id,
                approved=request.approved,
                decider=decider,
                override=True,
                wait=self._settings.action_wait,
            )
            self._approvals.resume(request.tenant, decided)
            return pb.DecideApprovalResponse(outcome=decided.outcome, message=decided.message)
        raise AssertionError("unreachable: _told() has ended the call")

    async def SetBreaker(self, request: pb.SetBreakerRequest, context: Context) -> pb.SetBreakerResponse:
        """Setting it twice is setting it once."""
        caller = await self._permit(context, "update", "breakers", request.tenant, name=request.name)
        if request.mode == agent.BREAKER_MODE_UNSPECIFIED:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                "mode must be set. Nothing was done. Choose automatic, forced open or disabled.",
            )
        asked = agent.SetBreakerRequest(
            tenant=request.tenant, name=request.name, mode=request.mode, requested_by=caller.name
        )
        seconds = self._settings.decide_timeout
        await self._ask(
            context, request.tenant, "SetBreaker", asked, agent.SetBreakerResponse, seconds=seconds, again=True
        )
        return pb.SetBreakerResponse()

    async def ListTools(self, request: pb.ListToolsRequest, context: Context) -> pb.ListToolsResponse:
        """What the tenant's agent can call, by name."""
        await self._permit(context, "list", "tools", request.tenant)
        found = await self._ask(
            context,
            request.tenant,
            "ListTools",
            agent.ListToolsRequest(tenant=request.tenant),
            agent.ListToolsResponse,
            seconds=self._settings.decide_timeout,
            again=True,
        )
        return pb.ListToolsResponse(tools=found.tools)

    async def ListCosts(self, request: pb.ListCostsRequest, context: Context) -> pb.ListCostsResponse:
        """Sums of one day's model calls as the ledger holds them, the dearest first."""
        await self._permit(context, "list", "costs", request.tenant)
        found = await self._ask(
            context,
            request.tenant,
            "ListCosts",
            agent.ListCostsRequest(tenant=request.tenant, day=request.day, by=request.by, limit=request.limit),
            agent.ListCostsResponse,
            seconds=self._settings.decide_timeout,
            again=True,
        )
        return pb.ListCostsResponse(day=found.day, sums=found.sums)
