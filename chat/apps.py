from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class ChatConfig(AppConfig):
    name = "chat"
    verbose_name = _("Apps and conversations")

    def ready(self) -> None:
        from apikeys.audit import recording
        from chat.models import App, Price, Provider

        recording.register(App, lambda app: app.team_id, exclude={"created_at", "updated_at"}, m2m={"datasets"})
        # Whoever sets or clears the secret writes its entry: its bytes differ each time that they are read.
        recording.register(Provider, lambda provider: provider.team_id, exclude={"encrypted_secret", "created_at"})
        recording.register(Price, lambda price: price.provider.team_id)
