"""SOQL that we write and SOQL that a model wrote."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pilothouse_dataplane.connectors.base import Refused
from pilothouse_dataplane.connectors.salesforce import soql


@pytest.mark.parametrize(
    ("query", "limited"),
    [
        ("SELECT Id FROM Account", "SELECT Id FROM Account LIMIT 50"),
        ("select Id from Account limit 5", "select Id from Account limit 5"),
        ("SELECT Id FROM Account LIMIT 5000 OFFSET 10", "SELECT Id FROM Account LIMIT 50 OFFSET 10"),
        ("SELECT Id FROM Account OFFSET 10", "SELECT Id FROM Account LIMIT 50 OFFSET 10"),
        ("SELECT COUNT() FROM Account", "SELECT COUNT() FROM Account"),
        ("SELECT MAX(Amount) m FROM Opportunity", "SELECT MAX(Amount) m FROM Opportunity"),
        (
            "SELECT StageName, COUNT(Id) n FROM Opportunity GROUP BY StageName",
            "SELECT StageName, COUNT(Id) n FROM Opportunity GROUP BY StageName LIMIT 50",
        ),
        (
            "SELECT Id, (SELECT Id FROM Contacts LIMIT 3) FROM Account WHERE Name = 'x'",
            "SELECT Id, (SELECT Id FROM Contacts LIMIT 3) FROM Account WHERE Name = 'x' LIMIT 50",
        ),
        (
            "SELECT Id FROM Case WHERE CreatedDate = LAST_N_DAYS:30 AND ClosedDate >= 2026-01-01T00:00:00Z",
            "SELECT Id FROM Case WHERE CreatedDate = LAST_N_DAYS:30 AND ClosedDate >= 2026-01-01T00:00:00Z LIMIT 50",
        ),
        (
            "SELECT Id FROM Case WHERE Subject = 'it\\'s FOR UPDATE LIMIT 9'",
            "SELECT Id FROM Case WHERE Subject = 'it\\'s FOR UPDATE LIMIT 9' LIMIT 50",
        ),
        ("SELECT Id FROM A WHERE x != null AND y IN (1, -2.5)", None),
    ],
)
def test_one_select_is_bounded(query: str, limited: str | None) -> None:
    assert soql.limited(query, 50) == (limited or f"{query} LIMIT 50")


@pytest.mark.parametrize(
    "query",
    [
        "",
        "   ",
        "DELETE FROM Account",
        "UPDATE Account SET Name = 'x'",
        "FIND {x} IN ALL FIELDS",
        "SELECT Id FROM Account FOR UPDATE",
        "SELECT Id FROM Account for view",
        "SELECT Id FROM Account FOR REFERENCE",
        "SELECT Id FROM Account LIMIT 1 UPDATE TRACKING",
        "SELECT Id FROM Account UPDATE VIEWSTAT",
        "SELECT Id FROM Account ALL ROWS",
        "SELECT Id FROM Account LIMIT 1 all\nrows",
        "SELECT Id FROM Account; SELECT Id FROM Case",
        "SELECT Id FROM Account SELECT Id FROM Case",
        "SELECT Id FROM Account LIMIT 1 LIMIT 2",
        "SELECT Id FROM Account LIMIT",
        "SELECT Id FROM Account LIMIT :n",
        "SELECT Id FROM Account LIMIT 'x'",
        "SELECT Id FROM Account WHERE Name = 'x",
        "SELECT Id FROM Account WHERE Name = 'x\\'",
        'SELECT Id FROM Account WHERE Name = "x"',
        "SELECT Id FROM Account WHERE (Name = 'x'",
        "SELECT Id FROM Account) LIMIT 1",
        "SELECT Id FROM Account -- all",
        "SELECT Id FROM Account /* x */",
        "SELECT Id FROM Account\x00",
        "SELECT Id FROM Account\u00a0LIMIT 1",
        "SELECT Id",
        "(SELECT Id FROM Account)",
        "SELECT Id FROM Account WHERE Name = 'a\nb'",
    ],
)
def test_what_is_not_one_select_is_refused(query: str) -> None:
    with pytest.raises(Refused, match="Salesforce was not asked") as refusal:
        soql.limited(query, 50)
    assert not refusal.value.asked


_STRING = re.compile(r"'(?:[^'\\]|\\.)*'")


@given(st.text(max_size=80))
@example("x' OR Name LIKE '%")
@example("\\' OR 1=1")
@example("\\")
def test_a_literal_ends_where_its_quote_does(text: str) -> None:
    assert _STRING.fullmatch(soql.quote(text))
    assert _STRING.fullmatch(soql.contains(text))
    # and our own tokenizer reads it as one value
    query = f"SELECT Id FROM Account WHERE Name = {soql.quote(text)}"
    assert soql.limited(query, 5) == f"{query} LIMIT 5"


@given(st.text(max_size=80))
def test_wildcards_of_a_text_are_plain(text: str) -> None:
    inner = soql.contains(text)[2:-2]
    assert not re.search(r"(?<!\\)(?:\\\\)*[%_]", inner)


@given(st.text(max_size=200))
def test_any_text_is_refused_or_bounded(text: str) -> None:
    for query in (text, f"SELECT {text} FROM Account", f"SELECT Id FROM Account {text}"):
        try:
            limited = soql.limited(query, 7)
        except Refused:
            continue
        assert limited.upper().lstrip().startswith("SELECT")


@given(st.text(max_size=80))
@example('a AND {b} (c) \\ "d"')
def test_a_search_has_no_operator_signs(text: str) -> None:
    try:
        words = soql.words(text)
    except Refused:
        return
    assert not set(words) & set("?&|!{}[]()^~*:\\\"'+-")
    assert words.isprintable()
