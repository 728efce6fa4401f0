"""Okta's management API, as the asking user."""

from __future__ import annotations

from collections.abc import Mapping
from time import time

from pilothouse_api.workerconfig import ConnectorConfig
from pilothouse_dataplane.connectors.http import JsonClient
from pilothouse_dataplane.connectors.okta.connector import OktaConnector


def make(config: ConnectorConfig, http: JsonClient, files: Mapping[str, bytes]) -> OktaConnector:
    """The connector of one Okta organization; it needs no file."""
    return OktaConnector(config.name, http, clock=time)
