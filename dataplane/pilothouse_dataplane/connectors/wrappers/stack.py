"""All wrappers around one connector. Their order stands here and nowhere else.

::

    audit            sees everything, also what is refused before it leaves
    allow list       a tool that is not allowed is not even judged
    approval         says what a tool does, which all below go by
    validation       before the cache: what does not fit is not served from it either; after it, data are checked once
    cache            what it serves costs no try, no token of a limit and no place
    retry            each try takes its own turn in everything below; settles writes whose outcome is not known
    rate limit       before the place: who waits for his turn must not hold one
    bulkhead         before the permit: half-open's few permits go to calls that leave now
    breaker          judges each try
    credentials      innermost: the token is fetched as late as can be, and only the connector sees it
    the connector
"""

from __future__ import annotations

from collections.abc import Callable

from pilothouse_api.workerconfig import ConnectorConfig
from pilothouse_dataplane.connectors.base import Connector
from pilothouse_dataplane.connectors.wrappers.allow import WithAllowList
from pilothouse_dataplane.connectors.wrappers.approval import WithApprovals
from pilothouse_dataplane.connectors.wrappers.audit import AuditSink, WithAudit
from pilothouse_dataplane.connectors.wrappers.breaker import WithBreaker
from pilothouse_dataplane.connectors.wrappers.bulkhead import WithBulkhead
from pilothouse_dataplane.connectors.wrappers.cache import WithCache
from pilothouse_dataplane.connectors.wrappers.rate_limit import WithRateLimit
from pilothouse_dataplane.connectors.wrappers.retry import WithRetry
from pilothouse_dataplane.connectors.wrappers.validation import WithValidation
from pilothouse_dataplane.core.guard import Guard
from pilothouse_dataplane.core.retry import Backoff
from pilothouse_dataplane.credentials.base import CredentialSource


def wrap(
    connector: Connector,
    config: ConnectorConfig,
    source: CredentialSource | None,
    guard: Guard,
    *,
    system: str,
    tenant: str,
    audit: AuditSink,
    clock: Callable[[], float],
    random: Callable[[], float],
) -> Connector:
    """The connector with everything around it. Without a ``source`` no call has a credential. ``system`` begins
    sentences for users."""
    made = connector
    if source is not None:
        from pilothouse_dataplane.connectors.wrappers.credentials import WithCredentials

        made = WithCredentials(made, source, system)
    made = WithBreaker(made, guard, system, clock)
    made = WithBulkhead(made, config.concurrent_calls, system, clock)
    made = WithRateLimit(made, config.requests_per_minute, system, clock, shared=config.auth_mode == "ServiceAccount")
    made = WithRetry(
        made, Backoff(attempts=config.attempts), config.timeout_seconds, system, clock=clock, random=random
    )
    if config.cache_seconds > 0:
        made = WithCache(made, config.cache_seconds, clock)
    made = WithValidation(made, system)
    made = WithApprovals(made, config)
    made = WithAllowList(made, config)
    return WithAudit(made, tenant, audit, clock)
