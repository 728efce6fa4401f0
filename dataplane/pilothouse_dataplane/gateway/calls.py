"""Calls that any worker of a tenant can answer, whoever runs a session: decisions, lists, an SRE's actions."""

from __future__ import annotations

import logging
from typing import TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from pilothouse_dataplane.gateway.dispatch import Dispatcher
from pilothouse_proto.agent.v1 import agent_pb2_grpc

log = logging.getLogger(__name__)

M = TypeVar("M", bound=Message)


class WorkerCalls:
    """Unary calls of ``Agent``."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    async def call(
        self, tenant: str, method: str, request: Message, answer: type[M], *, wait: float, timeout: float, again: bool
    ) -> M:
        """Ask a worker. Raises :class:`Problem` NO_WORKER after ``wait`` seconds without one, AioRpcError as it came.

        ``timeout`` in seconds bounds each try; ``again``: the call may be made twice, so where a worker went away in
        the middle of it another one is asked.
        """
        while True:
            async with self._dispatcher.any_worker(tenant, wait) as link:
                try:
                    response = await getattr(agent_pb2_grpc.AgentStub(link.channel), method)(request, timeout=timeout)
                except grpc.aio.AioRpcError as error:
                    if error.code() != grpc.StatusCode.UNAVAILABLE:
                        raise
                    self._dispatcher.avoid(link.worker)
                    if not again:
                        raise
                    log.warning("%s went away in a call of %s; asking another", link.worker.name, method)
                    again = False
                    continue
            if not isinstance(response, answer):
                raise TypeError(f"{method} answered {type(response).__name__}")
            return response
