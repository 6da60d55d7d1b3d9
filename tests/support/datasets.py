"""Callers of the endpoints of knowledge bases: the holder of a team's global key, and signed-in staff."""

from typing import Any

import httpx2

from tests.api.test_policy import session_of
from tests.conftest import Server
from tests.support import factories

ROOT = "/api/core/dataset"
# No row has it.
ABSENT = "0" * 24
# A request may carry these, and none is an id.
MALFORMED = ["", "x", ABSENT.upper() + "F", "\0", "导演" * 12, "%00", "' OR 1=1 --"]


class Library:
    """A team and its global key."""

    def __init__(self, server: Server, team: Any = None) -> None:
        self.server, self.team = server, team or factories.make_team()
        self.api_key, self.key = factories.make_key(self.team)

    def call(self, method: str, path: str, body: Any = None, **options: Any) -> httpx2.Response:
        if body is not None:
            options["json"] = body
        return self.server.request(method, f"{ROOT}/{path}", self.key, **options)

    def post(self, path: str, **body: Any) -> Any:
        """Return the data of a successful response."""
        return data_of(self.call("POST", path, body))

    def get(self, path: str, **query: Any) -> Any:
        return data_of(self.call("GET", path, params=query))


def data_of(response: httpx2.Response) -> Any:
    assert response.status_code == 200, response.text
    body = response.json()
    assert {name: body[name] for name in ("code", "statusText", "message")} == {
        "code": 200,
        "statusText": "",
        "message": "",
    }
    return body["data"]


def staff_call(server: Server, user: Any, method: str, path: str, **options: Any) -> httpx2.Response:
    cookies = session_of(user)
    headers = {
        "Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items()),
        "X-CSRFToken": cookies["csrftoken"],
    }
    return server.request(method, f"{ROOT}/{path}", headers=headers, **options)
