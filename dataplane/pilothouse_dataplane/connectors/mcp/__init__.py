"""Any MCP server over streamable HTTP, through the official SDK; imported only where a configuration names it."""

from __future__ import annotations

from collections.abc import Mapping

from pilothouse_api.workerconfig import ConnectorConfig
from pilothouse_dataplane.connectors.http import JsonClient
from pilothouse_dataplane.connectors.mcp.connector import MCPConnector


def make(config: ConnectorConfig, http: JsonClient, files: Mapping[str, bytes]) -> MCPConnector:
    """The connector; its tools are the server's to tell."""
    return MCPConnector(config, http)
