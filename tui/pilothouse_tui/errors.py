"""The terminal tools' errors, each for a person at a terminal.

::

    ToolError
    ├── ConfigurationError   the caller's own settings (kubeconfig, flags): the caller must act
    ├── AccessError          credentials or permissions: the caller or who administers the cluster must act
    └── UnreachableError     nothing answered: retry, or act as the sentence says
"""

from __future__ import annotations


class ToolError(Exception):
    """An error in three sentences: what happened, what was not done, what to do now."""

    def __init__(self, happened: str, not_done: str, to_do: str) -> None:
        super().__init__(f"{happened} {not_done} {to_do}")
        self.happened = happened
        self.not_done = not_done
        self.to_do = to_do


class ConfigurationError(ToolError):
    """A file, flag or object that the caller names is absent or wrong."""


class AccessError(ToolError):
    """The other side refused the caller."""


class UnreachableError(ToolError):
    """The other side did not answer; trying again may help."""
