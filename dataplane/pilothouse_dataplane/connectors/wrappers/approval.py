"""What a tool does, and who must say yes to it, as the Connector's policy has it.

Guarantees: every tool that is described carries the effect and the approver of the first rule that matches it; without
a rule, a destructive one waits for the asking user. Asking is the run's part (``core.run``): it must be able to wait
for an hour and on another worker, and the ledger uses an approval up once, with exactly these arguments.
"""

from __future__ import annotations

from pilothouse_api.workerconfig import ConnectorConfig
from pilothouse_dataplane.connectors.base import Connector
from pilothouse_dataplane.connectors.wrappers.base import Wrapper
from pilothouse_dataplane.core.approvals import under_policy
from pilothouse_dataplane.core.messages import Tool


class WithApprovals(Wrapper):
    """``tools.effects`` and ``tools.approvals``."""

    def __init__(self, inner: Connector, config: ConnectorConfig) -> None:
        super().__init__(inner)
        self._config = config

    def describe_tools(self) -> tuple[Tool, ...]:
        config = self._config
        return tuple(
            under_policy(tool, tool.name.removeprefix(f"{config.name}."), config.effects, config.approvals)
            for tool in self._inner.describe_tools()
        )
