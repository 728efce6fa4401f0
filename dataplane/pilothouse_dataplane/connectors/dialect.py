"""What an HTTP status means, the same for every system; what differs is how a system says why.

A connector's client gives its own words (``said``), the permission that the call takes (``needs``), and who grants it.
"""

from __future__ import annotations

from pilothouse_dataplane.connectors.base import ConnectorError, CredentialRefused, Refused, SystemUnavailable
from pilothouse_dataplane.connectors.http import JsonResponse


def error_of(
    response: JsonResponse, system: str, *, said: str = "", needs: str = "", grants: str = ""
) -> ConnectorError:
    """The error for a status that is not 2xx. ``said``: the system's own words; ``needs``: a permission, as the
    system's administration names it; ``grants``: who gives it, such as "a Jira administrator"."""
    words = " ".join(said.split())[:500].rstrip(". ")
    quoted = f": “{words}”" if words else ""
    status = response.status
    grants = grants or f"an administrator of {system}"
    if status == 401:
        return CredentialRefused(
            f"{system} no longer accepts your linked account{quoted}. Nothing was done. "
            f"Link your {system} account again."
        )
    if status == 403:
        takes = f" It takes the permission “{needs}”; ask {grants}." if needs else f" Ask {grants} for the permission."
        return Refused(f"{system} refused this{quoted}.{takes}")
    if status == 404:
        lack = f" If it exists, you lack the permission “{needs}”." if needs else ""
        return Refused(f"{system} found nothing that you may see{quoted}.{lack}")
    if status == 429:
        message = f"{system} gets too many requests at the moment."
        return SystemUnavailable(message, may_have_acted=False, retry_after=response.retry_after)
    if status in (408, 425):
        message = f"{system} did not take the request ({status})."
        return SystemUnavailable(message, may_have_acted=False, retry_after=response.retry_after)
    if status >= 500:
        message = f"{system} failed ({status}){quoted}."
        return SystemUnavailable(message, may_have_acted=True, retry_after=response.retry_after)
    return Refused(f"{system} did not accept this{quoted or f' ({status})'}.")
