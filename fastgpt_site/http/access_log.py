"""The access log: one line for each answer, and never a query string, a body or a credential."""

import re
from typing import Any

from apikeys.hot_path.trace import Trace
from apikeys.keys.crypto import PATTERN
from fastgpt_site.observability.logs import log_access

# Somebody may have put a key into the path, of whatever system: a long word with digits that is no id of ours.
KEY_LENGTH = 20
LOOKS_LIKE_A_KEY = re.compile(rf"(?<![\w-])(?![0-9a-f]{{24}}(?![\w-]))(?=[\w-]*\d)[\w-]{{{KEY_LENGTH},}}")


def write(method: str, path: str, trace: Trace, status: int | None, *, is_api: bool, is_gone: bool) -> None:
    fields: dict[str, Any] = {
        "request_id": trace.request_id,
        "method": method,
        "path": _path(path, trace, is_api=is_api),
        "endpoint": trace.endpoint,
        "key_id": trace.key_id,
        "status": status,
        "duration_ms": trace.elapsed_ms,
        "client": trace.client_address,
    }
    if trace.error_code:
        fields["error"] = trace.error_code
    if trace.user_id is not None:
        fields["user_id"] = trace.user_id
    if is_gone:
        fields["client_gone"] = True
    log_access("request", fields)


def write_refused_connection(trace: Trace, status: int, client: tuple[str, int] | None) -> None:
    """Log an answer to something that was not read as a request."""
    fields: dict[str, Any] = {
        "request_id": trace.request_id,
        "status": status,
        "client": client[0] if client else None,
        "error": trace.error_code,
    }
    log_access("refused connection", fields)


def _path(path: str, trace: Trace, *, is_api: bool) -> str:
    # No key has a slash in it, so paths of short parts, as those of most requests are, need no search.
    if max(map(len, path.split("/"))) >= KEY_LENGTH:
        path = LOOKS_LIKE_A_KEY.sub("******", PATTERN.sub("fastgpt-******", path))
    if is_api and trace.endpoint in (None, "unknown_path"):
        return "/".join(path.split("/")[:3])
    return path
