from django.apps import AppConfig
from django.core.checks import register
from django.utils.translation import gettext_lazy as _


class ApiKeysConfig(AppConfig):
    name = "apikeys"
    verbose_name = _("API keys")

    def ready(self) -> None:
        from apikeys import alerts, audited, deliveries, limits, reconciliation, sign_in, usage, webhooks  # noqa: F401 - their models belong to this app
        from apikeys.checks import check_networks, check_retention, check_routes

        audited.register_models()
        register(check_routes, "urls")
        register(check_networks)
        register(check_retention)
