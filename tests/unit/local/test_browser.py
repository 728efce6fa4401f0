"""A person's linking, walked over HTTP: a gateway and a consent page that answer as told."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

import pytest

from pilothouse_local import browser
from pilothouse_local.errors import ClusterUnreachable


@dataclass
class World:
    """Gateway and authorization server on one port of 127.0.0.1; the second is known as jira.localhost."""

    port: int = 0
    asked: list[tuple[str, str, dict[str, str], str]] = field(default_factory=list)
    """Method, path with query, headers, body."""
    begin: tuple[int, object] = (200, None)
    page: str = '<form method="post" action="/authorize?state=s&amp;code_challenge=c">'
    location: str = ""
    finish: tuple[int, str] = (200, "<title>x</title><p>Your Jira account is linked.</p><p>Close it.</p>")

    @property
    def gateway(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def link(self, **more: bool) -> str:
        return browser.link(self.gateway, "g4teway-token", "jira", "employee@acme.example", **more)


@pytest.fixture
def world() -> Iterator[World]:
    world = World()

    class Handler(http.server.BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            world.asked.append((self.command, self.path, dict(self.headers), body))
            match (self.command, urlsplit(self.path).path):
                case ("POST", "/v1/accounts/jira/link"):
                    url = f"http://jira.localhost:{world.port}/authorize?state=s&code_challenge=c"
                    status, content = world.begin
                    said = content if content is not None else {"authorization_url": url}
                    self._send(status, json.dumps(said), {"Set-Cookie": "pilothouse-link=b1; Path=/; HttpOnly"})
                case ("GET", "/authorize"):
                    self._send(200, world.page, {"Set-Cookie": "theirs=1"})
                case ("POST", "/authorize"):
                    back = world.location or f"{world.gateway}/oauth/callback?state=s&code=c0de"
                    self._send(302, "", {"Location": back})
                case ("GET", "/oauth/callback"):
                    self._send(*world.finish, {})
                case _:
                    self._send(404, "", {})

        do_GET = do_POST = _answer

        def _send(self, status: int, content: str, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content.encode()))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content.encode())

        def log_message(self, *_: object) -> None:
            pass

    listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    world.port = listener.server_address[1]
    thread = threading.Thread(target=listener.serve_forever, args=(0.05,))
    thread.start()
    yield world
    listener.shutdown()
    thread.join()
    listener.server_close()


def test_the_account_is_linked_as_a_browser_does_it(world: World) -> None:
    assert world.link() == "Your Jira account is linked."

    (begun, shown, sent, done) = world.asked
    assert begun[1] == "/v1/accounts/jira/link"
    assert begun[2]["Authorization"] == "Bearer g4teway-token"
    assert shown[2]["Host"] == f"jira.localhost:{world.port}"
    assert sent[1] == "/authorize?state=s&code_challenge=c"
    assert parse_qs(sent[3]) == {"username": ["employee@acme.example"], "decision": ["allow"]}
    assert done[1] == "/oauth/callback?state=s&code=c0de"
    assert done[2]["Cookie"] == "pilothouse-link=b1"
    for other in (shown, sent):  # neither the gateway's cookie nor its token is anybody else's
        assert "Cookie" not in other[2]
        assert "Authorization" not in other[2]
    assert "Authorization" not in done[2]


def test_a_person_may_refuse(world: World) -> None:
    world.location = f"{world.gateway}/oauth/callback?state=s&error=access_denied"
    world.finish = (400, "<p>You did not allow it. Nothing was linked.</p>")

    with pytest.raises(ClusterUnreachable, match="Nothing was linked"):
        world.link(allow=False)

    assert parse_qs(world.asked[2][3])["decision"] == ["deny"]


@pytest.mark.parametrize(
    ("status", "answer", "said"),
    [
        (503, {"message": "No worker.", "user_action": "Wait."}, "No worker. Wait."),
        (500, ["?"], "status 500"),
        (404, {}, "status 404"),
    ],
)
def test_a_gateway_that_refuses_is_quoted(world: World, status: int, answer: object, said: str) -> None:
    world.begin = (status, answer)

    with pytest.raises(ClusterUnreachable, match=said) as caught:
        world.link()

    assert "g4teway-token" not in str(caught.value)
    assert len(world.asked) == 1


def test_no_code_goes_to_another_than_the_gateway(world: World) -> None:
    world.location = f"http://127.0.0.1.evil.localhost:{world.port}/oauth/callback?code=c0de"

    with pytest.raises(ClusterUnreachable, match="did not lead back to the gateway") as caught:
        world.link()

    assert len(world.asked) == 3
    assert "c0de" not in str(caught.value)


def test_a_page_without_a_form_is_told_in_its_own_words(world: World) -> None:
    world.page = "<style>p{}</style><h1>Atlassian can't go on with this</h1>"

    with pytest.raises(ClusterUnreachable, match="Atlassian can't go on with this"):
        world.link()


def test_nobody_there_is_explained() -> None:
    with pytest.raises(ClusterUnreachable, match="gave no answer"):
        browser.link("http://127.0.0.1:9", "t", "jira", "employee@acme.example")
