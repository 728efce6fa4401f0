"""The consent page: who signs in, which app asks, and for what. Plain HTML without any other resource."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape

from aiohttp import web

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;background:#f4f5f7;color:#172b4d;margin:0}
main{max-width:26rem;margin:8vh auto;background:#fff;border:1px solid #dfe1e6;border-radius:8px;padding:1.5rem 2rem}
h1{font-size:1.25rem;margin:0 0 .5rem} label{display:block;padding:.35rem 0} ul{padding-left:1.2rem}
button{font:inherit;padding:.5rem 1.2rem;border-radius:4px;border:1px solid #42526e;background:#fff;cursor:pointer}
button.main{background:#0b5cad;border-color:#0b5cad;color:#fff} .quiet{color:#505f79;font-size:.875rem}
fieldset{border:1px solid #dfe1e6;border-radius:4px;margin:1rem 0}
"""
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}


def _html(title: str, content: str, status: int) -> web.Response:
    text = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>'
        f"<body><main>{content}</main></body></html>"
    )
    return web.Response(text=text, status=status, content_type="text/html", charset="utf-8", headers=_HEADERS)


def consent(
    *,
    system: str,
    app: str,
    scopes: Iterable[str],
    people: Mapping[str, str],
    action: str,
    chosen: str = "",
    complaint: str = "",
) -> web.Response:
    """The page. ``scopes``: sentences; ``people``: e-mail → name; ``action``: where the form goes; ``chosen``: e-mail
    that is ticked; ``complaint``: what was wrong with the form that was sent."""
    rows = "".join(
        f'<label><input type="radio" name="username" value="{escape(email)}" required'
        f"{' checked' if email == chosen else ''}> {escape(name)} "
        f'<span class="quiet">{escape(email)}</span></label>'
        for email, name in people.items()
    )
    listed = "".join(f"<li>{escape(sentence)}</li>" for sentence in scopes)
    said = f'<p role="alert">{escape(complaint)}</p>' if complaint else ""
    content = (
        f"<h1>{escape(app)} asks for access to your {escape(system)} account</h1>{said}"
        f'<form method="post" action="{escape(action)}"><fieldset><legend>Sign in as</legend>{rows}</fieldset>'
        f"<p>It will be able to:</p><ul>{listed}</ul>"
        '<p><button class="main" name="decision" value="allow">Allow</button> '
        '<button name="decision" value="deny" formnovalidate>Deny</button></p></form>'
        '<p class="quiet">A stand-in for local use: anybody may sign in as anybody.</p>'
    )
    return _html(f"{system}: allow {app}?", content, 400 if complaint else 200)


def refusal(system: str, sentence: str) -> web.Response:
    """A page for a request that can't be answered by going back to the app: its address is not to be trusted."""
    content = (
        f"<h1>{escape(system)} can't go on with this</h1><p>{escape(sentence)}</p>"
        '<p class="quiet">Nothing was granted. Go back to the app and begin again.</p>'
    )
    return _html(f"{system}: error", content, 400)
