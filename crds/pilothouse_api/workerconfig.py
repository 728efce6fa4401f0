"""The versioned configuration that the operator writes and a worker loads.

It stands in one Secret (``config.json`` plus one file per referenced credential), so that a worker sees a change of
either as one atomic update. ``digest`` covers all of it: the worker reports the digest of what it has loaded, and a
Tenant is ``Ready`` only when every worker reports the digest that the operator wrote.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from decimal import Decimal
from typing import Literal

from pydantic import BaseModel, ConfigDict

Tier = Literal["fast", "mid", "power"]

SERVED_CONNECTOR_TYPES = frozenset({"jira"})
"""Connector types that this release's workers can run. The operator leaves any other out of the configuration and says
so in the Connector's condition; a worker refuses a configuration that names one."""
SERVED_AUTH_MODES = frozenset({"UserOAuth", "ServiceAccount"})
"""Authorization modes that this release's workers can use, likewise."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ProviderConfig(_Frozen):
    name: str
    type: Literal["OpenAI", "Anthropic"]
    base_url: str | None = None
    """None: the vendor's own address."""
    api_key_file: str | None = None
    """File under ``CONFIG_DIR``; None: the endpoint wants no key."""


class TargetConfig(_Frozen):
    provider: str
    model: str
    input_price_per_1k: Decimal = Decimal(0)
    """USD per 1,000 tokens."""
    output_price_per_1k: Decimal = Decimal(0)


class RouteConfig(_Frozen):
    providers: tuple[ProviderConfig, ...]
    tiers: dict[Tier, tuple[TargetConfig, ...]]
    default_tier: Tier
    fallback: tuple[Tier, ...] = ()


class BreakerConfig(_Frozen):
    window_type: Literal["Count", "Time"] = "Count"
    window: int = 20
    """Calls, or seconds where ``window_type`` is Time, in the sliding window."""
    minimum_calls: int = 10
    failure_rate_percent: float = 50
    slow_call_seconds: float = 0
    """A call that took longer is slow; 0: none is."""
    slow_call_rate_percent: float = 100
    open_seconds: float = 30
    half_open_calls: int = 3
    half_open_seconds: float = 30
    """Half-open without a verdict goes back to open after this long."""


class ApprovalRule(_Frozen):
    match: str
    """Glob over tool names without the connector's prefix."""
    by: Literal["User", "Manager", "Group"] = "User"
    group: str = ""
    """With by Group: its name, as the identity provider's token has it."""


class ConnectorConfig(_Frozen):
    name: str
    type: Literal["servicenow", "jira", "salesforce", "okta", "openapi", "mcp"]
    url: str
    auth_mode: Literal["UserOAuth", "TokenExchange", "JWTBearer", "ServiceAccount"]
    accounts_file: str | None = None
    """UserOAuth: file under ``CONFIG_DIR`` with JSON {user e-mail: access token}; the accounts that are linked."""
    token_file: str | None = None
    """ServiceAccount: file with the token."""
    writes_allowed: bool = True
    """False for ServiceAccount without ``writes: Allow``."""
    allow: tuple[str, ...] = ("*",)
    """Globs over tool names without the connector's prefix, e.g. ``issue.*``."""
    approvals: tuple[ApprovalRule, ...] = ()
    """The first rule that matches a tool counts."""
    timeout_seconds: float = 5
    attempts: int = 3
    """Tries of a safe call, the first one included."""
    concurrent_calls: int = 32
    """Calls at a time of one worker; more of them wait."""
    breaker: BreakerConfig = BreakerConfig()


class AgentConfig(_Frozen):
    instructions: str
    max_steps: int = 8
    deadline_seconds: float = 30
    """Without the time that a run waits for approvals."""
    run_budget_micros: int | None = None
    """Micro-dollars that the model calls of one run may cost; None: no bound."""
    parallel_calls: int = 8
    """Tool calls at a time of one run."""
    approval_seconds: float = 3600
    """An approval that nobody has decided after this long counts as refused."""


class WorkerConfig(_Frozen):
    schema_version: Literal[1] = 1
    tenant: str
    namespace: str
    display_name: str
    revision: str
    agent: AgentConfig
    route: RouteConfig
    connectors: tuple[ConnectorConfig, ...] = ()
    short_term_ttl_seconds: int = 86400
    concurrent_runs: int = 64


def digest(files: Mapping[str, bytes]) -> str:
    """``sha256:`` and 16 hex digits over the Secret's files (name → content), the same for operator and worker."""
    sha = hashlib.sha256()
    for name in sorted(files):
        content = files[name]
        sha.update(f"{len(name)}:{name}:{len(content)}:".encode())
        sha.update(content)
    return f"sha256:{sha.hexdigest()[:16]}"
