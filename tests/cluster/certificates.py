"""Certificates and kubeconfig files: one authority for each control plane, everything else signed by it."""

import base64
import datetime
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = datetime.timedelta(days=30)
# Clocks of a machine that was suspended may lag.
LEEWAY = datetime.timedelta(hours=1)


@dataclass(frozen=True)
class Pair:
    """Files of a certificate and its private key, PEM."""

    certificate: Path
    key: Path


def create_authority(folder: Path) -> Pair:
    """A new certificate authority in `folder`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("kubernetes", ())
    builder = _builder(name, name, key).add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return _write(folder, "ca", builder.sign(key, hashes.SHA256()), key)


def create_key(path: Path) -> Path:
    """A key that signs tokens of service accounts."""
    _write_key(path, ec.generate_private_key(ec.SECP256R1()))
    return path


def issue(authority: Pair, file_name: str, user: str, groups: Sequence[str] = (), hosts: Sequence[str] = ()) -> Pair:
    """A certificate for a client (its user and groups) that serves `hosts`, too, if there are any."""
    parent = x509.load_pem_x509_certificate(authority.certificate.read_bytes())
    parent_key = serialization.load_pem_private_key(authority.key.read_bytes(), None)
    assert isinstance(parent_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    builder = _builder(_name(user, groups), parent.subject, key)
    builder = builder.add_extension(x509.ExtendedKeyUsage(usages[: 2 if hosts else 1]), critical=False)
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False)
    return _write(authority.key.parent, file_name, builder.sign(parent_key, hashes.SHA256()), key)


def write_kubeconfig(path: Path, server: str, authority: Pair, credential: Pair | str) -> Path:
    """A kubeconfig for a client certificate or a token."""
    cluster = {"server": server, "certificate-authority-data": _encode(authority.certificate)}
    document: Mapping[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "tests", "cluster": cluster}],
        "users": [{"name": "user", "user": _user(credential)}],
        "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "user"}}],
        "current-context": "tests",
    }
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def _user(credential: Pair | str) -> dict[str, str]:
    if isinstance(credential, str):
        return {"token": credential}
    return {
        "client-certificate-data": _encode(credential.certificate),
        "client-key-data": _encode(credential.key),
    }


def _encode(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _name(user: str, groups: Sequence[str]) -> x509.Name:
    organisations = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name([*organisations, x509.NameAttribute(NameOID.COMMON_NAME, user)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - LEEWAY)
        .not_valid_after(now + LIFETIME)
    )


def _write(folder: Path, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    pair = Pair(folder / f"{name}.crt", folder / f"{name}.key")
    pair.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    _write_key(pair.key, key)
    return pair


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )
