"""What the operator's environment must say."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilothouse_api.egress import EgressRule
from pilothouse_operator.core.config import Stores
from pilothouse_operator.io.vault import VaultLogin
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


def test_nothing_inward_is_allowed_and_no_vault_trusted_by_default() -> None:
    settings = from_environment(NEEDED)

    assert settings.platform.egress == EgressRule()
    assert settings.platform.vault_addresses == ()
    assert settings.platform.public_url == ""
    assert settings.vault == VaultLogin()


def test_what_the_cluster_allows_comes_as_lists() -> None:
    settings = from_environment(
        NEEDED
        | {
            "PILOTHOUSE_EGRESS_ALLOW_HOSTS": "*.corp.example, kb.intranet.svc,",
            "PILOTHOUSE_EGRESS_ALLOW_NETWORKS": "10.20.0.0/16, fd00::/8",
            "PILOTHOUSE_PUBLIC_URL": "https://pilothouse.example/",
            "PILOTHOUSE_VAULT_ADDRESSES": "https://vault.example:8200/",
            "PILOTHOUSE_VAULT_ROLE": "platform",
            "PILOTHOUSE_VAULT_TOKEN_FILE": "/run/token",
        }
    )

    assert settings.platform.egress == EgressRule(
        allow_hosts=("*.corp.example", "kb.intranet.svc"), allow_networks=("10.20.0.0/16", "fd00::/8")
    )
    assert settings.platform.public_url == "https://pilothouse.example"
    assert settings.platform.vault_addresses == ("https://vault.example:8200",)
    assert settings.vault == VaultLogin("platform", Path("/run/token"))


def test_a_range_that_is_none_is_named_at_the_start() -> None:
    """Found by a worker it would refuse all of a tenant's calls."""
    with pytest.raises(SettingsError, match=r"holds '10\.20\.0\.0/64', which is no range"):
        from_environment(NEEDED | {"PILOTHOUSE_EGRESS_ALLOW_NETWORKS": "10.20.0.0/64"})
