"""TLS as every receiver gets it, and failed connections in plain words."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Any

from edge_lsla.delivery.sender import DeliveryError


class _Context(ssl.SSLContext):
    """A context whose sockets shake hands while they are made: where that fails, they close themselves."""

    def wrap_socket(self, *arguments: Any, **options: Any) -> ssl.SSLSocket:
        return super().wrap_socket(*arguments, **{**options, "do_handshake_on_connect": True})


def tls_context(
    ca_file: Path | None, insecure: bool, certificate_file: Path | None = None, key_file: Path | None = None
) -> ssl.SSLContext:
    """Return what verifies a server (unless `insecure`), and shows this device's certificate where there is one.

    Raises:
        DeliveryError: a certificate or key cannot be used.
    """
    context = _Context(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    named = ca_file
    try:
        if ca_file is not None:
            context.load_verify_locations(ca_file)
        else:
            context.load_default_certs()
        if certificate_file is not None:
            named = key_file or certificate_file
            # Without a password here OpenSSL would ask for one on the terminal, where the key has one.
            context.load_cert_chain(certificate_file, key_file, password="")
    except OSError as error:
        reason = getattr(error, "reason", None) or error.strerror
        raise DeliveryError(f"cannot use the certificates or key ({reason})", named, "correct it") from error
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def explain(error: Exception, receiver: str) -> str:
    """Return what a failed exchange with a receiver means, in plain words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{receiver}'s certificate is not trusted ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        return f"TLS with {receiver} fails ({error.reason or type(error).__name__})"
    if isinstance(error, socket.gaierror):
        return f"{receiver}'s name is not found"
    if isinstance(error, TimeoutError):
        return f"{receiver} does not answer"
    if isinstance(error, ConnectionRefusedError):
        return f"{receiver} takes no connection"
    if isinstance(error, ConnectionError):
        return f"{receiver} closed the connection"
    return f"{receiver} cannot be reached ({getattr(error, 'strerror', None) or type(error).__name__})"
