"""ServiceNow's encoded queries, built from typed parts, so that no text of a user or a model is ever read as one. Pure.

An encoded query is ``field operator value`` joined by ``^`` (and), ``^OR``, ``^NQ`` (a new query) and ``^ORDERBY``. A
value can hold a script (``javascript:…`` is run by the instance) or the word NULL (is empty). There is no quoting that
all operators and releases share, so a value with any of these is refused, and text to search for is cut into words.

Source: https://www.servicenow.com/docs/r/platform-user-interface/c_EncodedQueryStrings.html
"""

from __future__ import annotations

import re
import unicodedata

from pilothouse_dataplane.connectors.base import Refused

_FIELD = re.compile(r"[a-z][a-z0-9_]{0,79}(\.[a-z][a-z0-9_]{0,79}){0,3}")
_WORD = re.compile(r"[\w@.'-]+")
_MAX_VALUE = 255
_MAX_WORDS = 8
_OPERATOR_STARTS = "<>=!%*@"
_SCRIPT = re.compile(r"javascript\s*:", re.IGNORECASE)
_OPEN_WORD = re.compile(r"^(NULL|EMPTY|DYNAMIC)$", re.IGNORECASE)


def checked(value: str) -> str:
    """The value, if it can stand in an encoded query as itself. Raises Refused."""
    plain = "".join(
        c for c in unicodedata.normalize("NFKC", value) if unicodedata.category(c) not in ("Cf", "Zl", "Zp")
    )
    bad = (
        not value
        or len(value) > _MAX_VALUE
        or "^" in plain
        or any(unicodedata.category(c) in ("Cc", "Cs") for c in value)
        or plain.startswith(tuple(_OPERATOR_STARTS))
        or _OPEN_WORD.match(plain.strip()) is not None
        or _SCRIPT.search(plain) is not None
    )
    if bad:
        raise Refused(f"ServiceNow can't be asked for “{_shown(value)}”, so nothing was sent.", asked=False)
    return value


def _shown(value: str) -> str:
    return "".join(c if c.isprintable() else " " for c in value[:60])


def _field(name: str) -> str:
    if not _FIELD.fullmatch(name):  # our own names only: a defect, not a user's mistake
        raise ValueError(f"{name!r} is no field")
    return name


def equals(field: str, value: str) -> str:
    """``field=value``."""
    return f"{_field(field)}={checked(value)}"


def differs(field: str, value: str) -> str:
    """``field!=value``."""
    return f"{_field(field)}!={checked(value)}"


def contains(field: str, value: str) -> str:
    """``fieldLIKEvalue``."""
    return f"{_field(field)}LIKE{checked(value)}"


def one_of(field: str, values: list[str]) -> str:
    """``fieldINa,b``. A comma in a value would make two of it."""
    for value in values:
        if "," in value:
            raise Refused(f"ServiceNow can't be asked for “{_shown(value)}”, so nothing was sent.", asked=False)
    return f"{_field(field)}IN{','.join(checked(value) for value in values)}"


def either(*clauses: str) -> str:
    """Any of these; ``^OR`` binds closer than ``^``."""
    return "^OR".join(clauses)


def every(*clauses: str, newest: str = "") -> str:
    """All of these (empty ones are left out), ordered by the field ``newest``, newest first."""
    order = [f"ORDERBYDESC{_field(newest)}"] if newest else []
    return "^".join([*(clause for clause in clauses if clause), *order])


def words(text: str) -> list[str]:
    """What to look for: words without any sign that means something to the instance, at most eight."""
    found = _WORD.findall(unicodedata.normalize("NFKC", text))
    kept = [word.strip("-.'@") for word in found]
    return [w for w in kept if w and not _OPEN_WORD.match(w)][:_MAX_WORDS]


def text_in(fields: tuple[str, ...], text: str) -> str:
    """Every word of ``text`` in one of the fields; "" where it has no words."""
    return every(*(either(*(contains(field, word[:80]) for field in fields)) for word in words(text)))
