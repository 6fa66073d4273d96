"""What servers do to harm whoever downloads from them: over a hundred ways, each a function.

Each takes the socket of a connection.  Most answer a request over TLS; those of `BEFORE_TLS` have
the socket before it.
"""

import contextlib
import gzip
import socket
import struct
import time

from https_server import read_request

ESCAPES = b"\x1b[31mred\x1b]0;title\x07\x08\x08\x9b2J\r\x00"
"""What would steer a terminal."""


def answer(*headers, status=b"200 OK", body=b"", line=None):
    """The bytes of an answer."""
    first = b"HTTP/1.1 " + status if line is None else line
    return b"\r\n".join((first, *headers, b"Connection: close", b"", body))


def sending(*parts, pause=0.0, then=None):
    """A behavior that reads a request and sends parts, with a pause behind each."""

    def behave(connection):
        read_request(connection)
        for part in parts:
            connection.sendall(part)
            time.sleep(pause)
        if then is not None:
            then(connection)

    return behave


def endless(part, pause=0.0, first=b""):
    """A behavior that sends something for ever, until the other side has had enough."""

    def behave(connection):
        read_request(connection)
        connection.sendall(first)
        with contextlib.suppress(OSError):
            while True:
                connection.sendall(part)
                time.sleep(pause)

    return behave


def silent(connection):
    """Say nothing until the other side gives up."""
    with contextlib.suppress(OSError):
        while connection.recv(4096):
            pass


def reset(connection):
    """End a connection by a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def half_closed(connection):
    """Send no more, and wait."""
    connection.unwrap() if hasattr(connection, "unwrap") else None
    connection.shutdown(socket.SHUT_WR)
    silent(connection)


def drip(connection):
    """Send a byte now and then instead of a handshake."""
    with contextlib.suppress(OSError):
        connection.sendall(b"\x16\x03\x03\x40\x00")  # a record of 16 KiB follows
        while True:
            connection.sendall(b"\2")
            time.sleep(0.05)


def plain_http(connection):
    """Speak no TLS."""
    connection.recv(4096)
    connection.sendall(answer(body=b"hello"))


BEFORE_TLS = {
    "plain HTTP": plain_http,
    "plain escapes": lambda connection: connection.sendall(ESCAPES * 9),
    "closes at once": lambda connection: None,
    "resets at once": reset,
    "silent before TLS": silent,
    "drips before TLS": drip,
    "an alert of TLS": lambda connection: connection.sendall(b"\x15\x03\x03\0\2\2\x28"),
    "random bytes": lambda connection: connection.sendall(bytes(range(256)) * 64),
}


def redirect(location, status=b"302 Found", body=b""):
    return sending(answer(b"Location: " + location, status=status, body=body))


LOCATIONS = {
    "http": b"http://127.0.0.1:1/",
    "file": b"file:///etc/passwd",
    "local file": b"file://localhost/etc/hostname",
    "ftp": b"ftp://127.0.0.1/a",
    "data": b"data:text/plain,hello",
    "gopher": b"gopher://127.0.0.1/",
    "javascript": b"javascript:alert(1)",
    "http in capitals": b"HTTP://127.0.0.1:1/",
    "no scheme": b"//127.0.0.1:1/",
    "nonsense": b"https://[",
    "escapes": b"https://" + ESCAPES[:-2] + b"/",
    "an escape in a path": b"https://127.0.0.1:1/\x1b[2J",
    "itself": b"",
    "port zero": b"https://127.0.0.1:0/",
    "port beyond": b"https://127.0.0.1:99999/",
    "port of letters": b"https://127.0.0.1:abc/",
    "no host": b"https:///x",
    "a long address": b"https://" + b"a" * 60_000 + b"/",
    "user and password": b"https://user:secret@127.0.0.1:1/",
}


def bodies(packed, content):
    """Bodies that are not the file.

    Args:
        packed: the file as it is sent.
        content: the file.
    """
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    return {
        "nothing": b"",
        "a page": b"<html>\x1b[5mPlease log in</html>",
        "other content": gzip.compress(bytes(flipped)),
        "other content, not packed": bytes(flipped),
        "half": packed[: len(packed) // 2],
        "all but the last byte": packed[:-1],
        "a byte more": gzip.compress(content + b"\0"),
        "a byte less": gzip.compress(content[:-1]),
        "twice": packed + packed,
        "garbage behind": packed + ESCAPES,
        "a bomb": gzip.compress(bytes(32 << 20)),
        "a bomb of bombs": gzip.compress(gzip.compress(bytes(32 << 20))),
        "empty members": gzip.compress(b"") * 2000,
        "a header without end": b"\x1f\x8b\x08\x08" + b"a" * 6000,
        "a header alone": b"\x1f\x8b\x08\0\0\0\0\0\0\xff",
        "another checksum": packed[:-8] + bytes(4) + packed[-4:],
        "another length": packed[:-4] + b"\xff\xff\xff\xff",
        "a block of no kind": b"\x1f\x8b\x08\0\0\0\0\0\0\xff\x07" + packed[11:],
        "zip": b"PK\3\4" + packed,
        "zeros": bytes(5000),
    }


def transfers(packed):
    """Ways to send a body that go wrong, even if it is right."""
    half, length = packed[: len(packed) // 2], b"%d" % len(packed)
    chunked = b"Transfer-Encoding: chunked"

    def chunk(size, body=b"", end=b"\r\n"):
        return size + b"\r\n" + body + end

    return {
        "a length too large": sending(answer(b"Content-Length: 999999", body=half)),
        "a length too small": sending(answer(b"Content-Length: 100", body=packed)),
        "a length of zero": sending(answer(b"Content-Length: 0", body=packed)),
        "closed on the way": sending(answer(b"Content-Length: " + length, body=half)),
        "reset on the way": sending(answer(body=half), then=reset),
        "half closed": sending(answer(body=half), then=half_closed),
        "chunks without sizes": sending(answer(chunked, body=packed)),
        "a chunk of letters": sending(answer(chunked, body=chunk(b"xyz", packed))),
        "a negative chunk": sending(answer(chunked, body=chunk(b"-5", packed))),
        "a huge chunk": sending(answer(chunked, body=chunk(b"f" * 300, half))),
        "a long size of a chunk": sending(answer(chunked, body=b"1" * 70_000)),
        "a chunk with escapes": sending(answer(chunked, body=chunk(ESCAPES, half))),
        "chunks without an end": sending(answer(chunked, body=chunk(b"%x" % len(half), half))),
        "trailers without end": endless(
            b"X: y\r\n", first=answer(chunked, body=b"2\r\nab\r\n0\r\n")
        ),
        "an extension without end": endless(b";a" * 999, first=answer(chunked, body=b"2")),
    }


STATUSES = (
    *(b"204 No Content", b"206 Partial Content", b"300 Many", b"304 Not Modified", b"401 Who"),
    *(b"403 No", b"404 No", b"407 Proxy", b"416 Range", b"418 \x1b[31mTeapot", b"429 Slower"),
    *(
        b"500 " + ESCAPES.replace(b"\r\0", b""),
        b"503 Later",
        b"999 What",
        b"099 Less",
        b"302 Found",
    ),
)


def answers():
    """Answers whose heads go wrong."""
    return {
        **{f"status {status[:3].decode()}": sending(answer(status=status)) for status in STATUSES},
        "escapes for a status": sending(ESCAPES + b"\r\n\r\n"),
        "escapes for a number": sending(answer(status=ESCAPES)),
        "a status of letters": sending(answer(status=b"abc " + ESCAPES)),
        "a negative status": sending(answer(status=b"-200 OK")),
        "a long status": sending(b"HTTP/1.1 200 " + b"a" * 70_000 + b"\r\n\r\n"),
        "HTTP/0.9": sending(b"hello"),
        "HTTP/3": sending(answer(line=b"HTTP/3 200 OK")),
        "HTTP/2's preface": sending(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        "escapes in a header": sending(answer(b"X-" + ESCAPES + b": " + ESCAPES)),
        "escapes in a length": sending(answer(b"Content-Length: " + ESCAPES)),
        "a negative length": sending(answer(b"Content-Length: -1")),
        "a huge length": sending(answer(b"Content-Length: " + b"9" * 9999)),
        "many headers": sending(answer(*(b"X: y" for _ in range(1000)))),
        "a long header": sending(answer(b"X: " + b"y" * 100_000)),
        "a header without a colon": sending(answer(b"hello")),
        "nothing at all": sending(),
        "a head without an end": sending(b"HTTP/1.1 200 OK\r\nX: y"),
        "headers without end": endless(b"X: y\r\n", first=b"HTTP/1.1 200 OK\r\n"),
        "continue without end": endless(b"HTTP/1.1 100 Continue\r\n\r\n"),
        "zeros without end": endless(bytes(9999)),
        "reset after the request": sending(then=reset),
    }


def slow(packed):
    """Servers that would keep somebody waiting for ever."""
    head = answer(b"Content-Length: %d" % len(packed))
    return {
        "silent": sending(then=silent),
        "silent behind its head": sending(head, then=silent),
        "silent on the way": sending(head, packed[:100], then=silent),
        "drips its status": endless(b"H", 0.05),
        "drips its headers": endless(b"X: y\r\n", 0.2, b"HTTP/1.1 200 OK\r\n"),
        "drips a header": endless(b"a", 0.05, b"HTTP/1.1 200 OK\r\nX: "),
        "drips its body": endless(b"a", 0.05, answer(b"Content-Length: 9999")),
        "drips chunks": endless(b"1\r\na\r\n", 0.05, answer(b"Transfer-Encoding: chunked")),
        "drips continue": endless(b"HTTP/1.1 100 Continue\r\n\r\n", 0.05),
        "drips behind a redirect": endless(b"a", 0.05, answer(b"Location: /", status=b"302 Found")),
    }


def after_tls(packed, content):
    """All behaviors of a server that speaks TLS: name → function of the connection."""
    return {
        **{f"redirect to {name}": redirect(where) for name, where in LOCATIONS.items()},
        "a redirect without end": endless(
            bytes(1 << 16), first=answer(b"Location: https://127.0.0.1:1/", status=b"301 Moved")
        ),
        "a redirect to nowhere": sending(answer(status=b"307 Temporary")),
        **{f"body: {n}": sending(answer(body=body)) for n, body in bodies(packed, content).items()},
        "a body without end": endless(b"a" * 9999, first=answer()),
        **transfers(packed),
        **answers(),
        **slow(packed),
    }
