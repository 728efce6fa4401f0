"""Times in queries: literals and words such as LAST_N_DAYS:30, as ranges of epoch seconds (UTC). Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_DAY = timedelta(days=1)


def _first_of_month(day: datetime, months: int) -> datetime:
    index = day.year * 12 + day.month - 1 + months
    return day.replace(year=index // 12, month=index % 12 + 1, day=1)


def word_range(word: str, now: float) -> tuple[float, float] | None:
    """The range [from, to) of a date literal in capitals; None where there is no such word."""
    today = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    name, _, number = word.partition(":")
    sunday = today - _DAY * ((today.weekday() + 1) % 7)
    quarter = _first_of_month(today, -((today.month - 1) % 3))
    year = today.replace(month=1, day=1)
    if number:
        days = int(number)
        if days > 40_000:
            return None
        ranges = {
            "LAST_N_DAYS": (today - _DAY * days, today + _DAY),
            "NEXT_N_DAYS": (today + _DAY, today + _DAY * (days + 1)),
            "N_DAYS_AGO": (today - _DAY * days, today - _DAY * (days - 1)),
        }
    else:
        ranges = {
            "TODAY": (today, today + _DAY),
            "YESTERDAY": (today - _DAY, today),
            "TOMORROW": (today + _DAY, today + 2 * _DAY),
            "THIS_WEEK": (sunday, sunday + 7 * _DAY),
            "LAST_WEEK": (sunday - 7 * _DAY, sunday),
            "NEXT_WEEK": (sunday + 7 * _DAY, sunday + 14 * _DAY),
            "THIS_MONTH": (_first_of_month(today, 0), _first_of_month(today, 1)),
            "LAST_MONTH": (_first_of_month(today, -1), _first_of_month(today, 0)),
            "NEXT_MONTH": (_first_of_month(today, 1), _first_of_month(today, 2)),
            "THIS_QUARTER": (quarter, _first_of_month(quarter, 3)),
            "LAST_QUARTER": (_first_of_month(quarter, -3), quarter),
            "NEXT_QUARTER": (_first_of_month(quarter, 3), _first_of_month(quarter, 6)),
            "THIS_YEAR": (year, year.replace(year=year.year + 1)),
            "LAST_YEAR": (year.replace(year=year.year - 1), year),
            "LAST_90_DAYS": (today - 90 * _DAY, today + _DAY),
            "NEXT_90_DAYS": (today + _DAY, today + 91 * _DAY),
        }
    found = ranges.get(name)
    return (found[0].timestamp(), found[1].timestamp()) if found else None


def seconds_of(text: str) -> float | None:
    """Epoch seconds of a date or a time as the API writes it; None where it is none."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
