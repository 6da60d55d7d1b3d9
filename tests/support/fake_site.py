"""A site on loopback whose pages a test sets."""

import asyncio
import threading
from collections.abc import Awaitable, Callable

from aiohttp import web

Page = Callable[[web.Request], Awaitable[web.StreamResponse]]


class FakeSite:
    """A server in a thread. A path that is not in `pages` is a 404; `asked` holds (path, user agent) in order."""

    def __init__(self) -> None:
        self.pages: dict[str, Page] = {}
        self.asked: list[tuple[str, str]] = []
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "FakeSite":
        self._thread.start()
        self._ready.wait(30)
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def shows(self, path: str, body: str | bytes, content_type: str = "text/html", status: int = 200) -> None:
        raw = body.encode() if isinstance(body, str) else body

        async def page(request: web.Request) -> web.StreamResponse:
            return web.Response(body=raw, status=status, headers={"Content-Type": content_type})

        self.pages[path] = page

    def redirects(self, path: str, target: str, status: int = 302) -> None:
        async def page(request: web.Request) -> web.StreamResponse:
            return web.Response(status=status, headers={"Location": target})

        self.pages[path] = page

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        self._loop.run_until_complete(runner.setup())
        self._loop.run_until_complete(web.TCPSite(runner, "127.0.0.1", 0).start())
        self.port = runner.addresses[0][1]
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.path, request.headers.get("User-Agent", "")))
        page = self.pages.get(request.path)
        return web.Response(status=404) if page is None else await page(request)
