"""Connectors from the configuration. A connector's folder is imported when a configuration names its type.

``connectors/<type>/__init__.py`` holds ``make(config, http, files) -> Connector``; a new system is a new folder and a
word in ``pilothouse_api.workerconfig.ConnectorTypeName``.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import cast

from pilothouse_api.egress import EgressRule
from pilothouse_api.workerconfig import ConnectorConfig
from pilothouse_dataplane.connectors.base import Connector
from pilothouse_dataplane.connectors.http import JsonClient

SYSTEMS = {"servicenow": "ServiceNow", "jira": "Jira", "salesforce": "Salesforce", "okta": "Okta"}
"""What people call a system; one that is reached by openapi or mcp is called by its Connector's name."""


class ConnectorConfigError(ValueError):
    """A connector can't be made; the message goes into the worker's status. The platform operator must act."""


def system_of(config: ConnectorConfig) -> str:
    """The system's name as it begins sentences for users."""
    return SYSTEMS.get(config.type) or config.name[:1].upper() + config.name[1:]


def make_connector(config: ConnectorConfig, files: Mapping[str, bytes], egress: EgressRule) -> Connector:
    """The connector of a configuration, without wrappers. Connects to nothing yet. Raises ConnectorConfigError."""
    http = JsonClient(system_of(config), config.url, config.timeout_seconds, egress)
    module = import_module(f"pilothouse_dataplane.connectors.{config.type}")
    return cast(Connector, module.make(config, http, files))
