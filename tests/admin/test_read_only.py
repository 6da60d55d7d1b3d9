"""Rows that the server writes are read-only, also for superusers."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apikeys.accounting.ledger import DailyUsage, KeyActivity, Refusal, UsageRecord
from apikeys.alerts.models import Alert
from chat.models import Conversation, Message
from tests.support import factories
from tests.support.pages import browser, staff, text, url
from tests.support.tenant_rows import make_tenant_rows

MODELS = [KeyActivity, UsageRecord, Refusal, DailyUsage, Conversation, Message, Alert]


@pytest.mark.parametrize("model", MODELS)
def test_it_works(model):
    belongings = make_tenant_rows(factories.make_team())
    row = belongings[model]
    _, client = staff(row_team(belongings), f"{model._meta.app_label}.view_{model._meta.model_name}")
    assert url(model, "change", row.pk) in text(client.get(url(model, "changelist")))
    assert client.get(url(model, "change", row.pk)).status_code == 200


def row_team(belongings):
    return next(iter(belongings.values()))


@pytest.mark.parametrize("model", MODELS)
def test_nobody_changes_it(model):
    row = make_tenant_rows(factories.make_team())[model]
    client = browser(factories.make_user(is_superuser=True))
    before = model.objects.values().get(pk=row.pk)
    assert client.get(url(model, "add")).status_code == 403
    assert client.post(url(model, "add"), {}).status_code == 403
    assert client.post(url(model, "change", row.pk), {"status": 500}).status_code == 403
    assert client.post(url(model, "delete", row.pk), {"post": "yes"}).status_code == 403
    delete = {"action": "delete_selected", "_selected_action": [row.pk], "post": "yes"}
    client.post(url(model, "changelist"), delete)
    assert model.objects.values().get(pk=row.pk) == before


@pytest.mark.parametrize("model", MODELS)
def test_query_count_does_not_grow_with_rows(model):
    team = factories.make_team()
    _, client = staff(team, f"{model._meta.app_label}.view_{model._meta.model_name}")
    counts = []
    for rows in (2, 4):
        for _ in range(rows):
            make_tenant_rows(team)
        with CaptureQueriesContext(connection) as queries:
            assert client.get(url(model, "changelist")).status_code == 200
        counts.append(len(queries))
    assert counts[0] == counts[1]


def test_conversation_leads_to_its_messages():
    belongings = make_tenant_rows(factories.make_team())
    conversation, message = belongings[Conversation], belongings[Message]
    _, client = staff(row_team(belongings), "chat.view_conversation", "chat.view_message")
    link = f"{url(Message, 'changelist')}?conversation__id__exact={conversation.pk}"
    assert link in text(client.get(url(Conversation, "change", conversation.pk)))
    assert message.data_id in text(client.get(link))
    assert message.content in text(client.get(url(Message, "change", message.pk)))


def test_alert_shows_what_became_of_it():
    belongings = make_tenant_rows(factories.make_team())
    alert = belongings[Alert]
    _, client = staff(row_team(belongings), "apikeys.view_alert")
    page = text(client.get(url(Alert, "change", alert.pk)))
    assert f'Key "{alert.key.name}" expires within 7 days' in page
    assert alert.deliveries.get().last_error in page


def test_usage_and_refusals_explain_themselves():
    belongings = make_tenant_rows(factories.make_team())
    _, client = staff(row_team(belongings), "apikeys.view_usagerecord", "apikeys.view_refusal")
    usage, refusal = belongings[UsageRecord], belongings[Refusal]
    page = text(client.get(url(UsageRecord, "change", usage.pk)))
    assert f"Request {usage.pk}: complete, charged 0 points" in page
    page = text(client.get(url(Refusal, "change", refusal.pk)))
    assert f"Request {refusal.pk}: refused with 403 wrong_key_kind" in page
    assert refusal.message in page
    assert "An app key talks to its own app; a global key does the rest." in page
