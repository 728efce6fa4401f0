"""A Pod's `status`, computed from its spec and its containers' states (pure)."""

from __future__ import annotations

from collections.abc import Sequence

from .model import ContainerState, Obj, Running, State, Terminated, Waiting

_OWN_CONDITIONS = ("PodScheduled", "PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready")


def state_json(state: State) -> Obj:
    """A container state as the API writes it."""
    if isinstance(state, Running):
        return {"running": {"startedAt": state.started_at}}
    if isinstance(state, Waiting):
        return {"waiting": {"reason": state.reason, **({"message": state.message} if state.message else {})}}
    body: Obj = {
        "exitCode": state.exit_code,
        "reason": state.reason,
        "startedAt": state.started_at,
        "finishedAt": state.finished_at,
        "containerID": state.container_id,
    }
    if state.message:
        body["message"] = state.message
    return {"terminated": body}


def container_status(container: ContainerState) -> Obj:
    """One entry of containerStatuses or initContainerStatuses."""
    body: Obj = {
        "name": container.name,
        "image": container.image,
        "imageID": f"local://{container.image}" if container.container_id else "",
        "state": state_json(container.state),
        "lastState": state_json(container.last) if container.last else {},
        "restartCount": container.restart_count,
        "ready": container.ready,
        "started": container.started,
    }
    if container.container_id:
        body["containerID"] = container.container_id
    return body


def phase(init: Sequence[ContainerState], main: Sequence[ContainerState]) -> str:
    """Pending, Running, Succeeded or Failed, by kubelet's rules."""
    if any(c.finished and isinstance(c.state, Terminated) and c.state.exit_code != 0 for c in init):
        return "Failed"
    if main and all(c.finished and isinstance(c.state, Terminated) for c in main):
        failed = any(isinstance(c.state, Terminated) and c.state.exit_code != 0 for c in main)
        return "Failed" if failed else "Succeeded"
    if any(isinstance(c.state, (Running, Terminated)) or c.last is not None for c in main):
        return "Running"
    return "Pending"


def pod_status(
    pod: Obj, init: Sequence[ContainerState], main: Sequence[ContainerState], ip: str, start_time: str, now: str
) -> Obj:
    """The status that the node writes; conditions of others (readiness gates) are kept, and times change only with
    their status."""
    previous = {c["type"]: c for c in (pod.get("status") or {}).get("conditions") or []}
    current = phase(init, main)
    initialized = all(c.finished or c.started for c in init) and current != "Failed" if init else True
    containers_ready = bool(main) and all(c.ready for c in main) and current == "Running"
    gates = [gate["conditionType"] for gate in pod["spec"].get("readinessGates") or []]
    gates_open = all((previous.get(gate) or {}).get("status") == "True" for gate in gates)
    if current == "Succeeded":
        not_ready = ("PodCompleted", "")
    elif current == "Failed":
        not_ready = ("PodFailed", "")
    else:
        names = [c.name for c in main if not c.ready]
        not_ready = ("ContainersNotReady", f"containers with unready status: [{' '.join(names)}]")
    pending_init = [c.name for c in init if not c.finished and not c.started]
    values: list[tuple[str, bool, str, str]] = [
        ("PodScheduled", True, "", ""),
        ("PodReadyToStartContainers", bool(ip), "", ""),
        (
            "Initialized",
            initialized,
            *(("ContainersNotInitialized", f"containers with incomplete status: [{' '.join(pending_init)}]")),
        ),
        ("ContainersReady", containers_ready, *not_ready),
        (
            "Ready",
            containers_ready and gates_open,
            *(not_ready if not containers_ready else ("ReadinessGatesNotReady", "")),
        ),
    ]
    conditions = [
        _condition(previous.get(kind), kind, value, reason, message, now) for kind, value, reason, message in values
    ]
    conditions += [condition for kind, condition in previous.items() if kind not in _OWN_CONDITIONS]
    status: Obj = {
        "phase": current,
        "conditions": conditions,
        "hostIP": "127.0.0.1",
        "hostIPs": [{"ip": "127.0.0.1"}],
        "startTime": start_time,
        "containerStatuses": [container_status(c) for c in main],
        "qosClass": (pod.get("status") or {}).get("qosClass", "BestEffort"),
    }
    if ip:
        status["podIP"] = ip
        status["podIPs"] = [{"ip": ip}]
    if init:
        status["initContainerStatuses"] = [container_status(c) for c in init]
    return status


def is_ready(pod: Obj) -> bool:
    """Whether the Pod may get traffic: Ready, and not on its way out."""
    if pod["metadata"].get("deletionTimestamp"):
        return False
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _condition(previous: Obj | None, kind: str, value: bool, reason: str, message: str, now: str) -> Obj:
    text = "True" if value else "False"
    condition: Obj = {"type": kind, "status": text, "lastProbeTime": None}
    if not value:
        condition["reason"] = reason
        if message:
            condition["message"] = message
    same = previous is not None and previous.get("status") == text
    condition["lastTransitionTime"] = (
        previous["lastTransitionTime"] if same and previous and previous.get("lastTransitionTime") else now
    )
    return condition
