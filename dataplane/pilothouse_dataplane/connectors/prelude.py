"""What a write asks before it writes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pilothouse_dataplane.connectors.base import SystemUnavailable


@contextmanager
def nothing_changed_yet() -> Iterator[None]:
    """Around the reads that come before a write: their failure leaves nothing in doubt, so that the whole call may be
    made again."""
    try:
        yield
    except SystemUnavailable as error:
        raise SystemUnavailable(
            str(error), may_have_acted=False, retry_after=error.retry_after, lasting=error.lasting
        ) from error
