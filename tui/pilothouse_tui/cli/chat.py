"""The terminal's side of ``pilothouse chat``: prompt, approvals, Ctrl-C and reconnecting.

::

    prompt ──question──▶ answering ──final, error──▶ prompt
      │                   │   ▲
      │                   │   └── y/n ── asked (the user is the approver)
      │                   └── parked, somebody else decides ──▶ prompt
      └── events of a parked run that goes on are printed above the prompt
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from types import TracebackType
from typing import TypeAlias

import click

from pilothouse_tui.cli.employee import Employee
from pilothouse_tui.cli.printer import Printer
from pilothouse_tui.data import convert
from pilothouse_tui.data.chat import ChatConnection, Event
from pilothouse_tui.errors import ToolError, UnreachableError
from pilothouse_tui.model import Approval, DecideOutcome
from pilothouse_tui.render.approvals import asks_me

_APPROVE = "  Approve? [y/N] "
_NOT_LOST = "Your question is not lost: it rests until it is decided what it waits for."
ANSWERED, FAILED, WAITS = 0, 1, 3
"""Exit statuses: an answer, an error, and a question that waits for somebody's approval."""


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """The command's options; see its help."""

    employee: Employee
    session_id: str = ""
    as_json: bool = False
    verbose: bool = False


@dataclass(frozen=True, slots=True)
class _Typed:
    """What the person answered to one question."""

    approval: Approval
    text: str


class _Signal(Enum):
    ENDED = auto()
    INTERRUPTED = auto()


_ENDED, _INTERRUPTED = _Signal.ENDED, _Signal.INTERRUPTED
_Item: TypeAlias = Event | _Typed | UnreachableError | _Signal


def run_chat(question: str, options: ChatOptions) -> int:
    """Chat until Ctrl-D, or answer ``question``; the exit status. Raises ToolError before the first connection."""
    return asyncio.run(_chat(question, options))


async def _chat(question: str, options: ChatOptions) -> int:
    printer = Printer(lambda: datetime.now(UTC), as_json=options.as_json, verbose=options.verbose)
    async with await options.employee.connection(options.session_id) as connection:
        ready = await connection.connect()
        talk = _Conversation(connection, printer, ready, may_ask=sys.stdin.isatty() and not options.as_json)
        if question:
            if options.as_json:
                printer.event(ready)
            return await talk.answer(question)
        printer.note(f"{talk.me} at {talk.tenant} · session {connection.session_id}")
        printer.note("Ctrl-C stops an answer, Ctrl-D leaves.")
        return await talk.interactive()


class _Conversation:
    """One connection's questions, and the approvals that wait meanwhile."""

    def __init__(self, connection: ChatConnection, printer: Printer, ready: Event, *, may_ask: bool) -> None:
        self._connection, self._printer, self._may_ask = connection, printer, may_ask
        self.me, self.tenant = str(ready.get("user") or ""), str(ready.get("tenant") or "")
        self._waiting: dict[str, Approval] = {}
        """Approvals that are not decided yet, this user's and others'."""
        self._sent: set[str] = set()
        """Those of them that this user has answered, until the gateway confirms it."""
        self._not_mine: set[str] = set()
        """Those of which the gateway said that somebody else decides."""
        self._parked: set[str] = set()
        self._question: tuple[Approval, asyncio.Task[None]] | None = None

    # -- the prompt -----------------------------------------------------------------------------------------------

    async def interactive(self) -> int:
        """Prompt until Ctrl-D."""
        printer, connection = self._printer, self._connection
        # Ctrl-C at the prompt must not leave: people press it to stop an answer that has just ended.
        with _OnInterrupt(asyncio.get_running_loop(), lambda: printer.note("\nCtrl-D leaves.")):
            while True:
                try:
                    text = (await self._prompt()).strip()
                except EOFError:
                    click.echo()
                    printer.note(f"Go on later with: pilothouse chat --session {connection.session_id}")
                    return ANSWERED
                printer.answered()
                if not text:
                    continue
                try:
                    if not connection.connected and not await self._reconnect():
                        continue
                    mine = self._mine()
                    if mine and (decision := _yes_or_no(text)) is not None:
                        await self._decide(mine[0], decision)
                    else:
                        await self.answer(text)
                except UnreachableError as error:
                    printer.error(error)
                    if await self._reconnect():
                        self._remind()

    async def _prompt(self) -> str:
        """A line from the person; what comes meanwhile (a parked run that goes on) is printed."""
        reading = asyncio.create_task(_read_line("› "))
        self._printer.asks()
        while not reading.done() and self._connection.connected:
            late = asyncio.create_task(self._connection.receive())
            await asyncio.wait({reading, late}, return_when=asyncio.FIRST_COMPLETED)
            if not late.done():
                late.cancel()
                await asyncio.gather(late, return_exceptions=True)
                break
            try:
                event = late.result()
            except UnreachableError:
                break  # the next question connects again and says so
            self._show(event)
            if event.get("type") in ("final", "error", "parked", "approval_required", "decision_result"):
                self._remind()
                self._printer.ask("› ")
        return await reading

    def _remind(self) -> None:
        """Say which question a y or n at the prompt answers."""
        if mine := self._mine():
            self._printer.note(f"Type y or n to answer: {mine[0].summary or mine[0].tool}")

    async def _reconnect(self) -> bool:
        """Connect again with the same session, with growing waits; False where Ctrl-C or failures ended it."""
        connection, printer = self._connection, self._printer

        def waiting(error: UnreachableError, seconds: float) -> None:
            printer.note(f"The gateway does not answer; trying again in {seconds:.1f} s (Ctrl-C ends the wait).")

        task = asyncio.create_task(connection.connect_patiently(waiting))

        def cancel() -> None:
            task.cancel()

        with _OnInterrupt(asyncio.get_running_loop(), cancel):
            await asyncio.wait([task])
        if task.cancelled():
            printer.note("Not connected, nothing was asked. The next question tries again; Ctrl-D leaves.")
            return False
        try:
            task.result()
        except ToolError as error:
            printer.error(error)
            return False
        printer.note(f"Connected again, same session {connection.session_id}.")
        return True

    # -- an answer ------------------------------------------------------------------------------------------------

    async def answer(self, text: str) -> int:
        """Ask and print; the exit status. Ctrl-C stops the run, a second one leaves."""
        inbox: asyncio.Queue[_Item] = asyncio.Queue()
        stops: set[asyncio.Task[None]] = set()
        asking = asyncio.current_task()

        def interrupt() -> None:
            if stops:
                signal.signal(signal.SIGINT, signal.default_int_handler)
                if asking is not None:
                    asking.cancel()
                return
            self._printer.note("Stopping… (Ctrl-C again leaves)")
            stops.add(asyncio.create_task(self._connection.stop()))
            inbox.put_nowait(_INTERRUPTED)

        pump = asyncio.create_task(_pump(self._connection.ask(text), inbox))
        try:
            with _OnInterrupt(asyncio.get_running_loop(), interrupt):
                return await self._converse(inbox)
        finally:
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)
            await self._drop_question()
            self._printer.end()

    async def _converse(self, inbox: asyncio.Queue[_Item]) -> int:
        status, own, interrupted = ANSWERED, "", False
        while True:
            if not interrupted:
                await self._ask_next(inbox)
            item = await inbox.get()
            if item is _ENDED:
                return status
            if isinstance(item, UnreachableError):
                if own in self._parked:
                    raise UnreachableError(item.happened, _NOT_LOST, "Connect again, then answer.")
                raise item
            if item is _INTERRUPTED:
                interrupted = True
                await self._drop_question()
            elif isinstance(item, _Typed):
                self._question = None
                self._printer.answered()
                # End of input is a refusal: nobody is there to say yes.
                await self._decide(item.approval, bool(_yes_or_no(item.text)))
            elif isinstance(item, dict):
                run_id = str(item.get("run_id") or "")
                if item.get("type") == "accepted" and run_id not in self._parked:
                    own = own or run_id
                if item.get("type") == "error" and (not own or item.get("run_id") in (None, own)):
                    status = FAILED
                self._show(item)
                if self._question is not None and self._question[0] in self._mine():
                    self._printer.ask(_APPROVE)
            if own in self._parked and (interrupted or self._nobody_answers(own)):
                self._leave_waiting(own)
                return WAITS

    async def _ask_next(self, inbox: asyncio.Queue[_Item]) -> None:
        """Ask about the next approval that this user decides; a question that is void now is taken back."""
        if self._question is not None:
            if self._question[0] in self._mine():
                return
            await self._drop_question()
        if (mine := self._mine()) and self._may_ask:
            self._printer.ask(_APPROVE)
            self._question = (mine[0], asyncio.create_task(_read_answer(mine[0], inbox)))

    async def _drop_question(self) -> None:
        if self._question is not None:
            task = self._question[1]
            self._question = None
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _decide(self, approval: Approval, approved: bool) -> None:
        # The answer is bound to the question that was on the screen, whatever came since.
        self._sent.add(approval.approval_id)
        await self._connection.decide(approval.approval_id, approved)

    def _nobody_answers(self, run_id: str) -> bool:
        """Whether what the run waits for is answered by nobody here, and no answer is on its way."""
        waiting = [a for a in self._waiting.values() if a.run_id == run_id and a.approval_id not in self._sent]
        mine = self._mine()
        return bool(waiting) and not (self._may_ask and any(a in mine for a in waiting))

    def _leave_waiting(self, run_id: str) -> None:
        waiting = [a for a in self._waiting.values() if a.run_id == run_id]
        self._printer.parked(waiting, str(self._connection.session_id), self.me)
        for approval in waiting:
            if approval in self._mine():
                self._printer.note(
                    f"Answer it with: pilothouse approvals approve {approval.approval_id} --as {self.me}"
                    f" --tenant {self.tenant} (or: refuse)"
                )

    def _mine(self) -> list[Approval]:
        """Approvals that this user decides and has not answered."""
        away = self._sent | self._not_mine
        return [a for a in self._waiting.values() if asks_me(a, self.me) and a.approval_id not in away]

    def _show(self, event: Event) -> None:
        """Print an event and keep account of what waits."""
        self._printer.event(event)
        run_id = str(event.get("run_id") or "")
        match event.get("type"):
            case "approval_required":
                approval = convert.approval(
                    {"tenant": self.tenant, "user": self.me, "run_id": run_id, "request": event}
                )
                self._waiting[approval.approval_id] = approval
                self._printer.approval(approval, self.me)
            case "decision_result" if convert.decision(event).outcome is DecideOutcome.NOT_ALLOWED:
                self._sent.discard(str(event.get("approval_id") or ""))
                self._not_mine.add(str(event.get("approval_id") or ""))
            case "approval_decided" | "decision_result":
                self._waiting.pop(str(event.get("approval_id") or ""), None)
                self._sent.discard(str(event.get("approval_id") or ""))
            case "parked":
                self._parked.add(run_id)
            case "resumed":
                self._parked.discard(run_id)
            case "final" | "error" if run_id:
                self._parked.discard(run_id)
                self._waiting = {k: a for k, a in self._waiting.items() if a.run_id != run_id}
            case "error":
                self._sent.clear()  # an answer may not have got through: it is asked again


def _yes_or_no(text: str) -> bool | None:
    """``None`` for what is neither."""
    return {"y": True, "yes": True, "n": False, "no": False}.get(text.strip().lower())


async def _read_line(prompt: str) -> str:
    """A line from the terminal while the socket stays alive (the loop goes on answering the gateway's pings)."""
    return await asyncio.to_thread(input, prompt)


async def _read_answer(approval: Approval, inbox: asyncio.Queue[_Item]) -> None:
    """Put what is typed into the inbox. It can be cancelled, and the line is then left for the next reader."""
    loop, typed = asyncio.get_running_loop(), asyncio.Event()
    descriptor = sys.stdin.fileno()
    loop.add_reader(descriptor, typed.set)
    try:
        await typed.wait()
        # A terminal gives one line a read; Python's own buffer would keep what is typed ahead from input().
        inbox.put_nowait(_Typed(approval, os.read(descriptor, 4096).decode(errors="replace")))
    finally:
        loop.remove_reader(descriptor)


async def _pump(events: AsyncGenerator[Event, None], inbox: asyncio.Queue[_Item]) -> None:
    """Put the run's events into the inbox, and how they end."""
    try:
        async with aclosing(events):
            async for event in events:
                inbox.put_nowait(event)
        inbox.put_nowait(_ENDED)
    except UnreachableError as error:
        inbox.put_nowait(error)


class _OnInterrupt:
    """For a block's time, call ``handler`` on Ctrl-C, then put back what was there."""

    _stack: list[Callable[[], None]] = []  # noqa: RUF012 - one process has one SIGINT

    def __init__(self, loop: asyncio.AbstractEventLoop, handler: Callable[[], None]) -> None:
        self._loop, self._handler = loop, handler

    def __enter__(self) -> None:
        self._stack.append(self._handler)
        self._loop.add_signal_handler(signal.SIGINT, self._handler)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.pop()
        self._loop.remove_signal_handler(signal.SIGINT)
        if self._stack:
            self._loop.add_signal_handler(signal.SIGINT, self._stack[-1])
