"""Jira Cloud, REST v3, as the asking user."""
