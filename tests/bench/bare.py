"""A bare ASGI gateway, which a gateway in Python can at best come near: no authentication, no record, no log.

`python -m tests.bench.bare UPSTREAM_PORT` prints its port. It parses a completion's body, forwards it, and answers what
the upstream did. At `/refuse` it answers 401 at once. It ends with SIGTERM.
"""

import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import msgspec
import uvicorn
import uvloop

REFUSE_PATH = "/refuse"
REFUSAL = (
    b'{"error": {"message": "The API key is not valid.", "type": "authentication_error", "code": "invalid_api_key"}}'
)

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Message(msgspec.Struct):
    role: str
    content: str


class Completion(msgspec.Struct):
    messages: list[Message]
    model: str
    stream: bool = False


class Application:
    session: aiohttp.ClientSession

    def __init__(self, upstream_port: int) -> None:
        self.url = f"http://127.0.0.1:{upstream_port}/v1/chat/completions"
        self.decoder = msgspec.json.Decoder(Completion)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == REFUSE_PATH:
            await _respond(send, 401, REFUSAL)
            return
        body = b""
        is_whole = False
        while not is_whole:
            message = await receive()
            body += message.get("body", b"")
            is_whole = not message.get("more_body", False)
        self.decoder.decode(body)
        async with self.session.post(self.url, data=body, headers={"Content-Type": "application/json"}) as answer:
            await _respond(send, answer.status, await answer.read())


async def _respond(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _serve(upstream_port: int) -> None:
    application = Application(upstream_port)
    config = uvicorn.Config(
        application, http="httptools", ws="none", lifespan="off", log_level="warning", access_log=False
    )
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        print(listener.getsockname()[1], flush=True)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as application.session:
            await uvicorn.Server(config).serve(sockets=[listener])


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
