"""What a request and the state of its run look like to the router: a few numbers between 0 and 3. Pure.

Only the first and the last part of a long text are read, and each word counts once where length is measured, so that
padding gains nothing and the time is bounded.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

from pilothouse_dataplane.core import routing_phrases as phrases
from pilothouse_dataplane.core.messages import Situation
from pilothouse_dataplane.core.routing_words import OPENERS, SORTS, SYSTEMS, Sort

_HEAD, _TAIL = 1500, 500
"""Characters that are read of a long text."""
_COURTESIES = 8
"""Words of courtesy that are taken off a sentence's front."""
_NONE: frozenset[Sort] = frozenset()
_DOING = frozenset({Sort.WRITE, Sort.MAKE})
_QUOTED_LONG = 150
"""Characters of quoted text from which on it is something to work through."""
_SINGULAR = "this is was has does his its yes thus less always christmas address status access news us"
_NOT_PLURAL = frozenset(_SINGULAR.split())

NAMES = (
    "words",
    "many_words",
    "clauses",
    "systems",
    "writes",
    "many_writes",
    "judges",
    "opinions",
    "makes",
    "digests",
    "scope",
    "conditions",
    "we",
    "degrees",
    "matters",
    "spans",
    "bounds",
    "open_ended",
    "complaint",
    "plurals",
    "identifiers",
    "bulk",
    "conditional_write",
    "many_asks",
    "plain_question",
    "plain_read",
    "plain_write",
    "fragment",
    "reply",
    "other_form",
    "follow_up",
    "long_text",
    "rounds",
    "run_writes",
    "failed_calls",
)
"""In the order of ``Features.values`` and of the weights."""


@dataclass(frozen=True, slots=True)
class Features:
    """Of one request."""

    values: tuple[float, ...]
    """In the order of ``NAMES``, each 0..3."""
    notes: tuple[str, ...]
    """What stands out, a few words each, for the decision's reason."""


def features(situation: Situation) -> Features:
    """Look at a request. Bounded time, whatever the text; never raises."""
    text, long = _read(situation.text)
    clauses = [part for part in map(_bare, phrases.CLAUSE.split(text)) if len(part) > 2]
    distinct = {word.removesuffix("'s") for word in phrases.WORD.findall(text)}
    counts = dict.fromkeys(Sort, 0)
    for word in distinct:
        for sort in SORTS.get(word, _NONE):
            counts[sort] += 1
    systems = {SYSTEMS[word] for word in distinct if word in SYSTEMS}
    asks = sum(phrases.ASKING.match(part) is not None for part in {*map(_bare, phrases.SENTENCE.split(text)), *clauses})
    begun = [_begins(part) for part in clauses]
    writes = sum(Sort.WRITE in sorts for sorts in begun)
    makes = sum(Sort.MAKE in sorts for sorts in begun) + len(phrases.DOCUMENT.findall(text))
    scope = counts[Sort.SCOPE] + len(phrases.SCOPE.findall(text))
    conditions = counts[Sort.CONDITION] + len(phrases.CONDITION.findall(text))
    spans = len(phrases.SPAN.findall(text))
    bounds = len(phrases.BOUND.findall(text))
    open_ended = len(phrases.OPEN_ENDED.findall(text))
    complaint = phrases.COMPLAINT.search(text) is not None
    plurals = _plurals(distinct)
    size = len(distinct)
    judged = open_ended + counts[Sort.JUDGE] + makes + counts[Sort.OPINION]
    plain = not judged and counts[Sort.MATTER] < 2 and not (spans and (conditions or counts[Sort.DEGREE] or size > 16))
    bulk = writes > 0 and (scope > 0 or (conditions > 0 and plurals > 0))
    reply = not text or phrases.REPLY.fullmatch(text) is not None
    question = asks > 0 and plain and not writes
    reading = not asks and plain and not bulk and phrases.READING.match(_bare(text)) is not None
    changing = 0 < writes <= 2 and plain and not bulk and len(clauses) <= 4
    marked = scope or counts[Sort.DEGREE] or counts[Sort.WE] or counts[Sort.MATTER] or spans or bounds or conditions
    fragment = size <= 8 and not judged and not writes and not marked
    values = (
        min(size, 10) / 10,
        min(max(size - 10, 0), 20) / 20,
        min(max(len(clauses) - 1, 0), 4) / 2,
        min(max(len(systems) - 1, 0), 3) / 1.5,
        float(writes > 0),
        float(min(max(writes - 1, 0), 2)),
        float(min(counts[Sort.JUDGE], 2)),
        float(min(counts[Sort.OPINION], 2)),
        float(min(makes, 2)),
        float(counts[Sort.DIGEST] > 0),
        float(min(scope, 2)),
        float(min(conditions, 3)),
        float(counts[Sort.WE] > 0),
        float(min(counts[Sort.DEGREE], 2)),
        float(min(counts[Sort.MATTER], 3)),
        float(min(spans, 2)),
        float(min(bounds, 2)),
        float(min(open_ended, 2)),
        float(complaint),
        min(plurals, 4) / 2,
        min(len(phrases.IDENTIFIER.findall(text)), 3) / 1.5,
        float(bulk),
        float(writes > 0 and conditions > 0),
        float(min(max(asks - 1, 0), 2)),
        float(question),
        float(reading),
        float(changing),
        float(fragment),
        float(reply),
        float(not (question or reading or changing or fragment or reply or complaint)),
        float(situation.earlier_turns > 0 and size <= 6),
        float(long),
        float(min(max(situation.rounds - 1, 0), 3)),
        min(situation.writes, 4) / 2,
        float(min(situation.failed_calls, 2)),
    )
    told = (
        (situation.failed_calls, "calls that could not be made"),
        (situation.rounds if situation.rounds > 1 else 0, f"{situation.rounds} rounds"),
        (int(long), "a long text"),
        (len(systems) if len(systems) > 1 else 0, f"{len(systems)} kinds of systems"),
        (judged - makes, "something to judge"),
        (makes, "something to work out"),
        (counts[Sort.DIGEST], "a text to sum up or translate"),
        (conditions, "a condition" if conditions == 1 else f"{conditions} conditions"),
        (scope, "all of a kind"),
        (spans, "a span of time"),
        (bounds, "a bound"),
        (writes, "a write" if writes == 1 else f"{writes} writes"),
        (int(complaint), "something out of order"),
        (int(reply), "a greeting or a short reply"),
        (asks, "a question" if asks == 1 else f"{asks} questions"),
    )
    return Features(values, tuple([note for count, note in told if count][:3]))


def _read(text: str) -> tuple[str, bool]:
    """The text in small letters, without what it says of models, and whether there is much to read in it."""
    long = len(text) > _HEAD + _TAIL
    if long:
        text = f"{text[:_HEAD]}\n{text[-_TAIL:]}"
    text = unicodedata.normalize("NFKC", text)[: 2 * (_HEAD + _TAIL)].replace("’", "'").lower()
    text = phrases.TIER_SET.sub(" ", text)
    if phrases.ABOUT_MODELS.search(text):
        text = "".join(part for part in phrases.PART.split(text) if not phrases.ABOUT_MODELS.search(part))
    quoted = sum(map(len, phrases.QUOTED.findall(text)))
    text = phrases.QUOTED.sub(' "" ', text)
    text = phrases.DEFINITION.sub(" what is ", phrases.INDIRECT.sub(" is ", text)).strip()
    return phrases.NO_SCOPE.sub(" ", text).strip(" \t\n,.;:!()"), long or quoted >= _QUOTED_LONG


def _bare(sentence: str) -> str:
    """Without words of courtesy at its front."""
    at = 0
    for _ in range(_COURTESIES):
        match = phrases.COURTESY.match(sentence, at)
        if match is None:
            break
        at = match.end()
    return sentence[at:].strip()


def _begins(clause: str) -> frozenset[Sort]:
    """What the verb says with which a clause begins, after words of courtesy; nothing for questions."""
    if phrases.FOR_ME.search(clause) or phrases.ASKING.match(clause):
        return _NONE
    for word in phrases.WORD.findall(clause[:120])[:5]:
        sorts = SORTS.get(word, _NONE) & _DOING
        if sorts:
            return sorts
        if word not in OPENERS:
            break
    return _NONE


def _plurals(words: set[str]) -> int:
    return sum(
        len(word) > 3 and word[-1] == "s" and word[-2] not in "sui'" and word not in _NOT_PLURAL for word in words
    )
