"""Conditions of routing rules: what they mean, what is refused, and that nothing breaks them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse_api.routing_rules import MAX_CHARACTERS, VARIABLES, ConditionError, parse

VALUES = {
    "text": "please reset the password of jane and order a laptop",
    "length": 52,
    "user": "jane@acme.example",
    "groups": ("finance", "all"),
    "connectors": ("okta", "servicenow"),
    "systems": 2,
    "effects": ("read", "write"),
    "writes": 1,
    "rounds": 0,
    "turns": 4,
    "failed": 0,
}


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("systems >= 3", False),
        ('systems >= 3 || "finance" in groups', True),
        ('systems >= 2 && !("legal" in groups)', True),
        ("'destructive' in effects || writes == 1", True),
        ("text.contains('laptop') && length < 100", True),
        ("user.endsWith('@acme.example') == true", True),
        ("user.startsWith('bob')", False),
        ('user in ["jane@acme.example", "bob@acme.example"]', True),
        ("size(groups) > 2", False),
        ("false || true && false", False),
        ("true || true && false", True),
        ("(true || true) && false", False),
        ("!!true", True),
        ("rounds != 0", False),
        ("size(text) == length", True),
    ],
)
def test_a_condition_means_what_cel_means_by_it(condition: str, holds: bool) -> None:
    assert parse(condition).holds(VALUES) is holds


@pytest.mark.parametrize(
    ("condition", "sentence"),
    [
        ("", "the condition is empty"),
        ("systems", "is a number, not true or false"),
        ("system >= 3", "system is not known: use text, length"),
        ("systems >= 'three'", ">= compares numbers"),
        ("finance in groups", "a text stands in quotes"),
        ("'finance' in user", 'in takes a text and a list, such as "finance" in groups'),
        ("systems >= 3 ||", "ends where a value should be"),
        ("systems >= 3 systems", "character 14: an operator, or the end should be where systems is"),
        ("(systems >= 3", "ends where ')' should be"),
        ("systems && true", "&& and ! take what is true or false"),
        ("groups == groups", "can't compare a list with a list"),
        ("text.matches('(a+)+')", "contains, startsWith or endsWith should be where matches is"),
        ("systems = 3", "character 9: '= 3' can't be read"),
        ("text == 'open", "can't be read"),
        ("3 < 99999999999999999999", "can't be read"),
        ("[1] == 1", "a list holds texts"),
        ("'a' in []", "a value should be where ] is"),
        ("size(systems) > 1", "size() takes a text or a list"),
        ("!" * 40 + "true", "nested deeper"),
        ("(" * 40 + "true" + ")" * 40, "nested deeper"),
        ("true" + " || true" * 100, f"write at most {MAX_CHARACTERS}"),
        ("__import__('os')", "__import__ is not known"),
    ],
)
def test_what_can_t_be_read_is_told_with_what_to_write(condition: str, sentence: str) -> None:
    with pytest.raises(ConditionError) as refused:
        parse(condition)

    assert sentence in str(refused.value)


_WORDS = [
    *VARIABLES,
    "true",
    "false",
    "'a'",
    "3",
    "==",
    "!=",
    ">=",
    "in",
    "&&",
    "||",
    "!",
    "(",
    ")",
    "[",
    "]",
    ",",
    ".",
]


@given(st.lists(st.sampled_from([*_WORDS, "size", "contains", "\x00", "é"]), max_size=14).map(" ".join))
def test_what_parses_can_be_evaluated_and_nothing_else_is_raised(condition: str) -> None:
    try:
        read = parse(condition)
    except ConditionError:
        return
    assert read.holds(VALUES) in (True, False)
