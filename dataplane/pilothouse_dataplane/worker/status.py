"""What a worker tells of its connectors and tools, for the operator's conditions and the registry of tools."""

from __future__ import annotations

from pilothouse_dataplane.core.messages import Effect, Lookup, Tool
from pilothouse_dataplane.worker import messages as wire
from pilothouse_dataplane.worker.probing import Reached
from pilothouse_dataplane.worker.runtime import Runtime
from pilothouse_proto.agent.v1 import agent_pb2 as agent

_EFFECTS = {
    Effect.READ: agent.EFFECT_READ,
    Effect.WRITE: agent.EFFECT_WRITE,
    Effect.DESTRUCTIVE: agent.EFFECT_DESTRUCTIVE,
}
_REACHABLE = {
    None: agent.REACHABILITY_UNKNOWN,
    True: agent.REACHABILITY_REACHABLE,
    False: agent.REACHABILITY_UNREACHABLE,
}
_MAX_SENTENCE = 500


def connector_statuses(runtime: Runtime) -> list[agent.ConnectorStatus]:
    """One of each connector of the configuration, in its order."""
    statuses = []
    for config in runtime.config.connectors:
        found = runtime.prober.of(config.name) if runtime.prober is not None else Reached()
        lacking = runtime.credentials.problem(config) if runtime.credentials is not None else ""
        status = agent.ConnectorStatus(
            name=config.name,
            tools=runtime.toolset.count(config.name),
            reachable=_REACHABLE[found.reachable],
            message=found.message[:_MAX_SENTENCE],
            problem=(lacking or runtime.toolset.problem(config.name))[:_MAX_SENTENCE],
        )
        if found.at is not None:
            status.probed.FromMilliseconds(round(found.at * 1000))
        statuses.append(status)
    return statuses


def list_tools(runtime: Runtime) -> agent.ListToolsResponse:
    """All that the agent can call, by name."""
    tools = sorted(runtime.toolset.tools, key=lambda tool: tool.name)
    return agent.ListToolsResponse(tools=[_described(tool, runtime.toolset.connector_of(tool.name)) for tool in tools])


def _described(tool: Tool, connector: str) -> agent.ToolDescription:
    described = agent.ToolDescription(
        name=tool.name,
        connector=connector,
        description=tool.description,
        effect=_EFFECTS[tool.effect],
        idempotent=tool.idempotent,
        parameters_json=wire.json_text(tool.parameters),
        key_by=tool.key_by or ("looked up" if tool.lookup is not Lookup.NONE else "")
        if tool.effect is not Effect.READ
        else "",
    )
    # a read waits for nobody, whatever a rule over all tools says
    if tool.approver is not None and tool.effect is not Effect.READ:
        described.approver = wire.APPROVERS[tool.approver.by]
        described.group = tool.approver.group
    return described


def _once(tool: Tool) -> str:
    """How a write is kept from happening twice, a few words."""
    if tool.effect is Effect.READ:
        return ""
    looked_up = {Lookup.AUTHORITATIVE: "looked up", Lookup.EVENTUAL: "looked up, may lag"}
    return tool.key_by or ("" if tool.idempotent else looked_up.get(tool.lookup, "not known: in doubt is told"))
