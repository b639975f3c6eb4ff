"""Servers as users have them: Debian's Redis and the wheel's Valkey, each of one test alone.

A server that the machine runs by itself is never used: ours have a folder, and a port or a network
namespace, of their own.
"""

import datetime
import ipaddress
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.waiting import wait_until

REDIS = shutil.which("redis-server") or ""
LOOPBACK = "127.0.0.1"
READY_S = 15.0
needs_redis = pytest.mark.skipif(
    not REDIS, reason="no redis-server on this machine; `apt install redis-server` brings one"
)


def free_port() -> int:
    with socket.create_server((LOOPBACK, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class OwnServer:
    """A server of one test, from `start` to `stop`; also on a unix socket, for the test itself.

    Args:
        folder: of its own, with a short path: configuration, socket, append-only file.
        options: lines of `redis.conf`; they win over those that we give.
        within: a command that the server's command is given to, as in `ip netns exec NAME`.
    """

    def __init__(
        self,
        folder: Path,
        options: Mapping[str, str] | None = None,
        *,
        binary: str = REDIS,
        within: Sequence[str] = (),
    ) -> None:
        self._socket = folder / "own.sock"
        self._config = folder / "own.conf"
        self._command = [*within, binary, str(self._config)]
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        lines = {
            "bind": LOOPBACK,
            "port": str(self.port),
            "unixsocket": str(self._socket),
            "dir": str(folder),
            "logfile": str(folder / "own.log"),
            "save": '""',
            "appendonly": "yes",
            "appendfsync": "always",
        }
        lines |= options or {}
        self._config.write_text("".join(f"{name} {value}\n" for name, value in lines.items()))

    @property
    def unix_url(self) -> str:
        return f"unix://{self._socket}"

    @property
    def url(self) -> str:
        return f"redis://{LOOPBACK}:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> Self:
        self._socket.unlink(missing_ok=True)
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        wait_until(self._answers, READY_S, "an answer of the server")
        return self

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"{self._config.with_suffix('.log').read_text()}"
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(self._socket))
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self._process is not None:
            os.kill(self._process.pid, number)
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


class Certificates(NamedTuple):
    """Files of an authority and of a server that it vouches for."""

    authority: Path
    server: Path
    key: Path


def certificates(folder: Path, name: str = "authority") -> Certificates:
    """A new authority, and a certificate of it for the loopback address, good for a day."""
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    authority = _certificate(issuer, authority_key, issuer, authority_key, is_authority=True)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    own = _certificate(subject, key, issuer, authority_key, is_authority=False)
    paths = Certificates(*(folder / f"{name}-{part}.pem" for part in ("ca", "server", "key")))
    paths.authority.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    paths.server.write_bytes(own.public_bytes(serialization.Encoding.PEM))
    paths.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths


def _certificate(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    is_authority: bool,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(LOOPBACK))]
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(identifier, critical=False)
        .add_extension(_usage(is_authority=is_authority), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )


def _usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        **dict.fromkeys(
            (
                *("content_commitment", "key_encipherment", "data_encipherment"),
                *("key_agreement", "encipher_only", "decipher_only"),
            ),
            False,
        ),
    )
