"""A stand-in for an Okta organization: users with their lifecycle, factors, groups, apps, the system log."""
