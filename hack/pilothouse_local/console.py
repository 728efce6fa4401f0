"""What the commands say while they work: steps, elapsed time of a long wait, and a progress bar.

Standard library only: the Kubernetes programs are fetched while the Python environment is still being made.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

_PLAIN_EVERY = 15.0
"""Seconds between two lines about the same wait where the output is no terminal, so that a log stays readable."""


class Console:
    """Writes to one text stream; redraws the current line only on a terminal."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out if out is not None else sys.stdout
        self._tty = self._out.isatty()
        self._lock = threading.Lock()
        self._drawn = False
        self._last_plain = 0.0
        self.mirror: Path | None = None
        """A file that holds the last ``update``, for other commands that wait for this one."""

    def say(self, text: str) -> None:
        """One line that stays."""
        with self._lock:
            self._clear()
            self._out.write(text + "\n")
            self._out.flush()

    def update(self, text: str) -> None:
        """The state of a long wait: redrawn in place on a terminal, else a line now and then."""
        with self._lock:
            if self.mirror is not None:
                with contextlib.suppress(OSError):  # a courtesy to others; never a reason to fail
                    self.mirror.write_text(text)
            if self._tty:
                self._out.write("\r\x1b[K" + text[:200])
                self._drawn = True
            else:
                now = time.monotonic()
                if now - self._last_plain < _PLAIN_EVERY:
                    return
                self._last_plain = now
                self._out.write(text + "\n")
            self._out.flush()

    def _clear(self) -> None:
        if self._drawn:
            self._out.write("\r\x1b[K")
            self._drawn = False

    def bar(self, label: str, done: float, total: float, unit: str) -> None:
        """A progress bar; ``total`` 0 means that it is unknown."""
        if total <= 0:
            self.update(f"  {label}: {done:.0f} {unit}")
            return
        share = min(1.0, done / total)
        filled = round(share * 30)
        self.update(f"  {label} [{'#' * filled}{'.' * (30 - filled)}] {share:4.0%}  {done:.0f} of {total:.0f} {unit}")

    @contextlib.contextmanager
    def waiting(self, label: str) -> Iterator[Waiting]:
        """Shows ``label`` and the seconds since, from a thread, until the block ends."""
        waiting = Waiting(self, label)
        if not self._tty:
            self._last_plain = time.monotonic()  # a short wait says nothing in a log
        waiting.start()
        try:
            yield waiting
        finally:
            waiting.stop()
            with self._lock:
                self._clear()


class Waiting:
    """A label with elapsed seconds; ``label`` may change while it runs."""

    def __init__(self, console: Console, label: str) -> None:
        self.label = label
        self._console = console
        self._since = time.monotonic()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(0.5):
            self._console.update(f"  {self.label} ({time.monotonic() - self._since:.0f} s)")
