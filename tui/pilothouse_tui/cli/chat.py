"""The terminal's side of ``pilothouse chat``: prompt, printing, Ctrl-C and reconnecting."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass

import click
import orjson

from pilothouse_tui.data.chat import ChatConnection, Event
from pilothouse_tui.data.kube import KubeClient
from pilothouse_tui.data.tokens import make_token
from pilothouse_tui.errors import ToolError, UnreachableError
from pilothouse_tui.render.chat import Line, error_lines, lines
from pilothouse_tui.render.style import BAD, BUSY, DIM, GOOD, STRONG, WARN

_ANSI = {GOOD: "green", WARN: "yellow", BAD: "red", BUSY: "cyan", DIM: "bright_black"}
_TOKEN_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """The command's options; see its help."""

    tenant: str
    user: str
    url: str
    session_id: str
    given_token: str
    as_json: bool
    kubeconfig: str
    context: str


class Printer:
    """Writes lines to the terminal and knows whether the cursor stands at a line's start."""

    def __init__(self, as_json: bool = False) -> None:
        self._as_json = as_json
        self._inline = False
        self._streamed = False

    def event(self, event: Event) -> None:
        """Print one event."""
        if self._as_json:
            click.echo(orjson.dumps(event).decode())
            return
        if event.get("type") == "accepted":
            self._streamed = False
        for line in lines(event, streamed=self._streamed):
            self.line(line)
        self._streamed = self._streamed or event.get("type") == "text_delta"

    def line(self, line: Line) -> None:
        """Print one line, or text that goes on."""
        if self._inline and not line.inline:
            click.echo()
        self._inline = line.inline
        click.secho(line.text, fg=_ANSI.get(line.style), bold=line.style == STRONG or None, nl=not line.inline)

    def end(self) -> None:
        """End the line that a streamed answer stands on."""
        if self._inline:
            click.echo()
            self._inline = False

    def note(self, text: str) -> None:
        """A remark of the tool's own, to standard error so that it never mixes with an answer in a pipe."""
        self.end()
        click.secho(text, fg="bright_black", err=True)

    def error(self, error: ToolError) -> None:
        """An error of the tool's own."""
        for line in error_lines(f"{error.happened} {error.not_done}", error.to_do):
            self.note(line.text)


def run_chat(question: str, options: ChatOptions) -> int:
    """Chat until Ctrl-D, or answer ``question``; the exit status. Raises ToolError before the first connection."""
    return asyncio.run(_chat(question, options))


async def _chat(question: str, options: ChatOptions) -> int:
    url = options.url
    key = b""
    if not url or not options.given_token:
        async with KubeClient.from_environment(options.kubeconfig, options.context) as kube:
            url = url or await kube.find_chat_url()
            key = b"" if options.given_token else await kube.read_signing_key()

    async def token() -> str:
        if options.given_token:
            return options.given_token
        return make_token(key, tenant=options.tenant, user=options.user, ttl_seconds=_TOKEN_SECONDS)

    printer = Printer(options.as_json)
    async with ChatConnection(url, token, options.session_id or None) as connection:
        ready = await connection.connect()
        if question:
            if options.as_json:
                printer.event(ready)
            return await _answer(connection, printer, question)
        printer.note(f"{ready.get('user')} at {ready.get('tenant')} · session {connection.session_id}")
        printer.note("Ctrl-C stops an answer, Ctrl-D leaves.")
        return await _interactive(connection, printer)


async def _interactive(connection: ChatConnection, printer: Printer) -> int:
    # Ctrl-C at the prompt must not leave: people press it to stop an answer that has just ended.
    loop = asyncio.get_running_loop()
    with _OnInterrupt(loop, lambda: printer.note("\nCtrl-D leaves.")):
        while True:
            try:
                text = (await _read_line("› ")).strip()
            except EOFError:
                click.echo()
                printer.note(f"Go on later with: pilothouse chat --session {connection.session_id}")
                return 0
            if not text:
                continue
            try:
                if connection.connected or await _reconnect(connection, printer):
                    await _answer(connection, printer, text)
            except UnreachableError as error:
                printer.error(error)
                await _reconnect(connection, printer)


async def _reconnect(connection: ChatConnection, printer: Printer) -> bool:
    """Connect again with the same session, with growing waits; False where Ctrl-C or too many failures ended it."""

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


async def _answer(connection: ChatConnection, printer: Printer, text: str) -> int:
    """Ask and print; 0 for an answer, 1 for an error event. Ctrl-C stops the run, a second one leaves."""
    loop = asyncio.get_running_loop()
    stops: set[asyncio.Task[None]] = set()
    asking = asyncio.current_task()

    def interrupt() -> None:
        if stops:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if asking is not None:
                asking.cancel()
            return
        printer.note("Stopping… (Ctrl-C again leaves)")
        stops.add(asyncio.create_task(connection.stop()))

    status = 0
    with _OnInterrupt(loop, interrupt):
        async for event in connection.ask(text):
            printer.event(event)
            if event.get("type") == "approval_required":
                await connection.decide(str(event.get("approval_id", "")), await _approve(printer))
            if event.get("type") == "error":
                status = 1
    printer.end()
    return status


async def _approve(printer: Printer) -> bool:
    if not sys.stdin.isatty():
        printer.note("Refused: nobody at a terminal could be asked.")
        return False
    try:
        return (await _read_line("  Approve? [y/N] ")).strip().lower() in ("y", "yes")
    except EOFError:
        return False


async def _read_line(prompt: str) -> str:
    """A line from the terminal while the socket stays alive (the loop goes on answering the gateway's pings)."""
    return await asyncio.to_thread(input, prompt)


class _OnInterrupt:
    """For a block's time, call ``handler`` on Ctrl-C, then put back what was there."""

    _stack: list[Callable[[], None]] = []  # noqa: RUF012 - one process has one SIGINT

    def __init__(self, loop: asyncio.AbstractEventLoop, handler: Callable[[], None]) -> None:
        self._loop, self._handler = loop, handler

    def __enter__(self) -> None:
        self._stack.append(self._handler)
        self._loop.add_signal_handler(signal.SIGINT, self._handler)

    def __exit__(self, *_: object) -> None:
        self._stack.pop()
        self._loop.remove_signal_handler(signal.SIGINT)
        if self._stack:
            self._loop.add_signal_handler(signal.SIGINT, self._stack[-1])
