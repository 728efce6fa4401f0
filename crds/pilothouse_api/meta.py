"""What the four kinds share: the base of their models, metadata, conditions, references and scalar types.

Reading is lenient about what it does not know (the API server prunes it), and strict about what the kinds' rules say.
"""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PlainSerializer,
    Strict,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from pilothouse_api.names import API_VERSION
from pilothouse_api.rules import VALIDATIONS, ListOf, Rule, Transition, matches

_UPPER = frozenset({"url", "id", "ttl", "usd", "1k"})
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:[0-9]+(?:ms|s|m|h|d))+")
_DURATION_PART = re.compile(r"([0-9]+)(ms|s|m|h|d)")


def camel(name: str) -> str:
    """``daily_budget_usd`` → ``dailyBudgetUSD``: Kubernetes' spelling, acronyms after the first word in capitals."""
    first, *rest = name.split("_")
    return first + "".join(word.upper() if word in _UPPER else word.capitalize() for word in rest)


def parse_duration(text: str) -> float:
    """Seconds in a duration such as ``500ms``, ``30s``, ``1h30m`` or ``180d`` (a day has 24 hours).

    Raises ValueError, which whoever wrote the text must repair.
    """
    if not _DURATION.fullmatch(text):
        raise ValueError(
            f"{text!r} is not a duration: write a number with a unit, such as 500ms, 30s, 10m, 1h30m, 180d"
        )
    return sum(int(number) * _UNIT_SECONDS[unit] for number, unit in _DURATION_PART.findall(text))


def parse_percent(text: str) -> float:
    """The share in a percentage: ``"2%"`` → 0.02. Raises ValueError, which whoever wrote the text must repair."""
    if not text.endswith("%"):
        raise ValueError(f"{text!r} is not a percentage: write it with its sign, such as 2%")
    return float(text[:-1]) / 100


def about(description: str, *examples: Any, **bounds: Any) -> Any:
    """A field's description, examples and bounds. Examples reach ``kubectl explain`` and the reference of the kinds."""
    return Field(description=description, examples=list(examples) or None, **bounds)


def _money(value: Any) -> Decimal:
    if isinstance(value, Decimal):
        return value
    if isinstance(value, str) and _MONEY.holds(value):
        return Decimal(value)
    raise ValueError(_MONEY.message)


_MONEY = matches(
    r"[0-9]{1,12}(\.[0-9]{1,9})?",
    'must be an amount in USD that is not negative, written as a string, such as "250" or "0.002"',
)

Duration = Annotated[
    str,
    Field(max_length=32),
    Rule(
        cel="self.matches('^([0-9]+(ms|s|m|h|d))+$') && self.matches('[1-9]')",
        message="must be a duration above zero such as 500ms, 30s, 10m, 1h30m or 180d",
        holds=lambda text: _DURATION.fullmatch(text) is not None and re.search("[1-9]", text) is not None,
    ),
]
"""Text that ``parse_duration`` reads. Kept as text, so that what was written is what is shown."""

Money = Annotated[
    Decimal,
    BeforeValidator(_money),
    PlainSerializer(lambda amount: format(amount, "f"), return_type=str),
    WithJsonSchema({"type": "string", "maxLength": 24, VALIDATIONS: [_MONEY.as_validation()]}),
]
"""USD. A string on the wire: a float would lose cents."""

Percent = Annotated[
    str,
    Field(max_length=8),
    matches(r"[0-9]{1,4}(\.[0-9]{1,2})?%", "must be a percentage with its sign, such as 2% or 12.5%"),
]
"""Text that ``parse_percent`` reads."""

ObjectName = Annotated[
    str,
    Field(max_length=253),
    matches(
        r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
        "must be the name of an object: lower-case letters, digits, '-' and '.', such as acme-jira",
    ),
]
Label = Annotated[
    str,
    Field(max_length=63),
    matches(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", "must be lower-case letters, digits and '-', such as local-llama"),
]
HTTPURL = Annotated[
    str,
    Field(max_length=2048),
    matches(r"https?://[^ /?#]+[^ ]*", "must be an address that starts with http:// or https://, without spaces"),
]
HTTPSURL = Annotated[
    str,
    Field(max_length=2048),
    matches(r"https://[^ /?#]+[^ ]*", "must be an address that starts with https://, without spaces"),
]
UUID = Annotated[
    str,
    Field(max_length=36),
    matches(
        "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
        "must be a GUID as Microsoft's portals show it, such as 7f1c0b7e-5d0a-4c43-9d51-0a8f6c1f2b11",
    ),
]
Int = Annotated[int, Strict()]
Bool = Annotated[bool, Strict()]


class Model(BaseModel):
    """Base of every object in the four kinds: camelCase on the wire, unchangeable in Python, with rules."""

    model_config = ConfigDict(alias_generator=camel, populate_by_name=True, frozen=True, extra="ignore")

    rules: ClassVar[tuple[Rule, ...]] = ()
    transitions: ClassVar[tuple[Transition, ...]] = ()

    @model_validator(mode="after")
    def _follow_rules(self) -> Self:
        broken = [rule.message for rule in self.rules if not rule.holds(self)]
        if broken:
            raise ValueError("; ".join(broken))
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler.resolve_ref_schema(handler(core))
        validations = [rule.as_validation() for rule in cls.rules]
        validations += [rule.as_validation() for rule in cls.transitions]
        if validations:
            schema[VALIDATIONS] = validations
        return schema

    def to_api(self) -> dict[str, Any]:
        """The object as JSON types with Kubernetes' names, without what is not set."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class ObjectMeta(Model):
    """The part of Kubernetes' metadata that Pilothouse reads."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    finalizers: tuple[str, ...] = ()
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None


class LocalRef(Model):
    """Another object in the same namespace; no reference leaves it."""

    name: Annotated[ObjectName, about("Name of the object, in the namespace of this one.", "acme-jira")]


class KeyRef(LocalRef):
    """One key of another object in the same namespace."""

    key: Annotated[
        str,
        about("The key whose content counts.", "openapi.json", max_length=253),
        matches(r"[A-Za-z0-9_.-]+", "must be a key of the object: letters, digits, '-', '_' and '.'"),
    ]


class Condition(Model):
    """One aspect of the object's state, as Kubernetes' own kinds tell theirs."""

    type: Annotated[str, about("The aspect.", "Ready", max_length=64)]
    status: Annotated[Literal["True", "False", "Unknown"], about("Whether it is so.", "True")]
    observed_generation: Annotated[Int, about("The metadata.generation that this was said about.", 3, ge=0)] = 0
    last_transition_time: Annotated[datetime | None, about("When the status last changed.", "2026-11-22T10:00:00Z")] = (
        None
    )
    reason: Annotated[str, about("The cause in one CamelCase word, for programs.", "WorkersReady", max_length=256)] = ""
    message: Annotated[
        str,
        about("The cause in a sentence, with what to do.", "2 of 2 workers run this configuration", max_length=4096),
    ] = ""


class Status(Model):
    """What every kind reports; the operator writes it, nobody else."""

    observed_generation: Annotated[
        Int | None, about("The metadata.generation that the operator has acted on.", 3, ge=0)
    ] = None
    conditions: Annotated[tuple[Condition, ...], about("State by aspect.", max_length=16), ListOf("type")] = ()

    def condition(self, type_: str) -> Condition | None:
        """The condition of that type, or None where the operator has not said."""
        return next((condition for condition in self.conditions if condition.type == type_), None)


class Column(Model):
    """A column of ``kubectl get``."""

    name: str
    path: str
    """JSONPath to one value."""
    type: Literal["string", "integer", "date"] = "string"
    description: str
    wide: bool = False
    """True: only with ``-o wide``."""


def condition_column(name: str, condition: str, part: str, description: str, *, wide: bool = False) -> Column:
    """A column that shows one part of one condition."""
    path = f'.status.conditions[?(@.type=="{condition}")].{part}'
    return Column(name=name, path=path, description=description, wide=wide)


AGE = Column(name="Age", path=".metadata.creationTimestamp", type="date", description="Time since it was created.")


class Kind(Model):
    """Base of the four kinds; its class variables name the resource."""

    plural: ClassVar[str]
    short_names: ClassVar[tuple[str, ...]]
    columns: ClassVar[tuple[Column, ...]]
    selectable: ClassVar[tuple[str, ...]] = ()
    """Fields that ``kubectl get --field-selector`` knows."""
    name_limit: ClassVar[int] = 63
    """Longest ``metadata.name``: it becomes a label's value, and part of children's names."""

    api_version: str = API_VERSION
    kind: str = ""
    metadata: ObjectMeta = ObjectMeta()

    @classmethod
    def name_rule(cls) -> Rule:
        """The rule on ``metadata.name``, in CEL over the root."""
        limit = cls.name_limit
        return Rule(
            cel=f"size(self.metadata.name) <= {limit} && !self.metadata.name.contains('.')",
            message=f"metadata.name must have at most {limit} characters and no '.': it becomes part of other names",
            holds=lambda name: len(name) <= limit and "." not in name,
        )

    @model_validator(mode="after")
    def _follow_name_rule(self) -> Self:
        self.name_rule().check(self.metadata.name)
        return self


def refused_changes(old: Model, new: Model) -> tuple[str, ...]:
    """The messages of what an update may not change; empty where the API server would accept it."""
    return tuple(rule.message for rule in new.transitions if not rule.holds(old, new))
