"""A provider under the test's control: the model's name says how it behaves."""

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from aiohttp import web

ROUTE = "/v1/chat/completions"
EMBEDDINGS = "/v1/embeddings"
RERANK = "/v1/rerank"
Behavior = Callable[["FakeProvider", web.Request, dict[str, Any]], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Reply:
    """What a provider answers to one call: bytes as they are, in one piece or several."""

    body: bytes | list[bytes]
    content_type: str = "application/json"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class FakeProvider:
    """A server in a thread. `calls` holds the bodies it was sent; `left_at`, by question, when a caller left early."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        # They came to its endpoint for embeddings.
        self.embedded: list[dict[str, Any]] = []
        # And these to its endpoint for reranking.
        self.reranked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.queries: list[str] = []
        self.left_at: dict[str, float] = {}
        self.on_call: Callable[[], None] | None = None
        # By model: what it answers to a request's body.
        self.replies: dict[str, Callable[[dict[str, Any]], Reply]] = {}
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.port = 0

    def __enter__(self) -> "FakeProvider":
        self._thread.start()
        self._ready.wait(30)
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def calls_about(self, text: str) -> list[dict[str, Any]]:
        """Return the calls whose messages hold this text."""
        return [call for call in self.calls if text in json.dumps(call["messages"], ensure_ascii=False)]

    def embedded_by(self, model: str) -> list[list[str]]:
        """Return the texts of each call of the endpoint for embeddings that named this model."""
        return [call["input"] for call in self.embedded if call["model"] == model]

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post(ROUTE, self._answer)
        app.router.add_post(EMBEDDINGS, self._embed)
        app.router.add_post(RERANK, self._rerank)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        self._loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", 0)
        self._loop.run_until_complete(site.start())
        self.port = runner.addresses[0][1]
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.calls.append(body)
        self.headers.append(dict(request.headers))
        self.queries.append(request.rel_url.raw_query_string)
        if self.on_call is not None:
            self.on_call()
        try:
            if body["model"] in self.replies:
                return await send(request, self.replies[body["model"]](body))
            return await BEHAVIORS[body["model"]](self, request, body)
        except (asyncio.CancelledError, ConnectionResetError):
            self.left_at[last_text(body)] = time.monotonic()
            raise

    async def _embed(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.embedded.append(body)
        if body["model"] in self.replies:
            return await send(request, self.replies[body["model"]](body))
        return await EMBEDDING_BEHAVIORS[body["model"]](self, request, body)

    async def _rerank(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.reranked.append(body)
        if body["model"] in self.replies:
            return await send(request, self.replies[body["model"]](body))
        return await RERANK_BEHAVIORS[body["model"]](self, request, body)


async def send(request: web.Request, reply: Reply) -> web.StreamResponse:
    response = web.StreamResponse(status=reply.status, headers={"Content-Type": reply.content_type, **reply.headers})
    await response.prepare(request)
    for piece in [reply.body] if isinstance(reply.body, bytes) else reply.body:
        await response.write(piece)
        # So that each is read alone.
        await asyncio.sleep(0.02)
    return response


def last_text(body: dict[str, Any]) -> str:
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else json.dumps(content)


def usage(prompt: int = 11, completion: int = 7) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def whole(text: Any, finish_reason: str = "stop", **more: Any) -> web.Response:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
    return web.json_response({"choices": [choice], "usage": usage(), **more})


def chunk(text: str | None, finish_reason: str | None = None) -> bytes:
    delta = {} if text is None else {"content": text}
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}).encode()


async def begin(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    return response


async def end(response: web.StreamResponse, finish_reason: str = "stop", *, with_usage: bool = True) -> None:
    await response.write(chunk(None, finish_reason) + b"\n\n")
    if with_usage:
        await response.write(b"data: " + json.dumps({"choices": [], "usage": usage()}).encode() + b"\n\n")
    await response.write(b"data: [DONE]\n\n")


async def echo(provider: FakeProvider, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    words = [f"{len(body['messages'])} ", "messages, ", "the last: ", last_text(body)]
    if not body["stream"]:
        return whole("".join(words))
    response = await begin(request)
    for word in words:
        await response.write(chunk(word) + b"\n\n")
    await end(response)
    return response


def status(code: int) -> Behavior:
    async def answer(provider: FakeProvider, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        text = f"refused {request.headers.get('Authorization')} at {provider.url}"
        return web.json_response({"error": {"message": text}}, status=code)

    return answer


async def html(provider: FakeProvider, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    return web.Response(text="<html>Sign in first</html>", content_type="text/html")


async def redirect(provider: FakeProvider, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    raise web.HTTPTemporaryRedirect(ROUTE)


async def half(provider: FakeProvider, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    if not body.get("stream"):
        return web.Response(text='{"choices": [{"index": 0, "mess', content_type="application/json")
    response = await begin(request)
    await response.write(chunk("half ") + b"\n\n" + chunk("an event")[:-20])
    return response


async def nul(provider: FakeProvider, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    text = "a\0b \ud83d c"
    if not body["stream"]:
        return whole(text)
    response = await begin(request)
    await response.write(chunk(text) + b"\n\n")
    await end(response)
    return response


async def nothing(provider: FakeProvider, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    kind = "text/event-stream" if body.get("stream") else "application/json"
    return web.Response(body=b"", content_type=kind)


MARKDOWN = """# A *plan*

1. **bold** and `code <b>`
2. [a page](https://example.org/?a=1) and [a trap](javascript:window.ran=1)

> said <img src=x onerror="window.ran=1">

```html
<script>window.ran = 1</script>
```
![a picture](https://example.org/secret.png)"""


async def markdown(provider: FakeProvider, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    """Stream Markdown such as a model writes, a few characters at a time."""
    response = await begin(request)
    for start in range(0, len(MARKDOWN), 7):
        await response.write(chunk(MARKDOWN[start : start + 7]) + b"\n\n")
    await end(response)
    return response


async def never(provider: FakeProvider, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    await asyncio.sleep(600)
    return web.Response()


async def stall(provider: FakeProvider, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    response = await begin(request)
    await response.write(chunk("one word ") + b"\n\n")
    await asyncio.sleep(600)
    return response


async def slow(provider: FakeProvider, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    response = await begin(request)
    for number in range(600):
        await response.write(chunk(f"word{number} ") + b"\n\n")
        await asyncio.sleep(0.05)
    await end(response)
    return response


async def brief(provider: FakeProvider, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    """Stream so that calls that begin together end one after the other, from some seconds later on."""
    length = 100 + 3 * (len(provider.calls) % 200)
    response = await begin(request)
    for number in range(length):
        await response.write(chunk(f"word{number} ") + b"\n\n")
        await asyncio.sleep(0.05)
    await end(response)
    return response


async def flood(provider: FakeProvider, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    response = await begin(request)
    for _ in range(4000):
        await response.write(chunk("x" * 4000) + b"\n\n")
    await end(response)
    return response


async def soon(provider: FakeProvider, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    await asyncio.sleep(1.5)
    return await echo(provider, request, body)


async def late(provider: FakeProvider, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    await asyncio.sleep(11)
    return await echo(provider, request, body)


async def error_event(provider: FakeProvider, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    response = await begin(request)
    await response.write(chunk("fine so far") + b"\n\n")
    await response.write(b'data: {"error": {"message": "out of memory on ' + provider.url.encode() + b'"}}\n\n')
    return response


async def cut_short(provider: FakeProvider, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    if not body["stream"]:
        return whole("cut", "length")
    response = await begin(request)
    await response.write(chunk("cut") + b"\n\n")
    await end(response, "length")
    return response


async def no_usage(provider: FakeProvider, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    if not body["stream"]:
        return web.json_response({"choices": [{"message": {"content": "abc"}, "finish_reason": "stop"}]})
    response = await begin(request)
    await response.write(chunk("abc") + b"\n\n")
    await end(response, with_usage=False)
    return response


async def pieces(provider: FakeProvider, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    """Cut events at every byte, with CRLF line ends, comments and unknown fields, as the standard allows."""
    response = await begin(request)
    raw = (
        b": hello\r\n\r\nid: 1\r\nevent: x\r\n" + chunk("\u5bfc\u6f14") + b"\r\n\r\n" + chunk("!", "stop") + b"\r\n\r\n"
    )
    for index in range(len(raw)):
        await response.write(raw[index : index + 1])
    await response.write(b"data: [DONE]\r\n\r\n")
    return response


async def rude(provider: FakeProvider, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    """Send everything that matters, and abort the connection before its last chunk."""
    response = await begin(request)
    await response.write(chunk("complete", "stop") + b"\n\ndata: [DONE]\n\n")
    assert request.transport is not None
    request.transport.abort()
    return response


BEHAVIORS: dict[str, Behavior] = {
    "echo": echo,
    "html": html,
    "redirect": redirect,
    "half": half,
    "nul": nul,
    "nothing": nothing,
    "markdown": markdown,
    "never": never,
    "stall": stall,
    "slow": slow,
    "brief": brief,
    "flood": flood,
    "late": late,
    "soon": soon,
    "error_event": error_event,
    "cut_short": cut_short,
    "no_usage": no_usage,
    "pieces": pieces,
    "rude": rude,
    "status_400": status(400),
    "status_401": status(401),
    "status_429": status(429),
    "status_500": status(500),
}


# Some behaviors of the endpoint for embeddings refuse a text that holds this.
POISON = "poison"


def vector_of(text: str, dimension: int = 8) -> list[float]:
    """Return a vector that depends on the text alone."""
    return [float(byte) + 1 for byte in sha256(text.encode()).digest()[:dimension]]


def vectors(found: list[list[float]]) -> web.Response:
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(found)]
    tokens = {"prompt_tokens": 3 * len(found), "total_tokens": 3 * len(found)}
    # Python writes NaN as no JSON has it, and so do some providers.
    return web.json_response({"object": "list", "data": data, "usage": tokens})


async def embed(provider: FakeProvider, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    return vectors([vector_of(text) for text in body["input"]])


async def embed_uncounted(provider: FakeProvider, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    data = [{"index": index, "embedding": vector_of(text)} for index, text in enumerate(body["input"])]
    return web.json_response({"data": data})


async def embed_nan(provider: FakeProvider, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    return vectors([[float("nan"), *vector_of(text)[1:]] for text in body["input"]])


async def embed_huge(provider: FakeProvider, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    text = json.dumps({"data": [{"index": 0, "embedding": [0.5]}]}).replace("0.5", "1e999")
    return web.Response(text=text, content_type="application/json")


async def embed_zero(provider: FakeProvider, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    return vectors([[0.0] * 8 for _ in body["input"]])


async def embed_fewer(provider: FakeProvider, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    return vectors([vector_of(text) for text in body["input"][1:]])


async def embed_twice(provider: FakeProvider, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    data = [{"index": 0, "embedding": vector_of(text)} for text in body["input"]]
    return web.json_response({"data": data})


async def embed_mixed(provider: FakeProvider, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    return vectors([vector_of(text, 8 + index % 2) for index, text in enumerate(body["input"])])


async def embed_changing(provider: FakeProvider, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    """Answer with another dimension at every second call. A test makes two."""
    dimension = 9 - len(provider.embedded_by("embed_changing")) % 2
    return vectors([vector_of(text, dimension) for text in body["input"]])


async def embed_poisoned(provider: FakeProvider, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    if any(POISON in text for text in body["input"]):
        return web.json_response({"error": {"message": f"refused {body['input']}"}}, status=400)
    return await embed(provider, request, body)


async def embed_poisoned_uncounted(
    provider: FakeProvider, request: web.Request, body: dict[str, Any]
) -> web.StreamResponse:
    if any(POISON in text for text in body["input"]):
        return await embed_poisoned(provider, request, body)
    return await embed_uncounted(provider, request, body)


async def embed_broken(provider: FakeProvider, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    """Fail where others would refuse."""
    if any(POISON in text for text in body["input"]):
        return web.json_response({}, status=500)
    return await embed(provider, request, body)


EMBEDDING_BEHAVIORS: dict[str, Behavior] = {
    "embed": embed,
    "embed_uncounted": embed_uncounted,
    "embed_nan": embed_nan,
    "embed_huge": embed_huge,
    "embed_zero": embed_zero,
    "embed_fewer": embed_fewer,
    "embed_twice": embed_twice,
    "embed_mixed": embed_mixed,
    "embed_changing": embed_changing,
    "embed_poisoned": embed_poisoned,
    "embed_poisoned_uncounted": embed_poisoned_uncounted,
    "embed_broken": embed_broken,
    "html": html,
    "half": half,
    "nothing": nothing,
    "never": never,
    "redirect": redirect,
    "status_401": status(401),
    "status_429": status(429),
    "status_500": status(500),
}


def scores(found: list[float], **more: Any) -> web.Response:
    results = [{"index": index, "relevance_score": score} for index, score in enumerate(found)]
    return web.json_response({"results": results[::-1], **more})


async def rerank(provider: FakeProvider, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    """Score shorter documents higher."""
    found = [1 / len(document) for document in body["documents"]]
    return scores(found, usage={"total_tokens": 5 * len(found)})


async def rerank_uncounted(provider: FakeProvider, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    return scores([0.5 for _ in body["documents"]], usage={"total_tokens": 0, "prompt_tokens": "many"})


async def rerank_fewer(provider: FakeProvider, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    return scores([0.5 for _ in body["documents"][1:]])


async def rerank_nan(provider: FakeProvider, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    return scores([float("nan") for _ in body["documents"]])


RERANK_BEHAVIORS: dict[str, Behavior] = {
    "rerank": rerank,
    "rerank_uncounted": rerank_uncounted,
    "rerank_fewer": rerank_fewer,
    "rerank_nan": rerank_nan,
    "html": html,
    "half": half,
    "nothing": nothing,
    "never": never,
    "redirect": redirect,
    "status_401": status(401),
    "status_429": status(429),
    "status_500": status(500),
}
