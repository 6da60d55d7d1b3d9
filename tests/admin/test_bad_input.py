"""Impossible values in URLs and forms of the admin are refused, and cause no server error."""

from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.db.models import Model
from django.urls import reverse

from apikeys.accounting.ledger import UsageRecord
from apikeys.accounting.limits import Limit
from apikeys.audit.models import AuditEntry
from apikeys.keys.models import ApiKey
from apikeys.teams import Team
from chat.models import App, Provider
from datasets.models import Collection, Dataset, Datum
from tests.support import factories
from tests.support.pages import ADD, LIST, browser, new_key_form, url


@pytest.fixture(scope="module")
def client() -> Any:
    return browser(factories.make_user(factories.make_team(), is_superuser=True))


@pytest.mark.parametrize("page", ["change", "history", "delete"])
@pytest.mark.parametrize("model", [ApiKey, App, Team, User, Limit, Dataset, Collection, Datum])
def test_nul_in_the_path(client: Any, model: type[Model], page: str) -> None:
    assert client.get(url(model, page, "\0")).status_code == 400


def test_nul_in_the_path_of_a_change(client: Any) -> None:
    for page in ("rotate", "disable", "revoke"):
        assert client.get(url(ApiKey, page, "\0")).status_code == 400
    for page in ("search", "import", "import_state", "progress"):
        assert client.get(url(Dataset, page, "\0")).status_code == 400


@pytest.mark.parametrize(
    ("page", "query"),
    [
        (LIST, {"team__id__exact": "\0"}),
        (LIST, {"id": "\0"}),
        (LIST, {"q": "x\0"}),
        (url(AuditEntry, "changelist"), {"via__exact": "\0"}),
        (ADD, {"copy": "\0"}),
        (url(Collection, "add"), {"dataset": "\0"}),
        (url(Datum, "add"), {"collection": "\0"}),
        (url(Datum, "changelist"), {"q": "\0"}),
        (reverse("admin:search"), {"s": "\0", "extended": "1"}),
        (reverse("admin:autocomplete"), {"term": "\0"}),
    ],
)
def test_nul_in_the_query(client: Any, page: str, query: dict[str, str]) -> None:
    response = client.get(page, query)
    assert response.status_code == 400
    assert "Content-Security-Policy" in response


def test_nul_in_a_form(client: Any) -> None:
    user = User.objects.get(pk=client.session["_auth_user_id"])
    form = new_key_form(client, team=user.teams.get().pk, owner=user.pk)
    assert client.post(ADD, form | {"name": "x\0"}).status_code == 400
    assert client.post(ADD, form | {"reservation": "\0"}).status_code == 400
    assert client.post(reverse("admin:apikeys_apikey_bulk", args=["enable"]), {"key": ["\0"]}).status_code == 400
    assert client.post(LIST, {"action": "bulk_enable", "_selected_action": ["\0"]}).status_code == 400


@pytest.mark.parametrize("model", [ApiKey, App, Provider, Team, User, Group, Dataset, Collection])
def test_pattern_that_is_none(client: Any, model: type[Model]) -> None:
    name = "username__regex" if model is User else "name__regex"
    assert client.get(url(model, "changelist"), {name: "("}).status_code == 400


@pytest.mark.parametrize(
    ("model", "query"),
    [
        (ApiKey, {"created_at__year": "99999"}),
        (ApiKey, {"created_at__year__gte": "99999"}),
        (ApiKey, {"allowed_networks__contains": "x"}),
        (UsageRecord, {"client_address__gt": "x"}),
        (Datum, {"chunk_index__gt": "x"}),
    ],
)
def test_value_that_nothing_can_have(client: Any, model: type[Model], query: dict[str, str]) -> None:
    # Django itself redirects to the list, which says that the filter was wrong.
    assert client.get(url(model, "changelist"), query).status_code in (302, 400)


@pytest.mark.parametrize(
    ("model", "action"), [(Limit, "delete_selected"), (AuditEntry, "export_csv"), (Group, "delete_selected")]
)
@pytest.mark.parametrize("chosen", ["abc", "9" * 30])
def test_choice_that_no_row_can_be(client: Any, model: type[Model], action: str, chosen: str) -> None:
    response = client.post(url(model, "changelist"), {"action": action, "_selected_action": [chosen]})
    assert response.status_code == 400 if chosen == "abc" else response.status_code < 400


@pytest.mark.parametrize("query", [{"expires_at": "x"}, {"expires_at": "9999-12-31"}, {"owner": "abc"}, {"app": "x"}])
def test_beginning_of_a_form_in_the_address(client: Any, query: dict[str, str]) -> None:
    assert client.get(ADD, query).status_code == 200
    assert client.get(url(Team, "add"), {"disabled_at": "x"}).status_code == 200
