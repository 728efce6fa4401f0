"""The operator's routing rules, as ``Situation`` answers them: the grammar is the kinds' own, see there."""

from __future__ import annotations

from pilothouse_api.routing_rules import MAX_LENGTH, Condition, RuleError, parse

__all__ = ["MAX_LENGTH", "Condition", "RuleError", "parse"]
