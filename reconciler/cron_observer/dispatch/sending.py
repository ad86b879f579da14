"""Sending a request to an address that was judged, and reading no more of the answer than is kept.

The name is looked up once for each attempt, every address of it is judged, and the connection goes to one of those:
what the name means a moment later does not matter. No redirect is followed and no proxy of the environment is used.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2

from cron_observer.dispatch.answer import BODY_MAX, Answered
from cron_observer.dispatch.guard import Network, is_opened, refusal
from cron_observer.dispatch.names import Names
from cron_observer.dispatch.request import Message

#: Seconds until a connection to one address is there, and addresses of a host that are tried.
_CONNECT: Final = 10.0
_ADDRESSES: Final = 3

#: What goes wrong on the way, by the error's class, the special ones first.
_WORDS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (httpx2.ConnectTimeout, "connect_timeout"),
    (httpx2.ConnectError, "connect"),
    (httpx2.ReadError, "connection_lost"),
    (httpx2.WriteError, "connection_lost"),
    (httpx2.RemoteProtocolError, "bad_answer"),
)


class Sender:
    """Sends the requests of one dispatcher, each on a connection of its own."""

    def __init__(
        self, names: Names, *, opened: Collection[Network] = (), ports: Collection[int], trust: ssl.SSLContext
    ) -> None:
        """`opened` are networks that may be reached though they are private; `trust` says whose certificates hold."""
        self._names = names
        self._opened = opened
        self._ports = ports
        self._trust = trust

    async def send(self, message: Message, patience: float) -> Answered:
        """Send a request and return what came back within `patience` seconds, whatever that is."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(patience):
                answered = await self._send(message, patience)
        except TimeoutError:
            answered = Answered(failure="timeout", detail=f"no whole answer within {patience:g} s")
        return replace(answered, seconds=time.monotonic() - began)

    async def _send(self, message: Message, patience: float) -> Answered:
        parts = urlsplit(message.url)
        host = parts.hostname or ""
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            addresses = await self._names.addresses(host)
        except OSError:
            return Answered(failure="name", detail=f"the name {host} cannot be resolved")
        refused = self._refused(host, port, addresses)
        if refused is not None:
            return refused
        answered = Answered(failure="name", detail=f"the name {host} has no address")
        for address in addresses[:_ADDRESSES]:
            answered = await self._exchange(message, address, port, patience)
            if answered.failure not in ("connect", "connect_timeout"):
                break
        return answered

    def _refused(self, host: str, port: int, addresses: Sequence[str]) -> Answered | None:
        """Judge every address of a host: one that is closed taints the others."""
        for address in addresses:
            why = refusal(address, self._opened)
            if why is not None:
                hint = "webhook_networks opens networks"
                return Answered(failure="refused", detail=f"{host} may not be reached: {why} ({hint})", final=True)
            if port not in self._ports and not is_opened(address, self._opened):
                detail = f"port {port} may not be reached (webhook_ports says which may)"
                return Answered(failure="refused", detail=detail, final=True)
        return None

    async def _exchange(self, message: Message, address: str, port: int, patience: float) -> Answered:
        """Send the request to one address, under the name that it was written with."""
        named = httpx2.URL(message.url)
        where = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        extensions: dict[str, Any] = {
            "timeout": {"connect": min(_CONNECT, patience), "read": patience, "write": patience, "pool": patience},
            "sni_hostname": named.raw_host.decode("ascii").strip("[]"),
        }
        request = httpx2.Request(
            message.method,
            named.copy_with(host=address.partition("%")[0]),
            headers=[("Host", named.netloc.decode("ascii")), *message.headers],
            content=message.body,
            extensions=extensions,
        )
        limits = httpx2.Limits(max_connections=1, max_keepalive_connections=0)
        async with httpx2.AsyncHTTPTransport(verify=self._trust, trust_env=False, limits=limits) as transport:
            got = Answered(address=where)
            try:
                response = await transport.handle_async_request(request)
                got = replace(got, status=response.status_code, headers=response.headers.multi_items())
                return await self._read(response, got)
            except (httpx2.TransportError, OSError, ValueError) as error:
                # the class alone: its words may hold what was sent
                word = next((word for kind, word in _WORDS if isinstance(error, kind)), "network")
                told = "the answer broke off" if got.status is not None else "no answer could be had"
                return replace(got, failure=word, detail=f"{told} from {named.host} ({type(error).__name__})")

    @staticmethod
    async def _read(response: httpx2.Response, got: Answered) -> Answered:
        """Read the beginning of a body. The rest says nothing more, and the connection is closed on it."""
        body = bytearray()
        try:
            async for part in response.stream:  # type: ignore[union-attr]
                body += part
                if len(body) > BODY_MAX:
                    break
        finally:
            await response.aclose()
        return replace(got, body=bytes(body[:BODY_MAX]), cut=len(body) > BODY_MAX)
