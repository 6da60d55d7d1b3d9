"""Staff of one team, in each ready-made group and with every permission, request another team's rows on all pages."""

from urllib.parse import quote_plus

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.urls import reverse
from django.utils import timezone
from procrastinate.contrib.django.models import ProcrastinateJob

from apikeys.access.rules import EndpointRule
from apikeys.alerts.webhooks import Webhook
from apikeys.audit.models import AuditEntry
from apikeys.keys.models import ApiKey
from apikeys.teams import Membership, Team
from chat.catalog import CatalogModel, Provider
from chat.models import App
from datasets.models import Dataset
from fastgpt_site.groups import GROUPS
from tests.support import factories
from tests.support.pages import ADD, KEY_RIGHTS, app_form, browser, key_form, new_key_form, page_of, staff, text, url
from tests.support.tenant_rows import make_tenant_rows

SITE_WIDE = {User, Group, EndpointRule, ProcrastinateJob}
EVERYTHING = "every permission"
TEAMS_OWN = [model for model in admin.site._registry if model not in SITE_WIDE]
RIGHTS = tuple(
    f"{model._meta.app_label}.{right}_{model._meta.model_name}"
    for model in [*admin.site._registry, Membership]
    for right in ("view", "add", "change", "delete")
)
KEY_PAGES = ["rotate", "disable", "enable", "narrow", "revoke"]
MORE_PAGES = {ApiKey: KEY_PAGES, Webhook: ["new_secret"], Dataset: ["search", "progress", "import", "import_state"]}


class Neighbours:
    """Two teams with one row of every kind, and staff of the first with the rights of a group, or with all rights."""

    def __init__(self, group=EVERYTHING):
        self.team, self.foreign_team = factories.make_team(), factories.make_team()
        self.own = make_tenant_rows(self.team)
        self.foreign = make_tenant_rows(self.foreign_team)
        self.foreign_owner = self.foreign[ApiKey].owner
        if group == EVERYTHING:
            self.user, self.client = staff(self.team, *RIGHTS)
        else:
            self.user = factories.make_user(self.team)
            self.user.groups.add(Group.objects.get(name=group))
            self.client = browser(self.user)

    @property
    def foreign_words(self):
        """Words that would give the other team away. Each is unique, so one set serves all pages."""
        rows = [row for model, row in self.foreign.items() if model._meta.model_name != "keyactivity"]
        return [*map(str, rows), self.foreign_owner.username, self.foreign_team.pk, self.foreign[ApiKey].pk]

    def assert_silent(self, response, *said_by_me):
        page = text(response)
        for words in said_by_me:
            page = page.replace(words, "").replace(quote_plus(words), "")
        assert [words for words in self.foreign_words if words in page] == []


@pytest.fixture(scope="module")
def neighbours(database):
    return Neighbours()


@pytest.fixture(scope="module", params=[EVERYTHING, *GROUPS])
def visitors(database, request):
    """Neighbours with the rights of each group in turn."""
    return Neighbours(request.param)


def test_it_works(neighbours):
    for model in TEAMS_OWN:
        row = neighbours.own[model]
        assert url(model, "change", row.pk) in text(neighbours.client.get(url(model, "changelist")))
        assert neighbours.client.get(url(model, "change", row.pk)).status_code == 200


def test_every_registered_model_is_walked(neighbours):
    assert set(TEAMS_OWN) == set(neighbours.foreign)


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize("model", TEAMS_OWN)
def test_foreign_row_answers_like_an_absent_one(visitors, model, method):
    foreign, absent = visitors.foreign[model].pk, "0" * 24
    if not isinstance(foreign, str):
        foreign, absent = str(foreign), "9" * 12
    ask = getattr(visitors.client, method)
    for page in ["change", "history", "delete", *MORE_PAGES.get(model, [])]:
        answers = []
        for pk in (foreign, absent):
            response = ask(url(model, page, pk), {"post": "yes"} if method == "post" else {})
            assert response.status_code in (302, 403, 404), page
            visitors.assert_silent(response)
            if response.status_code == 302:
                # The dashboard shows what happens meanwhile; of this request it has the message alone.
                seen = "".join(map(str, visitors.client.get(response["Location"]).context["messages"]))
                assert pk in seen
            else:
                seen = text(response)
            # The message repeats the requested id; all else must be equal, except for the form token.
            answers.append((response.status_code, response.get("Location"), len(seen.replace(f"\u201c{pk}\u201d", ""))))
        assert answers[0] == answers[1], page
    visitors.foreign[model].refresh_from_db()


@pytest.mark.parametrize("model", TEAMS_OWN)
def test_lists_filters_and_search(visitors, model):
    foreign = visitors.foreign[model]
    plain = visitors.client.get(url(model, "changelist"))
    can_view = visitors.user.has_perm(f"{model._meta.app_label}.view_{model._meta.model_name}")
    assert plain.status_code == (200 if can_view else 403)
    visitors.assert_silent(plain)
    for words in (str(foreign.pk), str(foreign)):
        visitors.assert_silent(visitors.client.get(url(model, "changelist"), {"q": words}), words)
    for name, value in (
        ("team__id__exact", visitors.foreign_team.pk),
        ("app__id__exact", visitors.foreign[App].pk),
        ("owner__id__exact", visitors.foreign_owner.pk),
        ("id__exact", foreign.pk),
    ):
        response = visitors.client.get(url(model, "changelist"), {name: value})
        assert response.status_code in (200, 302, 400, 403)
        visitors.assert_silent(response, str(value))


def test_staff_of_two_teams_filter_by_those_two(neighbours):
    user, client = staff(neighbours.team, *RIGHTS)
    second = factories.make_team()
    Membership.objects.create(team=second, user=user)
    for model in (ApiKey, App, Provider):
        page = client.get(url(model, "changelist"))
        assert f"team__id__exact={second.pk}" in text(page)
        neighbours.assert_silent(page)


@pytest.mark.parametrize("model", [model for model in TEAMS_OWN if model not in (ApiKey, App)])
def test_action_does_not_reach_a_foreign_row(visitors, model):
    foreign = visitors.foreign[model]
    form = {"action": "delete_selected", "_selected_action": [foreign.pk], "post": "yes"}
    visitors.assert_silent(visitors.client.post(url(model, "changelist"), form, follow=True))
    foreign.refresh_from_db()


@pytest.mark.parametrize("action", ["archive", "archive_and_cut", "unarchive"])
def test_archive_does_not_reach_a_foreign_app(visitors, action):
    app = visitors.foreign[App]
    before = timezone.now() if action == "unarchive" else None
    App.objects.filter(pk=app.pk).update(archived_at=before)
    form = {"action": action, "_selected_action": [app.pk], "select_across": "1"}
    visitors.assert_silent(visitors.client.post(url(App, "changelist"), form, follow=True))
    app.refresh_from_db()
    assert app.archived_at == before


@pytest.mark.parametrize("form", ["csv", "json"])
def test_export_does_not_reach_a_foreign_entry(visitors, form):
    foreign = visitors.foreign[AuditEntry]
    for across in ("0", "1"):
        form_data = {"action": f"export_{form}", "_selected_action": [foreign.pk], "select_across": across}
        response = visitors.client.post(url(AuditEntry, "changelist"), form_data, follow=True)
        assert response.status_code in (200, 403)
        visitors.assert_silent(response)


@pytest.mark.parametrize("page", ["add", "change"])
@pytest.mark.parametrize("model", TEAMS_OWN)
def test_forms_offer_nothing_foreign(visitors, model, page):
    arguments = [visitors.own[model].pk] if page == "change" else []
    visitors.assert_silent(visitors.client.get(url(model, page, *arguments)))


@pytest.mark.parametrize("field", ["team", "app", "owner"])
def test_new_key_with_something_foreign(neighbours, field):
    foreign = {
        "team": neighbours.foreign_team.pk,
        "app": neighbours.foreign[App].pk,
        "owner": neighbours.foreign_owner.pk,
    }
    form = new_key_form(neighbours.client, team=neighbours.team.pk, owner=neighbours.user.pk)
    response = neighbours.client.post(ADD, form | {field: foreign[field]})
    assert "not one of the available choices" in text(response)
    absent = neighbours.client.post(ADD, form | {field: "0" * 24 if field != "owner" else 999_999_999})
    assert text(absent).count("not one of the available choices") == text(response).count(
        "not one of the available choices"
    )
    assert not ApiKey.objects.filter(name=form["name"]).exists()


def test_key_given_to_a_foreign_owner(neighbours):
    api_key = neighbours.own[ApiKey]
    form = key_form(api_key, owner=neighbours.foreign_owner.pk)
    assert "not one of the available choices" in text(neighbours.client.post(page_of(api_key), form))


@pytest.mark.parametrize("field", ["team", "model"])
def test_new_app_with_something_foreign(neighbours, field):
    foreign = {"team": neighbours.foreign_team.pk, "model": neighbours.foreign[CatalogModel].pk}
    form = app_form()
    form |= {"team": neighbours.team.pk, "model": neighbours.own[CatalogModel].pk, field: foreign[field]}
    response = neighbours.client.post(url(App, "add"), form)
    assert "not one of the available choices" in text(response)


def test_new_webhook_in_a_foreign_team(neighbours):
    response = neighbours.client.post(
        url(Webhook, "add"), {"team": neighbours.foreign_team.pk, "url": "https://x.example"}
    )
    assert "not one of the available choices" in text(response)


def test_own_webhook_given_to_a_foreign_team(neighbours):
    webhook = neighbours.own[Webhook]
    form = {"team": neighbours.foreign_team.pk, "url": webhook.url}
    neighbours.assert_silent(neighbours.client.post(url(Webhook, "change", webhook.pk), form))
    webhook.refresh_from_db()
    assert webhook.team == neighbours.team


def test_own_app_with_a_foreign_model(neighbours):
    form = app_form()
    form["model"] = neighbours.foreign[CatalogModel].pk
    response = neighbours.client.post(url(App, "change", neighbours.own[App].pk), form)
    assert "not one of the available choices" in text(response)


def test_new_provider_in_a_foreign_team(neighbours):
    limits = dict.fromkeys(("connect_seconds", "first_byte_seconds", "between_chunks_seconds", "total_seconds"), 5)
    form = {
        "team": neighbours.foreign_team.pk,
        "name": "x",
        "base_url": "https://x.example/v1",
        "auth_header": "X",
        **limits,
    }
    response = neighbours.client.post(url(Provider, "add"), form)
    assert "not one of the available choices" in text(response)


@pytest.mark.parametrize("model", TEAMS_OWN)
def test_autocomplete(visitors, model):
    for field in model._meta.fields:
        if field.is_relation:
            query = {
                "app_label": model._meta.app_label,
                "model_name": model._meta.model_name,
                "field_name": field.name,
                "term": "",
            }
            response = visitors.client.get(reverse("admin:autocomplete"), query)
            assert response.status_code in (200, 403, 404)
            visitors.assert_silent(response)


def test_relations_of_a_foreign_row_are_no_filter(neighbours):
    """A filter must not reveal values of related rows, such as a secret's digest or an owner's password."""
    for lookup in ("secrets__digest__gt", "owner__password__startswith", "team__members__password__startswith"):
        assert neighbours.client.get(url(ApiKey, "changelist"), {lookup: "a"}).status_code == 400


def test_rights_end_with_the_membership():
    team = factories.make_team()
    api_key, _ = factories.make_key(team)
    user, client = staff(team)
    assert client.get(page_of(api_key)).status_code == 200
    Membership.objects.filter(user=user).delete()
    assert client.get(page_of(api_key)).status_code == 302
    assert client.post(page_of(api_key, "revoke"), {"reason": "revenge"}).status_code == 302
    api_key.refresh_from_db()
    assert api_key.revoked_at is None


def test_who_is_not_staff_is_asked_to_sign_in(neighbours):
    user = factories.make_user(neighbours.team, is_staff=False, permissions=KEY_RIGHTS)
    pages = [url(model, "changelist") for model in admin.site._registry]
    pages += [page_of(neighbours.own[ApiKey], page) for page in ["change", *KEY_PAGES]] + [ADD]
    for page in pages:
        assert browser(user).get(page)["Location"].startswith("/admin/login/")


@pytest.mark.parametrize("model", TEAMS_OWN)
def test_superusers_see_everything(neighbours, model):
    client = browser(factories.make_user(is_superuser=True))
    for rows in (neighbours.own, neighbours.foreign):
        assert client.get(url(model, "change", rows[model].pk)).status_code == 200
    assert client.get(url(model, "changelist")).status_code == 200


def test_titles():
    page = text(browser(factories.make_user(is_superuser=True)).get("/admin/"))
    assert "FastGPT API keys" in page
    assert "Django administration" not in page
    assert Team._meta.verbose_name_plural.capitalize() in page
