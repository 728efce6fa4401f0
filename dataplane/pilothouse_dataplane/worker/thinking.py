"""One call of the model, turned into the run's events as it streams."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing

import structlog

from pilothouse_dataplane.core import state as flow
from pilothouse_dataplane.core.messages import ModelRequest, ToolCall, Usage
from pilothouse_dataplane.models.base import (
    ModelDenied,
    ModelError,
    ModelRejected,
    ModelRestarted,
    ModelText,
    ModelToolCall,
)
from pilothouse_dataplane.models.cost import ModelCallRecord
from pilothouse_dataplane.models.gateway import ModelGateway

_log = structlog.get_logger()


async def think(
    models: ModelGateway,
    request: ModelRequest,
    deadline: float,
    put: Callable[[flow.Event], None],
    on_call: Callable[[ModelCallRecord], None],
) -> str:
    """Stream one turn into ``put``: texts and calls as they come, then ModelFinished or ModelFailed.

    ``deadline`` is on ``time.monotonic``. Returns the class of error, "" where it went well. Never raises, but for
    CancelledError.
    """
    calls: list[ToolCall] = []
    spent = Usage()

    def record(made: ModelCallRecord) -> None:
        nonlocal spent
        spent += made.usage
        on_call(made)

    try:
        async with aclosing(models.stream(request, deadline=deadline, on_call=record)) as answer:
            async for event in answer:
                if isinstance(event, ModelText):
                    put(flow.TextArrived(event.text))
                elif isinstance(event, ModelToolCall):
                    calls.append(event.call)
                    put(flow.CallArrived(event.call))
                elif isinstance(event, ModelRestarted):
                    calls.clear()
                    put(flow.ModelRestarted())
    except ModelError as error:
        _log.warning("model call failed", error=str(error))
        put(flow.ModelFailed(str(error), not isinstance(error, (ModelDenied, ModelRejected)), spent))
        return type(error).__name__
    except Exception:
        _log.exception("model call failed")
        put(flow.ModelFailed("The model could not be asked", True, spent))
        return "internal"
    put(flow.ModelFinished(tuple(calls), spent))
    return ""
