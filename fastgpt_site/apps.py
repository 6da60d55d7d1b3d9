from django.apps import AppConfig, apps
from django.db.models.signals import post_migrate


class SiteConfig(AppConfig):
    name = "fastgpt_site"

    def ready(self) -> None:
        from fastgpt_site.groups import after_migration

        # The last app that has models: by then all others have migrated.
        post_migrate.connect(after_migration, sender=apps.get_app_config("chat"))
