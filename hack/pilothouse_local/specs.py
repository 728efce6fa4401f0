"""The seven processes of one instance: their command lines, order and readiness.

No endpointslice controller (Endpoints refuse loopback addresses) and no scheduler (the node binds its own Pods). The Go
programs get a small heap target: the whole stack stays below 1.5 GB.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pilothouse_local import vault
from pilothouse_local.api import Api, Object, admin
from pilothouse_local.instance import LOOPBACK, Instance, Settings
from pilothouse_local.pki import NODE_NAME
from pilothouse_local.stores import Postgres, User, postgres_answers, valkey_answers, valkey_program

CONTROLLERS = (
    "clusterrole-aggregation-controller", "cronjob-controller", "deployment-controller", "disruption-controller",
    "garbage-collector-controller", "job-controller", "namespace-controller", "pod-garbage-collector-controller",
    "replicaset-controller", "resourcequota-controller", "root-ca-certificate-publisher-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller", "statefulset-controller", "ttl-after-finished-controller",
)  # fmt: skip


@dataclass(frozen=True)
class Spec:
    """How one process is started, when it counts as ready, and how it is asked to end."""

    name: str
    argv: tuple[str, ...]
    ready: Callable[[], bool]
    requires: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    user: User | None = None
    prepare: Callable[[int], None] | None = None
    """Called before each start with the number of earlier starts by this supervisor; an exception delays the start."""
    stop_signal: int = signal.SIGTERM
    stop_seconds: float = 10.0


def listening(port: int) -> bool:
    try:
        socket.create_connection((LOOPBACK, port), timeout=0.5).close()
    except OSError:
        return False
    return True


def _environment(**more: str) -> dict[str, str]:
    # A clean one: a proxy setting of the shell must not come between processes on one machine.
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/", "TZ": "UTC", **more}


def all_specs(
    instance: Instance, settings: Settings, binaries: Path, postgres: Postgres, valkey_config: Path
) -> list[Spec]:
    """In the order of starting."""
    pki, ports = instance.pki, settings.ports
    api = admin(pki, ports["apiserver"], timeout=2.0)
    etcd = Api(ports["etcd"], pki / "etcd-ca.crt", pki / "etcd-client.crt", pki / "etcd-client.key", timeout=1.0)
    etcd_url, peer_url = f"https://{LOOPBACK}:{ports['etcd']}", f"https://{LOOPBACK}:{ports['etcd-peer']}"
    return [
        Spec(
            "etcd",
            (
                str(binaries / "etcd"), "--name=local", f"--data-dir={instance.root / 'etcd'}",
                f"--listen-client-urls={etcd_url}", f"--advertise-client-urls={etcd_url}",
                f"--listen-peer-urls={peer_url}", f"--initial-advertise-peer-urls={peer_url}",
                f"--initial-cluster=local={peer_url}",
                f"--cert-file={pki / 'etcd.crt'}", f"--key-file={pki / 'etcd.key'}",
                "--client-cert-auth", f"--trusted-ca-file={pki / 'etcd-ca.crt'}",
                f"--peer-cert-file={pki / 'etcd.crt'}", f"--peer-key-file={pki / 'etcd.key'}",
                "--peer-client-cert-auth", f"--peer-trusted-ca-file={pki / 'etcd-ca.crt'}",
                "--quota-backend-bytes=536870912", "--snapshot-count=5000", "--log-level=warn",
            ),
            ready=lambda: etcd.healthy("/health"),
            env=_environment(GOGC="60"),
        ),
        Spec(
            "postgres",
            (
                str(postgres.bin / "postgres"), "-D", str(postgres.data), "-c", f"listen_addresses={LOOPBACK}",
                "-c", f"port={ports['postgres']}", "-c", "unix_socket_directories=", "-c", "shared_buffers=32MB",
                "-c", "max_connections=100", "-c", "jit=off", "-c", "max_wal_size=256MB",
                "-c", "password_encryption=scram-sha-256",
            ),
            ready=lambda: postgres_answers(postgres, ports["postgres"]),
            env=_environment(LC_ALL="C"), user=postgres.user,
            stop_signal=signal.SIGINT,  # "fast": ends clients, keeps all data
        ),
        Spec(
            "valkey", (str(valkey_program()), str(valkey_config)),
            ready=lambda: valkey_answers(settings), env=_environment(),
        ),
        Spec(
            "openbao", vault.command(instance),
            ready=lambda: vault.answers(settings), requires=("postgres",), env=_environment(GOGC="50"),
            prepare=lambda _: vault.ensure_database(instance, settings, postgres.bin),
        ),
        Spec(
            "apiserver",
            (
                str(binaries / "kube-apiserver"), f"--bind-address={LOOPBACK}", f"--secure-port={ports['apiserver']}",
                f"--advertise-address={LOOPBACK}", "--endpoint-reconciler-type=none",
                f"--etcd-servers={etcd_url}", f"--etcd-cafile={pki / 'etcd-ca.crt'}",
                f"--etcd-certfile={pki / 'etcd-client.crt'}", f"--etcd-keyfile={pki / 'etcd-client.key'}",
                f"--tls-cert-file={pki / 'apiserver.crt'}", f"--tls-private-key-file={pki / 'apiserver.key'}",
                f"--client-ca-file={pki / 'ca.crt'}", "--authorization-mode=RBAC", "--anonymous-auth=false",
                "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
                f"--service-account-key-file={pki / 'service-accounts.pub'}",
                f"--service-account-signing-key-file={pki / 'service-accounts.key'}",
                "--service-cluster-ip-range=10.96.0.0/16", "--allow-privileged=true",
                f"--kubelet-certificate-authority={pki / 'ca.crt'}",
                f"--kubelet-client-certificate={pki / 'apiserver-kubelet-client.crt'}",
                f"--kubelet-client-key={pki / 'apiserver-kubelet-client.key'}",
                "--kubelet-preferred-address-types=InternalIP",
                # Without the node-lifecycle controller nobody would remove this plug-in's taint again.
                "--disable-admission-plugins=TaintNodesByCondition", "--profiling=false", "--event-ttl=1h",
                "--shutdown-delay-duration=0s", "--v=1",
            ),
            ready=lambda: api.healthy("/readyz"), requires=("etcd",), env=_environment(GOGC="50"), stop_seconds=15.0,
        ),
        Spec(
            "controller-manager",
            (
                str(binaries / "kube-controller-manager"),
                f"--kubeconfig={instance.kubeconfig_of('controller-manager')}",
                f"--root-ca-file={pki / 'ca.crt'}",
                f"--service-account-private-key-file={pki / 'service-accounts.key'}",
                "--use-service-account-credentials=true", "--leader-elect=false", "--secure-port=0",
                f"--controllers={','.join(CONTROLLERS)}", "--profiling=false", "--v=1",
                "--kube-api-qps=100", "--kube-api-burst=200",
            ),
            ready=lambda: True, requires=("apiserver",), env=_environment(GOGC="50"),
        ),
        Spec(
            "node",
            (
                sys.executable, "-m", "pilothouse_local.node",
                "--kubeconfig", str(instance.kubeconfig_of("node")),
                "--state", str(instance.root / "node"), "--pod-octet", str(settings.pod_octet),
                "--listen", f"{LOOPBACK}:{ports['node']}",
                "--tls-cert", str(pki / "node.crt"), "--tls-key", str(pki / "node.key"),
                "--client-ca", str(pki / "ca.crt"),
                "--service", f"{vault.NAMESPACE}/{vault.SERVICE}={settings.vault_host()}",
            ),
            ready=lambda: listening(ports["node"]), requires=("apiserver", "valkey", "postgres"),
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            prepare=lambda starts: prepare_node(api, starts), stop_seconds=30.0,
        ),
    ]  # fmt: skip


def prepare_node(api: Api, starts: int) -> None:
    """Grants the node its rights, and before its first start marks every Pod as not ready.

    When the supervisor starts, no Pod runs: whoever waits for a Deployment must not be told what was true before.
    """
    role = "pilothouse:node"
    api.apply(f"/apis/rbac.authorization.k8s.io/v1/clusterroles/{role}", _node_role(role))
    api.apply(
        f"/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/{role}",
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": role},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": f"system:node:{NODE_NAME}"}],
        },
    )
    if starts > 0:
        return
    for pod in api.items("/api/v1/pods"):
        conditions = (pod.get("status") or {}).get("conditions") or []
        if any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions):
            down = [
                {"type": kind, "status": "False", "reason": "NodeRestarted"} for kind in ("Ready", "ContainersReady")
            ]
            path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"
            api.patch_status(path, {"status": {"conditions": down}})


def _node_role(name: str) -> Object:
    def rule(resources: list[str], verbs: list[str], group: str = "") -> Object:
        return {"apiGroups": [group], "resources": resources, "verbs": verbs}

    read = ["get", "list", "watch"]
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": name},
        "rules": [
            rule(["nodes", "nodes/status"], [*read, "create", "update", "patch", "delete"]),
            rule(["pods"], [*read, "delete", "patch"]),
            rule(["pods/status"], ["get", "update", "patch"]),
            rule(["bindings", "pods/binding", "serviceaccounts/token"], ["create"]),
            rule(
                ["configmaps", "secrets", "services", "namespaces", "serviceaccounts", "persistentvolumeclaims"], read
            ),
            rule(["events"], ["create", "patch", "update"]),
            rule(["events"], ["create", "patch", "update"], "events.k8s.io"),
            rule(["leases"], ["get", "create", "update", "patch"], "coordination.k8s.io"),
            rule(["tokenreviews"], ["create"], "authentication.k8s.io"),
            rule(["subjectaccessreviews"], ["create"], "authorization.k8s.io"),
        ],
    }
