"""All tools of an agent, and the few that a request may need: models plan worse, and cost more, with hundreds. Pure.

A request is cut into clauses ("… and tell …, then close …"), each clause is matched with what tools say of themselves
(BM25 over name, description, keywords and arguments; Robertson and Zaragoza 2009), and the clauses' best are dealt in
turn, so that a long wish does not crowd out a short one. A tool that changes something brings along what finds that
thing. What was not shown can still be asked for: see ``run.FIND``.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pilothouse_dataplane.core.messages import Effect, Tool
from pilothouse_dataplane.core.words import STOP, clauses, tokens

SHOWN = 12
"""Tools that a model is shown at a time."""
_K1, _B = 1.2, 0.6
_NAME, _KEYWORD, _TEXT, _ARGUMENT = 2.5, 2.5, 1.0, 0.4
"""How much a word counts by where it stands."""
_SYSTEM = 2.2
"""How much a tool gains where its system is named."""
_EARLIER = 0.35
"""How much what was said before counts, beside the request itself."""
_FINDERS = ("search", "list", "find", "get", "query", "lookup", "me")
_SHORT = 60
"""Characters of a request that may lean on what was said before."""
_RARE = 2.0
"""Weight of a word from which on it says what a request is about, rather than what shall be done with it."""
_SENTENCES = 200
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_ENOUGH = 0.25
"""Of a clause's best score: what is below is not dealt for that clause."""


@dataclass(frozen=True, slots=True)
class _Entry:
    tool: Tool
    connector: str
    noun: str
    verb: str
    length: float


class Catalog:
    """An immutable index over tools; every run of a configuration shares it."""

    def __init__(self, tools: Iterable[Tool], systems: Mapping[str, str] | None = None, instructions: str = "") -> None:
        """``systems``: what people call each connector's system, by the connector's name. ``instructions``: what the
        tenant tells its agent; a sentence of it that speaks of what a request is about belongs to the request."""
        self.tools = tuple(tools)
        self.by_model_name: Mapping[str, Tool] = {tool.model_name: tool for tool in self.tools}
        self._entries: list[_Entry] = []
        self._postings: dict[str, list[tuple[int, float]]] = defaultdict(list)
        self._patterns: dict[str, re.Pattern[str]] = {}
        self._systems: dict[str, set[str]] = {}
        sentences = _SENTENCE.split(instructions)
        self._advice = [(set(tokens(sentence)) - STOP, clauses(sentence)) for sentence in sentences[:_SENTENCES]]
        for index, tool in enumerate(self.tools):
            self._add(index, tool, systems or {})
        count = len(self.tools)
        self._average = sum(entry.length for entry in self._entries) / count if count else 1.0
        self._weight = {
            token: math.log(1 + (count - len(found) + 0.5) / (len(found) + 0.5))
            for token, found in self._postings.items()
        }

    def _add(self, index: int, tool: Tool, systems: Mapping[str, str]) -> None:
        connector, _, rest = tool.name.partition(".")
        noun, _, verb = rest.rpartition(".")
        words: dict[str, float] = defaultdict(float)
        for weight, texts in (
            (_NAME, (rest,)),
            (_KEYWORD, tool.keywords),
            (_TEXT, (tool.description,)),
            (_ARGUMENT, _argument_texts(tool)),
        ):
            found = {token for text in texts for token in tokens(text)}
            for token in found - STOP:
                words[token] += weight
        for pattern in tool.patterns:
            self._patterns.setdefault(pattern, re.compile(pattern))
            words[pattern] = 3.0  # a number's own shape says more than any word
        for token, weight in words.items():
            self._postings[token].append((index, weight))
        if connector not in self._systems:
            named = {*tokens(connector), *tokens(systems.get(connector, ""))}
            self._systems[connector] = named - STOP
        self._entries.append(_Entry(tool, connector, noun, verb, sum(words.values())))

    def choose(self, text: str, earlier: Sequence[str] = (), limit: int = SHOWN) -> tuple[Tool, ...]:
        """At most ``limit`` tools that the request may need, the likeliest first; all where there are no more."""
        if len(self.tools) <= limit:
            return self.tools
        parts = [*clauses(text), *self._advised(text)]
        ranked = [self._rank(part) for part in parts]
        whole = self._rank(text)
        if earlier:
            before = self._rank(" ".join(earlier[-2:]))
            whole = _sum(whole, before, _EARLIER)
            if len(text) < _SHORT:  # "and close it": what it is about was said before
                ranked = [_sum(rank, before, _EARLIER) for rank in ranked]
        chosen = self._deal([*ranked, whole] if len(ranked) > 1 else [whole], limit)
        return tuple(self.tools[index] for index in chosen)

    def _advised(self, text: str) -> list[str]:
        """Clauses of the instructions that speak of what this request is about: a word of it that few tools know."""
        rare = {word for word in set(tokens(text)) - STOP if self._weight.get(word, _RARE) >= _RARE}
        return [part for words, parts in self._advice if words & rare for part in parts]

    def find(self, query: str, limit: int = 8) -> tuple[Tool, ...]:
        """The tools that fit the words best, for a model that misses one."""
        return tuple(self.tools[index] for index in _ordered(self._rank(query))[:limit])

    def _rank(self, text: str) -> dict[int, float]:
        """Scores by index."""
        asked = Counter(tokens(text))
        query = {token: 1.0 + 0.2 * (times - 1) for token, times in asked.items() if token not in STOP}
        for source, pattern in self._patterns.items():
            if pattern.search(text):
                query[source] = 1.5
        scores: dict[int, float] = defaultdict(float)
        for token, times in query.items():
            weight = self._weight.get(token)
            if weight is None:
                continue
            for index, frequency in self._postings[token]:
                length = _K1 * (1 - _B + _B * self._entries[index].length / self._average)
                scores[index] += times * weight * frequency * (_K1 + 1) / (frequency + length)
        named = {name for name, words in self._systems.items() if words and words <= set(asked)}
        if named:
            for index in scores:
                if self._entries[index].connector in named:
                    scores[index] *= _SYSTEM
            for index, entry in enumerate(self._entries):
                if entry.connector in named and index not in scores:
                    scores[index] = 0.01
        return scores

    def _deal(self, rankings: Sequence[dict[int, float]], limit: int) -> list[int]:
        chosen: dict[int, None] = {}
        queues = []
        for scores in rankings:
            order = _ordered(scores)
            best = scores[order[0]] if order else 0.0
            queues.append([index for index in order if scores[index] >= best * _ENOUGH])
        for place in range(max((len(queue) for queue in queues), default=0)):
            for queue in queues:
                if place < len(queue):
                    for index in (queue[place], *self._companions(queue[place])):
                        if len(chosen) < limit:
                            chosen.setdefault(index)
            if len(chosen) >= limit:
                break
        for index in _ordered(rankings[-1]):  # better too many than one too few
            if len(chosen) < limit:
                chosen.setdefault(index)
        return list(chosen)

    def _companions(self, index: int) -> list[int]:
        """What finds the thing that a tool changes: nobody knows its id by heart."""
        entry = self._entries[index]
        if entry.tool.effect is Effect.READ:
            return []
        nearby = [
            (_FINDERS.index(other.verb), position)
            for position, other in enumerate(self._entries)
            if other.connector == entry.connector and other.noun == entry.noun and other.verb in _FINDERS
        ]
        return [position for _, position in sorted(nearby)[:1]]


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


def _ordered(scores: Mapping[int, float]) -> list[int]:
    return sorted(scores, key=lambda index: (-scores[index], index))


def _sum(scores: Mapping[int, float], more: Mapping[int, float], weight: float) -> dict[int, float]:
    total = dict(scores)
    for index, score in more.items():
        total[index] = total.get(index, 0.0) + score * weight
    return total
