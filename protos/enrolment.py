"""The side of enrolment that makes the key: it stays on the machine that made it."""

from __future__ import annotations

import hashlib
import ssl
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from protos import enrol_pb2, enrol_pb2_grpc
from protos.errors import BadInputError, EdgelutError, NotFoundError, UnavailableError, error_of
from protos.identity import Identity, channel, load, save, tls_options
from protos.tokens import Token

TIMEOUT_S = 30.0


def enrol(token: Token, folder: Path) -> Identity:
    """Make a key, exchange the token for its certificate, and keep both in `folder` with the authority's certificate.

    First the authority's certificate is fetched over a connection that nobody has vouched for and compared with the
    token's fingerprint; the secret goes only over a second connection, to a server that the authority vouches for.
    Raises BadInputError when the server is not the one of the token, UnavailableError, and what the server refuses.
    """
    authority_pem = _authority(token)
    key, request_pem = request(token.name)
    try:
        with _channel(token.enrol_address, authority_pem) as secure:
            stub = enrol_pb2_grpc.EnrolmentServiceStub(secure)
            reply = stub.Enrol(
                enrol_pb2.EnrolRequest(secret=token.secret, request_pem=request_pem.decode()), timeout=TIMEOUT_S
            )
    except grpc.RpcError as error:
        raise error_of(error) from error
    return keep(folder, key, reply.certificate_pem.encode(), authority_pem)


def renew(address: str, folder: Path) -> Identity:
    """A new key and certificate for the identity in `folder`, from the coordinator at `address` (HOST:PORT).

    The old ones stay in place until the new ones are whole. Raises NotFoundError when there is no identity,
    UnavailableError, and what the coordinator refuses.
    """
    own = load(folder)
    if own is None:
        raise NotFoundError(f"there is no identity in {folder}: enroll first")
    key, request_pem = request(own.name)
    try:
        with channel(address, folder, ()) as secure:
            stub = enrol_pb2_grpc.CertificateServiceStub(secure)
            reply = stub.Renew(enrol_pb2.RenewRequest(request_pem=request_pem.decode()), timeout=TIMEOUT_S)
    except grpc.RpcError as error:
        raise error_of(error) from error
    return keep(folder, key, reply.certificate_pem.encode(), (folder / "authority.pem").read_bytes())


def _authority(token: Token) -> bytes:
    host, _, port = token.enrol_address.rpartition(":")
    try:
        leaf = ssl.get_server_certificate((host.strip("[]"), int(port)), timeout=TIMEOUT_S)
        with _channel(token.enrol_address, leaf.encode()) as unproven:
            stub = enrol_pb2_grpc.EnrolmentServiceStub(unproven)
            pem: str = stub.GetAuthority(enrol_pb2.GetAuthorityRequest(), timeout=TIMEOUT_S).authority_pem
    except (OSError, ValueError) as error:
        raise UnavailableError(f"no coordinator answers for enrolment at {token.enrol_address} ({error})") from error
    except grpc.RpcError as error:
        raise _plain(error_of(error), token.enrol_address) from error
    try:
        der = ssl.PEM_cert_to_DER_cert(pem)
    except ValueError as error:
        raise BadInputError(f"what answers at {token.enrol_address} sends no certificate") from error
    if hashlib.sha256(der).hexdigest() != token.fingerprint:
        raise BadInputError(
            f"what answers at {token.enrol_address} is not the coordinator that made this token: the fingerprint of "
            "its authority is another. Nothing was sent to it"
        )
    return pem.encode()


def _plain(error: EdgelutError, address: str) -> EdgelutError:
    if isinstance(error, UnavailableError):
        return UnavailableError(f"no coordinator answers for enrolment at {address} ({error})")
    return error


def _channel(address: str, root_pem: bytes) -> grpc.Channel:
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(root_pem), options=tls_options(()))


def request(name: str) -> tuple[ec.EllipticCurvePrivateKey, bytes]:
    """A new key and a PEM certificate request for it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return key, request.public_bytes(serialization.Encoding.PEM)


def keep(folder: Path, key: ec.EllipticCurvePrivateKey, certificate_pem: bytes, authority_pem: bytes) -> Identity:
    """Put a key and its certificate in place. Raises BadInputError when the folder cannot be written."""
    certificate = x509.load_pem_x509_certificate(certificate_pem)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    role, name, device_type = names.get_values_for_type(x509.UniformResourceIdentifier)[0].rsplit(":", 3)[1:]
    identity = Identity(
        name,
        role,
        device_type,
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
    )
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        save(folder, identity, key_pem, certificate_pem, authority_pem)
    except OSError as error:
        raise BadInputError(f"the identity cannot be kept in {folder}: {error.strerror}") from error
    return identity
