"""Words of a request and of a tool, brought to one form: small, plain, and the same for both sides. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from pilothouse_dataplane.core import vocabulary

_WORD = re.compile(r"[A-Z]{2,}s(?![a-z])|[A-Z]+(?![a-z])|[A-Za-z][a-z]*|2fa|\d+")
_CLAUSE = re.compile(
    r"[.;:!?\n]+(?=\s|$)|,(?=\s)|\s[-–]\s|\b(?:and then|and also|and|then|also|plus|after that)\b",
    re.IGNORECASE,
)
_QUOTED = re.compile(r"\"[^\"]{3,1000}\"|“[^”]{3,1000}”")
_ONE_ON_ONE = re.compile(r"\b1\s?(?::|on|-on-)\s?1s?\b", re.IGNORECASE)
_TOLD = re.compile(
    r"[^\s@]{1,64}@\S{1,64}|\bhttps?://\S{1,200}|\bwww\.\S{1,200}"
    r"|\b(?!p9\d\b|2fa\b)(?=[\w-]{0,64}\d)(?=[\w-]{0,64}[A-Za-z])[\w-]{3,64}\b"
    r"|\b\d{1,20}(?:[:.,]\d{1,20}){1,4}\b|\b\d{1,20}(?:[:.,]\d{1,20}){0,4}\s?(?:am|pm|h|hrs?|hours?|mins?|minutes?|days?|"
    r"weeks?|months?|years?|times?|o'clock|euros?|eur|dollars?|usd|%)(?!\w)",
    re.IGNORECASE,
)
"""Addresses, keys, amounts and times: what a tool is called with, not what it is."""
_TIME = re.compile(
    r"\b(?:at \d{1,2}(?:[:.]\d\d)?|\d{1,2}\s?(?:am|pm|o'clock)|tomorrow|tonight|next week|"
    r"this (?:morning|afternoon|evening|week)|(?:mon|tues|wednes|thurs|fri|satur|sun)day)\b",
    re.IGNORECASE,
)
STOP = frozenset(vocabulary.STOP.split())
"""Words that say nothing of what is wanted, in requests and in descriptions."""
_FAMILY, _RELATED, _LEADS = 0.9, 0.6, 0.5
"""How much a word counts as another: as a form of it, as one that means the like, as one that it makes likely."""
_VERB = 0.5
"""How much a word counts where it says what to do: that is what its kind of action says, too."""
_TIMED = 0.3
"""How much it counts that a time is told: it may be about the calendar."""
_LONGEST_PHRASE = 4
_NOTHING: Mapping[str, float] = MappingProxyType({})
READ = "read"
_ASKING = re.compile(
    r"\W*(?:(?:please|pls|hi|hello|hey|ok|okay|great|sorry|thanks|so|then|now|and|also|just|if|can you|could you|"
    r"would you|will you|i want to|i want you to|i'd like to|i would like to|i need to|we need to)\b[\s,]*)*"
    r"(?:who|whom|whose|what|which|when|where|why|how|is|are|was|were|do|does|did|has|have|any|show|list|find|search|"
    r"look|tell me|check|see|read|get me the|give me the|whats|whos|summari[sz]e)\b",
    re.IGNORECASE,
)
_NOUN_AFTER = frozenset(vocabulary.NOUN_AFTER.split())
_VERB_AFTER = frozenset(vocabulary.VERB_AFTER.split())


@lru_cache(maxsize=4096)
def stem(word: str) -> str:
    """A word's plain form: plurals and -ing, -ed endings go."""
    plain = word
    if len(plain) > 4 and plain.endswith("ies"):
        plain = plain[:-3] + "y"
    elif len(plain) > 4 and plain.endswith(("sses", "xes", "ches", "shes")):
        plain = plain[:-2]
    elif len(plain) > 3 and plain.endswith("s") and not plain.endswith(("ss", "us", "is")):
        plain = plain[:-1]
    if len(plain) > 5 and plain.endswith("ing"):
        plain = _undoubled(plain[:-3])
    elif len(plain) > 4 and plain.endswith("ied"):
        plain = plain[:-3] + "y"
    elif len(plain) > 4 and plain.endswith("ed"):
        plain = _undoubled(plain[:-2])
    return plain[:-1] if len(plain) > 3 and plain.endswith("e") and not plain.endswith("ee") else plain


def _undoubled(word: str) -> str:
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "slz" else word


_TWOFOLD = frozenset(map(stem, vocabulary.TWOFOLD.split()))


class _Lexicon:
    """``core.vocabulary``, read once."""

    def __init__(self) -> None:
        self.phrases: dict[tuple[str, ...], str] = {}
        self._near: dict[str, dict[str, float]] = {}
        for line in vocabulary.PHRASES.split("\n"):
            token, _, phrases = line.partition(":")
            for phrase in phrases.split():
                self.phrases[tuple(_WORD.findall(phrase))] = token
        self.whole = frozenset(self.phrases.values())
        """Phrases that stand for one word; "" for none."""
        for line in vocabulary.FAMILIES.split("\n"):
            self._relate(line.split(), line.split(), _FAMILY)
        for line in vocabulary.RELATED.split("\n"):
            left, leads, right = line.partition(">")
            self._relate(left.split(), (right if leads else left).split(), _LEADS if leads else _RELATED)
        self.related: Mapping[str, Mapping[str, float]] = self._near
        self.actions: dict[str, set[str]] = {}
        for line in vocabulary.ACTIONS.split("\n"):
            for word in line.split():
                self.actions.setdefault(stem(word), set()).add(line.split()[0])

    def _relate(self, ones: Iterable[str], others: Iterable[str], weight: float) -> None:
        targets = [self._token(other) for other in others]
        for one in ones:
            near = self._near.setdefault(self._token(one), {})
            for target in targets:
                near[target] = max(weight, near.get(target, 0.0))

    def _token(self, word: str) -> str:
        parts = tuple(_WORD.findall(word))
        if len(parts) == 1:
            return word if word in self.whole else stem(word)
        return word if word in self.whole else self.phrases.setdefault(parts, word)


_lexicon = _Lexicon()


COMMON = frozenset(map(stem, vocabulary.COMMON.split()))
"""Words that people use for anything."""


def related(token: str) -> Mapping[str, float]:
    """Other tokens, and how much each of them counts as this one (0..1)."""
    return _lexicon.related.get(token, _NOTHING)


def known() -> Iterable[str]:
    """All tokens of the vocabulary."""
    return _lexicon.related.keys()


def tokens(text: str) -> list[str]:
    """The plain words of a text, and its phrases; ``camelCase``, ``snake_case`` and ``dotted.names`` come apart. The
    words of a phrase that stands for one word are left out."""
    return [token for token, _ in _read([word.lower() for word in _WORD.findall(text)])]


def _read(raw: list[str]) -> Iterable[tuple[str, int]]:
    """Tokens, and at which word each begins."""
    place = 0
    while place < len(raw):
        phrase = None
        for length in range(min(_LONGEST_PHRASE, len(raw) - place), 1, -1):
            phrase = _lexicon.phrases.get(tuple(raw[place : place + length]))
            if phrase is not None:
                break
        if phrase:
            yield phrase, place
        if phrase is not None and phrase in _lexicon.whole:
            place += length
            continue
        if raw[place] not in STOP:
            yield stem(raw[place]), place
        place += 1


@dataclass(frozen=True, slots=True)
class Asked:
    """What a part of a request says."""

    words: Mapping[str, float]
    """Tokens, and how much each counts (0..1)."""
    actions: frozenset[str]
    """Kinds of doing, the first words of ``vocabulary.ACTIONS``' lines; ``read`` for a question."""


def asked(text: str) -> Asked:
    """Read a part of a request."""
    raw = [word.lower() for word in _WORD.findall(_TOLD.sub(" 0 ", _ONE_ON_ONE.sub("one on one", text)))]
    words: dict[str, float] = {}
    does: set[str] = set()
    if _TIME.search(text):
        words["time_told"] = _TIMED
    begun = False
    for token, place in _read(raw):
        before = raw[place - 1] if place else ""
        action = _lexicon.actions.get(token)
        weight = 1.0
        if action is not None and before not in _NOUN_AFTER and not raw[place].endswith("ed"):
            does |= action
            if token in _TWOFOLD and (not begun or before in _VERB_AFTER):
                weight = _VERB
        begun = True
        words[token] = max(weight, words.get(token, 0.0))
    if _ASKING.match(text):
        does.add(READ)
    return Asked(words, frozenset(does))


def action_of(name: str, description: str) -> frozenset[str]:
    """What kinds of doing a tool's name, else the first word of its description, speaks of."""
    words = [stem(word.lower()) for word in _WORD.findall(name)]
    found = set().union(*(_lexicon.actions.get(word, ()) for word in words))
    return frozenset(found or set().union(*(_lexicon.actions.get(word, ()) for word in tokens(description)[:1])))


def without_quotes(text: str) -> str:
    """The text without what is quoted in it: that is what a tool is called with."""
    said = _QUOTED.sub(" ", text)
    return said if tokens(said) else text


_CONTENT = re.compile(r":\s+|\s[-–]\s")


def wishes(text: str) -> tuple[str, str]:
    """What is wanted, and what it is to be done with: "comment on IT-1: it works again"."""
    head, tail = [*_CONTENT.split(text, 1), ""][:2]
    if not tail or not asked(head).words:
        return text, ""
    first = asked(tail.split(" ", 1)[0])
    return (text, "") if first.actions or not asked(head).actions else (head, tail)


def clauses(text: str) -> list[str]:
    """The parts of a request that may each be a wish of its own."""
    parts = [part.strip() for part in _CLAUSE.split(text)]
    return [part for part in parts if len(part) > 2][:8] or [text]
