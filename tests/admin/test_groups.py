"""The ready-made groups: members of each may do its task, nothing else, and only in their own teams."""

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.core.management import call_command

from apikeys.access.rules import EndpointRule
from apikeys.accounting.limits import Limit
from apikeys.audit.models import AuditEntry
from apikeys.keys.models import ApiKey
from apikeys.teams import Team
from chat.models import App, Provider
from datasets.models import Dataset, Datum
from fastgpt_site.groups import GROUPS
from tests.support import factories
from tests.support.pages import KEY, app_form, browser, new_key_form, page_of, text, url
from tests.support.tenant_rows import make_tenant_rows


def member(team, group):
    user = factories.make_user(team)
    user.groups.add(Group.objects.get(name=group))
    return user, browser(user)


def test_key_administrator_makes_and_limits_keys():
    team = factories.make_team()
    user, client = member(team, "Key administrator")
    form = new_key_form(client, team=team.pk, owner=user.pk)
    assert KEY.search(text(client.post(url(ApiKey, "add"), form)))
    api_key = ApiKey.objects.get(team=team)
    form = {"team": team.pk, "key": api_key.pk, "measure": "requests", "period": "day", "amount": "5"}
    assert client.post(url(Limit, "add"), {**form, "time_zone": "UTC"}).status_code == 302
    assert client.get(url(AuditEntry, "changelist")).status_code == 200
    for model in (App, Provider):
        assert client.get(url(model, "add")).status_code == 403


def test_app_editor_edits_apps():
    team = factories.make_team()
    model = factories.make_model(factories.make_provider(team))
    _, client = member(team, "App editor")
    form = app_form()
    assert client.post(url(App, "add"), {**form, "team": team.pk, "model": model.pk}).status_code == 302
    assert client.get("/admin/chat/app/try/").status_code == 200
    for page in (url(ApiKey, "changelist"), url(Provider, "add"), url(AuditEntry, "changelist")):
        assert client.get(page).status_code == 403


def test_app_editor_manages_knowledge():
    team = factories.make_team()
    _, client = member(team, "App editor")
    assert client.post(url(Dataset, "add"), {"team": team.pk, "name": "films"}).status_code == 302
    dataset = Dataset.objects.get(team=team)
    assert client.post(url(Dataset, "import", dataset.pk), {"chunk_size": 64, "text": "x"}).status_code == 302
    collection = dataset.collections.get()
    assert client.post(url(Datum, "add"), {"collection": collection.pk, "q": "who?"}).status_code == 302
    assert client.post(url(Datum, "delete", collection.data.get().pk), {"post": "yes"}).status_code == 302
    assert client.post(url(Dataset, "delete", dataset.pk), {"post": "yes"}).status_code == 302
    assert not Dataset.objects.filter(team=team).exists()


def test_auditor_reads_everything_and_changes_nothing():
    team = factories.make_team()
    belongings = make_tenant_rows(team)
    _, client = member(team, "Auditor")
    for model, row in belongings.items():
        assert url(model, "change", row.pk) in text(client.get(url(model, "changelist"))), model
        assert client.get(url(model, "change", row.pk)).status_code == 200
        before = model.objects.values().get(pk=row.pk)
        for page in (url(model, "add"), url(model, "change", row.pk), url(model, "delete", row.pk)):
            assert client.post(page, {"post": "yes"}).status_code == 403
        assert model.objects.values().get(pk=row.pk) == before
    for page in ("rotate", "disable", "revoke"):
        assert client.post(page_of(belongings[ApiKey], page), {"reason": "r"}).status_code == 403
    assert client.get(url(Dataset, "import", belongings[Dataset].pk)).status_code == 403
    assert client.get(url(Dataset, "search", belongings[Dataset].pk)).status_code == 200
    form = {"action": "archive", "_selected_action": [belongings[App].pk]}
    client.post(url(App, "changelist"), form)
    assert App.objects.get(pk=belongings[App].pk).archived_at is None


@pytest.mark.parametrize("group", GROUPS)
def test_nobody_but_superusers_decides_for_the_site(group):
    _, client = member(factories.make_team(), group)
    for model in (User, Group, EndpointRule):
        assert client.get(url(model, "changelist")).status_code == 403
    assert client.get(url(Team, "add")).status_code == 403


def test_no_group_may_do_what_no_page_offers():
    known = {
        f"{model._meta.app_label}.{right}_{model._meta.model_name}"
        for model in admin.site._registry
        for right in ("view", "add", "change", "delete")
    }
    parts = {"apikeys.view_membership", "apikeys.view_delivery", "chat.view_route", "chat.try_app"}
    assert {permission for wanted in GROUPS.values() for permission in wanted} <= known | parts


def test_migrating_adds_what_is_missing_and_takes_nothing():
    group = Group.objects.get(name="App editor")
    wanted = set(group.permissions.all())
    more = Group.objects.get(name="Key administrator").permissions.exclude(pk__in=[one.pk for one in wanted]).first()
    group.permissions.remove(next(iter(wanted)))
    group.permissions.add(more)
    call_command("migrate", verbosity=0)
    assert set(group.permissions.all()) == wanted | {more}
    group.permissions.remove(more)


def test_permissions_are_named_in_the_language_of_the_reader():
    client = browser(factories.make_user(is_superuser=True))
    page = url(Group, "add")
    for language, names in {
        "en": ["API key | add", "Late hour | view"],
        "zh-hans": ["API 密钥 | 添加", "应用 | 试用"],
    }.items():
        shown = text(client.get(page, headers={"accept-language": language}))
        assert [name for name in names if f">{name}</option>" not in shown] == []
    assert "Can add" not in shown
