from typing import Any

from django.apps import AppConfig, apps
from django.contrib.admin import autodiscover
from django.contrib.admin.apps import SimpleAdminConfig
from django.contrib.admin.checks import check_admin_app, check_dependencies
from django.core import checks
from django.db.models.signals import post_migrate


class SiteConfig(AppConfig):
    default = True
    name = "fastgpt_site"

    def ready(self) -> None:
        from fastgpt_site.groups import after_migration

        # The last app that has models: by then all others have migrated.
        post_migrate.connect(after_migration, sender=apps.get_app_config("chat"))


class AdminConfig(SimpleAdminConfig):
    """Django's admin, whose modules come with urls.py: commands need none of them, and start a third quicker."""

    default = False

    def ready(self) -> None:
        checks.register(check_dependencies, checks.Tags.admin)
        checks.register(check_admin, checks.Tags.admin)


def check_admin(app_configs: Any, **options: Any) -> Any:
    # Checks run in any order: this one may come before the one that reads urls.py.
    autodiscover()
    return check_admin_app(app_configs, **options)
