"""An employee's linked accounts, over the gateway's HTTP (``/v1/accounts``)."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import aiohttp
import orjson

from pilothouse_tui.data import convert
from pilothouse_tui.errors import AccessError, ConfigurationError, ToolError, UnreachableError
from pilothouse_tui.model import LinkedAccount, LinkState

_SECONDS = 20.0
"""Unlinking asks another company's server."""


def page_of(chat_url: str) -> str:
    """The gateway's page of accounts, from the address of its chat (``ws://HOST/v1/chat``). Raises
    ConfigurationError."""
    parts = urlsplit(chat_url)
    scheme = {"ws": "http", "wss": "https", "http": "http", "https": "https"}.get(parts.scheme)
    if scheme is None or not parts.netloc:
        raise ConfigurationError(
            f"{chat_url} is not a gateway's address.", "Nothing was asked.", "Write ws://HOST:PORT/v1/chat."
        )
    return urlunsplit((scheme, parts.netloc, "/accounts", "", ""))


class AccountsClient:
    """Calls as one employee. Each raises a ToolError."""

    def __init__(self, chat_url: str, token: str) -> None:
        self.page = page_of(chat_url)
        self._base = self.page.removesuffix("/accounts") + "/v1/accounts"
        self._headers = {"authorization": f"Bearer {token}"}

    async def read(self) -> tuple[LinkedAccount, ...]:
        """Which systems are linked, by connector."""
        body = await self._call("GET", "", "Nothing was read.")
        found = body.get("accounts")
        return tuple(_account(raw) for raw in found if isinstance(raw, dict)) if isinstance(found, list) else ()

    async def unlink(self, connector: str) -> str:
        """Revoke and forget a link; gives the server's sentence."""
        body = await self._call("POST", f"/{quote(connector, safe='')}/unlink", "Whether it was unlinked is not known.")
        return str(body.get("message", ""))

    async def _call(self, method: str, path: str, not_done: str) -> dict[str, Any]:
        try:
            timeout = aiohttp.ClientTimeout(total=_SECONDS)
            async with (
                aiohttp.ClientSession(timeout=timeout, headers=self._headers) as http,
                http.request(method, self._base + path, allow_redirects=False) as answer,
            ):
                body = orjson.loads(await answer.read() or b"{}")
                status = answer.status
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            raise UnreachableError(
                f"The gateway did not answer ({type(error).__name__}).",
                not_done,
                "Look at `pilothouse status`, then try again.",
            ) from error
        if not isinstance(body, dict):
            body = {}
        if status == 200:
            return body
        happened = str(body.get("message") or f"The gateway answered {status}.")
        to_do = str(body.get("user_action") or "Try again.")
        kind: type[ToolError] = {401: AccessError, 403: AccessError, 400: ConfigurationError}.get(
            status, UnreachableError
        )
        raise kind(happened, "Nothing was changed.", to_do)


def _account(raw: dict[str, Any]) -> LinkedAccount:
    scopes = raw.get("scopes")
    return LinkedAccount(
        connector=str(raw.get("connector", "")),
        system=str(raw.get("system", "")),
        state=convert.named(LinkState, raw.get("state"), "LINK_STATE_", LinkState.UNSPECIFIED),
        account=str(raw.get("account", "")),
        scopes=tuple(map(str, scopes)) if isinstance(scopes, list) else (),
        linked=convert.timestamp(raw.get("linked")),
        expires=convert.timestamp(raw.get("expires")),
    )
