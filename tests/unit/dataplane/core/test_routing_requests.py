"""The labelled requests of the router are what their README says: split by the rule, with the mix of a day."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

DATA = Path(__file__).resolve().parents[4] / "hack" / "bench" / "data" / "routing"
REQUESTS = [json.loads(line) for line in (DATA / "requests.jsonl").read_text().splitlines()]


def test_the_halves_follow_from_the_ids_alone() -> None:
    assert len({one["id"] for one in REQUESTS}) == len(REQUESTS)
    for one in REQUESTS:
        held_out = hashlib.sha256(one["id"].encode()).digest()[0] >= 128
        assert one["half"] == ("held_out" if held_out else "tuning"), one["id"]


def test_there_are_enough_requests_and_no_text_twice() -> None:
    assert len(REQUESTS) >= 600
    assert len({one["text"].lower() for one in REQUESTS}) == len(REQUESTS)


def test_the_mix_is_about_that_of_the_goal() -> None:
    share = {tier: count / len(REQUESTS) for tier, count in Counter(one["tier"] for one in REQUESTS).items()}
    assert abs(share["fast"] - 0.70) <= 0.03
    assert abs(share["mid"] - 0.10) <= 0.03
    assert abs(share["power"] - 0.20) <= 0.03
