"""The WebSocket's frames: what a client may send, and protobuf events as JSON objects. Pure."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from pilothouse_dataplane.gateway.problems import invalid
from pilothouse_proto.agent.v1 import agent_pb2 as pb

TERMINAL = frozenset({"final", "error", "parked"})
"""Types of event that end a stream: the run has ended, or waits for decisions."""


class _Frame(BaseModel):
    # Unknown fields are ignored, so that a newer client can speak to an older gateway during a rolling update.
    model_config = ConfigDict(extra="ignore", strict=True)


class Hello(_Frame):
    """First frame: who is asking, and which session goes on (None: a new one)."""

    type: Literal["hello"]
    token: str
    session_id: str | None = None


class AskFrame(_Frame):
    """A question."""

    type: Literal["ask"]
    text: str


class StopFrame(_Frame):
    """End the answer that is under way."""

    type: Literal["stop"]


class DecisionFrame(_Frame):
    """The answer to an approval, of this conversation or of somebody else's that this user is asked to decide."""

    type: Literal["decision"]
    approval_id: Annotated[str, Field(min_length=1, max_length=200)]
    approved: bool


class ApprovalsFrame(_Frame):
    """What waits for this user's decision?"""

    type: Literal["approvals"]


Frame = Hello | AskFrame | StopFrame | DecisionFrame | ApprovalsFrame
_ADAPTER: TypeAdapter[Frame] = TypeAdapter(Annotated[Frame, Field(discriminator="type")])


def parse_frame(text: str) -> Frame:
    """One frame of a client. Raises :class:`Problem` INVALID_REQUEST that names what is wrong."""
    try:
        return _ADAPTER.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise invalid(
            f"The message could not be read ({where + ': ' if where else ''}{first['msg']}). Nothing was started.",
            "Send one JSON object a message, with type hello, ask, stop, decision or approvals.",
        ) from error


def check_text(text: str, longest: int) -> None:
    """Raises :class:`Problem` for a question that is empty or longer than ``longest`` characters."""
    if not text.strip():
        raise invalid("The question is empty. Nothing was started.", "Write a question and send it again.")
    if len(text) > longest:
        raise invalid(
            f"The question has {len(text):,} characters; {longest:,} are allowed. Nothing was started.",
            "Shorten it and send it again.",
        )
    if any(0xD800 <= ord(char) <= 0xDFFF for char in text):
        raise invalid(
            "The question holds text that is not Unicode. Nothing was started.", "Remove it and send it again."
        )


def to_json(message: Message) -> dict[str, Any]:
    """All fields under their proto names; enums as their names, integers as numbers (costs stay below 2^53)."""
    fields: list[Any] = list(message.DESCRIPTOR.fields)
    return {field.name: _value(field, getattr(message, field.name)) for field in fields}


def _value(field: FieldDescriptor, value: Any) -> Any:
    if field.is_repeated:
        return [_single(field, item) for item in value]
    return _single(field, value)


def _single(field: FieldDescriptor, value: Any) -> Any:
    if field.message_type is not None:
        return to_json(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known is not None else str(value)
    return value


def event_json(event: pb.ConverseEvent, sequence: int) -> dict[str, Any] | None:
    """A worker's event as the client gets it; None for a kind that this gateway does not know.

    ``sequence`` is the client's own count: a worker that takes a run over begins its own anew.
    """
    kind = event.WhichOneof("event")
    if kind is None:
        return None
    body = to_json(getattr(event, kind))
    return {"type": kind, "sequence": sequence, "run_id": event.run_id, **body}
