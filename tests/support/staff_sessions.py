"""Staff signed in over HTTP, as a browser at FastGPT's console is."""

import time
from typing import Any

import httpx2
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session

from apikeys.sign_in.reauthentication import ENTERED_AT, RECENT_SECONDS
from tests.api.test_policy import session_of
from tests.conftest import Server

PATH = "/api/support/openapi"


class Console:
    """One signed-in person."""

    def __init__(self, server: Server, user: Any) -> None:
        self.server, self.user = server, user
        self.cookies = session_of(user)

    def call(self, method: str, path: str, body: Any = None, **options: Any) -> httpx2.Response:
        headers = {
            "Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items()),
            "X-CSRFToken": self.cookies["csrftoken"],
        }
        headers |= options.pop("headers", {})
        if body is not None:
            options["json"] = body
        return self.server.request(method, f"{PATH}/{path}", headers=headers, **options)

    def grow_stale(self) -> None:
        assert Session.objects.filter(pk=self.cookies["sessionid"]).exists()
        session = SessionStore(self.cookies["sessionid"])
        session[ENTERED_AT] = int(time.time()) - RECENT_SECONDS - 1
        session.save()
