"""Speaking as an employee: the gateway's address and a token, for ``chat``, ``approvals`` and ``accounts``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pilothouse_tui.data.accounts import AccountsClient
from pilothouse_tui.data.chat import ChatConnection
from pilothouse_tui.data.kube import KubeClient
from pilothouse_tui.data.tokens import make_token

_TOKEN_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Employee:
    """Who speaks, and how the gateway is found. An empty ``token`` is made with the cluster's signing key."""

    tenant: str
    user: str
    manager: str = ""
    groups: Sequence[str] = ()
    token: str = ""
    url: str = ""
    kubeconfig: str = ""
    context: str = ""

    async def connection(self, session_id: str = "") -> ChatConnection:
        """A connection that is not open yet. Raises a ToolError where the cluster can't be read."""
        url, key = await self._found()

        async def token() -> str:
            return self._token(key)

        return ChatConnection(url, token, session_id or None)

    async def accounts(self) -> AccountsClient:
        """The employee's linked accounts. Raises a ToolError where the cluster can't be read."""
        url, key = await self._found()
        return AccountsClient(url, self._token(key))

    async def _found(self) -> tuple[str, bytes]:
        """The gateway's address, and the key that signs a token where none was given."""
        if self.url and self.token:
            return self.url, b""
        async with KubeClient.from_environment(self.kubeconfig, self.context) as kube:
            url = self.url or await kube.find_chat_url()
            return url, b"" if self.token else await kube.read_signing_key()

    def _token(self, key: bytes) -> str:
        return self.token or make_token(
            key,
            tenant=self.tenant,
            user=self.user,
            manager=self.manager,
            groups=self.groups,
            ttl_seconds=_TOKEN_SECONDS,
        )
