"""The certificates and kubeconfigs of one instance, made once at its first start.

Two authorities: ``ca`` for the cluster (API server, its clients, the node) and ``etcd-ca`` for etcd alone, so that a
kubeconfig's certificate opens no door to the store beneath. They last ten years: an instance is a developer's.
"""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFE = datetime.timedelta(days=3650)
NODE_NAME = "pilothouse-local"
_LOOPBACK = ["localhost", "127.0.0.1"]
_API_SERVER_NAMES = [
    *_LOOPBACK, "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
    "10.96.0.1",
]  # fmt: skip


@dataclass(frozen=True)
class _Authority:
    cert: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def write_private(path: Path, data: bytes) -> None:
    """Writes a file that only its owner reads, atomically and never readable in between."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    part.replace(path)


def ensure(folder: Path, now: datetime.datetime) -> None:
    """Makes every key pair in ``folder`` unless they are all there; the last file written marks the set as whole."""
    if (folder / ".complete").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    ca = _authority(folder, "ca", "pilothouse-local", now)
    _issue(folder, "apiserver", ca, "kube-apiserver", (), _API_SERVER_NAMES, now)
    _issue(folder, "apiserver-kubelet-client", ca, "kube-apiserver-kubelet-client", ("system:masters",), (), now)
    _issue(folder, "admin", ca, "pilothouse-admin", ("system:masters",), (), now)
    _issue(folder, "controller-manager", ca, "system:kube-controller-manager", (), (), now)
    _issue(folder, "node", ca, f"system:node:{NODE_NAME}", ("system:nodes",), [*_LOOPBACK, NODE_NAME], now)
    etcd = _authority(folder, "etcd-ca", "pilothouse-local-etcd", now)
    _issue(folder, "etcd", etcd, "etcd", (), _LOOPBACK, now)
    _issue(folder, "etcd-client", etcd, "kube-apiserver-etcd-client", (), (), now)
    accounts = ec.generate_private_key(ec.SECP256R1())
    write_private(folder / "service-accounts.key", _pem(accounts))
    public = accounts.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    (folder / "service-accounts.pub").write_bytes(public)
    (folder / ".complete").touch()


def kubeconfig(folder: Path, pair: str, server: str) -> bytes:
    """A kubeconfig with everything embedded (JSON, which is YAML), for the key pair named ``pair``."""

    def embedded(name: str) -> str:
        return base64.b64encode((folder / name).read_bytes()).decode()

    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "pilothouse-local",
            "clusters": [
                {
                    "name": "pilothouse-local",
                    "cluster": {"server": server, "certificate-authority-data": embedded("ca.crt")},
                }
            ],
            "users": [
                {
                    "name": pair,
                    "user": {
                        "client-certificate-data": embedded(f"{pair}.crt"),
                        "client-key-data": embedded(f"{pair}.key"),
                    },
                }
            ],
            "contexts": [{"name": "pilothouse-local", "context": {"cluster": "pilothouse-local", "user": pair}}],
        },
        indent=1,
    ).encode()


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + _LIFE)
    )


def _usage(*, signing: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=not signing, data_encipherment=False,
        key_agreement=False, key_cert_sign=signing, crl_sign=signing, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _authority(folder: Path, name: str, common_name: str, now: datetime.datetime) -> _Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    cert = (
        _builder(subject, subject, key, now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signing=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _store(folder, name, cert, key)
    return _Authority(cert, key)


def _issue(
    folder: Path,
    name: str,
    ca: _Authority,
    common_name: str,
    organizations: Sequence[str],
    hosts: Sequence[str],
    now: datetime.datetime,
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization) for organization in organizations]
    subject = x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = (
        _builder(subject, ca.cert.subject, key, now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signing=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key()), critical=False)
    )
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False)
    _store(folder, name, builder.sign(ca.key, hashes.SHA256()), key)


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _store(folder: Path, name: str, cert: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    write_private(folder / f"{name}.key", _pem(key))
    (folder / f"{name}.crt").write_bytes(cert.public_bytes(serialization.Encoding.PEM))
