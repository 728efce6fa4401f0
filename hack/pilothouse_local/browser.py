"""Links a person's account as her browser would: the gateway, the consent page of a stand-in, the call-back.

One person, one visit: cookies are those that the gateway sets for it. Names below ``.localhost`` are this machine
(RFC 6761), as browsers have it; the C library of most systems asks a DNS server for them.
"""

from __future__ import annotations

import html
import http.client
import json
import re
from dataclasses import dataclass, field
from urllib.parse import urlencode, urljoin, urlsplit, urlunsplit

from pilothouse_local.errors import ClusterUnreachable

_TIMEOUT = 15.0
"""Seconds for each request."""
_ACTION = re.compile(r'<form[^>]*\baction="([^"]*)"')
_SENTENCE = re.compile(r"<p>(.*?)</p>", re.DOTALL)
_TAGS = re.compile(r"<(style|title)[^>]*>.*?</\1>|<[^>]*>", re.DOTALL)
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: http.client.HTTPMessage
    text: str


@dataclass
class _Visit:
    cookies: dict[str, str] = field(default_factory=dict)

    def open(self, method: str, url: str, body: str = "", headers: dict[str, str] | None = None) -> _Answer:
        parts = urlsplit(url)
        host = parts.hostname or ""
        here = LOOPBACK if host == "localhost" or host.endswith(".localhost") else host
        connection = http.client.HTTPConnection(here, parts.port or 80, timeout=_TIMEOUT)
        sent = {"Host": parts.netloc, **(headers or {})}
        if self.cookies and host == LOOPBACK:  # they are the gateway's alone
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        if body:
            sent.setdefault("Content-Type", "application/x-www-form-urlencoded")
        try:
            connection.request(method, urlunsplit(("", "", parts.path or "/", parts.query, "")), body.encode(), sent)
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            raise _failed(f"{parts.scheme}://{parts.netloc}{parts.path} gave no answer ({error})") from error
        finally:
            connection.close()
        for cookie in answer.headers.get_all("Set-Cookie") or []:
            name, _, value = cookie.split(";")[0].partition("=")
            if host == LOOPBACK:
                self.cookies[name.strip()] = value
        return _Answer(answer.status, answer.headers, text)


def link(gateway: str, token: str, connector: str, username: str, *, allow: bool = True) -> str:
    """Links ``username``'s account of the system behind ``connector``; the sentence that the page ends with.

    ``gateway`` as http://127.0.0.1:PORT, ``token`` the person's own for the gateway. Raises ``ClusterUnreachable``
    where any of them refuses, with its own words; never with a token or a code.
    """
    visit = _Visit()
    begun = visit.open("POST", f"{gateway}/v1/accounts/{connector}/link", headers={"Authorization": f"Bearer {token}"})
    if begun.status != 200:
        raise _failed(f"the gateway did not begin to link {connector}: {_said(begun)}")
    url = str(json.loads(begun.text)["authorization_url"])
    page = visit.open("GET", url)
    action = _ACTION.search(page.text)
    if page.status != 200 or action is None:
        raise _failed(f"{connector}'s consent page can't be used ({page.status}): {_words(page.text)}")
    chosen = urlencode({"username": username, "decision": "allow" if allow else "deny"})
    sent = visit.open("POST", urljoin(url, html.unescape(action[1])), chosen)
    back = sent.headers.get("Location", "")
    if sent.status not in (302, 303) or not back.startswith(f"{gateway}/"):
        raise _failed(
            f"{connector}'s consent page did not lead back to the gateway ({sent.status}): {_words(sent.text)}"
        )
    done = visit.open("GET", back)
    if done.status != 200:
        raise _failed(f"{connector} was not linked: {_words(done.text)}")
    return _words(done.text)


def _failed(happened: str) -> ClusterUnreachable:
    return ClusterUnreachable(
        happened,
        "the account was not linked",
        "run it again: it is safe to repeat; `pilothouse logs gateway` and the tenant's log say more",
    )


def _said(answer: _Answer) -> str:
    try:
        problem = json.loads(answer.text)
        return f"{problem['message']} {problem.get('user_action', '')}".strip()
    except (ValueError, KeyError, TypeError):
        return f"status {answer.status}"


def _words(page: str) -> str:
    """What a page says, in a line: its first sentence where it is marked as one."""
    first = _SENTENCE.search(page)
    return " ".join(html.unescape(_TAGS.sub(" ", first[1] if first else page)).split())[:300]
