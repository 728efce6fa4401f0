"""Any system with an OpenAPI document: its operations become tools."""

from __future__ import annotations

from collections.abc import Mapping

from pilothouse_api.workerconfig import ConnectorConfig
from pilothouse_dataplane.connectors.http import JsonClient
from pilothouse_dataplane.connectors.openapi.connector import OpenAPIConnector


def make(config: ConnectorConfig, http: JsonClient, files: Mapping[str, bytes]) -> OpenAPIConnector:
    """The connector; a document that can't be read is its own problem, not the whole configuration's."""
    return OpenAPIConnector(config, http, files)
