"""A team as one may meet it after some weeks, and every page of the admin that shows it."""

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.test import Client
from django.utils import timezone
from playwright.sync_api import BrowserContext

from apikeys.alerts import Alert, AlertKind
from apikeys.limits import Limit
from apikeys.models import ApiKey, EndpointRule, Team
from apikeys.usage import Refusal, UsageRecord
from apikeys.webhooks import Webhook
from chat.models import App, Conversation
from tests import factories
from tests.admin.pages import ADD, page_of, url
from tests.processes import wait_for


def sign_in(context: BrowserContext, user: Any, base_url: str) -> None:
    """Past the form, which has tests of its own."""
    client = Client()
    client.force_login(user)
    session = client.cookies[settings.SESSION_COOKIE_NAME].value
    context.add_cookies([{"name": settings.SESSION_COOKIE_NAME, "value": session, "url": base_url}])


class Showcase:
    """Two apps on a fake provider, keys in all states, limits, usage, refusals, alerts."""

    def __init__(self, server: Any, provider: Any) -> None:
        self.team = factories.make_team(name=factories.unique("Support"))
        self.user = factories.make_user(self.team, is_superuser=True)
        its_provider = factories.make_provider(self.team, provider.url, name="Model on this machine")
        its_provider.prices.create(model="echo", prompt_micropoints=2_000_000, completion_micropoints=8_000_000)
        make = {"team": self.team, "provider": its_provider}
        self.app = factories.make_app(**make, name="Help desk", intro="Answers what customers ask.")
        self.slow_app = factories.make_app(**make, name="Report writer", model="slow")
        self.shop, shop = self.make_key("Shop", self.app)
        _, search = self.make_key("Search", None, can_name_app=True, note="Asked by the web site.")
        self.make_key("Import at night", None, expires_at=timezone.now() + timedelta(days=5))
        self.make_key("Trial", self.app, expires_at=timezone.now() - timedelta(days=1))
        self.make_key("Partner", self.app)[0].disable()
        revoked, lost = self.make_key("Old web site", self.app)
        revoked.revoke(by=self.user.username, reason="It was found in a repository.")
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
        wait_for(lambda: Refusal.objects.for_team(self.team.pk).count() >= 3, "the refusals", seconds=10)
        facts = {"last_four": self.shop.last_four, "expires_at": timezone.now().isoformat(), "days": 7}
        Alert.objects.create(
            team=self.team, key=self.shop, kind=AlertKind.EXPIRY, occasion=factories.unique("expiry"), facts=facts
        )

    def make_key(self, name: str, app: App | None, **policy: Any) -> tuple[ApiKey, str]:
        return factories.make_key(self.team, app, self.user, name=name, **policy)

    def pages(self) -> dict[str, str]:
        """Path by name."""
        record = UsageRecord.objects.filter(team=self.team).latest("created_at")
        refusal = Refusal.objects.for_team(self.team.pk).latest("created_at")
        of_team = f"?team__id__exact={self.team.pk}"
        lists = {
            f"{model._meta.model_name} list": url(model, "changelist") + query
            for model, query in {
                ApiKey: of_team,
                Limit: of_team,
                App: of_team,
                Conversation: "",
                UsageRecord: of_team,
                Refusal: of_team,
                Alert: of_team,
                Team: "",
            }.items()
        }
        return {
            "index": "/admin/",
            **lists,
            "key add": ADD,
            "key page": page_of(self.shop),
            "key revoke": page_of(self.shop, "revoke"),
            "endpoints": url(EndpointRule, "inventory"),
            "try it": url(App, "try"),
            "usage record": url(UsageRecord, "change", record.pk),
            "refusal": url(Refusal, "change", refusal.pk),
            "app page": url(App, "change", self.app.pk),
            "limit add": url(Limit, "add"),
            "webhook add": url(Webhook, "add"),
            "team page": url(Team, "change", self.team.pk),
        }
