"""The WebSocket against real sockets: a fake worker that dies, hangs, waits and floods."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from pilothouse_testing.gateway_fakes import Chat, token
from pilothouse_testing.servers import free_port

Start = Callable[..., Awaitable[Any]]


async def test_an_answer_streams_as_the_contract_says(start: Start) -> None:
    gateway = await start()
    agent = await gateway.add_worker("w1")
    async with Chat.open(gateway.base) as chat:
        ready = await chat.hello()
        assert ready == {
            "type": "ready",
            "session_id": ready["session_id"],
            "tenant": "acme",
            "user": "ana@acme.example",
        }
        events = await chat.ask("hi")
        kinds = ["accepted", "plan", "step_started", "step_finished", "text_delta", "final"]
        assert [e["type"] for e in events] == kinds
        assert [e["sequence"] for e in events] == [1, 2, 3, 4, 5, 6]
        assert len({e["run_id"] for e in events}) == 1
        assert events[3]["outcome"] == "STEP_OUTCOME_SUCCEEDED"
        usage = {"input_tokens": 3, "output_tokens": 4, "cost_micros": 5, "cached_input_tokens": 0}
        assert events[-1]["usage"] == usage
        assert (await chat.ask("more"))[-1]["type"] == "final"  # at once: the session is free before final is sent
    assert agent.asks[0].user.subject == "acme|ana"
    assert agent.asks[0].session_id == agent.asks[1].session_id == ready["session_id"]


async def test_a_run_whose_worker_dies_is_answered_by_another_and_the_session_moves(start: Start) -> None:
    gateway = await start()
    await gateway.add_worker("w1")
    async with Chat.open(gateway.base) as chat:
        await chat.hello()
        assert (await chat.ask("hi"))[0]["worker"] == "w1"
        await gateway.add_worker("w2")
        assert (await chat.ask("hi"))[0]["worker"] == "w1"  # affinity
        events = await chat.ask("die")
        assert [e["sequence"] for e in events] == list(range(1, len(events) + 1))
        assert next(e for e in events if e["type"] == "resumed")["worker"] == "w2"
        assert events[-1]["text"] == "You said die"
        assert (await chat.ask("hi"))[0]["worker"] == "w2"


async def test_a_lost_worker_is_told_where_no_other_comes(start: Start) -> None:
    gateway = await start(takeover_wait=0.5)
    await gateway.add_worker("w1")
    async with Chat.open(gateway.base) as chat:
        await chat.hello()
        lost = (await chat.ask("die"))[-1]
        assert lost["code"] == "ERROR_CODE_WORKER_LOST"
        assert "Create an issue" in lost["user_action"]


async def test_no_worker_is_told_after_the_wait_and_one_that_comes_meanwhile_is_used(start: Start) -> None:
    gateway = await start(no_worker_wait=2.0)
    async with Chat.open(gateway.base) as chat:
        await chat.hello()
        began = time.monotonic()
        assert (await chat.ask("hi"))[-1]["code"] == "ERROR_CODE_NO_WORKER"
        assert 1.8 < time.monotonic() - began < 3
        await chat.send(type="ask", text="hi")
        await asyncio.sleep(0.5)
        await gateway.add_worker("w1")
        assert (await chat.until("final", "error"))[-1]["type"] == "final"
    async with Chat.open(gateway.base) as chat:
        await chat.hello(token("nobody"))
        assert "no tenant named nobody" in (await chat.ask("hi"))[-1]["message"]


async def test_one_run_at_a_time_also_across_connections_and_stop_ends_it(start: Start) -> None:
    gateway = await start()
    agent = await gateway.add_worker("w1")
    async with Chat.open(gateway.base) as chat, Chat.open(gateway.base) as twin:
        session = (await chat.hello())["session_id"]
        assert (await twin.hello(session_id=session))["type"] == "ready"
        await chat.send(type="ask", text="wait")
        await chat.until("accepted")
        assert "still answering" in (await chat.ask("second"))[-1]["message"]
        assert "still answering" in (await twin.ask("third"))[-1]["message"]
        await chat.send(type="stop")
        assert (await chat.until("final"))[-1]["partial"] is True
        assert (await twin.ask("now"))[-1]["type"] == "final"
    assert agent.stops == ["stopped by the user"]


async def test_approval_is_handed_on_once_and_only_where_it_was_asked_for(start: Start) -> None:
    gateway = await start()
    agent = await gateway.add_worker("w1")
    async with Chat.open(gateway.base) as chat:
        await chat.hello()
        await chat.send(type="ask", text="approve")
        await chat.until("approval_required")
        await chat.send(type="decision", approval_id="other", approved=True)
        assert (await chat.next())["outcome"] == "DECIDE_OUTCOME_NOT_FOUND"
        await chat.send(type="decision", approval_id="a1", approved=True)
        assert (await chat.until("final"))[-1]["text"] == "approved"
    assert agent.decisions[0].decided_by == agent.decisions[0].decider.email == "ana@acme.example"


async def test_a_session_belongs_to_one_user_of_one_tenant(start: Start) -> None:
    gateway = await start()
    async with Chat.open(gateway.base) as chat:
        session = (await chat.hello())["session_id"]
    for other in (token(user="bob"), token("globex", "ana", sub="acme|ana")):
        async with Chat.open(gateway.base) as chat:
            assert (await chat.hello(other, session))["code"] == "ERROR_CODE_PERMISSION_DENIED"
            assert (await chat.next())["code"] == 4403
    for unknown in ("A" * 32, "../../x", "", "a b"):
        async with Chat.open(gateway.base) as chat:
            assert (await chat.hello(session_id=unknown))["code"] == "ERROR_CODE_PERMISSION_DENIED"


async def test_a_client_that_goes_away_stops_its_run_and_frees_the_session(start: Start) -> None:
    gateway = await start()
    agent = await gateway.add_worker("w1")
    async with Chat.open(gateway.base) as chat:
        session = (await chat.hello())["session_id"]
        await chat.send(type="ask", text="wait")
        await chat.until("accepted")
    await asyncio.sleep(0.5)
    assert agent.stops == ["the client went away"]
    assert gateway.pool.in_flight() == {"uid-w1": 0}
    async with Chat.open(gateway.base) as chat:
        await chat.hello(session_id=session)
        assert (await chat.ask("hi"))[-1]["type"] == "final"


async def test_a_client_that_takes_nothing_holds_back_its_worker_and_is_dropped(start: Start) -> None:
    gateway = await start(send_timeout=0.5)
    agent = await gateway.add_worker("w1")
    async with Chat.open(gateway.base) as chat:
        await chat.hello()
        chat.socket._response.connection.transport.pause_reading()  # type: ignore[union-attr]
        await chat.send(type="ask", text="flood")
        async with asyncio.timeout(8):
            await agent.cancelled.wait()
        assert agent.sent < 1_900


async def test_bad_frames_are_refused_with_a_sentence(start: Start) -> None:
    gateway = await start(hello_timeout=0.3)
    async with Chat.open(gateway.base) as chat:
        assert "No hello came" in (await chat.next())["message"]
        assert (await chat.next())["code"] == 4408
    async with Chat.open(gateway.base) as chat:
        await chat.send(type="ask", text="x")
        assert "first message must be hello" in (await chat.next())["message"]
    async with Chat.open(gateway.base) as chat:
        assert (await chat.hello("nonsense"))["code"] == "ERROR_CODE_UNAUTHENTICATED"
        assert (await chat.next())["code"] == 4401
    async with Chat.open(gateway.base) as chat:
        await chat.hello()
        for frame in (
            {"type": "ask"},
            {"type": "ask", "text": "x" * 16_001},
            {"type": "ask", "text": " "},
            {"type": "?"},
        ):
            await chat.send(**frame)
            assert (await chat.next())["code"] == "ERROR_CODE_INVALID_REQUEST"
        await chat.socket.send_bytes(b"x")
        assert "Binary" in (await chat.next())["message"]
        await chat.send(type="ask", text="x" * 300_000)
        assert (await chat.next())["code"] == 1009


async def test_too_many_frames_close_the_connection(start: Start) -> None:
    gateway = await start()
    async with Chat.open(gateway.base) as chat:
        await chat.hello()
        for _ in range(60):
            await chat.send(type="stop")
        assert (await chat.next())["code"] == "ERROR_CODE_RATE_LIMITED"


async def test_an_unreachable_store_is_told_and_nothing_starts(start: Start) -> None:
    gateway = await start(redis_url=f"redis://127.0.0.1:{free_port()}/0")
    async with Chat.open(gateway.base) as chat:
        answer = await chat.hello()
        assert (answer["code"], answer["retryable"]) == ("ERROR_CODE_INTERNAL", True)
        assert "cannot reach Redis" in answer["user_action"]
