"""Reaches a Service in a cluster from this machine, and asks Jira's REST API for what the demo and the tests verify."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pilothouse_local.deploy import Kubectl
from pilothouse_local.errors import ClusterUnreachable

_TIMEOUT = 10.0
"""Seconds for one request."""


@contextmanager
def address_of(kubectl: Kubectl, namespace: str, deployment: str, port: int) -> Iterator[str]:
    """``http://host:port`` of a Deployment's Pod: its own loopback address on the local cluster, else a port-forward.

    Raises ``ClusterUnreachable``.
    """
    found = json.loads(kubectl.run("get", "deployment", f"--namespace={namespace}", deployment, "--output=json"))
    labels = ",".join(f"{name}={value}" for name, value in found["spec"]["selector"]["matchLabels"].items())
    pods = json.loads(kubectl.run("get", "pods", f"--namespace={namespace}", f"--selector={labels}", "--output=json"))
    for pod in pods["items"]:
        status = pod.get("status") or {}
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or ())
        if ready and "deletionTimestamp" not in pod["metadata"] and str(status.get("podIP", "")).startswith("127."):
            yield f"http://{status['podIP']}:{port}"
            return
    argv = kubectl.argv("port-forward", f"--namespace={namespace}", f"deployment/{deployment}", f":{port}")
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            first = process.stdout.readline() if process.stdout else ""
            match = re.search(r"127\.0\.0\.1:(\d+)", first)
            if match is None:
                raise ClusterUnreachable(
                    f"{namespace}/{deployment} can't be reached from this machine",
                    "it was not asked",
                    "look at its Pods with `kubectl get pods`, then run it again",
                    detail=first,
                )
            yield f"http://127.0.0.1:{match[1]}"
        finally:
            process.terminate()


class JiraApi:
    """Jira's REST v3 as one user. Errors are ``ClusterUnreachable``."""

    def __init__(self, base: str, token: str) -> None:
        self._base = base
        self._token = token

    def issue(self, key: str) -> dict[str, Any]:
        """One issue with all fields."""
        return self._call(f"/rest/api/3/issue/{key}", None)

    def keys(self, project: str) -> set[str]:
        """The keys of the project's issues that this user sees."""
        found: set[str] = set()
        body: dict[str, Any] = {"jql": f'project = "{project}" ORDER BY created DESC', "maxResults": 100}
        while True:
            page = self._call("/rest/api/3/search/jql", body)
            found |= {str(issue["key"]) for issue in page["issues"]}
            if not page.get("nextPageToken"):
                return found
            body["nextPageToken"] = page["nextPageToken"]

    def _call(self, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        request = urllib.request.Request(  # noqa: S310 - always http, to the stand-in
            self._base + path, data=json.dumps(body).encode() if body is not None else None, headers=headers
        )
        # No proxy of the environment: the stand-in is on this machine.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=_TIMEOUT) as response:
                answer: dict[str, Any] = json.load(response)
                return answer
        except (urllib.error.URLError, OSError, ValueError) as error:
            said = error.read().decode(errors="replace") if isinstance(error, urllib.error.HTTPError) else ""
            raise ClusterUnreachable(
                f"Jira did not answer {path}: {error} {said}".strip(),
                "what it holds was not verified",
                "look at its log with `pilothouse logs jira`",
            ) from error
