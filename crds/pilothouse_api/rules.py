"""Rules that one declaration turns into both verdicts: pydantic's here, and CEL's in the Kubernetes API server.

A rule is a CEL expression over ``self``, a sentence that says what to change, and the same condition in Python. A rule
stands on a scalar as ``Annotated[str, rule]``, and on an object in the ``rules`` of its model. The integration test
``tests/integration/test_crds.py`` sends generated objects to both and compares what they say.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

VALIDATIONS = "x-kubernetes-validations"


@dataclass(frozen=True)
class Rule:
    """A condition on one value. ``holds`` must agree with ``cel`` for each value that the types allow."""

    cel: str
    message: str
    """A sentence that says what to change; the API server prints it after the field's path."""
    holds: Callable[[Any], bool]

    def as_validation(self) -> dict[str, str]:
        """The entry of ``x-kubernetes-validations``."""
        return {"rule": self.cel, "message": self.message}

    def check(self, value: Any) -> Any:
        """Return the value; raises ValueError with the message where the rule does not hold."""
        if value is not None and not self.holds(value):
            raise ValueError(self.message)
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core)
        # A new list: the one that is there may belong to a type that other fields share.
        return {**schema, VALIDATIONS: [*schema.get(VALIDATIONS, []), self.as_validation()]}


@dataclass(frozen=True)
class Transition:
    """A condition on a change; the API server asks it on update only. ``holds`` takes the old and the new value."""

    cel: str
    message: str
    holds: Callable[[Any, Any], bool]

    def as_validation(self) -> dict[str, str]:
        """The entry of ``x-kubernetes-validations``."""
        return {"rule": self.cel, "message": self.message}


def matches(pattern: str, message: str) -> Rule:
    """The whole string matches ``pattern``, which keeps to what RE2 and Python read alike."""
    compiled = re.compile(pattern)
    literal = pattern.replace("\\", "\\\\").replace("'", "\\'")
    return Rule(
        cel=f"self.matches('^(?:{literal})$')",
        message=message,
        holds=lambda value: compiled.fullmatch(str(value)) is not None,
    )


def immutable(field: str, attribute: str, why: str) -> Transition:
    """A required field that stays as it was created."""

    def unchanged(old: Any, new: Any) -> bool:
        return bool(getattr(old, attribute) == getattr(new, attribute))

    return Transition(cel=f"self.{field} == oldSelf.{field}", message=f"{field} cannot change: {why}", holds=unchanged)


@dataclass(frozen=True)
class ListOf:
    """List semantics for server-side apply: a map by ``key``, or a set of scalars where ``key`` is None.

    The API server refuses two entries with one key; so does this.
    """

    key: str | None = None

    def _check(self, items: Sequence[Any] | None) -> Sequence[Any] | None:
        keys: list[Hashable] = [getattr(item, self.key) if self.key else item for item in items or ()]
        for index, key in enumerate(keys):
            if key in keys[:index]:
                raise ValueError(f"Duplicate value: {key!r}: each entry must be unique")
        return items

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core)
        schema["x-kubernetes-list-type"] = "map" if self.key else "set"
        if self.key:
            schema["x-kubernetes-list-map-keys"] = [self.key]
        return schema
