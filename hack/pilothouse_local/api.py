"""A Kubernetes client of a few verbs over the standard library.

The supervisor and ``status`` need five requests; the official client would cost them 48 MB and half a second each.
"""

from __future__ import annotations

import http.client
import json
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pilothouse_local.errors import ClusterUnreachable
from pilothouse_local.instance import LOOPBACK

Object = dict[str, Any]
"""A Kubernetes object as JSON."""

FIELD_MANAGER = "pilothouse-local"


class Refused(ClusterUnreachable):
    """The API answered with an error status."""

    def __init__(self, status: int, what: str, message: str) -> None:
        super().__init__(
            f"the Kubernetes API answered {status} to {what}: {message}",
            "this command stopped there",
            "run `pilothouse status`, then run it again; `pilothouse logs apiserver` has the server's side",
        )
        self.status = status


@dataclass
class Api:
    """Requests with a client certificate to a server on loopback."""

    port: int
    ca: Path
    cert: Path
    key: Path
    timeout: float = 5.0
    """Seconds for each request."""
    _tls: ssl.SSLContext | None = field(default=None, repr=False)

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context(cafile=str(self.ca))
            self._tls.load_cert_chain(self.cert, self.key)
        return self._tls

    def raw(
        self, method: str, path: str, body: bytes | None = None, content_type: str = "application/json"
    ) -> tuple[int, bytes]:
        """Status and body of one request; raises ``OSError`` when there is no answer."""
        connection = http.client.HTTPSConnection(LOOPBACK, self.port, timeout=self.timeout, context=self._context())
        try:
            connection.request(
                method, path, body=body, headers={"Content-Type": content_type, "Accept": "application/json"}
            )
            answer = connection.getresponse()
            return answer.status, answer.read()
        except http.client.HTTPException as error:
            raise ConnectionError(f"broken answer: {error!r}") from error
        finally:
            connection.close()

    def healthy(self, path: str) -> bool:
        """Whether a health endpoint answers 200."""
        try:
            return self.raw("GET", path)[0] == 200
        except OSError:
            return False

    def _object(
        self, method: str, path: str, body: Object | None = None, content_type: str = "application/json"
    ) -> Object:
        try:
            status, answer = self.raw(method, path, None if body is None else json.dumps(body).encode(), content_type)
        except OSError as error:
            raise ClusterUnreachable(
                f"the Kubernetes API on {LOOPBACK}:{self.port} gave no answer ({error})",
                "this command stopped there",
                "run `pilothouse status` to see which process is down, and `pilothouse up` to mend it",
            ) from error
        try:
            parsed = json.loads(answer)
        except ValueError:
            parsed = {"message": answer[:300].decode(errors="replace")}
        if status >= 400:
            raise Refused(status, f"{method} {path}", str(parsed.get("message", "")))
        result: Object = parsed
        return result

    def get(self, path: str) -> Object:
        return self._object("GET", path)

    def items(self, path: str) -> list[Object]:
        items: list[Object] = self.get(path).get("items") or []
        return items

    def create(self, path: str, body: Object) -> Object:
        return self._object("POST", path, body)

    def apply(self, path: str, body: Object) -> Object:
        """Server-side apply; ours wins, since nobody else owns what this client applies."""
        return self._object(
            "PATCH", f"{path}?fieldManager={FIELD_MANAGER}&force=true", body, "application/apply-patch+yaml"
        )

    def patch_status(self, path: str, body: Object) -> Object:
        """Strategic merge patch of the status subresource."""
        return self._object("PATCH", f"{path}/status", body, "application/strategic-merge-patch+json")


def admin(pki: Path, port: int, timeout: float = 5.0) -> Api:
    """The cluster's administrator."""
    return Api(port, pki / "ca.crt", pki / "admin.crt", pki / "admin.key", timeout)
