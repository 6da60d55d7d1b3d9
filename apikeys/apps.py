from django.apps import AppConfig
from django.core.checks import register
from django.utils.translation import gettext_lazy as _


class ApiKeysConfig(AppConfig):
    name = "apikeys"
    verbose_name = _("API keys")

    def ready(self) -> None:
        from apikeys import alerts, deliveries, limits, reconciliation, usage, webhooks  # noqa: F401 - their models belong to this app
        from apikeys.checks import check_networks, check_retention, check_routes

        register(check_routes, "urls")
        register(check_networks)
        register(check_retention)
