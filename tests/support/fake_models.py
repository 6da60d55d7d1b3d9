"""Providers of embeddings and rerankers under the test's control: the model's name says how they behave."""

import json
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LETTERS = "abcdefghijklmnopqrstuvwxyz"


class FakeModels(ThreadingHTTPServer):
    """A server in a thread. `calls` holds (path, body); `on_call` is called before each answer."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.on_call: Callable[[], None] | None = None
        self.is_over = threading.Event()

    def __enter__(self) -> "FakeModels":
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.is_over.set()
        self.shutdown()
        self.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: FakeModels

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.calls.append((self.path, body))
        if self.server.on_call is not None:
            self.server.on_call()
        behavior = body["model"]
        if behavior == "never":
            self.server.is_over.wait(60)
            return
        texts = body["input"] if self.path.endswith("/embeddings") else body["documents"]
        answer = _embeddings if self.path.endswith("/embeddings") else _scores
        raw = json.dumps(answer(behavior, texts)).encode()
        self.send_response(500 if behavior == "status_500" else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *args: object) -> None:
        pass


def _embeddings(behavior: str, texts: list[str]) -> dict[str, Any]:
    vectors = [letters_of(text) for text in texts]
    if behavior == "other_dimension":
        vectors = [vector[:3] for vector in vectors]
    if behavior == "nan":
        vectors = [[float("nan")] * 27 for _ in texts]
    if behavior == "fewer":
        vectors = []
    data = [{"index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    return {"data": data, "usage": {"prompt_tokens": sum(map(len, texts))}}


def letters_of(text: str) -> list[float]:
    """Return how often each letter is in it, and never zeros alone."""
    counts = Counter(text.lower())
    return [1.0, *(float(counts[letter]) for letter in LETTERS)]


def _scores(behavior: str, texts: list[str]) -> dict[str, Any]:
    """Score shorter texts higher."""
    scores = [1 / (1 + len(text)) for text in texts]
    if behavior == "nan":
        scores = [float("nan") for _ in texts]
    if behavior == "fewer":
        scores = scores[1:]
    results = [{"index": index, "relevance_score": score} for index, score in enumerate(scores)]
    return {"results": results[::-1]}
