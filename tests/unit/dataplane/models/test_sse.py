from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai._streaming import SSEDecoder

from pilothouse_dataplane.models.base import ModelNonsense
from pilothouse_dataplane.models.sse import EventCutter

LINES = st.sampled_from(
    [
        "data: {}",
        'data:{"a": "é🚢"}',
        "data: x  ",
        ": ping",
        "event: message",
        "id: 7",
        "retry: 1",
        "dat",
        "",
        "",
    ]
)
ENDS = st.sampled_from(["\n", "\r\n", "\r"])


def cut(body: bytes, cuts: list[int]) -> list[bytes]:
    cutter = EventCutter("p")
    events: list[bytes] = []
    for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True):
        events += cutter.feed(body[start:end])
    return events + cutter.rest()


@given(st.lists(LINES, max_size=12), ENDS, st.data())
def test_events_are_those_of_the_sdks_decoder_however_the_bytes_are_cut(
    lines: list[str], end: str, data: st.DataObject
) -> None:
    body = "".join(line + end for line in [*lines, ""]).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=8)))
    theirs = [event.data.strip() for event in SSEDecoder().iter_bytes(iter([body]))]
    ours = [b"\n".join(part.strip() for part in event.split(b"\n")).decode() for event in cut(body, cuts)]
    said = ["\n".join(part.strip() for part in event.split("\n")) for event in theirs]
    assert ours == [event for event in said if event]


def test_a_last_event_without_its_end() -> None:
    assert cut(b"data: 1\n\ndata: 2", []) == [b"1", b"2"]
    assert cut(b"data: 1\n\ndata: 2\n", []) == [b"1", b"2"]


def fed(piece: bytes, times: int) -> None:
    cutter = EventCutter("p")
    for _ in range(times):
        cutter.feed(piece)


@pytest.mark.parametrize("piece", [b"a" * 65536, b"data: " + b"a" * 65536 + b"\n", b"data:\n" * 10_000])
def test_an_event_without_end(piece: bytes) -> None:
    with pytest.raises(ModelNonsense, match="an answer without end"):
        fed(piece, 40)


def test_a_stream_without_end() -> None:
    with pytest.raises(ModelNonsense, match="an answer without end"):
        fed(b": ping\n\n" * 10_000, 1000)
