"""The model gateway's own price: CPU a call beside the official SDK and LiteLLM's Router, wall time beside a bare call.

All of them make the same calls against the same scripted server: in turn one that is answered with a plan of three
calls and one that is answered in words, with a dozen tools and a system message as long as a worker's. Each is a
process of its own; their rounds alternate, so that a change of the machine's speed meets all of them.

Ours has everything on: router, response cache (which never has the answer), limits in a real Valkey, cost, breakers;
spans are off. CPU is taken without any latency. Added wall time is taken without latency where one call is made at a
time, and with calls of a fixed time where 50 are: without one, 50 at a time are a queue before one busy process, and a
figure of that says only its CPU again (it is in ``detail`` as ``saturated``). The 50 are spread evenly over a call's
time: of a fixed time, they would go on in step.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis
from engine_parts.chain import quantile
from engine_parts.processes import StandIn, free_port, process, stand_in, wait_listening
from results import Figure

from models_parts import litellm_env
from pilothouse_dataplane.connectors.jira.tools import jira_tools
from pilothouse_local import stores

ROUNDS = 4
CALLS_A_ROUND = 150
AT_A_TIME = 10
WARM_UP = 100
MANY = 50
CALL_SECONDS = 1.0
"""Of each call, where 50 are made at a time: 50 calls a second."""
SECONDS_OF_MANY = 8
_ONE_BY_ONE = 300
_SCRIPT = Path(__file__).with_name("callers.py")
_TEXTS = ("Compare IT-1, IT-2 and IT-3.", "How is the work on my issues doing?")
_TIERS = ("fast", "mid", "power")


def _config(url: str) -> dict[str, Any]:
    """A worker's configuration with everything on that a route can have, and bounds that the bench does not meet."""
    price = {"input_price_per_1k": "0.03", "output_price_per_1k": "0.06", "cached_input_price_per_1k": "0.003"}
    # no tier's name in a model's name: the scripted server takes it for the model's speed
    tiers = {tier: [{"provider": "local", "model": "bench-model", **price}] for tier in _TIERS}
    rule = {"when": 'systems >= 9 || "finance" in groups', "tier": "power"}
    provider = {"name": "local", "type": "OpenAI", "base_url": f"{url}/v1", "api_key_file": "key"}
    route = {
        "providers": [provider],
        "tiers": tiers,
        "default_tier": "mid",
        "fallback": list(_TIERS),
        "strategy": "Complexity",
        "rules": [rule],
        "cache_seconds": 3600,
    }
    limits = {
        "requests_per_minute": 10_000_000,
        "tokens_per_minute": 1_000_000_000,
        "daily_budget_micros": 10**14,
        "user_requests_per_minute": 10_000_000,
        "user_tokens_per_minute": 1_000_000_000,
        "concurrent_runs": 1000,
    }
    return {
        "tenant": "acme",
        "namespace": "acme",
        "display_name": "Acme",
        "revision": "bench",
        "agent": {"instructions": "You help Acme's employees.", "deadline_seconds": 60},
        "route": route,
        "limits": limits,
        "egress": {"allow_hosts": ["127.0.0.1"]},
    }


class Client:
    """One way to call, in its process."""

    def __init__(self, kind: str, models: StandIn, redis_url: str, python: Path) -> None:
        self._kind = kind
        env = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "OTEL_SDK_DISABLED": "true"}
        self._process = subprocess.Popen(
            [str(python), str(_SCRIPT), kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )
        tools = [
            {
                "type": "function",
                "function": {"name": tool.model_name, "description": tool.description, "parameters": tool.parameters},
            }
            for tool in jira_tools("jira")
        ]
        self._say(
            {
                "url": models.url,
                "redis": redis_url,
                "model": "bench-model",
                "system": "You help Acme's employees. " * 40,
                "texts": _TEXTS,
                "tools": tools,
                "config": _config(models.url),
            }
        )

    def run(self, calls: int, at_a_time: int, spread: float = 0.0) -> tuple[float, list[float]]:
        """CPU seconds of the process, and each call's seconds. Raises RuntimeError where it ended."""
        self._say({"calls": calls, "at_a_time": at_a_time, "spread": spread})
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the caller {self._kind} ended before it answered; its error is above")
        told = json.loads(line)
        return told["cpu"], told["walls"]

    def _say(self, what: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()

    def close(self) -> str:
        """It ends with its input; what it said last."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if self._process.stdin.closed:
            return ""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        said = self._process.stdout.read()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        return said


@contextlib.contextmanager
def valkey(root: Path) -> Iterator[str]:
    """A real one without persistence; its URL."""
    port = free_port()
    command = [
        str(stores.valkey_program()),
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--dir",
        str(root),
    ]
    with process(command, root / "valkey.log") as running:
        wait_listening(port, running)
        yield f"redis://127.0.0.1:{port}/0"


def figures() -> Iterator[Figure]:
    """Two figures of CPU, four of wall time. LiteLLM's is missing where it can't be installed, and why is said."""
    kinds = {"pilothouse": Path(sys.executable), "sdk": Path(sys.executable), "aiohttp": Path(sys.executable)}
    try:
        kinds["litellm"] = litellm_env.python()
    except litellm_env.NoLiteLLM as error:
        sys.stderr.write(
            f"What happened:  {error}\nNot done:       LiteLLM's Router was not measured\n"
            "What to do now: look for a way to the package registry, and run the bench again\n"
        )
    with contextlib.ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pilothouse-bench-")))
        redis_url = stack.enter_context(valkey(root))
        models = stack.enter_context(stand_in("bench-models", root))
        clients: dict[str, Client] = {}
        for kind, python in kinds.items():
            clients[kind] = Client(kind, models, redis_url, python)
            stack.callback(clients[kind].close)
        for client in clients.values():
            client.run(WARM_UP, AT_A_TIME)
        cpu, commands = _cpu(clients, redis_url)
        walls = _walls(clients["pilothouse"], clients["aiohttp"], models)
        on = _really_on(clients["pilothouse"].close(), commands)
        yield from _cpu_figures(cpu, {"on": on, "Valkey's commands a call": commands})
        yield from _wall_figures(walls, {"on": on})


def _commands(redis_url: str) -> dict[str, int]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        told: Any = client.info("commandstats")
    return {name.removeprefix("cmdstat_"): int(one["calls"]) for name, one in told.items()}


def _really_on(last: str, commands: dict[str, float]) -> str:
    """What a call went through, from what was seen of it: a part that is not on makes the figures worthless."""
    routed = json.loads(last)["routed"] if last.strip() else []
    parts = {
        f"router (chose {', '.join(routed)})": bool(routed),
        "limits in Valkey": commands.get("evalsha", 0) >= 0.5,
        "response cache (missing)": commands.get("get", 0) >= 0.5 or commands.get("evalsha", 0) >= 2,
    }
    off = [name for name, on in parts.items() if not on]
    said = ", ".join([name for name, on in parts.items() if on] + ["cost", "breakers"])
    return f"{said}; NOT ON: {', '.join(off)}" if off else said


def _cpu(clients: dict[str, Client], redis_url: str) -> tuple[dict[str, float], dict[str, float]]:
    """CPU milliseconds a call, by kind; and Valkey's commands a call of ours."""
    spent = dict.fromkeys(clients, 0.0)
    before = _commands(redis_url)
    for _ in range(ROUNDS):
        for kind, client in clients.items():
            spent[kind] += client.run(CALLS_A_ROUND, AT_A_TIME)[0]
    calls = ROUNDS * CALLS_A_ROUND
    used = {name: (count - before.get(name, 0)) / calls for name, count in _commands(redis_url).items()}
    often = {name: round(count, 2) for name, count in sorted(used.items()) if count >= 0.1}
    return {kind: seconds / calls * 1000 for kind, seconds in spent.items()}, often


def _cpu_figures(each: dict[str, float], more: dict[str, object]) -> Iterator[Figure]:
    detail: dict[str, object] = {
        "pilothouse": f"{each['pilothouse']:.2f} ms a call",
        "official SDK": f"{each['sdk']:.2f} ms",
        "LiteLLM's Router": f"{each['litellm']:.2f} ms ({litellm_env.version()})" if "litellm" in each else "not here",
        "bare aiohttp": f"{each['aiohttp']:.2f} ms, nothing made of the answer",
        **more,
        "calls": f"{ROUNDS * CALLS_A_ROUND} each in {ROUNDS} alternating rounds, {AT_A_TIME} at a time, no "
        "latency, plans and answers in turn, a dozen tools",
    }
    yield Figure("cpu_ratio_to_bare_sdk", each["pilothouse"] / each["sdk"], "ratio", detail)
    if "litellm" in each:
        yield Figure("cpu_ratio_to_litellm_router", each["pilothouse"] / each["litellm"], "ratio", detail)


Walls = dict[str, list[float]]


def _walls(ours: Client, bare: Client, models: StandIn) -> tuple[Walls, Walls, Walls]:
    """Seconds of ours and of the bare calls: one at a time, 50 at a time, and 50 at a time without latency."""
    one: Walls = {"ours": [], "bare": []}
    full: Walls = {"ours": [], "bare": []}
    many: Walls = {"ours": [], "bare": []}
    pair = {"ours": ours, "bare": bare}
    for _ in range(3):
        for name, client in pair.items():
            one[name] += client.run(_ONE_BY_ONE, 1)[1]
    for name, client in pair.items():
        full[name] += client.run(10 * MANY, MANY)[1]
    models.pace(plan=(CALL_SECONDS, CALL_SECONDS), answer=(CALL_SECONDS, CALL_SECONDS))
    calls = round(MANY * SECONDS_OF_MANY / CALL_SECONDS)
    for _ in range(2):
        for name, client in pair.items():
            many[name] += client.run(calls, MANY, CALL_SECONDS)[1]
            time.sleep(0.1)
    return one, many, full


def _wall_figures(measured: tuple[Walls, Walls, Walls], more: dict[str, object]) -> Iterator[Figure]:
    one, many, full = measured
    for count, walls in ((1, one), (MANY, many)):
        for share in (0.5, 0.99):
            at = {name: quantile(seconds, share) * 1000 for name, seconds in walls.items()}
            queue = {name: quantile(seconds, share) * 1000 for name, seconds in full.items()}
            detail: dict[str, object] = {
                "pilothouse": f"{at['ours']:.2f} ms",
                "bare aiohttp": f"{at['bare']:.2f} ms",
                **more,
                "measure": f"difference of the two distributions' p{share * 100:g}",
                "calls": f"{len(walls['ours'])} each, {count} at a time, in alternating rounds",
            }
            if count == 1:
                detail["latency"] = "none"
            else:
                detail["latency"] = f"{CALL_SECONDS:g} s a call, so {MANY / CALL_SECONDS:.0f} calls a second"
                detail["saturated"] = f"without latency: pilothouse {queue['ours']:.0f} ms, bare {queue['bare']:.0f} ms"
            yield Figure(f"added_p{share * 100:g}_c{count}", at["ours"] - at["bare"], "ms", detail)
