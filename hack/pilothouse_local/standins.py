"""Reaches a Service in a cluster from this machine."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from pilothouse_local.deploy import Kubectl
from pilothouse_local.errors import ClusterUnreachable


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
