"""One row of every model that belongs to a team."""

from datetime import timedelta
from typing import Any

from django.db.models import Model
from django.utils import timezone

from apikeys.accounting.ledger import DailyUsage, KeyActivity, Outcome, Refusal, UsageRecord
from apikeys.accounting.limits import Limit
from apikeys.alerts.deliveries import Delivery
from apikeys.alerts.models import Alert
from apikeys.alerts.webhooks import Webhook
from apikeys.audit.models import AuditEntry
from apikeys.object_ids import new_object_id
from apikeys.teams import Team
from chat.models import Conversation, Message, Role
from datasets.data import NewDatum, insert
from datasets.models import Datum
from tests.support import factories


def make_tenant_rows(team: Team) -> dict[type[Model], Any]:
    its_provider = factories.make_provider(team)
    app = factories.make_app(team, model=factories.make_model(its_provider, factories.unique("model")))
    api_key, _ = factories.make_key(app=app)
    usage = UsageRecord.objects.create(
        id=new_object_id(),
        team=team,
        key=api_key,
        app=app,
        endpoint="chat.completions",
        model=factories.unique("model"),
        status=200,
        outcome=Outcome.COMPLETE,
        duration_ms=7,
    )
    daily = DailyUsage.objects.create(
        day=timezone.now().date() - timedelta(days=1),
        team=team,
        key=api_key,
        app=app,
        endpoint="chat.completions",
        model=factories.unique("model"),
        outcome=Outcome.COMPLETE,
        requests=1,
        prompt_tokens=2,
        completion_tokens=3,
        cost_micropoints=4,
        duration_ms=5,
    )
    refusal = Refusal.objects.create(
        id=new_object_id(),
        team=team,
        key=api_key,
        endpoint="chat.completions",
        status=403,
        code="wrong_key_kind",
        message=factories.unique("message"),
    )
    conversation = Conversation.objects.create(app=app, chat_id=factories.unique("chat"))
    message = Message.objects.create(
        conversation=conversation,
        data_id=factories.unique("data"),
        role=Role.USER,
        content=factories.unique("words"),
        request_id=usage.pk,
    )
    activity = KeyActivity.objects.create(key=api_key, last_used_at=timezone.now())
    limit = Limit.objects.create(
        team=team, key=api_key, measure="requests", period="day", amount=next(factories.numbers) + 10_000
    )
    # It is delivered already, so that no worker of another test delivers it.
    alert = Alert.objects.create(
        team=team,
        key=api_key,
        kind="expiry",
        dedup_key=factories.unique("dedup_key"),
        details={"expires_at": timezone.now().isoformat(), "days": 7},
        delivered_at=timezone.now(),
    )
    Delivery.objects.create(
        alert=alert, channel="webhook", delivered_at=timezone.now(), last_error=factories.unique("error")
    )
    # There is one for each team.
    webhook = Webhook.objects.filter(team=team).first() or Webhook(
        team=team, url=f"https://{factories.unique('x')}.test"
    )
    webhook.make_secret()
    webhook.save()
    collection = factories.make_collection(factories.make_dataset(team))
    insert(collection, [NewDatum(factories.unique("question"), factories.unique("answer"))])
    entry = AuditEntry.objects.filter(team=team, object_pk=api_key.pk).latest("pk")
    rows = (
        team,
        factories.provider_of(app),
        app.model,
        app,
        api_key,
        activity,
        usage,
        refusal,
        daily,
        conversation,
        message,
        limit,
        alert,
        webhook,
        collection.dataset,
        collection,
        Datum.objects.get(collection=collection),
        entry,
    )
    return {type(row): row for row in rows}
