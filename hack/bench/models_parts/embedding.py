"""How the strategy Embedding does on the labelled requests: ``python hack/bench/models_parts/embedding.py``.

Needs the group ``embedding``. The tuning half is the examples, the held-out half is asked; prints what was needed and
what answered.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from models_parts.routing_set import TIERS, labelled
from pilothouse_dataplane.core.routing import nearest
from pilothouse_dataplane.models.embedding import LocalEmbedder, make_examples


async def main() -> None:
    """Embed both halves, decide each request of the held-out one."""
    embedder = LocalEmbedder()
    examples = await make_examples([(one.situation.text, one.tier) for one in labelled("tuning")], embedder)
    asked = labelled("held_out")
    vectors = await embedder.embed([one.situation.text for one in asked])
    found: Counter[tuple[str, str]] = Counter()
    taken = []
    for one, vector in zip(asked, vectors, strict=True):
        began = time.process_time()
        found[one.tier, nearest(examples, vector)[0]] += 1
        taken.append(time.process_time() - began)
    for needed in TIERS:
        print(needed, "/".join(str(found[needed, by]) for by in TIERS))
    print(f"{statistics.median(taken) * 1e3:.1f} ms to decide among {len(examples)} examples, without the embedding")


if __name__ == "__main__":
    asyncio.run(main())
