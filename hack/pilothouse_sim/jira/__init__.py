"""A stand-in for a Jira Cloud site: REST v3 for issues, with users' permissions, state and search's delay."""
