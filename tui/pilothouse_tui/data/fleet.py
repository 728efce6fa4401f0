"""Client of the Fleet gRPC service: finds the gateway, carries the SRE's token, turns messages into the model."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import grpc
import grpc.aio
from google.protobuf.timestamp_pb2 import Timestamp

from pilothouse_api.names import GATEWAY_FLEET_PORT, SYSTEM_NAMESPACE
from pilothouse_proto.agent.v1 import agent_pb2
from pilothouse_proto.events.v1 import events_pb2
from pilothouse_proto.fleet.v1 import fleet_pb2, fleet_pb2_grpc
from pilothouse_tui.data.kube import IssuedToken, KubeClient
from pilothouse_tui.errors import AccessError, ToolError, UnreachableError
from pilothouse_tui.model import (
    Breaker,
    BreakerState,
    FleetSnapshot,
    Run,
    RunOutcome,
    Session,
    SessionDetail,
    Step,
    StepOutcome,
    TenantCost,
)

FleetChange = FleetSnapshot | Session | Breaker | TenantCost
_NOT_DONE = "Live sessions, breakers and costs were not read."
_BREAKER = {
    events_pb2.BREAKER_STATE_CLOSED: BreakerState.CLOSED,
    events_pb2.BREAKER_STATE_OPEN: BreakerState.OPEN,
    events_pb2.BREAKER_STATE_HALF_OPEN: BreakerState.HALF_OPEN,
}
_RUN = {
    events_pb2.RUN_OUTCOME_ANSWERED: RunOutcome.ANSWERED,
    events_pb2.RUN_OUTCOME_PARTIAL: RunOutcome.PARTIAL,
    events_pb2.RUN_OUTCOME_FAILED: RunOutcome.FAILED,
    events_pb2.RUN_OUTCOME_STOPPED: RunOutcome.STOPPED,
}
_STEP = {
    agent_pb2.STEP_OUTCOME_SUCCEEDED: StepOutcome.SUCCEEDED,
    agent_pb2.STEP_OUTCOME_REFUSED: StepOutcome.REFUSED,
    agent_pb2.STEP_OUTCOME_FAILED: StepOutcome.FAILED,
    agent_pb2.STEP_OUTCOME_UNKNOWN: StepOutcome.UNKNOWN,
}


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

    async def _channel(self) -> grpc.aio.Channel:
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
            raise self._unreachable(address, found) from error
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

    def _unreachable(self, address: str, found: bool) -> UnreachableError:
        if found and not self._kube.on_this_machine:
            return UnreachableError(
                f"The gateway's Pod address {address} can't be reached from this machine.",
                _NOT_DONE,
                f"Run `kubectl port-forward -n {SYSTEM_NAMESPACE} deploy/pilothouse-gateway {GATEWAY_FLEET_PORT}`"
                f" and pass --fleet 127.0.0.1:{GATEWAY_FLEET_PORT}.",
            )
        return UnreachableError(
            f"Fleet at {address} does not answer.",
            _NOT_DONE,
            f"Check the gateway with `kubectl get pods -n {SYSTEM_NAMESPACE}`"
            + ("." if found else ", or correct --fleet / $PILOTHOUSE_FLEET."),
        )

    def _explain(self, error: grpc.aio.AioRpcError) -> ToolError:
        code, details = error.code(), error.details() or "no details"
        if code == grpc.StatusCode.UNAUTHENTICATED:
            self._token = None  # the next call asks for a new one
            return AccessError(f"Fleet does not accept the token: {details}.", _NOT_DONE, "A new one is asked for.")
        if code == grpc.StatusCode.PERMISSION_DENIED:
            return AccessError(
                f"Fleet refused: {details}.", _NOT_DONE, "Ask for `get fleets.pilothouse.dev` in this cluster."
            )
        if code == grpc.StatusCode.NOT_FOUND:
            return UnreachableError(f"Fleet does not know it: {details}.", _NOT_DONE, "It may have ended long ago.")
        return UnreachableError(f"Fleet at {self.where} was lost ({code.name}: {details}).", _NOT_DONE, "Wait.")


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
            )
        case "session":
            return session(response.session)
        case "breaker":
            return breaker(response.breaker)
        case "cost":
            return cost(response.cost)
        case _:
            return None  # a newer gateway may send what this version does not know


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
    )


def cost(raw: fleet_pb2.TenantCost) -> TenantCost:
    """Model of a proto TenantCost."""
    return TenantCost(raw.tenant, raw.cost_micros, raw.input_tokens, raw.output_tokens, raw.runs)


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
                outcome=_STEP.get(s.outcome, StepOutcome.UNSPECIFIED),
                started=_time(s.started),
                duration_ms=s.duration_ms,
            )
            for s in raw.steps
        ),
    )
