from django.apps import AppConfig
from django.contrib.auth.signals import user_logged_in
from django.core.checks import register
from django.utils.translation import gettext_lazy as _


class ApiKeysConfig(AppConfig):
    name = "apikeys"
    # Breadcrumbs begin with this name, which is the menu's too.
    verbose_name = _("Access")

    def ready(self) -> None:
        from apikeys import audit_registry
        from apikeys.checks import check_networks, check_retention, check_routes
        from apikeys.sign_in.reauthentication import remember

        audit_registry.register_models()
        user_logged_in.connect(remember, dispatch_uid="password_entered")
        register(check_routes, "urls")
        register(check_networks)
        register(check_retention)
