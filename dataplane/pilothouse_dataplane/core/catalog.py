"""All tools of an agent, and the few that a request may need: models plan worse, and cost more, with hundreds. Pure.

A request is cut into clauses ("… and tell …, then close …"). Each is matched with what tools say of themselves: BM25
over name, description, keywords and arguments (Robertson and Zaragoza 2009), where a word also counts as those that
mean the like (``core.vocabulary``), and a tool that does what the clause asks for counts more. Every clause has its
places, so that a long wish does not crowd out a short one. A tool brings along what finds the thing that it is about.
What was not shown can still be asked for: see ``run.FIND``.
"""

from __future__ import annotations

import math
import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pilothouse_dataplane.core import words
from pilothouse_dataplane.core.messages import Effect, Tool
from pilothouse_dataplane.core.words import READ, asked, clauses, related, stem, tokens

SHOWN = 12
"""Tools that a model is shown at a time."""
_K1, _B = 1.2, 0.6
_NAME, _KEYWORD, _TEXT, _ARGUMENT, _CONNECTOR = 3.0, 2.0, 1.5, 0.3, 0.5
"""How much a word counts by where it stands."""
_SYSTEM = 2.2
"""How much a tool gains where its system is named."""
_PATTERN = 8.0
"""What a tool gains by a number's own shape, which says more than any word."""
_DOES = 1.4
"""How much a tool gains that does what is asked for."""
_LEANING, _EARLIER = 0.7, 0.3
"""How much what was said before counts, beside a request that may lean on it, and beside one that need not."""
_SHORT = 60
"""Characters of a request that may lean on what was said before."""
_SURE, _FAINT = 0.5, 0.4
"""A clause whose best score is this share of the best of all counts in full; one below the second has no place."""
_PLACES = 0.5
"""Share of all places that clauses have for themselves."""
_CROWD, _LATER, _BROUGHT, _HUB = 0.97, 0.97, 0.7, 0.75
"""What is left of a tool's worth for each one of its connector before it, for each one before it; of what it brings."""
_NEIGHBOUR = 0.2
"""Share of its connector's best tool that each tool of it gains: a system that is spoken of may be needed otherwise."""
_NOTHING_BESIDE = 0.15
"""A score that is this share of the best is none."""
_COMMON = 2.0
"""Largest weight of a word that people use for anything."""
_RARE = 2.0
"""Weight of a word from which on it says what a request is about, rather than what shall be done with it."""
_READ = 4000
"""Characters that are read of a turn."""
_SENTENCES = 200
_SENTENCE = re.compile(r"(?<=[.!?:;])\s+|\n\s*\n|\n(?=\s*[-*•\d])")
"""A line's end alone is none: people wrap their lines."""
_PERSONA = re.compile(r"\W*(?:you(?:'re| are| help| support| assist| work| serve)|your (?:name|role|job|task))\b", re.I)
"""A sentence that says who the agent is speaks of no request."""
_FINDERS = ("search", "list", "find", "get", "query", "lookup", "me")
_SEARCH = stem("search")
_LISTS = frozenset(map(stem, ("list", "search", "find", "query")))
_PLAIN = _LISTS | frozenset(map(stem, ("get", "read", "create", "add", "update", "edit", "delete", "remove", "set")))
"""Words in names of operations that don't say what they are about."""
_METHODS = {"put": "update", "patch": "update", "post": "create", "insert": "create"}
"""HTTP's words in names of operations, and what people say."""
_TYPO = 6
"""Letters from which on a word may have one of them wrong."""


@dataclass(frozen=True, slots=True)
class _Entry:
    tool: Tool
    connector: str
    noun: str
    verb: str
    named: frozenset[str]
    """The words of ``verb``."""
    ids: frozenset[str]
    """Required arguments that people don't know by heart."""


@dataclass(frozen=True, slots=True)
class _Found:
    """Tools by index, and how much each has of a word."""

    indexes: array[int]
    shares: array[float]


@dataclass(frozen=True, slots=True)
class _Ranking:
    scores: list[float]
    """By the tools' indexes."""
    strength: float
    """The best score before systems' names counted."""


_NONE = _Found(array("I"), array("d"))


class Catalog:
    """An immutable index over tools; every run of a configuration shares it."""

    def __init__(self, tools: Iterable[Tool], systems: Mapping[str, str] | None = None, instructions: str = "") -> None:
        """``systems``: what people call each connector's system, by the connector's name. ``instructions``: what the
        tenant tells its agent; a sentence of it that speaks of what a request is about belongs to the request."""
        self.tools = tuple(tools)
        self.by_model_name: Mapping[str, Tool] = {tool.model_name: tool for tool in self.tools}
        self._entries: list[_Entry] = []
        self._patterns: dict[str, tuple[re.Pattern[str], list[int]]] = {}
        self._systems: dict[str, frozenset[str]] = {}
        self._by_connector: dict[str, list[int]] = defaultdict(list)
        self._by_action: dict[str, list[int]] = defaultdict(list)
        worded = [self._add(index, tool, systems or {}) for index, tool in enumerate(self.tools)]
        self._postings = _postings(worded)
        self._matches: dict[str, _Found] = {}
        self._spelled: dict[tuple[str, int], list[str]] = defaultdict(list)
        for token in {*self._postings, *words.known()}:
            if len(token) >= _TYPO - 1 and token.isalpha():
                self._spelled[token[0], len(token)].append(token)
        for same in self._spelled.values():
            same.sort()
        self._finders = [self._finder(index) for index in range(len(self.tools))]
        self._hubs = {connector: self._hub(indexes) for connector, indexes in self._by_connector.items()}
        sentences = [said for said in _SENTENCE.split(instructions)[:_SENTENCES] if not _PERSONA.match(said)]
        self._advice = [(set(tokens(sentence)), clauses(sentence)) for sentence in sentences]

    def _add(self, index: int, tool: Tool, systems: Mapping[str, str]) -> tuple[Mapping[str, float], float]:
        """Take a tool in. Its words, how much each says of it, and its length without what only helps to find it."""
        connector, _, rest = tool.name.partition(".")
        noun, _, verb = rest.rpartition(".")
        found: dict[str, float] = defaultdict(float)
        named = tokens(rest)
        named = [_METHODS.get(token, token) if place + 1 < len(named) else token for place, token in enumerate(named)]
        for weight, group in (
            (_NAME, named),
            (_KEYWORD, [token for text in tool.keywords for token in tokens(text)]),
            (_TEXT, tokens(tool.description)),
            (_ARGUMENT, [token for text in _argument_texts(tool) for token in tokens(text)]),
            (_CONNECTOR, tokens(f"{connector} {systems.get(connector, '')}")),
        ):
            for token in set(group):
                if weight >= _KEYWORD or not token.isdigit():  # a number in a sentence is a bound, or an example
                    found[token] += weight
        for pattern in tool.patterns:
            self._patterns.setdefault(pattern, (re.compile(pattern), []))[1].append(index)
        if connector not in self._systems:
            self._systems[connector] = frozenset(tokens(f"{connector} {systems.get(connector, '')}"))
        required = tool.parameters.get("required")
        names = map(str, required) if isinstance(required, list | tuple) else ()
        ids = frozenset(name for name in names if name.lower().endswith(("id", "number", "key")))
        self._entries.append(_Entry(tool, connector, noun, verb, frozenset(tokens(verb)), ids))
        self._by_connector[connector].append(index)
        if tool.effect is Effect.READ:
            self._by_action[READ].append(index)
        else:
            for action in words.action_of(verb, tool.description) - {READ}:
                self._by_action[action].append(index)
        return found, len(set(named)) * _NAME + len(set(tokens(tool.description))) * _TEXT

    def _idf(self, count: int) -> float:
        return math.log(1 + (len(self.tools) - count + 0.5) / (count + 0.5))

    def _match(self, token: str) -> _Found:
        """How much each tool has of a word: of the word itself, and of those that mean the like."""
        found = self._matches.get(token)
        if found is None:
            found = self._matched(token)
            if found is _NONE:
                return self._misspelled(token)
            self._matches[token] = found  # words that are not known are not kept: there is no end of them
        return found

    def _matched(self, token: str) -> _Found:
        own = self._postings.get(token, _NONE)
        near = [(self._postings[o], w) for o, w in related(token).items() if o != token and o in self._postings]
        if not own.indexes and not near:
            return _NONE
        anywhere = set(own.indexes).union(*(found.indexes for found, _ in near))
        whole = self._idf(len(anywhere))
        if token in words.COMMON:
            whole = min(whole, _COMMON)
        best: dict[int, float] = {}
        for posting, weight in near:
            for index, share in zip(posting.indexes, posting.shares, strict=True):
                best[index] = max(best.get(index, 0.0), share * weight * whole)
        exact = (self._idf(len(own.indexes)) + whole) / 2
        if token in words.COMMON:
            exact = min(exact, _COMMON)
        for index, share in zip(own.indexes, own.shares, strict=True):
            best[index] = max(best.get(index, 0.0), share * exact)
        return _Found(array("I", best), array("d", best.values()))

    def _misspelled(self, token: str) -> _Found:
        """What a word would match with one letter more, less, other or swapped with its neighbour."""
        if len(token) < _TYPO or not token.isalpha() or related(token):
            return _NONE  # too short to tell, or a word that is known, and that no tool has
        for length in (len(token), len(token) + 1, len(token) - 1):
            for other in self._spelled.get((token[0], length), ()):
                if _one_apart(token, other):
                    found = self._matched(other)  # not _match: two words that no tool has may be one letter apart
                    if found is not _NONE:
                        return found
        return _NONE

    def choose(self, text: str, earlier: Sequence[str] = (), limit: int = SHOWN) -> tuple[Tool, ...]:
        """At most ``limit`` tools that the request may need, the likeliest first; all where there are no more."""
        if len(self.tools) <= limit:
            return self.tools
        text, content = words.wishes(words.without_quotes(text[:_READ]))
        before = " ".join([*(turn[:_READ] for turn in earlier[-2:]), content])
        leaning = (
            _LEANING if earlier and len(text) < _SHORT else _EARLIER if content else 0.0
        )  # "and close it": what it is about was said before
        rankings = [self._rank(part, before, leaning) for part in clauses(text)]
        if len(rankings) > 1:
            rankings.append(self._rank(text, before, leaning or _EARLIER))
        chosen = self._deal(rankings, limit)
        if advised := self._advised(text):  # half for what she said, half for what her company adds to it
            added = self._deal([self._rank(part) for part in (*advised, " ".join(advised))], limit)
            half = limit // 2
            chosen = list(dict.fromkeys((*chosen[: limit - half], *added[:half], *chosen, *added)))[:limit]
        return tuple(self.tools[index] for index in chosen)

    def _advised(self, text: str) -> list[str]:
        """Clauses of the instructions that speak of what this request is about: a word of it that few tools know."""
        if not any(said for said, _ in self._advice):
            return []
        rare = {word for word in tokens(text) if self._idf(len(self._postings.get(word, _NONE).indexes)) >= _RARE}
        return [part for said, parts in self._advice if said & rare for part in parts]

    def find(self, query: str, limit: int = 8) -> tuple[Tool, ...]:
        """The tools that fit the words best, for a model that misses one."""
        scores = self._rank(query).scores
        return tuple(self.tools[index] for index in _best(scores, limit))

    def _rank(self, text: str, before: str = "", leaning: float = 0.0) -> _Ranking:
        scores = [0.0] * len(self.tools)
        said = asked(text)
        for token, weight in said.words.items():
            self._score(scores, token, weight)
        if before and leaning:
            for token, weight in asked(before).words.items():
                if token not in said.words:
                    self._score(scores, token, weight * leaning)
        for pattern, indexes in self._patterns.values():
            times = 1.0 if pattern.search(text) else leaning if before and pattern.search(before) else 0.0
            if times:
                for index in indexes:
                    scores[index] += _PATTERN * times
        for index in {index for action in said.actions for index in self._by_action.get(action, ())}:
            scores[index] *= _DOES
        strength = max(scores, default=0.0)
        for indexes in self._by_connector.values():
            share = _NEIGHBOUR * max([scores[index] for index in indexes])
            if share:
                for index in indexes:
                    scores[index] += share
        for connector, named in self._systems.items():
            if named and named <= said.words.keys():
                for index in self._by_connector[connector]:
                    scores[index] = scores[index] * _SYSTEM + 0.01
        return _Ranking(scores, strength)

    def _score(self, scores: list[float], token: str, weight: float) -> None:
        found = self._match(token)
        for index, share in zip(found.indexes, found.shares, strict=True):
            scores[index] += share * weight

    def _deal(self, rankings: Sequence[_Ranking], limit: int) -> list[int]:
        """The tools that are worth most: to a clause, or to the request as a whole, which is the last ranking."""
        top = max((ranking.strength for ranking in rankings), default=0.0) or 1.0
        parts = rankings[:-1] or rankings
        clear = [ranking for ranking in parts if ranking.strength > top * _FAINT]
        places = max(1, int(_PLACES * limit / len(clear))) if clear else 0
        worth: dict[int, float] = {}
        for ranking in rankings:
            order = _best(ranking.scores, 2 * limit)
            if not order:
                continue
            best = ranking.scores[order[0]]
            sure = min(1.0, ranking.strength / (top * _SURE))
            kept = places if any(ranking is one for one in clear) else 0
            seen: Counter[str] = Counter()
            for rank, index in enumerate(order):
                connector = self._entries[index].connector
                value = sure * ranking.scores[index] / best * _CROWD ** seen[connector] * _LATER**rank
                seen[connector] += 1
                for which, gained in (
                    (index, value + (rank < kept)),
                    (self._finders[index], (value + (2 * rank < kept)) * _BROUGHT),
                    (self._hubs[connector], (value + (rank < min(kept, 1))) * _HUB),
                ):
                    if which is not None and gained > worth.get(which, 0.0):
                        worth[which] = gained
        chosen = sorted(worth, key=lambda index: (-worth[index], index))[:limit]
        # better too many than one too few
        chosen += [index for index in range(min(2 * limit, len(self.tools))) if index not in worth]
        return chosen[:limit]

    def _finder(self, index: int) -> int | None:
        """What finds the thing that a tool is about: nobody knows its id by heart."""
        entry = self._entries[index]
        if entry.tool.effect is Effect.READ and not entry.ids:
            return None
        best, found = 0.0, None
        for position in self._by_connector[entry.connector]:
            other = self._entries[position]
            if position == index or other.tool.effect is not Effect.READ or (entry.ids and entry.ids <= other.ids):
                continue
            if entry.noun or other.noun:
                fits = other.noun == entry.noun and other.verb in _FINDERS
                score = 1 / (1 + _FINDERS.index(other.verb)) if fits else 0.0
            else:
                score = self._alike(entry.named, other.named)
            if score > best:
                best, found = score, position
        return found

    def _alike(self, own: frozenset[str], other: frozenset[str]) -> float:
        """How likely an operation lists what another one is about, by their names."""
        shared = (own & other) - _PLAIN
        if not shared:
            return 0.0
        rare = sum(self._idf(len(self._postings.get(token, _NONE).indexes)) for token in shared)
        return max(0.1, rare - 0.3 * len(other - own - _PLAIN)) + 0.5 * bool(other & _LISTS)

    def _hub(self, indexes: Sequence[int]) -> int | None:
        """The tool with which most things of a connector can be found; None where it has no such tool."""
        counted = Counter(finder for index in indexes if (finder := self._finders[index]) is not None)
        searches = [
            index
            for index in indexes
            if self._entries[index].tool.effect is Effect.READ
            and not self._entries[index].ids
            and _SEARCH in self._entries[index].named
        ]
        return max(searches, key=lambda index: (counted[index], -index), default=None)


def _postings(worded: Sequence[tuple[Mapping[str, float], float]]) -> dict[str, _Found]:
    """Which tools have a word, and the part of BM25 that does not depend on a request."""
    average = sum(length for _, length in worded) / len(worded) if worded else 1.0
    postings: dict[str, _Found] = {}
    for index, (found, length) in enumerate(worded):
        norm = _K1 * (1 - _B + _B * length / (average or 1.0))
        for token, frequency in found.items():
            posting = postings.get(token)
            if posting is None:
                posting = postings[token] = _Found(array("I"), array("d"))
            posting.indexes.append(index)
            posting.shares.append(frequency * (_K1 + 1) / (frequency + norm))
    return postings


def _one_apart(word: str, other: str) -> bool:
    """Whether one letter is more, less, other, or swapped with its neighbour."""
    start = next((place for place, (a, b) in enumerate(zip(word, other, strict=False)) if a != b), None)
    if start is None:
        return abs(len(word) - len(other)) == 1
    rest, rest_other = word[start:], other[start:]
    return (
        rest[1:] == rest_other[1:]
        or rest[1:] == rest_other
        or rest == rest_other[1:]
        or (rest[:2] == rest_other[1::-1] and rest[2:] == rest_other[2:])
    )


def _argument_texts(tool: Tool) -> list[str]:
    properties = tool.parameters.get("properties")
    if not isinstance(properties, Mapping):
        return []
    texts = []
    for name, schema in properties.items():
        texts.append(str(name))
        if isinstance(schema, Mapping) and isinstance(schema.get("description"), str):
            texts.append(schema["description"][:200])
    return texts


def _best(scores: Sequence[float], limit: int) -> list[int]:
    """The indexes of the largest scores, the largest first; of equals the first first. None that is nothing beside the
    best."""
    least = max(scores, default=0.0) * _NOTHING_BESIDE
    order = sorted([(-score, index) for index, score in enumerate(scores) if score > least])
    return [index for _, index in order[:limit]]
