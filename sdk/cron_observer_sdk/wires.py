"""One TCP or TLS connection whose every wait ends at a deadline.

`http.client` gives each read its own timeout, so a server that drips bytes could hold a call for ever.
Here each wait gets what is left until `Connection.deadline`.
"""

from __future__ import annotations

import http.client
import io
import socket
import time
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import ssl

    from cron_observer_sdk.transport import Endpoint


class Connection(http.client.HTTPConnection):
    """An HTTP connection with a deadline, to be set before each request."""

    def __init__(self, endpoint: Endpoint, context: ssl.SSLContext | None) -> None:
        super().__init__(endpoint.host, endpoint.port)
        self.deadline = 0.0  #: monotonic
        self.idle_since = 0.0  #: monotonic
        self._tls = context
        self._interrupted = False

    def connect(self) -> None:
        """Connect to the first address that answers before the deadline."""
        raw = self._dial()
        try:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                raw.settimeout(self.remaining())
                raw = self._tls.wrap_socket(raw, server_hostname=self.host)
        except BaseException:
            raw.close()
            raise
        self.sock = cast("socket.socket", _TimedSocket(raw, self))
        if self._interrupted:
            self.interrupt()

    def remaining(self) -> float:
        """Return the seconds until the deadline. Raise `TimeoutError` when there are none."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("no answer in time")
        return left

    def interrupt(self) -> None:
        """End the waiting of another thread on this connection."""
        self._interrupted = True
        sock = self.sock
        if sock is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # it is closed already

    def _dial(self) -> socket.socket:
        """Try the host's addresses in turn; each gets its share of the time that is left."""
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        failure: OSError | None = None
        for number, (family, kind, protocol, _name, address) in enumerate(found):
            raw = socket.socket(family, kind, protocol)
            try:
                raw.settimeout(self.remaining() / (len(found) - number))
                raw.connect(address)
            except OSError as error:
                raw.close()
                failure = error
            else:
                return raw
        raise failure or OSError(f"{self.host} has no address")

    def __del__(self) -> None:
        """Close the socket of a connection that nobody holds any more."""
        self.close()


class _TimedSocket:
    """The part of a socket that `http.client` uses, with the connection's deadline on each wait.

    `http.client` closes the socket of an answer that ends with the connection before that is read: it is closed
    with the last reader.
    """

    def __init__(self, raw: socket.socket, owner: Connection) -> None:
        self._raw = raw
        self._owner = owner
        self._readers = 0
        self._closing = False

    def sendall(self, data: Any) -> None:
        """Send everything before the deadline."""
        view = memoryview(data).cast("B")
        while view:
            self._raw.settimeout(self._owner.remaining())
            view = view[self._raw.send(view) :]

    def receive(self, buffer: Any) -> int:
        """Fill the buffer with what comes first; 0 is the end."""
        self._raw.settimeout(self._owner.remaining())
        return self._raw.recv_into(buffer)

    def makefile(self, mode: str) -> io.BufferedReader:
        """Return a reader over this socket; closing it leaves the socket open."""
        if mode != "rb":
            raise ValueError(mode)
        self._readers += 1
        return io.BufferedReader(_Reader(self))

    def shutdown(self, how: int) -> None:
        """End the traffic, also for a thread that waits in it."""
        self._raw.shutdown(how)

    def close(self) -> None:
        """Close the socket, as soon as nobody reads from it."""
        self._closing = True
        if self._readers <= 0:
            self._raw.close()

    def leave(self) -> None:
        """One reader is done."""
        self._readers -= 1
        if self._closing:
            self.close()


class _Reader(io.RawIOBase):
    """Reads from a socket until the deadline of its connection."""

    def __init__(self, sock: _TimedSocket) -> None:
        self._sock = sock

    def readable(self) -> bool:
        """It is."""
        return True

    def close(self) -> None:
        """Be done with the socket."""
        if not self.closed:
            super().close()
            self._sock.leave()

    def readinto(self, buffer: Any) -> int:
        """Read what is there."""
        return self._sock.receive(buffer)
