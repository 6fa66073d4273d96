"""A server of https on this machine, whose certificate the tests make and trust."""

import shutil
import socket
import ssl
import subprocess
import threading
from contextlib import contextmanager, suppress

import pytest

NO_OPENSSL = "openssl is not there, which makes the certificate of the test's server"


def make_certificate(folder):
    """Return the path of a new certificate of 127.0.0.1 with its key, which signs itself."""
    if shutil.which("openssl") is None:
        pytest.skip(NO_OPENSSL)
    path = folder / "certificate.pem"
    how = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
        "-subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 "
        "-addext keyUsage=critical,digitalSignature,keyCertSign "
        f"-keyout {path}.key -out {path}.crt"
    )
    subprocess.run(how.split(), check=True, capture_output=True)
    path.write_bytes(
        b"".join((folder / f"{path.name}.{end}").read_bytes() for end in ("key", "crt"))
    )
    return path


def server_context(certificate):
    """What makes a socket of a server one of TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def answering(page):
    """A behavior that reads a request and sends an answer: its bytes."""

    def behave(connection):
        read_request(connection)
        connection.sendall(page)

    return behave


def read_request(connection):
    """Read a request up to its empty line."""
    request = b""
    while b"\r\n\r\n" not in request and (some := connection.recv(4096)):
        request += some
    return request


@contextmanager
def behaving(behave, context=None):
    """Serve each connection by `behave(socket)`; yields the address.

    Args:
        behave: what the server does; afterward the connection is closed.
        context: of TLS; None for plain bytes.
    """
    listening = socket.create_server(("127.0.0.1", 0))
    closing = threading.Event()

    def serve(connection):
        with suppress(OSError), connection:
            connection.settimeout(20)
            if context is None:
                behave(connection)
            else:
                with context.wrap_socket(connection, server_side=True) as secured:
                    behave(secured)

    def accept():
        while not closing.is_set():
            with suppress(OSError):
                connection, _ = listening.accept()
                thread = threading.Thread(target=serve, args=(connection,), daemon=True)
                thread.start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    port = listening.getsockname()[1]
    try:
        yield f"https://127.0.0.1:{port}/"
    finally:
        closing.set()
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            pass  # wakes `accept`
        thread.join()
        listening.close()
