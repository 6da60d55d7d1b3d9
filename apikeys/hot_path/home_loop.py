"""The event loop in which batchers live: that of the server, or one in a thread where there is no server."""

import asyncio
import os
import threading

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_pid = os.getpid()


def adopt(loop: asyncio.AbstractEventLoop) -> None:
    """Let batchers live in this loop, which runs as long as the process. It must be adopted before they are used."""
    global _loop, _pid
    with _lock:
        _loop, _pid = loop, os.getpid()


def find() -> asyncio.AbstractEventLoop:
    """Return the loop that was adopted. Where none was, or it has ended, start one in a thread."""
    global _loop, _pid
    with _lock:
        # A process that was forked has the loop, but not the thread in which it runs.
        if _loop is None or _loop.is_closed() or _pid != os.getpid():
            _loop, _pid = asyncio.new_event_loop(), os.getpid()
            threading.Thread(target=_loop.run_forever, name="home-loop", daemon=True).start()
        return _loop
