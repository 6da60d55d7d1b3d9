"""The sidebar shows each user the pages that they may see, and no others."""

import re

import pytest
from django.contrib.auth.models import Group, User
from django.urls import reverse
from procrastinate.contrib.django.models import ProcrastinateJob

from apikeys.accounting.ledger import DailyUsage, Refusal, UsageRecord
from apikeys.accounting.limits import Limit
from apikeys.alerts.models import Alert
from apikeys.alerts.webhooks import Webhook
from apikeys.audit.models import AuditEntry
from apikeys.keys.models import ApiKey
from apikeys.teams import Team
from chat.models import App, Conversation, Provider
from datasets.models import Collection, Dataset, Datum
from tests.support import factories
from tests.support.pages import browser, staff, text, url

OF_TEAMS = (
    ApiKey,
    Limit,
    App,
    Provider,
    Conversation,
    Dataset,
    UsageRecord,
    DailyUsage,
    Refusal,
    Alert,
    AuditEntry,
    Team,
    Webhook,
)
OF_THE_SITE = (ProcrastinateJob, User, Group)
ENDPOINTS, TRY = reverse("admin:apikeys_endpointrule_inventory"), reverse("admin:chat_app_try")


def links(client) -> set[str]:
    """Return the links of the sidebar, which alone have an icon each."""
    page = text(client.get("/admin/"))
    return set(re.findall(r'<a href="(/admin/[^"?]+)"[^>]*>\s*<span class="material-symbols-outlined', page))


def permission(model, right="view"):
    return f"{model._meta.app_label}.{right}_{model._meta.model_name}"


def test_it_works():
    found = links(browser(factories.make_user(is_superuser=True)))
    assert {url(model, "changelist") for model in (*OF_TEAMS, *OF_THE_SITE)} | {ENDPOINTS, TRY} <= found


@pytest.mark.parametrize("model", OF_TEAMS)
def test_with_one_permission(model):
    _, client = staff(factories.make_team(), permission(model))
    beside = {ENDPOINTS} if model is ApiKey else set()
    assert links(client) - {"/admin/"} == {url(model, "changelist")} | beside


def test_trying_apps_needs_both_permissions():
    team = factories.make_team()
    assert TRY not in links(staff(team, "chat.try_app")[1])
    assert TRY in links(staff(team, "chat.try_app", "chat.view_app")[1])


@pytest.mark.parametrize("model", [Dataset, Collection, Datum])
def test_datasets_stand_for_what_is_in_them(model):
    _, client = staff(factories.make_team(), permission(Dataset), permission(model))
    page = text(client.get(url(model, "changelist")))
    link = re.search(rf'<a href="{url(Dataset, "changelist")}" class="([^"]*)"[^>]*>\s*<span class="material', page)
    assert "active" in link[1].split()


@pytest.mark.parametrize("model", OF_THE_SITE)
def test_pages_of_the_site_are_for_superusers(model):
    _, client = staff(factories.make_team(), *(permission(one) for one in OF_THE_SITE))
    assert url(model, "changelist") not in links(client)
