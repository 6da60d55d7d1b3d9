from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class ChatConfig(AppConfig):
    name = "chat"
    verbose_name = _("Apps and conversations")

    def ready(self) -> None:
        from apikeys.audit import recording
        from chat.catalog import CatalogModel, Provider, Route
        from chat.models import App

        recording.register(App, lambda app: app.team_id, exclude={"created_at", "updated_at"}, m2m={"datasets"})
        # Whoever sets or clears these writes their entry: their bytes differ each time that they are read.
        secrets = {"encrypted_secret", "encrypted_headers"}
        recording.register(Provider, lambda provider: provider.team_id, exclude={*secrets, "created_at"})
        recording.register(CatalogModel, lambda model: model.team_id, exclude={"created_at"})
        recording.register(Route, lambda route: route.model.team_id, exclude={"team"})
