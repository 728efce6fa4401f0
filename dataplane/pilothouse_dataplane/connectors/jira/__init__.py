"""Jira Cloud, REST v3, as the asking user."""

from __future__ import annotations

from collections.abc import Mapping

from pilothouse_api.workerconfig import ConnectorConfig
from pilothouse_dataplane.connectors.http import JsonClient
from pilothouse_dataplane.connectors.jira.connector import JiraConnector


def make(config: ConnectorConfig, http: JsonClient, files: Mapping[str, bytes]) -> JiraConnector:
    """The connector of one site; it needs no file."""
    return JiraConnector(config.name, http)
