"""The WebSocket ``/v1/chat``: one connection is one session, which asks one question at a time.

The reader (this connection's task) takes frames at any time; a run is a task of its own beside it. Both send through
:meth:`_Connection.send`, which waits for the client's buffer: a slow client slows its own run's stream down to the
worker and after ``send_timeout`` counts as gone. Nothing is queued here.

A run that parks frees the session: the next question may be asked while it waits. It goes on beside the conversation
(:mod:`~pilothouse_dataplane.gateway.approvals`), so a client tells runs apart by ``run_id``.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Coroutine
from typing import Any

import grpc.aio
import orjson
from fastapi import WebSocket, WebSocketDisconnect

from pilothouse_dataplane.gateway.approvals import Approvals
from pilothouse_dataplane.gateway.dispatch import Dispatcher
from pilothouse_dataplane.gateway.identity import Identity, IdentityVerifier
from pilothouse_dataplane.gateway.metrics import Metrics
from pilothouse_dataplane.gateway.problems import Problem, invalid
from pilothouse_dataplane.gateway.runs import Run, Unwanted
from pilothouse_dataplane.gateway.sessions import RunLock, SessionStore, busy
from pilothouse_dataplane.gateway.settings import Settings
from pilothouse_dataplane.gateway.stream import brief
from pilothouse_dataplane.gateway.wire import (
    ApprovalsFrame,
    AskFrame,
    DecisionFrame,
    Hello,
    StopFrame,
    check_text,
    parse_frame,
    to_json,
)
from pilothouse_proto.agent.v1 import agent_pb2 as pb

log = logging.getLogger(__name__)

CLOSE_UNAUTHENTICATED = 4401
CLOSE_REFUSED = 4403
CLOSE_TIMEOUT = 4408
CLOSE_TOO_MANY = 4429
CLOSE_RESTART = 1012
_RATE = 10.0
"""Frames a second that one client may send; a person sends one in seconds."""
_BURST = 30.0
_ASIDE = 4
"""Calls to workers (decisions, lists) that one client may have under way."""


class ClientGone(Unwanted):
    """The client closed the connection, or takes nothing any more."""


class ChatServer:
    """Serves chat connections and lets them end in peace on SIGTERM."""

    def __init__(
        self,
        *,
        settings: Settings,
        verifier: IdentityVerifier,
        sessions: SessionStore,
        dispatcher: Dispatcher,
        approvals: Approvals,
        metrics: Metrics,
    ) -> None:
        self.settings = settings
        self.verifier = verifier
        self.sessions = sessions
        self.dispatcher = dispatcher
        self.approvals = approvals
        self.metrics = metrics
        self.beside: set[asyncio.Task[None]] = set()
        """Calls to workers that outlive the connection which asked for them."""
        self.draining = asyncio.Event()
        self._open = 0
        self._empty = asyncio.Event()
        self._empty.set()

    async def serve(self, socket: WebSocket) -> None:
        """One connection, from handshake to close."""
        await socket.accept()
        connection = _Connection(self, socket)
        if self.draining.is_set():
            await connection.close(CLOSE_RESTART, "restarting")
            return
        if self._open >= self.settings.max_connections:
            await connection.refuse(
                Problem(
                    pb.ERROR_CODE_RATE_LIMITED,
                    "This gateway has as many connections as it can hold. You are not connected.",
                    "Try again in a minute.",
                    retryable=True,
                ),
                CLOSE_TOO_MANY,
            )
            return
        self._open += 1
        self._empty.clear()
        self.metrics.connections.inc()
        try:
            await connection.serve()
        except (ClientGone, WebSocketDisconnect):
            log.debug("client gone")
        finally:
            self._open -= 1
            self.metrics.connections.dec()
            if not self._open:
                self._empty.set()

    async def drain(self) -> None:
        """Close idle connections now, and the others when their run has ended, at most ``drain_timeout`` seconds."""
        self.draining.set()
        try:
            async with asyncio.timeout(self.settings.drain_timeout):
                await self._empty.wait()
        except TimeoutError:
            log.warning("%d connections still had a run after %.0f s", self._open, self.settings.drain_timeout)


class _Connection:
    def __init__(self, server: ChatServer, socket: WebSocket) -> None:
        self._server = server
        self._settings = server.settings
        self._socket = socket
        self._sending = asyncio.Lock()
        self._run: Run | None = None
        self._task: asyncio.Task[None] | None = None
        self._gone = False
        self._aside: set[asyncio.Task[None]] = set()
        self._token = ""
        self._budget, self._budget_at = _BURST, time.monotonic()

    async def send(self, body: dict[str, Any]) -> None:
        """Raises :class:`ClientGone` if the client does not take it within ``send_timeout`` seconds."""
        if self._gone:
            raise ClientGone
        try:
            async with asyncio.timeout(self._settings.send_timeout), self._sending:
                await self._socket.send_text(orjson.dumps(body).decode())
        except (TimeoutError, RuntimeError, OSError, WebSocketDisconnect) as error:
            self._gone = True
            raise ClientGone from error

    async def close(self, code: int, reason: str) -> None:
        """Close, whatever state the connection is in."""
        self._gone = True
        try:
            async with asyncio.timeout(1):
                await self._socket.close(code, reason)
        except (TimeoutError, RuntimeError, OSError, WebSocketDisconnect):
            log.debug("the connection was closed already")

    async def refuse(self, problem: Problem, code: int) -> None:
        """Say why and close."""
        self._server.metrics.errors.labels(code=problem.code_name).inc()
        try:
            await self.send(problem.event())
        except ClientGone:
            return
        await self.close(code, problem.code_name)

    async def serve(self) -> None:
        try:
            async with asyncio.timeout(self._settings.hello_timeout):
                opened = await self._hello()
        except TimeoutError:
            await self.refuse(
                invalid(
                    f"No hello came within {self._settings.hello_timeout:.0f} s. You are not connected.",
                    "Connect again and send hello with your token first.",
                ),
                CLOSE_TIMEOUT,
            )
            return
        if opened is None:
            return
        identity, session_id = opened
        draining = asyncio.create_task(self._drained())
        self._server.approvals.join(identity.tenant, session_id, self.send)
        try:
            await self._frames(identity, session_id)
        finally:
            draining.cancel()
            self._gone = True
            self._server.approvals.leave(identity.tenant, session_id, self.send)
            await self._abandon()

    async def _hello(self) -> tuple[Identity, str] | None:
        try:
            frame = parse_frame(await self._receive())
            if not isinstance(frame, Hello):
                raise invalid(
                    "The first message must be hello. Nothing was started.", "Send hello with your token first."
                )
            identity = self._server.verifier.verify(frame.token)
            self._token = frame.token
            session_id = await self._server.sessions.open(identity, frame.session_id)
        except Problem as problem:
            denied = problem.code == pb.ERROR_CODE_UNAUTHENTICATED
            await self.refuse(problem, CLOSE_UNAUTHENTICATED if denied else CLOSE_REFUSED)
            return None
        await self.send({"type": "ready", "session_id": session_id, "tenant": identity.tenant, "user": identity.email})
        return identity, session_id

    async def _receive(self) -> str:
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            raise ClientGone
        text = message.get("text")
        if not isinstance(text, str):
            raise invalid("Binary messages are not understood. Nothing was started.", "Send JSON as text.")
        return text

    def _within_rate(self) -> bool:
        now = time.monotonic()
        self._budget = min(_BURST, self._budget + (now - self._budget_at) * _RATE)
        self._budget_at = now
        self._budget -= 1
        return self._budget >= 0

    async def _frames(self, identity: Identity, session_id: str) -> None:
        while True:
            try:
                frame = parse_frame(await self._receive())
                if not self._within_rate():
                    problem = Problem(
                        pb.ERROR_CODE_RATE_LIMITED,
                        "Too many messages came at once. The connection was closed and its answer stopped.",
                        "Connect again and send fewer messages.",
                    )
                    await self.refuse(problem, CLOSE_TOO_MANY)
                    return
                if isinstance(frame, AskFrame):
                    await self._ask(frame, identity, session_id)
                elif isinstance(frame, StopFrame):
                    for run in self._live(identity, session_id):
                        await run.stop("stopped by the user")
                elif isinstance(frame, DecisionFrame):
                    await self._decide(frame, identity, session_id)
                elif isinstance(frame, ApprovalsFrame):
                    _still_signed_in(identity)
                    self._beside(self._list(identity))
                else:
                    raise invalid(
                        "hello was sent twice. The second one was ignored.", "Connect anew to change who asks."
                    )
            except Problem as problem:
                if problem.code == pb.ERROR_CODE_UNAUTHENTICATED:
                    await self.refuse(problem, CLOSE_UNAUTHENTICATED)
                    return
                self._server.metrics.errors.labels(code=problem.code_name).inc()
                await self.send(problem.event())

    def _live(self, identity: Identity, session_id: str) -> list[Run]:
        mine = [self._run] if self._run is not None else []
        return mine + self._server.approvals.live(identity.tenant, session_id)

    async def _decide(self, frame: DecisionFrame, identity: Identity, session_id: str) -> None:
        _still_signed_in(identity)
        for run in self._live(identity, session_id):
            if await run.decide(frame.approval_id, approved=frame.approved, user=identity.user()):
                self._keep(asyncio.create_task(self._confirm(run, frame, identity), name="confirm"))
                return
        self._beside(self._settle(frame, identity))

    async def _confirm(self, run: Run, frame: DecisionFrame, identity: Identity) -> None:
        """A worker that could not note a decision says nothing on its stream: then ask in the way that answers."""
        await asyncio.sleep(self._settings.confirm_after)
        if run.live and not run.confirmed(frame.approval_id):
            await self._settle(frame, identity)

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._server.beside.add(task)
        task.add_done_callback(self._server.beside.discard)

    def _beside(self, work: Coroutine[Any, Any, None]) -> None:
        """Ask a worker while the reader goes on, so that a stop is heard; done even where the client goes away."""
        if len(self._aside) >= _ASIDE:
            work.close()
            raise Problem(
                pb.ERROR_CODE_RATE_LIMITED,
                "Earlier requests about approvals are still under way. This one was not started.",
                "Wait for their answers, then send it again.",
                retryable=True,
            )
        task = asyncio.create_task(work, name="approvals")
        self._aside.add(task)
        task.add_done_callback(self._aside.discard)
        self._keep(task)

    async def _settle(self, frame: DecisionFrame, identity: Identity) -> None:
        approvals = self._server.approvals
        try:
            try:
                response = await approvals.decide(
                    identity.tenant, frame.approval_id, approved=frame.approved, decider=identity.user()
                )
            except Problem as problem:
                await self.send(problem.event())
                return
            except grpc.aio.AioRpcError as error:
                log.warning("a decision was not confirmed: %s", brief(error))
                await self.send(_not_confirmed().event())
                return
            try:
                outcome = pb.DecideOutcome.Name(response.outcome)
                await self.send(
                    {
                        "type": "decision_result",
                        "approval_id": frame.approval_id,
                        "outcome": outcome,
                        "message": response.message,
                    }
                )
            finally:
                approvals.resume(identity.tenant, response)
        except ClientGone:
            log.debug("the client went away before it heard of its decision")

    async def _list(self, identity: Identity) -> None:
        try:
            try:
                found = await self._server.approvals.waiting(identity.tenant, identity.user())
            except Problem as problem:
                await self.send(problem.event())
                return
            await self.send({"type": "approvals", "approvals": [to_json(approval) for approval in found]})
        except ClientGone:
            log.debug("the client went away before it heard what waits")

    async def _ask(self, frame: AskFrame, identity: Identity, session_id: str) -> None:
        check_text(frame.text, self._settings.max_text_chars)
        _still_signed_in(identity)
        if self._run is not None:
            raise busy()
        if self._server.draining.is_set():
            return
        run_id = secrets.token_hex(16)
        lock = await self._server.sessions.lock(identity, session_id, run_id)
        ask = pb.Ask(
            tenant=identity.tenant,
            session_id=session_id,
            run_id=run_id,
            user=identity.user(),
            text=frame.text,
            user_token=self._token,  # a connector may exchange it for the user's own token in another system
        )
        run = Run(
            ask,
            dispatcher=self._server.dispatcher,
            settings=self._settings,
            metrics=self._server.metrics,
            emit=self.send,
        )
        self._run = run
        self._task = asyncio.create_task(self._perform(run, lock), name=f"run-{run_id}")

    async def _perform(self, run: Run, lock: RunLock) -> None:
        try:
            try:
                last = await run.execute()
            except ClientGone:
                raise
            except Exception:
                log.exception("run %s failed in the gateway", run.run_id)
                problem = Problem(
                    pb.ERROR_CODE_INTERNAL,
                    "The gateway failed while it answered. The answer was not finished.",
                    f"Ask again. If it happens again, tell your platform operator the run's id: {run.run_id}.",
                    retryable=True,
                )
                last = problem.event(run_id=run.run_id, sequence=run.sequence + 1)
            finally:
                await lock.release()
                self._run = None
            try:
                await self.send(last)
            finally:
                if last["type"] == "parked":
                    self._server.approvals.parked(run, decided=not last["approval_ids"])
        except ClientGone:
            # The reader waits for a client that takes nothing: wake it, so that the connection ends.
            await self.close(CLOSE_TIMEOUT, "too slow")
        if self._server.draining.is_set():
            await self.close(CLOSE_RESTART, "restarting")

    async def _abandon(self) -> None:
        """The client went away: stop its run, give the worker a moment to note it, then cut it."""
        run, task = self._run, self._task
        if task is None:
            return
        if run is not None:
            await run.stop("the client went away")
            await asyncio.wait({task}, timeout=1)
        if not task.done():
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def _drained(self) -> None:
        await self._server.draining.wait()
        if self._run is None:
            await self.close(CLOSE_RESTART, "restarting")


def _still_signed_in(identity: Identity) -> None:
    if identity.expires <= time.time():
        raise Problem(
            pb.ERROR_CODE_UNAUTHENTICATED,
            "Your token has expired since you connected. What you sent was not started.",
            "Get a new token and connect again with the same session_id.",
        )


def _not_confirmed() -> Problem:
    return Problem(
        pb.ERROR_CODE_INTERNAL,
        "No worker confirmed your decision. Whether it was noted is not known.",
        "Send it again: an approval is decided only once.",
        retryable=True,
    )
