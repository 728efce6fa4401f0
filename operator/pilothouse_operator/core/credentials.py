"""Decides a Tenant's ``CredentialsReady``, and which keys of its account-keys Secret are usable."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from pilothouse_api import Tenant, names
from pilothouse_operator.core import conditions as c
from pilothouse_operator.core.readiness import WorkerReport
from pilothouse_operator.core.refs import Problem
from pilothouse_operator.core.resources import Json

KEYS_INVALID = "KeysInvalid"
VAULT_UNAVAILABLE = "VaultUnavailable"
KEY_BYTES = 32
_KEY_NAME = re.compile(r"key\.[1-9][0-9]{0,8}")


@dataclass(frozen=True)
class VaultState:
    """What came of writing the Tenant's policy and role; ``problem`` None: they are as they shall be."""

    problem: Problem | None = None


def usable_keys(content: Mapping[str, bytes]) -> dict[str, bytes]:
    """Those of a Secret's keys that can seal and open."""
    return {name: value.strip() for name, value in content.items() if _KEY_NAME.fullmatch(name) and _is_key(value)}


def _is_key(content: bytes) -> bool:
    try:
        return len(base64.b64decode(content.strip(), validate=True)) == KEY_BYTES
    except (binascii.Error, ValueError):
        return False


def finding(
    raw: Json,
    tenant: Tenant,
    secret: Mapping[str, bytes],
    vault: VaultState | None,
    reports: Iterable[WorkerReport],
    *,
    managed: bool,
) -> c.Finding:
    """``secret``: the content of the account-keys Secret; ``managed``: the operator writes the policy in Vault, and
    ``vault`` says what came of it (None: not tried yet)."""
    if tenant.spec.credentials.backend == "Kubernetes":
        return _of_kubernetes(names.account_keys(tenant.metadata.name), secret)
    if vault is not None and vault.problem is not None:
        return c.failed(c.CREDENTIALS_READY, vault.problem.reason, vault.problem.message)
    said = list(reports)
    failing = next((report for report in said if report.credentials_error), None)
    if failing is not None:
        until = min((r.credentials_until for r in said if r.credentials_until is not None), default=None)
        message = _away(failing.credentials_error, until)
        if not managed:
            message += (
                " The operator writes no policy there: add the address to the chart's operator.vault.addresses, or "
                "write policy and role by hand (docs/vault.md)."
            )
        return c.failed(c.CREDENTIALS_READY, VAULT_UNAVAILABLE, message)
    if not said:
        unsaid = "No worker has said yet whether it reaches Vault."
        return c.kept(raw, c.CREDENTIALS_READY) or c.unknown(c.CREDENTIALS_READY, "NotReported", unsaid)
    return c.passed(c.CREDENTIALS_READY, c.CREDENTIALS_READY, "The workers read and keep credentials in Vault.")


def _of_kubernetes(name: str, content: Mapping[str, bytes]) -> c.Finding:
    unusable = sorted(content.keys() - usable_keys(content).keys())
    if not unusable and content:
        said = f'Secrets are in this namespace; linked accounts are sealed under the keys in Secret "{name}".'
        return c.passed(c.CREDENTIALS_READY, c.CREDENTIALS_READY, said)
    what = f"{', '.join(unusable[:5])} can't be used" if unusable else "there is no key in it"
    return c.failed(
        c.CREDENTIALS_READY,
        KEYS_INVALID,
        f'Secret "{name}": {what}. Accounts that were sealed under a key that is gone can\'t be opened. Each key is '
        "key.1, key.2, …: 32 random bytes, base64. Correct the Secret.",
    )


def _away(error: str, until: datetime | None) -> str:
    rest = "No credential is cached." if until is None else f"Cached credentials go on until {c.timestamp(until)}."
    return f"{error.rstrip('.')}. {rest} Look at the Vault server."
