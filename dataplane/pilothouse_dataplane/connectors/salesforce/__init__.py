"""Salesforce's REST API, as the asking user."""

from __future__ import annotations

import re
from collections.abc import Mapping
from time import monotonic

from pilothouse_api.workerconfig import ConnectorConfig
from pilothouse_dataplane.connectors.factory import ConnectorConfigError
from pilothouse_dataplane.connectors.http import JsonClient
from pilothouse_dataplane.connectors.salesforce.connector import SalesforceConnector

API_VERSION = "v67.0"
"""Summer '26, which every organization has; Salesforce serves a version for at least three years."""
_VERSION = re.compile(r"v[0-9]{2,3}\.0")


def make(config: ConnectorConfig, http: JsonClient, files: Mapping[str, bytes]) -> SalesforceConnector:
    """The connector of one organization; it needs no file. Raises ConnectorConfigError."""
    version = config.api_version or API_VERSION
    if not _VERSION.fullmatch(version):
        raise ConnectorConfigError(f"“{version[:20]}” is no API version of Salesforce; one is {API_VERSION}.")
    return SalesforceConnector(config.name, http, version, clock=monotonic)
