"""Django's command, which says that models have changed only where the database would."""

from django.core.management.commands import migrate

from fastgpt_site.management.commands.makemigrations import SchemaAutodetector


class Command(migrate.Command):
    autodetector = SchemaAutodetector
