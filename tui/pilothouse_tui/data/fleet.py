"""Client of the Fleet gRPC service: finds the gateway, carries the SRE's token, turns messages into the model."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import grpc.aio
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from pilothouse_api.names import GATEWAY_FLEET_PORT, SYSTEM_NAMESPACE
from pilothouse_proto.agent.v1 import agent_pb2
from pilothouse_proto.events.v1 import events_pb2
from pilothouse_proto.fleet.v1 import fleet_pb2, fleet_pb2_grpc
from pilothouse_tui.data import convert
from pilothouse_tui.data.kube import IssuedToken, KubeClient
from pilothouse_tui.errors import AccessError, ConfigurationError, ToolError, UnreachableError
from pilothouse_tui.model import (
    Approval,
    ApprovalGone,
    Breaker,
    BreakerState,
    CostSum,
    FleetSnapshot,
    ModelCall,
    Run,
    RunOutcome,
    Session,
    SessionDetail,
    Step,
    StepOutcome,
    TenantCost,
    TimeSplit,
)

FleetChange = FleetSnapshot | Session | Breaker | TenantCost | Approval | ApprovalGone
_NOT_DONE = "Live sessions, breakers, costs and approvals were not read."
_BREAKER = {
    events_pb2.BREAKER_STATE_CLOSED: BreakerState.CLOSED,
    events_pb2.BREAKER_STATE_OPEN: BreakerState.OPEN,
    events_pb2.BREAKER_STATE_HALF_OPEN: BreakerState.HALF_OPEN,
    events_pb2.BREAKER_STATE_FORCED_OPEN: BreakerState.FORCED_OPEN,
    events_pb2.BREAKER_STATE_DISABLED: BreakerState.DISABLED,
}
_RUN = {
    events_pb2.RUN_OUTCOME_ANSWERED: RunOutcome.ANSWERED,
    events_pb2.RUN_OUTCOME_PARTIAL: RunOutcome.PARTIAL,
    events_pb2.RUN_OUTCOME_FAILED: RunOutcome.FAILED,
    events_pb2.RUN_OUTCOME_STOPPED: RunOutcome.STOPPED,
}
STEPS = {
    agent_pb2.STEP_OUTCOME_SUCCEEDED: StepOutcome.SUCCEEDED,
    agent_pb2.STEP_OUTCOME_REFUSED: StepOutcome.REFUSED,
    agent_pb2.STEP_OUTCOME_FAILED: StepOutcome.FAILED,
    agent_pb2.STEP_OUTCOME_UNKNOWN: StepOutcome.UNKNOWN,
}


Call = Callable[[str, Message, float], Awaitable[Any]]
"""``call(method, request, seconds)``: one call of Fleet; raises a ToolError."""


class FleetClient:
    """Fleet at a given address, or at a gateway Pod that ``kube`` finds. Use as an async context manager's guest.

    ``address`` is ``host:port``, or empty to look for a Pod on each call (Pods move when the gateway restarts).
    """

    def __init__(
        self,
        kube: KubeClient,
        address: str = "",
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        connect_timeout: float = 5.0,
    ) -> None:
        self._kube = kube
        self._address = address or os.environ.get("PILOTHOUSE_FLEET", "")
        self._now = now
        self._connect_timeout = connect_timeout
        self._token: IssuedToken | None = None
        self._refresh_at: datetime | None = None
        self.where = self._address

    async def watch(self, tenant: str = "") -> AsyncGenerator[FleetChange, None]:
        """One snapshot, then changes, until the gateway ends the call. Raises a ToolError."""
        request = fleet_pb2.WatchRequest(tenant=tenant)
        async with await self._channel() as channel:
            try:
                stub = fleet_pb2_grpc.FleetStub(channel)
                call = stub.Watch(request, metadata=await self._metadata())
                async for response in call:
                    if (change := _change(response)) is not None:
                        yield change
            except grpc.aio.AioRpcError as error:
                raise self._explain(error) from error

    async def watch_session(self, tenant: str, session_id: str) -> AsyncGenerator[SessionDetail, None]:
        """A session with its runs, again after each change. Raises a ToolError."""
        request = fleet_pb2.WatchSessionRequest(tenant=tenant, session_id=session_id)
        async with await self._channel() as channel:
            try:
                stub = fleet_pb2_grpc.FleetStub(channel)
                call = stub.WatchSession(request, metadata=await self._metadata())
                async for response in call:
                    yield SessionDetail(session(response.session), tuple(run(r) for r in response.runs))
            except grpc.aio.AioRpcError as error:
                raise self._explain(error) from error

    async def snapshot(self, tenant: str = "") -> FleetSnapshot:
        """What Fleet knows now. Raises a ToolError."""
        async with aclosing(self.watch(tenant)) as stream:
            async for change in stream:
                if isinstance(change, FleetSnapshot):
                    return change
        raise UnreachableError("The gateway ended the call without a snapshot.", _NOT_DONE, "Try again.")

    @asynccontextmanager
    async def opened(self, not_done: str, right: str) -> AsyncIterator[Call]:
        """A connection for calls that answer once. ``not_done`` and ``right`` go into the ToolErrors that it raises:
        what was left undone, and the right that Kubernetes must grant, for example ``update approvals.pilothouse.dev``.
        """
        async with await self._channel(not_done) as channel:
            stub = fleet_pb2_grpc.FleetStub(channel)

            async def call(name: str, request: Message, seconds: float) -> Any:
                try:
                    return await getattr(stub, name)(request, metadata=await self._metadata(), timeout=seconds)
                except grpc.aio.AioRpcError as error:
                    raise self._explain(error, not_done, right, seconds) from error

            yield call

    async def _channel(self, not_done: str = _NOT_DONE) -> grpc.aio.Channel:
        found = not self._address
        address = self._address or f"{await self._kube.find_gateway_pod_ip()}:{GATEWAY_FLEET_PORT}"
        self.where = address
        options = [
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.max_receive_message_length", 64 * 1024 * 1024),
        ]
        channel = grpc.aio.insecure_channel(address, options=options)
        try:
            await asyncio.wait_for(channel.channel_ready(), self._connect_timeout)
        except TimeoutError as error:
            await channel.close()
            raise self._unreachable(address, found, not_done) from error
        except BaseException:
            await channel.close()
            raise
        return channel

    async def _metadata(self) -> tuple[tuple[str, str], ...]:
        now = self._now()
        if self._token is None or self._refresh_at is None or now >= self._refresh_at:
            self._token = await self._kube.request_fleet_token()
            # A fifth of its life before it ends: a call that starts now must not outlive it by a slow clock.
            self._refresh_at = self._token.expires - max(timedelta(seconds=30), (self._token.expires - now) / 5)
        return (("authorization", f"Bearer {self._token.value}"),)

    def _unreachable(self, address: str, found: bool, not_done: str) -> UnreachableError:
        if found and not self._kube.on_this_machine:
            return UnreachableError(
                f"The gateway's Pod address {address} can't be reached from this machine.",
                not_done,
                f"Run `kubectl port-forward -n {SYSTEM_NAMESPACE} deploy/pilothouse-gateway {GATEWAY_FLEET_PORT}`"
                f" and pass --fleet 127.0.0.1:{GATEWAY_FLEET_PORT}.",
            )
        return UnreachableError(
            f"Fleet at {address} does not answer.",
            not_done,
            f"Check the gateway with `kubectl get pods -n {SYSTEM_NAMESPACE}`"
            + ("." if found else ", or correct --fleet / $PILOTHOUSE_FLEET."),
        )

    def _explain(
        self,
        error: grpc.aio.AioRpcError,
        not_done: str = _NOT_DONE,
        right: str = "get fleets.pilothouse.dev",
        seconds: float = 0.0,
    ) -> ToolError:
        code, details = error.code(), (error.details() or "no details").rstrip(". ")
        if code == grpc.StatusCode.UNAUTHENTICATED:
            self._token = None  # the next call asks for a new one
            return AccessError(
                f"Fleet does not accept the token: {details}.", not_done, "Try again: a new one is asked for."
            )
        if code == grpc.StatusCode.PERMISSION_DENIED:
            return AccessError(f"Fleet refused: {details}.", not_done, f"Ask for `{right}` in this cluster.")
        if code == grpc.StatusCode.NOT_FOUND:
            return ConfigurationError(f"Fleet does not know it: {details}.", not_done, "It may have ended long ago.")
        if code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION):
            return ConfigurationError(f"Fleet refused: {details}.", not_done, "Correct it and try again.")
        if code == grpc.StatusCode.UNIMPLEMENTED:
            return ConfigurationError(
                "This gateway is older than this command and can't do it.", not_done, "Upgrade the gateway first."
            )
        if code == grpc.StatusCode.DEADLINE_EXCEEDED and seconds:
            return UnreachableError(
                f"Fleet at {self.where} did not answer within {seconds:.0f} s.",
                "Whether it was done is not known.",
                "Look at how it stands now before trying again.",
            )
        if seconds and code != grpc.StatusCode.UNAVAILABLE:
            return UnreachableError(f"Fleet failed ({code.name}: {details}).", not_done, "Try again.")
        to_do = "Try again." if seconds else "Wait."
        return UnreachableError(f"Fleet at {self.where} was lost ({code.name}: {details}).", not_done, to_do)


def _time(value: Timestamp) -> datetime | None:
    if not value.seconds and not value.nanos:
        return None
    return value.ToDatetime(tzinfo=UTC)


def _change(response: fleet_pb2.WatchResponse) -> FleetChange | None:
    match response.WhichOneof("change"):
        case "snapshot":
            return FleetSnapshot(
                sessions=tuple(session(s) for s in response.snapshot.sessions),
                breakers=tuple(breaker(b) for b in response.snapshot.breakers),
                costs=tuple(cost(c) for c in response.snapshot.costs),
                approvals=tuple(convert.approval(as_json(a)) for a in response.snapshot.approvals),
            )
        case "session":
            return session(response.session)
        case "breaker":
            return breaker(response.breaker)
        case "cost":
            return cost(response.cost)
        case "approval":
            return convert.approval(as_json(response.approval))
        case "approval_gone":
            return ApprovalGone(response.approval_gone.tenant, response.approval_gone.approval_id)
        case _:
            return None  # a newer gateway may send what this version does not know


def as_json(message: Message) -> dict[str, Any]:
    """A message as ``convert`` takes it: proto field names, enum names, RFC 3339 times."""
    return MessageToDict(message, preserving_proto_field_name=True)


def session(raw: fleet_pb2.Session) -> Session:
    """Model of a proto Session."""
    return Session(
        tenant=raw.tenant,
        session_id=raw.session_id,
        user=raw.user,
        revision=raw.revision,
        worker=raw.worker,
        started=_time(raw.started),
        last_event=_time(raw.last_event),
        current_step=raw.current_step,
        last_text=raw.last_text,
        runs=raw.runs,
        cost_micros=raw.cost_micros,
        active=raw.active,
        last_outcome=_RUN.get(raw.last_outcome, RunOutcome.UNKNOWN),
        waiting_approvals=raw.waiting_approvals,
    )


def breaker(raw: fleet_pb2.Breaker) -> Breaker:
    """Model of a proto Breaker."""
    return Breaker(
        tenant=raw.tenant,
        name=raw.name,
        state=_BREAKER.get(raw.state, BreakerState.UNKNOWN),
        failure_rate_percent=raw.failure_rate_percent,
        reason=raw.reason,
        since=_time(raw.since),
        slow_rate_percent=raw.slow_rate_percent,
    )


def cost(raw: fleet_pb2.TenantCost) -> TenantCost:
    """Model of a proto TenantCost."""
    return TenantCost(
        tenant=raw.tenant,
        cost_micros=raw.cost_micros,
        input_tokens=raw.input_tokens,
        output_tokens=raw.output_tokens,
        runs=raw.runs,
        day=raw.day,
        saved_micros=raw.saved_micros,
        sums=tuple(cost_sum(one) for one in raw.sums),
        reconciled=_time(raw.reconciled),
    )


def cost_sum(raw: agent_pb2.CostSum) -> CostSum:
    """Model of a proto CostSum."""
    return CostSum(
        tier=raw.tier,
        provider=raw.provider,
        model=raw.model,
        user=raw.user,
        revision=raw.revision,
        calls=raw.calls,
        cached_calls=raw.cached_calls,
        fallbacks=raw.fallbacks,
        aborted=raw.aborted,
        escalated=raw.escalated,
        input_tokens=raw.input_tokens,
        output_tokens=raw.output_tokens,
        cached_input_tokens=raw.cached_input_tokens,
        cost_micros=raw.cost_micros,
        saved_micros=raw.saved_micros,
        runs=raw.runs,
    )


def model_call(raw: events_pb2.ModelCalled) -> ModelCall:
    """Model of a proto ModelCalled."""
    return ModelCall(
        provider=raw.provider,
        model=raw.model,
        tier=raw.tier,
        reason=raw.reason,
        cached=raw.cached,
        fallback=raw.fallback,
        aborted=raw.aborted,
        escalated=raw.escalated,
        estimated=raw.estimated,
        input_tokens=raw.usage.input_tokens,
        output_tokens=raw.usage.output_tokens,
        cached_input_tokens=raw.usage.cached_input_tokens,
        cost_micros=raw.usage.cost_micros,
        saved_micros=raw.saved_micros,
        duration_ms=raw.duration_ms,
    )


def run(raw: fleet_pb2.RunRecord) -> Run:
    """Model of a proto RunRecord."""
    return Run(
        run_id=raw.run_id,
        text=raw.text,
        started=_time(raw.started),
        running=raw.running,
        outcome=_RUN.get(raw.outcome, RunOutcome.UNKNOWN),
        input_tokens=raw.usage.input_tokens,
        output_tokens=raw.usage.output_tokens,
        cost_micros=raw.usage.cost_micros,
        duration_ms=raw.duration_ms,
        error=raw.error,
        steps=tuple(
            Step(
                step_id=s.step_id,
                tool=s.tool,
                summary=s.summary,
                running=s.running,
                outcome=STEPS.get(s.outcome, StepOutcome.UNSPECIFIED),
                started=_time(s.started),
                duration_ms=s.duration_ms,
            )
            for s in raw.steps
        ),
        time=TimeSplit(raw.time.model_ms, raw.time.tools_ms, raw.time.approval_ms, raw.time.pilothouse_ms),
        calls=tuple(model_call(call) for call in raw.model_calls),
    )
