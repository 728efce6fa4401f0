"""Asks one probe once. HTTP and gRPC are spoken by hand: a probe needs one request, and grpcio alone would cost the
node 30 MB."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import struct
from collections.abc import Awaitable, Callable

from .model import Obj

Exec = Callable[[list[str], float], Awaitable[tuple[int, bytes]]]
"""(argv, timeout in seconds) -> exit code and output, run in the container's view."""

_FLAG_END_STREAM, _FLAG_END_HEADERS, _FLAG_ACK = 0x1, 0x4, 0x1
_DATA, _HEADERS, _RST, _SETTINGS, _PING, _GOAWAY = 0x0, 0x1, 0x3, 0x4, 0x6, 0x7
_SERVING = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


async def ask(probe: Obj, container: Obj, ip: str, timeout: float, run: Exec) -> tuple[bool, str]:
    """Whether the probe succeeded, and a sentence where it did not. Never raises for what the container does."""
    try:
        async with asyncio.timeout(timeout):
            if probe.get("httpGet"):
                return await http_get(probe["httpGet"], container, ip)
            if probe.get("tcpSocket"):
                _, writer = await asyncio.open_connection(
                    probe["tcpSocket"].get("host") or ip, port_number(probe["tcpSocket"]["port"], container)
                )
                writer.close()
                return True, ""
            if probe.get("grpc"):
                return await grpc_health(ip, int(probe["grpc"]["port"]), probe["grpc"].get("service") or "")
            if probe.get("exec"):
                code, output = await run(list(probe["exec"]["command"]), timeout)
                return code == 0, f"command ended with {code}: {output.decode(errors='replace')[-200:]}"
            return False, "the probe names no handler"
    except TimeoutError:
        return False, f"no answer within {timeout:g} s"
    except (OSError, ValueError, asyncio.IncompleteReadError) as error:
        return False, f"{error}"


def port_number(port: int | str, container: Obj) -> int:
    """A probe's port as a number. Raises ValueError where the container has no port of that name."""
    if isinstance(port, int):
        return port
    if port.isdigit():
        return int(port)
    for entry in container.get("ports") or []:
        if entry.get("name") == port:
            return int(entry["containerPort"])
    raise ValueError(f'the container has no port named "{port}"')


async def http_get(action: Obj, container: Obj, ip: str) -> tuple[bool, str]:
    """GET; 200 to 399 is success. Certificates are not checked (as kubelet doesn't). Raises OSError, ValueError."""
    host, number = action.get("host") or ip, port_number(action["port"], container)
    context = None
    if action.get("scheme") == "HTTPS":
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    headers = {
        "Host": f"{host}:{number}",
        "User-Agent": "kube-probe/pilothouse",
        "Accept": "*/*",
        "Connection": "close",
    }
    headers.update({entry["name"]: entry["value"] for entry in action.get("httpHeaders") or []})
    request = (
        f"GET {action.get('path') or '/'} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in headers.items()) + "\r\n"
    )
    reader, writer = await asyncio.open_connection(host, number, ssl=context)
    try:
        writer.write(request.encode())
        line = (await reader.readline()).split(maxsplit=2)
        if len(line) < 2 or not line[1].isdigit():
            return False, "the answer was not HTTP"
        code = int(line[1])
        return 200 <= code < 400, f"HTTP probe failed with statuscode: {code}"
    finally:
        writer.close()


async def grpc_health(ip: str, port: int, service: str) -> tuple[bool, str]:
    """grpc.health.v1.Health/Check over HTTP/2 without TLS; SERVING is success. Raises OSError, IncompleteReadError."""
    name = service.encode()
    message = (b"\x0a" + bytes([len(name)]) + name) if name else b""
    reader, writer = await asyncio.open_connection(ip, port)
    try:
        writer.write(_PREFACE + _frame(_SETTINGS, 0, 0, b""))
        writer.write(_frame(_HEADERS, _FLAG_END_HEADERS, 1, _health_headers(f"{ip}:{port}")))
        writer.write(_frame(_DATA, _FLAG_END_STREAM, 1, b"\x00" + struct.pack(">I", len(message)) + message))
        data = b""
        while True:
            head = await reader.readexactly(9)
            length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
            payload = await reader.readexactly(length)
            if kind == _SETTINGS and not flags & _FLAG_ACK:
                writer.write(_frame(_SETTINGS, _FLAG_ACK, 0, b""))
            elif kind == _PING and not flags & _FLAG_ACK:
                writer.write(_frame(_PING, _FLAG_ACK, 0, payload))
            elif kind == _DATA:
                data += payload
            if kind in (_RST, _GOAWAY) or (kind in (_DATA, _HEADERS) and flags & _FLAG_END_STREAM):
                break
        status = serving_status(data)
        return (status == 1, f"gRPC health answered {_SERVING.get(status, 'an error')}")
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def serving_status(data: bytes) -> int:
    """HealthCheckResponse.status from a gRPC message with its five bytes of prefix; -1 where there is none (an error
    answer)."""
    if len(data) < 5:
        return -1
    body = data[5:]
    return body[1] if len(body) >= 2 and body[0] == 0x08 else 0


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def _health_headers(authority: str) -> bytes:
    """HPACK without an index or Huffman coding: longer on the wire, and nothing to keep."""
    headers = (
        (":method", "POST"), (":scheme", "http"), (":path", "/grpc.health.v1.Health/Check"), (":authority", authority),
        ("content-type", "application/grpc"), ("te", "trailers"), ("user-agent", "kube-probe/pilothouse"),
    )  # fmt: skip
    return b"".join(
        b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode() for name, value in headers
    )
