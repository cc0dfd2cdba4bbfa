"""The coordinator's own certificate authority: keys on its disk, short-lived certificates for everybody it knows.

A certificate says who somebody is (common name) and as what (a URI, `urn:edgelut:ROLE:NAME:TYPE`); whatever else a
request asks for is ignored. The key of the authority never leaves its folder.
"""

from __future__ import annotations

import datetime as dt
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote, unquote

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lut_store.records import Invitation, Issued
from protos.errors import BadInputError, ConflictError, NotFoundError
from protos.identity import ROLES, SERVER_NAME

DAY_S = 86400.0
AUTHORITY_DAYS = 3650
SERVER_DAYS = 90
HOLDER_DAYS = {"agent": 30, "operator": 365, "reader": 365}
BACKDATED_S = 300.0  # clocks differ a little
_KEY, _CERTIFICATE = "authority-key.pem", "authority.pem"
_URI = "urn:edgelut"


@dataclass(frozen=True)
class Keys:
    key_pem: bytes
    certificate_pem: bytes


class Authority:
    """Issues certificates. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        """The authority in `folder`. Raises NotFoundError when there is none, BadInputError for a damaged one."""
        self.folder = folder
        try:
            self.certificate_pem = (folder / _CERTIFICATE).read_bytes()
            key_pem = (folder / _KEY).read_bytes()
        except FileNotFoundError as error:
            if exists(folder):
                raise BadInputError(f"the authority in {folder} is incomplete: restore it, or remove it") from error
            raise NotFoundError(f"there is no authority in {folder}: make one with `coordinator ca init`") from error
        except OSError as error:
            raise BadInputError(f"the authority in {folder} cannot be read: {error.strerror}") from error
        try:
            self._certificate = x509.load_pem_x509_certificate(self.certificate_pem)
            key = serialization.load_pem_private_key(key_pem, None)
        except ValueError as error:
            raise BadInputError(f"the authority in {folder} is damaged: {error}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != self._certificate.public_key():
            raise BadInputError(f"{_KEY} and {_CERTIFICATE} in {folder} do not belong together")
        self._key = key

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate, hexadecimal."""
        return fingerprint(self.certificate_pem)

    def server(self, now_s: float) -> Keys:
        """A new key and certificate for a coordinator."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.DNSName(SERVER_NAME)])
        certificate = self._sign(
            key.public_key(), SERVER_NAME, names, ExtendedKeyUsageOID.SERVER_AUTH, now_s, SERVER_DAYS * DAY_S
        )
        return Keys(_key_pem(key), _pem(certificate) + self.certificate_pem)

    def issue(self, request_pem: str, holder: Invitation, now_s: float) -> tuple[bytes, Issued]:
        """A certificate for the key of a request, whatever name the request gives. Raises BadInputError."""
        if holder.role not in ROLES:
            raise BadInputError(f"unknown role {holder.role!r} (known: {', '.join(ROLES)})")
        try:
            request = x509.load_pem_x509_csr(request_pem.encode())
            key = request.public_key()
            sound = request.is_signature_valid
        except (ValueError, TypeError) as error:
            raise BadInputError(f"this is no certificate request: {error}") from error
        if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1" or not sound:
            raise BadInputError("the certificate request must be signed by a key on the curve P-256")
        parts = (holder.role, holder.name, holder.device_type)
        uri = ":".join((_URI, *(quote(part, safe="") for part in parts)))
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
        life_s = HOLDER_DAYS[holder.role] * DAY_S
        certificate = self._sign(key, holder.name, names, ExtendedKeyUsageOID.CLIENT_AUTH, now_s, life_s)
        return _pem(certificate), Issued(f"{certificate.serial_number:x}", holder, now_s, now_s + life_s)

    def _sign(
        self,
        key: ec.EllipticCurvePublicKey,
        name: str,
        names: x509.SubjectAlternativeName,
        usage: x509.ObjectIdentifier,
        now_s: float,
        life_s: float,
    ) -> x509.Certificate:
        return (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(self._certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(_time(now_s - BACKDATED_S))
            .not_valid_after(_time(now_s + life_s))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=True)
            .add_extension(names, critical=False)
            .sign(self._key, hashes.SHA256())
        )


def init(folder: Path, now_s: float) -> Authority:
    """A new authority in `folder`. Raises ConflictError when there is one: replacing it would lock everybody out."""
    if (folder / _KEY).exists() or (folder / _CERTIFICATE).exists():
        raise ConflictError(f"{folder} holds an authority already, and every certificate depends on it")
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("edgelut authority")
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_time(now_s - BACKDATED_S))
        .not_valid_after(_time(now_s + AUTHORITY_DAYS * DAY_S))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_ca_usage(), critical=True)
        .sign(key, hashes.SHA256())
    )
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write(folder / _KEY, _key_pem(key))
        _write(folder / _CERTIFICATE, _pem(certificate))
    except OSError as error:
        raise BadInputError(f"the authority cannot be kept in {folder}: {error.strerror}") from error
    return Authority(folder)


def exists(folder: Path) -> bool:
    """Whether there is an authority, whole or not: a damaged one must not silently mean no TLS."""
    return (folder / _KEY).exists() or (folder / _CERTIFICATE).exists()


def fingerprint(certificate_pem: bytes) -> str:
    """SHA-256 of a certificate, hexadecimal. Raises BadInputError when it is none."""
    try:
        return x509.load_pem_x509_certificate(certificate_pem).fingerprint(hashes.SHA256()).hex()
    except ValueError as error:
        raise BadInputError(f"this is no certificate: {error}") from error


@lru_cache(4096)
def holder_of(certificate_pem: bytes) -> tuple[Invitation, str]:
    """(holder, serial) of a certificate whose signature has been checked. Raises BadInputError when it names none."""
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        prefix, role, name, device_type = uris[0].rsplit(":", 3)
    except (ValueError, IndexError, x509.ExtensionNotFound) as error:
        raise BadInputError("the certificate does not say who its holder is") from error
    if prefix != _URI or role not in ROLES:
        raise BadInputError("the certificate does not say who its holder is")
    return Invitation(unquote(name), role, unquote(device_type)), f"{certificate.serial_number:x}"


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _time(wall_s: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(wall_s, dt.UTC)


def _ca_usage() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        os.fsync(file.fileno())
