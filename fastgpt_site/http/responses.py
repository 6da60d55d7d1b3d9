"""Responses on their way out: each carries its request id and CORS headers, and is logged and counted at its end."""

from contextlib import aclosing

from django.conf import settings

from apikeys.access.endpoints import is_api_path
from apikeys.accounting import refusals
from apikeys.api.answers import Answer, EventStream
from fastgpt_site.http import access_log
from fastgpt_site.http.asgi_types import Message
from fastgpt_site.http.cors import cors_headers
from fastgpt_site.http.exchange import Exchange
from fastgpt_site.observability import metrics

# Proxies and clients give up a stream that says nothing for ten seconds or so: about a second before, when the next
# check comes, it says that it is alive.
SILENCE_SECONDS = 9.0
HAS_CORS = bool(settings.CORS_ALLOWED_ORIGINS)


class OutgoingResponse:
    """The response to one exchange, on its way out."""

    __slots__ = ("exchange", "is_api", "status", "trace")

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.trace = exchange.trace
        self.is_api = is_api_path(exchange.head.path)
        self.status: int | None = None

    async def send(self, message: Message) -> None:
        """Send a part of it as ASGI has it."""
        exchange = self.exchange
        await exchange.connection.wait_until_writable()
        if message["type"] == "http.response.start":
            self.status = message["status"]
            length = next((int(value) for name, value in message["headers"] if name.lower() == b"content-length"), None)
            exchange.begin(message["status"], (*message["headers"], *self._own_headers()), length)
        else:
            exchange.write(message.get("body", b""), is_last=not message.get("more_body", False))

    async def send_answer(self, answer: Answer) -> None:
        if not self.exchange.connection.is_writable:
            await self.exchange.connection.wait_until_writable()
        self.answer_at_once(answer)

    def answer_at_once(self, answer: Answer) -> None:
        self.status = answer.status
        self.exchange.answer(answer.status, (*answer.headers, *self._own_headers()), answer.content)

    async def send_stream(self, stream: EventStream) -> None:
        """Send each piece as it comes, and a comment into every silence. The connection gives up readers that stall."""
        exchange, connection = self.exchange, self.exchange.connection
        silence = Silence(exchange)
        self.status = 200
        exchange.on_second = silence.check
        with metrics.OPEN_STREAMS:
            async with aclosing(stream.source):
                await connection.wait_until_writable()
                exchange.begin(200, (*EventStream.HEADERS, *self._own_headers()))
                exchange.write(stream.first)
                async for piece in stream.source:
                    if not connection.is_writable:
                        await connection.wait_until_writable()
                    exchange.write(piece)
                    silence.ended_at = connection.loop.time()
                await connection.wait_until_writable()
                exchange.write(b"", is_last=True)

    def _own_headers(self) -> list[tuple[bytes, bytes]]:
        headers = [(b"x-request-id", self.trace.request_id.encode()), *self.trace.headers]
        if self.is_api and HAS_CORS:
            headers += cors_headers(self.exchange.head.headers)
        return headers

    def end(self) -> None:
        head, trace, is_api = self.exchange.head, self.trace, self.is_api
        access_log.write(head.method, head.path, trace, self.status, is_api=is_api, is_gone=self.exchange.is_gone)
        if is_api and trace.refusal is not None:
            refusals.keep(trace)
        metrics.observe(trace, head.path, self.status, is_api=is_api)


class Silence:
    """Breaks the silences of a stream, and ends one that its reader has held back for too long."""

    __slots__ = ("began_at", "ended_at", "exchange")

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.began_at = self.ended_at = exchange.connection.loop.time()

    def check(self, now: float) -> None:
        exchange = self.exchange
        if now - self.began_at > settings.STREAM_MAX_SECONDS + settings.STREAM_STALL_SECONDS:
            exchange.abort()
        elif now - self.ended_at >= SILENCE_SECONDS and exchange.connection.is_writable:
            exchange.write(EventStream.COMMENT)
            self.ended_at = now
