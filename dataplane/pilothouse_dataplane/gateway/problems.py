"""What can go wrong for a chat client.

``Problem`` is the one error that reaches a person; its code says who must act::

    UNAUTHENTICATED, PERMISSION_DENIED, INVALID_REQUEST   the user
    RATE_LIMITED, WORKER_LOST, DEADLINE_EXCEEDED          the user, by asking again
    NO_WORKER, INTERNAL                                   the platform operator
"""

from __future__ import annotations

from typing import Any

from pilothouse_proto.agent.v1 import agent_pb2 as pb


class Problem(Exception):
    """One ``error`` event: what happened and was not done (``message``), and what to do now (``user_action``)."""

    def __init__(
        self, code: pb.ErrorCode.ValueType, message: str, user_action: str, *, retryable: bool = False
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.user_action = user_action
        self.retryable = retryable

    @property
    def code_name(self) -> str:
        """Name of the code, as the client and the metrics see it."""
        return pb.ErrorCode.Name(self.code)

    def event(self, *, run_id: str = "", sequence: int = 0) -> dict[str, Any]:
        """The WebSocket ``error`` event; ``run_id`` is empty where the problem belongs to no run."""
        return {
            "type": "error",
            "sequence": sequence,
            "run_id": run_id,
            "code": self.code_name,
            "message": self.message,
            "user_action": self.user_action,
            "retryable": self.retryable,
        }


def invalid(message: str, user_action: str) -> Problem:
    """The client sent something that the protocol does not allow."""
    return Problem(pb.ERROR_CODE_INVALID_REQUEST, message, user_action)


def store_unreachable() -> Problem:
    """Redis does not answer."""
    return Problem(
        pb.ERROR_CODE_INTERNAL,
        "The store of conversations is not answering. Nothing was started.",
        "Ask again in a moment. If it lasts, tell your platform operator that the gateway cannot reach Redis.",
        retryable=True,
    )


def no_worker(tenant: str, *, known: bool) -> Problem:
    """No ready worker came up in time; ``known`` tells whether the Tenant exists at all."""
    if not known:
        return Problem(
            pb.ERROR_CODE_NO_WORKER,
            f"There is no tenant named {tenant}. Nothing was started.",
            f"Tell your platform operator that Tenant {tenant} does not exist (kubectl get tenants -A).",
        )
    return Problem(
        pb.ERROR_CODE_NO_WORKER,
        f"No worker of {tenant} is ready. Nothing was started.",
        "Ask again in a few seconds. If it lasts, ask your platform operator to look at the Tenant's conditions "
        f"(kubectl describe tenant {tenant}).",
        retryable=True,
    )


def worker_lost(open_steps: list[str]) -> Problem:
    """The worker went away in mid-answer; ``open_steps`` are the summaries of the steps that had not finished."""
    if open_steps:
        what = "; ".join(open_steps)
        action = (
            f"Check whether this was done before you ask again, for its outcome is not known: {what}. "
            "Finished steps stay done. The conversation goes on with your next message."
        )
    else:
        action = (
            "Ask again: nothing was under way that you need to check, and finished steps stay done. "
            "The conversation goes on with your next message."
        )
    return Problem(
        pb.ERROR_CODE_WORKER_LOST,
        "The worker that was answering went away. The answer was not finished.",
        action,
        retryable=True,
    )
