"""The HTTP client for calls to providers, whose answers are on the path of a completion.

It does what those calls need, and that alone: POST with a body of JSON over HTTP/1.1. It follows no redirects, uses no
proxies from the environment and keeps no cookies. For calls to other sites there is apikeys.outbound.sites.
"""

from __future__ import annotations

import asyncio
import ssl

from apikeys.outbound.addresses import AddressRefused, Resolver, check_address
from apikeys.outbound.connections import NEVER, Connection, Response
from apikeys.outbound.failures import ConnectFailed, TlsFailed
from apikeys.outbound.outbox import Outbox
from apikeys.outbound.targets import Origin, Target, parse_target

# Servers commonly allow more (uvicorn 5 s), so a reused connection is rarely one that was just closed.
KEEPALIVE_SECONDS = 4.0
# So many connections to one server wait for their next call.
MAX_IDLE = 100
# A deadline is noticed so late at most.
SWEEP_SECONDS = 0.2
# One read of a socket brings so much at most.
READ_BYTES = 32 * 1024
# Servers that are to say good-bye over TLS get so long.
GOODBYE_SECONDS = 2.0


async def post(
    url: str,
    *,
    body: bytes,
    credentials: bytes,
    connect_seconds: float,
    deadline: float,
    max_bytes: int | None = None,
) -> Response:
    """POST JSON, and return the response once its head is here, by the loop's time `deadline`.

    `credentials` are lines of the request's head. With `max_bytes` the response is returned once the whole body is
    here, unless its status is not 2xx. Nothing that was sent is sent again, not even on a connection that the server
    closed at that moment: the server may have acted on it.

    Raise CallFailed, AddressRefused, UnusableTarget or TimeoutError. The caller releases the response.
    """
    target = parse_target(url)
    head = b"%b%bContent-Length: %d\r\n\r\n" % (target.head, credentials, len(body))
    client = client_of_loop()
    connection = client.take(target.origin)
    if connection is None:
        async with asyncio.timeout_at(deadline):
            connection = await client.connect(target, connect_seconds)
    response = connection.send(head, body, max_bytes)
    # What of it has not been sent yet is with the connection.
    del body
    await response.wait_for_head(deadline)
    return response


class Client:
    """The connections of one event loop. One timer looks after all of them, as long as there are any."""

    __slots__ = ("_drained", "_idle", "_loop", "_open", "_resolver", "_sweeping", "_tls", "buffer", "outbox")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        # What is read passes through here: see Connection.get_buffer.
        self.buffer = memoryview(bytearray(READ_BYTES))
        self.outbox = Outbox()
        self._open: set[Connection] = set()
        # The last one in is the first one out, so that those which are not needed come to their end.
        self._idle: dict[Origin, list[Connection]] = {}
        self._resolver = Resolver(loop)
        self._tls: ssl.SSLContext | None = None
        self._sweeping: asyncio.TimerHandle | None = None
        self._drained: asyncio.Future[None] | None = None

    @property
    def open_count(self) -> int:
        return len(self._open)

    @property
    def idle_count(self) -> int:
        return sum(map(len, self._idle.values()))

    def take(self, origin: Origin) -> Connection | None:
        """Return a connection that is free, or None."""
        idle = self._idle.get(origin)
        now = self._loop.time()
        while idle:
            connection = idle[-1]
            if connection.deadline > now and not connection.transport.is_closing():
                idle.pop()
                connection.deadline = NEVER
                return connection
            connection.close()
        return None

    def put(self, connection: Connection) -> None:
        """Keep a connection that is free for the next call, for a while."""
        idle = self._idle.setdefault(connection.origin, [])
        if connection.transport.is_closing() or len(idle) >= MAX_IDLE:
            connection.close()
            return
        connection.deadline = self._loop.time() + KEEPALIVE_SECONDS
        idle.append(connection)

    def forget(self, connection: Connection) -> None:
        """Give this connection to no further call."""
        idle = self._idle.get(connection.origin)
        if idle is not None and connection in idle:
            idle.remove(connection)

    def add(self, connection: Connection) -> None:
        """Take in a connection that was made. Raise ConnectFailed if it, or the client, was closed meanwhile."""
        if self._drained is not None or connection.transport.is_closing():
            connection.transport.abort()
            raise ConnectFailed
        self._open.add(connection)
        if self._sweeping is None:
            self._sweeping = self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def remove(self, connection: Connection) -> None:
        self.forget(connection)
        self._open.discard(connection)
        if self._drained is not None and not self._open and not self._drained.done():
            self._drained.set_result(None)

    async def connect(self, target: Target, connect_seconds: float) -> Connection:
        """Connect, and try once more if that fails. Raise ConnectFailed, AddressRefused or TimeoutError."""
        try:
            return await self._connect(target, connect_seconds)
        except ConnectFailed:
            return await self._connect(target, connect_seconds)

    async def close(self) -> None:
        """End every connection, and wait until the sockets are closed."""
        self._drained = self._loop.create_future()
        for connection in list(self._open):
            connection.abort()
        if self._open:
            await self._drained
        if self._sweeping is not None:
            self._sweeping.cancel()

    async def _connect(self, target: Target, connect_seconds: float) -> Connection:
        host, port = target.origin.host, target.origin.port
        try:
            addresses = [host] if target.is_literal else list(await self._resolver.resolve(host, port))
        except (OSError, UnicodeError):
            raise ConnectFailed from None
        failure: Exception = ConnectFailed()
        for address in addresses:
            try:
                # This very address is connected to: the name is not resolved again.
                check_address(address)
                async with asyncio.timeout(connect_seconds):
                    return await self._connect_to(address, target.origin)
            except (AddressRefused, TimeoutError) as error:
                failure = error
            except ssl.SSLError:
                failure = TlsFailed()
            except OSError:
                # Its text names the address.
                failure = ConnectFailed()
            self._resolver.demote(host, port, address)
        raise failure

    async def _connect_to(self, address: str, origin: Origin) -> Connection:
        tls: ssl.SSLContext | None = None
        if origin.is_tls:
            if self._tls is None:
                # It reads a file with hundreds of certificates.
                self._tls = await asyncio.to_thread(_make_tls_context)
            tls = self._tls
        _, connection = await self._loop.create_connection(
            lambda: Connection(self, origin),
            address,
            origin.port,
            ssl=tls,
            server_hostname=origin.host.rstrip(".") if tls else None,
            ssl_shutdown_timeout=GOODBYE_SECONDS if tls else None,
        )
        # Not before: uvloop does not tell a protocol of the end of a connection whose maker was cancelled.
        self.add(connection)
        return connection

    def _sweep(self) -> None:
        # First of all, so that no failure below ends it.
        self._sweeping = self._loop.call_later(SWEEP_SECONDS, self._sweep) if self._open else None
        now = self._loop.time()
        for connection in [connection for connection in self._open if connection.deadline <= now]:
            connection.expire()
        self._idle = {origin: idle for origin, idle in self._idle.items() if idle}


_clients: dict[asyncio.AbstractEventLoop, Client] = {}


def client_of_loop() -> Client:
    """Return the client of the running loop."""
    loop = asyncio.get_running_loop()
    client = _clients.get(loop)
    if client is None:
        client = _clients[loop] = Client(loop)
    return client


async def close() -> None:
    """End the calls and connections of the running loop."""
    client = _clients.pop(asyncio.get_running_loop(), None)
    if client is not None:
        await client.close()


def _make_tls_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
