"""Talking to an app from the admin: who may, and what the server refuses."""

import json
import re
from urllib.parse import urlencode

import httpx2
import pytest
from django.conf import settings
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from chat.models import App
from chat.playground import MAXIMUM_ANSWERS
from tests.support import factories
from tests.support.pages import browser, staff, text, url
from tests.support.processes import wait_for

PAGE, ANSWER = url(App, "try"), url(App, "try_answer")
RIGHTS = ("chat.view_app", "chat.try_app")
TOKEN = "a" * 32


@pytest.fixture
def team():
    return factories.make_team()


@pytest.fixture
def app(team, provider):
    return factories.make_app(team, factories.make_provider(team, provider.url))


def session_of(user) -> str:
    client = Client()
    client.force_login(user)
    return client.cookies[settings.SESSION_COOKIE_NAME].value


def headers_of(user, **changes) -> dict[str, str]:
    cookies = f"csrftoken={TOKEN}" + (f"; sessionid={session_of(user)}" if user else "")
    headers = {"Cookie": cookies, "X-CSRFToken": TOKEN} | changes
    return {name: value for name, value in headers.items() if value is not None}


def ask(server, user, app_id, question="hello", headers=None, **body):
    body = {"appId": app_id, "messages": [{"role": "user", "content": question}], **body}
    return server.post(ANSWER, headers=headers_of(user, **(headers or {})), json=body)


def code(response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


def test_it_works(server, team, app):
    user = factories.make_user(team, permissions=RIGHTS)
    response = ask(server, user, app.pk, chatId="c", stream=False, detail=False)
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/event-stream;charset=utf-8"
    assert "event: flowNodeStatus" in response.text
    assert '"content":"hello"' in response.text
    assert '"prompt_tokens":11' in response.text
    assert not app.conversations.exists()
    request_id = response.headers["x-request-id"]
    wait_for(lambda: request_id in server.log(), "the log line")
    lines = [json.loads(line) for line in server.log().splitlines() if request_id in line]
    tried = next(line for line in lines if line["message"] == "an app was tried")
    assert (tried["user_id"], tried["app_id"], tried["prompt_tokens"]) == (user.pk, app.pk, 11)
    assert (tried["outcome"], tried["status"]) == ("complete", 200)
    assert 'endpoint="app.try"' in server.get("/metrics").text


@pytest.mark.parametrize("model", ["status_400", "status_401", "error_event"])
def test_staff_learn_why_the_provider_failed(server, team, provider, model):
    """As far as it can be said: its address and its secret stay out."""
    app = factories.make_app(team, factories.make_provider(team, provider.url), model=model)
    its_provider = factories.provider_of(app)
    its_provider.set_secret("sk-secret-of-the-provider-0123456789")
    its_provider.save()
    user = factories.make_user(team, permissions=RIGHTS)
    response = ask(server, user, app.pk)
    assert ("out of memory on ..." if model == "error_event" else "refused ... at ...") in response.text
    for leak in ("sk-secret", str(provider.port)):
        assert leak not in response.text


def test_page(team, app):
    other = factories.make_app(factories.make_team())
    archived = factories.make_app(team, archived_at="2026-01-01T00:00:00Z")
    _, client = staff(team, *RIGHTS)
    page = text(client.get(PAGE))
    assert app.name in page
    assert other.name not in page
    assert archived.name not in page
    assert "innerHTML" not in page
    assert re.findall(r"<script(?![^>]*\bsrc=)", page) == []
    assert "None of your teams has an app." in text(staff(factories.make_team(), *RIGHTS)[1].get(PAGE))


def test_page_is_for_those_with_both_permissions(team):
    for right in RIGHTS:
        assert staff(team, right)[1].get(PAGE).status_code == 403
    assert "Try it" not in text(staff(team, "chat.view_app")[1].get("/admin/"))
    assert Client().get(PAGE).url.startswith("/admin/login/")


def test_many_apps_are_searched(team, app):
    model = factories.make_model(factories.make_provider(team))
    App.objects.bulk_create(App(team=team, name=f"n{n}", model=model) for n in range(51))
    _, client = staff(team, *RIGHTS)
    page = text(client.get(f"{PAGE}?app={app.pk}"))
    assert "admin-autocomplete" in page
    assert len(re.findall("<option", page)) <= 2
    app.archived_at = timezone.now()
    app.save()
    found = re.search(r'data-ajax--url="([^"]+)"', page)
    assert found
    asked = {"app_label": "apikeys", "model_name": "apikey", "field_name": "app", "term": app.name}
    assert client.get(f"{found[1]}&{urlencode(asked)}").json()["results"] == []
    assert [row["id"] for row in client.get(reverse("admin:autocomplete"), asked).json()["results"]] == [app.pk]


@pytest.mark.parametrize("method", ["GET", "OPTIONS", "PUT"])
def test_wrong_method(server, team, app, method):
    user = factories.make_user(team, permissions=RIGHTS)
    response = server.request(method, ANSWER, headers=headers_of(user))
    assert code(response) == (405, "method_not_allowed")


def test_who_may_not(server, team, app):
    assert code(ask(server, None, app.pk)) == (403, "sign_in_needed")
    no_staff = factories.make_user(team, permissions=RIGHTS, is_staff=False)
    assert code(ask(server, no_staff, app.pk)) == (403, "sign_in_needed")
    assert code(ask(server, factories.make_user(team, permissions=("chat.view_app",)), app.pk)) == (
        403,
        "permission_denied",
    )
    # Users who may not see apps do not learn that this one exists.
    assert code(ask(server, factories.make_user(team, permissions=("chat.try_app",)), app.pk)) == (404, "appUnExist")


def test_a_key_opens_nothing(server, team, app):
    _, key = factories.make_key(app=app)
    response = server.post(ANSWER, key, json={"appId": app.pk, "messages": [{"role": "user", "content": "x"}]})
    assert code(response) == (403, "sign_in_needed")


def test_signed_out_meanwhile(server, team, app):
    user = factories.make_user(team, permissions=RIGHTS)
    user.is_active = False
    headers = headers_of(user)
    type(user).objects.filter(pk=user.pk).update(is_active=False)
    response = server.post(ANSWER, headers=headers, json={"appId": app.pk, "messages": []})
    assert code(response) == (403, "sign_in_needed")


@pytest.mark.parametrize(
    "headers", [{"X-CSRFToken": None}, {"X-CSRFToken": "b" * 32}, {"Origin": "https://evil.example"}]
)
def test_forged(server, team, app, headers):
    user = factories.make_user(team, permissions=RIGHTS)
    assert code(ask(server, user, app.pk, headers=headers)) == (403, "csrf_failed")


def test_foreign_absent_and_archived_look_alike(server, team):
    user = factories.make_user(team, permissions=RIGHTS)
    foreign = factories.make_app(factories.make_team())
    archived = factories.make_app(team, archived_at="2026-01-01T00:00:00Z")
    answers = [ask(server, user, app_id).json() for app_id in (foreign.pk, archived.pk, "0" * 24, "x", None)]
    assert [answer["error"]["code"] for answer in answers] == ["appUnExist"] * 5
    assert len({json.dumps(answer) for answer in answers}) == 1


@pytest.mark.parametrize("body", [{"messages": []}, {"messages": "x"}, {"n": 0}])
def test_wrong_body(server, team, app, body):
    user = factories.make_user(team, permissions=RIGHTS)
    assert code(ask(server, user, app.pk, **body)) == (400, "invalid_parameter")


def test_foreign_host(server, team, app):
    user = factories.make_user(team, permissions=RIGHTS)
    assert code(ask(server, user, app.pk, headers={"Host": "evil.example"})) == (400, "invalid_parameter")


def held_connections() -> int:
    """Count other connections that are busy or in a transaction after a query for a session, a user or an app."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND state <> 'idle'"
            """ AND (query LIKE '%"django_session"%' OR query LIKE '%"auth_%' OR query LIKE '%"chat_app"%')"""
        )
        return cursor.fetchone()[0]


def test_so_many_at_once_and_no_connection_held(server, team, provider):
    app = factories.make_app(team, factories.make_provider(team, provider.url), model="slow")
    user, other = (factories.make_user(team, permissions=RIGHTS) for _ in range(2))
    streams = []
    body = {"appId": app.pk, "messages": [{"role": "user", "content": factories.unique("many")}]}
    with httpx2.Client(base_url=server.url, timeout=30, trust_env=False) as client:
        try:
            for _ in range(MAXIMUM_ANSWERS):
                request = client.build_request("POST", ANSWER, headers=headers_of(user), json=body)
                streams.append(client.send(request, stream=True))
                assert streams[-1].status_code == 200
            refused = ask(server, user, app.pk)
            assert code(refused) == (429, "rate_limit_exceeded")
            assert refused.headers["retry-after"] == "1"
            assert held_connections() == 0
            # Another user is not affected.
            request = client.build_request("POST", ANSWER, headers=headers_of(other), json=body)
            streams.append(client.send(request, stream=True))
            assert streams[-1].status_code == 200
        finally:
            for stream in streams:
                stream.close()
    echo = factories.make_app(team, factories.make_provider(team, provider.url))
    wait_for(lambda: ask(server, user, echo.pk).status_code == 200, "there is room again")


def test_archived_and_cut(server, team, provider):
    app = factories.make_app(team, factories.make_provider(team, provider.url), model="stall")
    user = factories.make_user(team, permissions=RIGHTS)
    admin = browser(factories.make_user(is_superuser=True))
    body = {"appId": app.pk, "messages": [{"role": "user", "content": "wait"}]}
    with server.client.stream("POST", ANSWER, headers=headers_of(user), json=body) as stream:
        pieces = stream.iter_text()
        assert "one word" in next(pieces) + next(pieces, "")
        form = {"action": "archive_and_cut", "_selected_action": app.pk}
        assert admin.post(url(App, "changelist"), form).status_code == 302
        assert "event: error" in "".join(pieces)
