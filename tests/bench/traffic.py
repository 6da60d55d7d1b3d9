"""The requests that the bench sends, ready-made as bytes, and the cheap check that each answer must pass."""

import json
from collections.abc import Callable, Iterable, Mapping
from itertools import cycle

from tests.bench.load import Answer, BenchError, Traffic
from tests.bench.upstream import ANSWER, WORD

CONVERSATIONS = 50
_ANSWER = json.dumps(ANSWER).encode()
_WORD = WORD.encode()
_QUESTION = "What is the answer to life, the universe and everything?"


def request(path: str, body: object, *, key: str = "", headers: Mapping[str, str] | None = None) -> bytes:
    payload = json.dumps(body).encode()
    fields = {"Host": "127.0.0.1"} | ({"Authorization": f"Bearer {key}"} if key else {}) | dict(headers or {})
    fields |= {"Content-Type": "application/json", "Content-Length": str(len(payload))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + payload


def completion_requests(
    path: str, *, key: str = "", chat_prefix: str = "", headers: Mapping[str, str] | None = None
) -> list[bytes]:
    """Non-streaming completions; with `chat_prefix`, one in each of 50 conversations named after it."""
    body: dict[str, object] = {"model": "bench-model", "stream": False, "messages": _messages(_QUESTION)}
    bodies = (
        [body | {"chatId": f"{chat_prefix}-{number}"} for number in range(CONVERSATIONS)] if chat_prefix else [body]
    )
    return [request(path, body, key=key, headers=headers) for body in bodies]


def completions(port: int, path: str, *, key: str = "", chat_prefix: str = "") -> Traffic:
    requests = cycle(completion_requests(path, key=key, chat_prefix=chat_prefix))
    return Traffic(port, requests, check_completion, messages=2 if chat_prefix else 0)


def streams(
    port: int,
    path: str,
    *,
    key: str = "",
    chunks: int,
    mode: str = "",
    on_frame: Callable[[bytes], None] | None = None,
) -> Traffic:
    """Streamed completions of `chunks` text events; see the upstream for the modes."""
    steering = f"chunks={chunks} {mode}".strip()
    body = {"model": "bench-model", "stream": True, "messages": _messages(steering)}

    def check(answer: Answer) -> int:
        return check_stream(answer, chunks)

    return Traffic(port, cycle([request(path, body, key=key)]), check, on_frame=on_frame)


def refusal_requests(path: str, keys: Iterable[str]) -> list[bytes]:
    body = {"model": "bench-model", "stream": False, "messages": _messages(_QUESTION)}
    return [request(path, body, key=key) for key in keys]


def refusals(port: int, path: str, keys: Iterable[str]) -> Traffic:
    return Traffic(port, cycle(refusal_requests(path, keys)), check_refusal)


def check_completion(answer: Answer) -> int:
    if answer.status != 200 or _ANSWER not in answer.body:
        raise unexpected("a completion", answer)
    return 1


def check_stream(answer: Answer, chunks: int) -> int:
    """The number of events, provided that every text chunk and the end have come, once."""
    if answer.status != 200 or answer.body.count(_WORD) != chunks or not answer.body.endswith(b"data: [DONE]\n\n"):
        raise unexpected(f"a stream of {chunks} chunks", answer)
    return answer.body.count(b"data: ")


def check_refusal(answer: Answer) -> int:
    if answer.status != 401 or b'"invalid_api_key"' not in answer.body:
        raise unexpected("a refusal", answer)
    return 1


def unexpected(what: str, answer: Answer) -> BenchError:
    head = answer.head.decode(errors="replace").splitlines()[0]
    return BenchError(f"not {what}: {head}: ...{answer.body[-600:].decode(errors='replace')}")


def _messages(content: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": content}]
