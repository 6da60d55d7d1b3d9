"""One server process: `python -m fastgpt_site.process.worker FD`, on a listening socket that the supervisor shares."""

import os
import socket
import sys

import uvicorn

# A stopping server lets open requests end by themselves for so long.
DRAIN_SECONDS = 10
# The kernel buffers this much for a client that reads nothing. Linux doubles the figure, for its own needs.
SEND_BUFFER_BYTES = 128 * 1024


def main(descriptor: int) -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fastgpt_site.settings")
    config = uvicorn.Config(
        "fastgpt_site.asgi:application",
        lifespan="on",
        http="fastgpt_site.http.connection:Connection",
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
    listener = socket.socket(fileno=descriptor)
    # Connections inherit it. The system would let an answer run ahead of its reader by megabytes otherwise.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    server.run(sockets=[listener])
    if not server.started:
        sys.exit(3)


if __name__ == "__main__":
    main(int(sys.argv[1]))
