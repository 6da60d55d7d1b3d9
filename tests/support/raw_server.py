"""A server in the test's own loop that sends and reads bytes as a test's script says."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from ssl import SSLContext

LENGTH = re.compile(rb"\r\nContent-Length: (\d+)\r\n")


class Peer:
    """One connection to the server, by its number."""

    def __init__(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.number = number
        self.reader = reader
        self.writer = writer

    async def read_head(self) -> bytes:
        return await self.reader.readuntil(b"\r\n\r\n")

    async def read_request(self) -> tuple[bytes, bytes]:
        head = await self.read_head()
        found = LENGTH.search(head)
        assert found is not None
        return head, await self.reader.readexactly(int(found[1]))

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def answer(self, body: bytes = b"{}") -> None:
        self.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    async def wait_until_left(self) -> None:
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65536):
                continue


Script = Callable[[Peer], Awaitable[None]]


class RawServer:
    """`peers` are the connections that were made; `requests` the (connection, head, body) that scripts noted."""

    def __init__(self, port: int, name: str) -> None:
        self.port = port
        self.url = f"{name}:{port}/v1"
        self.peers: list[Peer] = []
        self.requests: list[tuple[int, bytes, bytes]] = []

    async def note_request(self, peer: Peer) -> None:
        self.requests.append((peer.number, *await peer.read_request()))

    async def answer_all(self, peer: Peer) -> None:
        """Answer every request, as a server does that keeps connections."""
        while True:
            await self.note_request(peer)
            peer.answer()


@asynccontextmanager
async def serving(
    script: Script | None = None, *, port: int = 0, tls: SSLContext | None = None
) -> AsyncIterator[RawServer]:
    """Run a server whose script, by default `answer_all`, is run for each connection, which ends with it."""

    async def serve(peer: Peer) -> None:
        # Its end is that of the server.
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            await (script or server.answer_all)(peer)
        peer.writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.peers.append(peer := Peer(len(server.peers), reader, writer))
        tasks.append(asyncio.create_task(serve(peer)))

    tasks: list[asyncio.Task[None]] = []
    listener = await asyncio.start_server(accept, "127.0.0.1", port, ssl=tls, backlog=1024)
    server = RawServer(listener.sockets[0].getsockname()[1], "https://localhost" if tls else "http://127.0.0.1")
    try:
        yield server
    finally:
        listener.close()
        # Connections that were accepted already become peers in the next turns of the loop.
        for _ in range(3):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        for peer in server.peers:
            peer.writer.transport.abort()
            with contextlib.suppress(OSError):
                await peer.writer.wait_closed()
