"""ServiceNow (Table, Service Catalog, Knowledge and Attachment APIs), as the asking user."""

from __future__ import annotations

from collections.abc import Mapping

from pilothouse_api.workerconfig import ConnectorConfig
from pilothouse_dataplane.connectors.http import JsonClient
from pilothouse_dataplane.connectors.servicenow.connector import ServiceNowConnector


def make(config: ConnectorConfig, http: JsonClient, files: Mapping[str, bytes]) -> ServiceNowConnector:
    """The connector of one instance; it needs no file."""
    return ServiceNowConnector(config.name, http)
