from __future__ import annotations

import pytest

from pilothouse_dataplane.connectors.jira.tools import jira_tools
from pilothouse_dataplane.connectors.servicenow.tools import servicenow_tools
from pilothouse_dataplane.core.report import step_title


@pytest.mark.parametrize(
    ("tool", "title"),
    [
        ("servicenow.incident.work_note", "ServiceNow: add a work note to incident"),
        ("servicenow.approval.decide", "ServiceNow: decide on approval"),
        ("jira.project.issue_types", "Jira: list what can be created in project"),
        ("jira.issue.comment", "Jira: comment on issue"),
        ("okta.factor.reset_all", "Okta: reset every factor"),
        ("jira", "Jira"),
    ],
)
def test_a_tool_is_named_as_people_would(tool: str, title: str) -> None:
    assert step_title(tool) == title


def test_no_title_shows_how_a_tool_is_written() -> None:
    for tool in (*jira_tools("jira"), *servicenow_tools("servicenow")):
        assert "_" not in step_title(tool.name)
