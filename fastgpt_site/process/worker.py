"""One server process: `python -m fastgpt_site.process.worker FD`, on a listening socket that the supervisor shares."""

import os
import socket
import sys

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# A stopping server lets open requests end by themselves for so long.
DRAIN_SECONDS = 10
MAX_HEAD_BYTES = 64 * 1024


class BoundedHead(HttpToolsProtocol):
    """uvicorn's protocol, with the bound on a request's head that it lacks: without one, anybody fills the memory."""

    head_size = 0
    is_in_head = True

    def data_received(self, data: bytes) -> None:
        if self.is_in_head:
            self.head_size += len(data)
            # Body may come with the last bytes of the head: that much is allowed for.
            if self.head_size > MAX_HEAD_BYTES + len(data) and self.transport is not None:
                self.transport.abort()
                return
        super().data_received(data)

    def on_headers_complete(self) -> None:
        self.is_in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self.is_in_head, self.head_size = True, 0
        super().on_message_complete()


def main(descriptor: int) -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fastgpt_site.settings")
    config = uvicorn.Config(
        "fastgpt_site.asgi:application",
        lifespan="on",
        http=BoundedHead,
        ws="none",
        # The client's address is derived in one place, apikeys.client_address, from the peer and TRUSTED_PROXIES.
        proxy_headers=False,
        server_header=False,
        # The access log of the project has no query string; uvicorn's has.
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    server = uvicorn.Server(config)
    server.run(sockets=[socket.socket(fileno=descriptor)])
    if not server.started:
        sys.exit(3)


if __name__ == "__main__":
    main(int(sys.argv[1]))
