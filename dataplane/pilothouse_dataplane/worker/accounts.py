"""What front doors ask of a worker about its users' accounts: the Agent service's part of ``credentials.linking``."""

from __future__ import annotations

import structlog

from pilothouse_dataplane.connectors.base import SystemUnavailable
from pilothouse_dataplane.connectors.factory import system_of
from pilothouse_dataplane.credentials.linking import AccountView, LinkFailed, Linking, State
from pilothouse_dataplane.credentials.service_account import ServiceAccount
from pilothouse_dataplane.worker import problems
from pilothouse_dataplane.worker.admin import Refusal
from pilothouse_dataplane.worker.runtime import Runtime
from pilothouse_proto.agent.v1 import agent_pb2 as agent

_STATES = {
    State.LINKED: agent.LINK_STATE_LINKED,
    State.NOT_LINKED: agent.LINK_STATE_NOT_LINKED,
    State.EXPIRED: agent.LINK_STATE_EXPIRED,
    State.NOT_NEEDED: agent.LINK_STATE_NOT_NEEDED,
    State.BY_ADMINISTRATOR: agent.LINK_STATE_BY_ADMINISTRATOR,
}
_log = structlog.get_logger()


async def list_accounts(runtime: Runtime, request: agent.ListAccountsRequest) -> agent.ListAccountsResponse:
    """Each connector's account of this user, by the connectors' names. Raises Refusal."""
    email = request.user.email
    credentials = runtime.credentials
    if not email or credentials is None:
        raise Refusal("It is not known who asks; nothing was looked up.")
    linking = credentials.linking
    views = []
    for config in sorted(runtime.config.connectors, key=lambda connector: connector.name):
        name, system = config.name, system_of(config)
        if config.auth_mode == "UserOAuth":
            linkable = credentials.linkable.get(name)
            try:
                if linkable is not None and linking is not None:
                    views.append(await linking.linked(email, linkable))
                    continue
                there = credentials.linked_by_administrator(name, email)
            except SystemUnavailable as error:
                raise Refusal(f"Your {system} account can't be looked up at the moment: {error}") from None
            state = State.LINKED if there else State.BY_ADMINISTRATOR
            views.append(AccountView(name, system, state, email if there else ""))
            continue
        source = credentials.sources[name]
        account = source.account if isinstance(source, ServiceAccount) else email
        views.append(AccountView(name, system, State.NOT_NEEDED, account))
    return agent.ListAccountsResponse(accounts=[_account(view) for view in views])


async def begin_link(runtime: Runtime, request: agent.BeginLinkRequest) -> agent.BeginLinkResponse:
    """Where the browser goes next, or why linking can't begin."""
    if not request.user.email:
        return agent.BeginLinkResponse(error=problems.unauthenticated())
    try:
        url = await _linking(runtime).begin(
            request.user.email, request.connector, request.redirect_uri, request.browser
        )
    except LinkFailed as failed:
        return agent.BeginLinkResponse(error=_error(failed))
    return agent.BeginLinkResponse(authorization_url=url)


async def finish_link(runtime: Runtime, request: agent.FinishLinkRequest) -> agent.FinishLinkResponse:
    """The authorization server's call-back."""
    try:
        view = await _linking(runtime).finish(
            request.state,
            request.code,
            request.browser,
            request.redirect_uri,
            request.error,
            request.error_description,
        )
    except LinkFailed as failed:
        return agent.FinishLinkResponse(error=_error(failed))
    runtime.toolset.forget(None, view.connector)  # what was read as another account
    return agent.FinishLinkResponse(account=_account(view))


async def unlink(runtime: Runtime, request: agent.UnlinkRequest) -> agent.UnlinkResponse:
    """Revoke and forget."""
    if not request.user.email:
        return agent.UnlinkResponse(error=problems.unauthenticated())
    try:
        message = await _linking(runtime).unlink(request.user.email, request.connector)
    except LinkFailed as failed:
        return agent.UnlinkResponse(error=_error(failed))
    runtime.toolset.forget(request.user.email, request.connector)
    return agent.UnlinkResponse(message=message)


def _linking(runtime: Runtime) -> Linking:
    """Raises LinkFailed."""
    if runtime.credentials is None or runtime.credentials.linking is None:
        raise LinkFailed(
            "This agent has no place where accounts that you link could be kept. Nothing was changed.",
            "Ask your administrator to link it, or to set the tenant's credentials up.",
        )
    return runtime.credentials.linking


def _error(failed: LinkFailed) -> agent.Error:
    code = agent.ERROR_CODE_INTERNAL if failed.retryable else agent.ERROR_CODE_INVALID_REQUEST
    return agent.Error(code=code, message=str(failed), user_action=failed.action, retryable=failed.retryable)


def _account(view: AccountView) -> agent.Account:
    account = agent.Account(
        connector=view.connector,
        system=view.system,
        state=_STATES[view.state],
        account=view.account,
        scopes=view.scopes,
    )
    if view.linked_at:
        account.linked.FromMilliseconds(int(view.linked_at * 1000))
    if view.expires_at:
        account.expires.FromMilliseconds(int(view.expires_at * 1000))
    return account
