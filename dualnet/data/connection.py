"""Connections for downloads: to https alone, also behind redirects, and never without an end."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import urllib.request
from contextlib import suppress
from typing import Any

TIMEOUT = 30.0
"""How long a mirror may stay silent, in seconds."""

LEAST_RATE = 10_000
"""How many bytes of a file must arrive in a second, on average over each `TIMEOUT`."""


class Watch:
    """Ends connections over which too little comes.

    A timeout of a socket is no limit for one that gets a byte now and then, be it of the file, of
    a header or of the handshake.  So a thread looks every `TIMEOUT` seconds what has arrived.

    Attributes:
        timeout: `TIMEOUT`.
        received: how many bytes of the file have arrived; whoever receives them counts them.
        gave_up: why the connections were ended; empty if they were not.
    """

    def __init__(self) -> None:
        self.timeout, self.received, self.gave_up = TIMEOUT, 0, ""
        self._sockets: list[socket.socket] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch of a download", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        for connected in self._sockets:
            connected.close()

    def add(self, connected: socket.socket) -> None:
        """Watch a socket, too."""
        # A socket moves into that of TLS before the handshake; a duplicate remains.
        self._sockets.append(connected.dup())
        if self.gave_up:
            raise OSError(self.gave_up)

    def _look(self) -> None:
        before = 0
        while not self._done.wait(self.timeout):
            if self.received - before < LEAST_RATE * self.timeout:
                self.gave_up = f"less than {LEAST_RATE} bytes a second in {self.timeout:g} seconds"
                for connected in list(self._sockets):
                    with suppress(OSError):
                        connected.shutdown(socket.SHUT_RDWR)
                return
            before = self.received


def opener(watch: Watch) -> urllib.request.OpenerDirector:
    """Return what opens addresses that begin with https, and no others.

    It uses the proxy that the environment names, and trusts the certificates that the system does.

    Args:
        watch: ends the connections if they are too slow.
    """
    made = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),  # refuses all other schemes
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(),
        _Https(watch),
    ):
        made.add_handler(handler)
    return made


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but does not read what comes with them."""

    def redirect_request(
        self, request: Any, answer: Any, code: Any, message: Any, headers: Any, url: str
    ) -> urllib.request.Request | None:
        # The caller would read all that follows the headers, and it may not end.
        answer.close()
        return super().redirect_request(request, answer, code, message, headers, url)


class _Https(urllib.request.HTTPSHandler):
    """Opens connections that are watched from their beginning."""

    def __init__(self, watch: Watch):
        self._trusted = ssl.create_default_context()
        super().__init__(context=self._trusted)
        self._watch = watch

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        def connection(host: str, **how: Any) -> _Connection:
            made = _Connection(host, **how)
            made.watch = self._watch
            return made

        return self.do_open(connection, request, context=self._trusted)


class _Watched(http.client.HTTPConnection):
    watch: Watch

    def connect(self) -> None:
        super().connect()
        self.watch.add(self.sock)


class _Connection(http.client.HTTPSConnection, _Watched):
    """A connection whose socket is watched before the handshake of TLS, which follows it."""
