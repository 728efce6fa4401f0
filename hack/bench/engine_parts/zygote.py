"""Forks workers from one process that has imported everything, so that a thousand of them can be killed in minutes.

A forked worker runs what ``python -m pilothouse_dataplane.worker`` runs, from its first line of ``asyncio`` on; neither
gRPC nor an event loop has been started before the fork. Each line on stdin, ``{"name", "port", "config", "log"}``, is
answered with the process id. It ends with its input; its children are the bench's to end.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sys
from typing import Any

from pilothouse_dataplane.connectors.jira import connector as _connector
from pilothouse_dataplane.models import openai as _openai
from pilothouse_dataplane.worker import logs
from pilothouse_dataplane.worker.server import serve

IMPORTED = (_connector, _openai)


def _worker(wanted: dict[str, Any]) -> None:
    os.environ["PILOTHOUSE_CONFIG_DIR"] = wanted["config"]
    os.environ["POD_NAME"] = wanted["name"]
    log = os.open(wanted["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, nothing), (1, log), (2, log)):
        os.dup2(source, target)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    logs.configure(worker=wanted["name"])
    asyncio.run(serve(f"127.0.0.1:{wanted['port']}"))


def main() -> None:
    """Forks on demand."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps them
    gc.freeze()  # a child's collector must not touch, and so copy, what is shared
    for line in sys.stdin:
        wanted = json.loads(line)
        child = os.fork()
        if child == 0:
            try:
                _worker(wanted)
            finally:
                os._exit(0)
        print(child, flush=True)


if __name__ == "__main__":
    main()
