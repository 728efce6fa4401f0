"""What the operator's environment must say."""

from __future__ import annotations

import pytest

from pilothouse_operator.core.config import Stores
from pilothouse_operator.settings import SettingsError, from_environment

NEEDED = {
    "PILOTHOUSE_WORKER_IMAGE": "pilothouse:test",
    "PILOTHOUSE_WORKER_REDIS_URL": "redis://redis:6379/0",
    "PILOTHOUSE_WORKER_DATABASE_URL": "postgresql://pilothouse_worker:p@postgres/pilothouse",
}


def test_the_stores_addresses_come_from_the_environment() -> None:
    stores = Stores(NEEDED["PILOTHOUSE_WORKER_REDIS_URL"], NEEDED["PILOTHOUSE_WORKER_DATABASE_URL"])

    assert from_environment(NEEDED).platform.stores == stores


@pytest.mark.parametrize("missing", NEEDED)
def test_a_missing_setting_is_named(missing: str) -> None:
    with pytest.raises(SettingsError, match=f"{missing} is not set, so no worker could be made"):
        from_environment({name: value for name, value in NEEDED.items() if name != missing} | {missing: ""})
