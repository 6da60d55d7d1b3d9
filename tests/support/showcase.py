"""A team as one may meet it after some weeks, and every page of the admin that shows it."""

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth.models import Group, User
from django.db.models import Model
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import BrowserContext
from procrastinate.contrib.django.models import ProcrastinateJob

from apikeys.access.rules import EndpointRule
from apikeys.accounting.ledger import DailyUsage, KeyActivity, Outcome, Refusal, UsageRecord
from apikeys.accounting.limits import Limit
from apikeys.alerts.deliveries import Delivery
from apikeys.alerts.models import Alert, AlertKind
from apikeys.alerts.webhooks import Webhook
from apikeys.audit import history_messages
from apikeys.audit.models import AuditEntry
from apikeys.keys.models import ApiKey
from apikeys.teams import Team
from chat.catalog import CatalogModel, Provider
from chat.models import App, Conversation, Message
from datasets.data import NewDatum, insert
from datasets.models import Collection, Dataset, Datum, ImportState, Kind
from datasets.vectors import sets
from tests.admin.test_jobs import make_job
from tests.support import factories
from tests.support.pages import browser, page_of, url
from tests.support.processes import wait_for
from tests.support.worker_jobs import work


def sign_in(context: BrowserContext, user: Any, base_url: str) -> None:
    """Sign in past the form, which has tests of its own."""
    client = Client()
    client.force_login(user)
    session = client.cookies[settings.SESSION_COOKIE_NAME].value
    context.add_cookies([{"name": settings.SESSION_COOKIE_NAME, "value": session, "url": base_url}])


def speak(context: BrowserContext, language: str, base_url: str) -> None:
    """Choose a language, as in the menu behind one's name."""
    context.add_cookies([{"name": settings.LANGUAGE_COOKIE_NAME, "value": language, "url": base_url}])


class Showcase:
    """Two apps on a fake provider, keys in all states, limits, usage, refusals, alerts."""

    def __init__(self, server: Any, provider: Any) -> None:
        self.team = factories.make_team(name=factories.unique("Support"))
        self.user = factories.make_user(self.team, is_superuser=True)
        its_provider = factories.make_provider(self.team, provider.url, name="Model on this machine")
        factories.set_prices(its_provider, "echo", 2_000_000, 8_000_000)
        make = {"team": self.team, "provider": its_provider}
        self.app = factories.make_app(**make, name="Help desk", intro="Answers what customers ask.")
        self.slow_app = factories.make_app(**make, name="Report writer", model="slow")
        self.shop, shop = self.make_key("Shop", self.app)
        _, search = self.make_key("Search", None, can_name_app=True, note="ReservationRequest by the web site.")
        self.make_key("Import at night", None, expires_at=timezone.now() + timedelta(days=5))
        self.make_key("Trial", self.app, expires_at=timezone.now() - timedelta(days=1))
        self.partner, _ = self.make_key("Partner", self.app)
        self.revoked, lost = self.make_key("Old web site", self.app)
        staff = browser(self.user)
        staff.post(page_of(self.partner, "disable"), {"reason": "The contract ended."})
        reason = "It was found in a repository."
        staff.post(page_of(self.revoked, "revoke"), {"reason": reason, "typed_name": self.revoked.name})
        self.make_key("Reports", self.slow_app)[0].rotate(timedelta(hours=1))
        limit = {"team": self.team, "key": self.shop}
        Limit.objects.create(**limit, measure="requests", period="minute", amount=5)
        Limit.objects.create(**limit, measure="tokens", period="month", amount=1_000_000, soft_amount=800_000)
        Limit.objects.create(team=self.team, measure="micropoints", period="month", amount=50_000_000)
        for number in range(7):
            server.ask(shop, f"Where is parcel {number}?", chatId="customer-1")
        server.ask(search, "Hello", appId=self.app.pk)
        server.ask(lost)
        server.get("/api/core/app/list", shop)
        wait_for(lambda: Refusal.objects.for_team(self.team.pk).count() >= 3, "the refusals")
        facts = {"expires_at": (timezone.now() + timedelta(days=7)).isoformat(), "days": 7}
        alert = Alert.objects.create(
            team=self.team,
            key=self.shop,
            kind=AlertKind.EXPIRY,
            dedup_key=factories.unique("expiry"),
            details=facts,
            delivered_at=timezone.now(),
        )
        # It is given up, so that no worker of another test delivers it.
        Delivery.objects.create(
            alert=alert,
            channel="webhook",
            attempts=8,
            given_up_at=timezone.now(),
            last_error=history_messages.ANSWERED(status=503),
        )
        webhook = Webhook(team=self.team, url="https://hooks.example.org/keys")
        webhook.make_secret()
        webhook.save()
        DailyUsage.objects.create(
            day=timezone.now().date() - timedelta(days=40),
            team=self.team,
            key=self.shop,
            app=self.app,
            endpoint="chat.completions",
            model="echo",
            outcome=Outcome.COMPLETE,
            requests=1_284,
            prompt_tokens=318_220,
            completion_tokens=96_411,
            cost_micropoints=1_407_728,
            duration_ms=713_904,
        )
        self.job = make_job()
        self.dataset = self.make_dataset()
        self.free_dataset = factories.make_dataset(self.team, name="Of no app")

    def make_dataset(self) -> Dataset:
        """Make a dataset about a film: partly imported, partly failed, and waiting for vectors of another model."""
        dataset = factories.make_dataset(self.team, name="The film", intro="Who made it, and when.")
        self.app.datasets.add(dataset)
        folder = factories.make_collection(dataset, kind=Kind.FOLDER, name="Press")
        notes = factories.make_collection(dataset, kind=Kind.FILE, name="notes.md", parent=folder, repeated=2)
        pairs = (
            ("导演是谁?", "导演是李安，他生于一九五四年。", ["谁拍的这部电影"]),
            ("Who directed it?", "Ang Lee, who was born in 1954, directed it.", ["Who made this film?"]),
            ("Where was it shot?", "In Anhui, Zhejiang and Xinjiang, over five months. " * 8, []),
        )
        insert(notes, [NewDatum(q, a, index_texts=texts) for q, a, texts in pairs])
        work(dataset)
        failure = {"state": ImportState.FAILED, "failure": "The pdf is encrypted."}
        factories.make_collection(dataset, kind=Kind.FILE, name="contract.pdf", **failure)
        factories.make_collection(dataset, kind=Kind.LINK, name="https://example.org/film", state=ImportState.WAITING)
        sets.change_model(dataset, factories.provider_of(self.app), "embed-large")
        return dataset

    def make_key(self, name: str, app: App | None, **policy: Any) -> tuple[ApiKey, str]:
        return factories.make_key(self.team, app, self.user, name=name, **policy)

    def rows(self) -> dict[type[Model], Any]:
        """Return a row of every model that the admin has pages of."""
        usage = UsageRecord.objects.filter(team=self.team)
        return {
            Team: self.team,
            Provider: factories.provider_of(self.app),
            CatalogModel: self.app.model,
            App: self.app,
            ApiKey: self.shop,
            KeyActivity: KeyActivity.objects.get(key=self.shop),
            Limit: Limit.objects.filter(key=self.shop).earliest("pk"),
            UsageRecord: usage.latest("created_at"),
            DailyUsage: DailyUsage.objects.get(team=self.team),
            Refusal: Refusal.objects.for_team(self.team.pk).latest("created_at"),
            Dataset: self.dataset,
            Collection: Collection.objects.get(dataset=self.dataset, name="notes.md"),
            Datum: Datum.objects.filter(dataset=self.dataset).earliest("chunk_index"),
            Conversation: Conversation.objects.get(app=self.app),
            Message: Message.objects.filter(conversation__app=self.app).latest("pk"),
            Alert: Alert.objects.filter(team=self.team).latest("pk"),
            Webhook: Webhook.objects.get(team=self.team),
            AuditEntry: AuditEntry.objects.filter(team=self.team, object_pk=self.partner.pk).latest("pk"),
            # Tests of rules delete them all.
            EndpointRule: EndpointRule.objects.get_or_create(endpoint="models.list")[0],
            ProcrastinateJob: ProcrastinateJob.objects.get(pk=self.job),
            User: self.user,
            Group: Group.objects.get(name="Key administrator"),
        }

    def pages(self) -> dict[str, str]:
        """Return paths by name: the list and a row of every model, forms of new rows, and all pages of no model."""
        rows = self.rows()
        found = {"index": "/admin/"}
        for model, row in rows.items():
            is_of_team = "team" in [field.name for field in model._meta.fields]
            query = f"?team__id__exact={self.team.pk}" if is_of_team else ""
            found[f"{model._meta.model_name} list"] = url(model, "changelist") + query
            found[f"{model._meta.model_name} page"] = url(model, "change", row.pk)
        for model in (
            Team,
            Provider,
            App,
            Dataset,
            Collection,
            Datum,
            ApiKey,
            Limit,
            Webhook,
            EndpointRule,
            User,
            Group,
        ):
            found[f"{model._meta.model_name} add"] = url(model, "add")
        for name in ("rotate", "disable", "narrow", "revoke"):
            found[f"key {name}"] = page_of(self.shop, name)
        return found | {
            "key enable": page_of(self.partner, "enable"),
            "key history": page_of(self.partner, "history"),
            "key revoked": page_of(self.revoked),
            "key import": url(ApiKey, "import"),
            "limit delete": url(Limit, "delete", rows[Limit].pk),
            "provider delete": url(Provider, "delete", rows[Provider].pk),
            "dataset import": url(Dataset, "import", self.dataset.pk),
            "dataset search": url(Dataset, "search", self.dataset.pk),
            "dataset delete": url(Dataset, "delete", self.free_dataset.pk),
            "collection delete": url(Collection, "delete", rows[Collection].pk),
            "webhook new secret": url(Webhook, "new_secret", rows[Webhook].pk),
            "endpoints": url(EndpointRule, "inventory"),
            "try it": url(App, "try"),
            "own password": reverse("admin:password_change"),
            "user password": reverse("admin:auth_user_password_change", args=[self.user.pk]),
        }
