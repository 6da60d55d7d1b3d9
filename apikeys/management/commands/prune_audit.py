"""`manage.py prune_audit`: the one way in which entries of the audit are deleted."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError
from django.db import connection

from apikeys.management.command_line import DataCommand

MINIMUM_DAYS = 90


class Command(DataCommand):
    help = "Delete audit entries that are older than a number of days. The database refuses every other deletion."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--days", type=int, required=True, help=f"How many days are kept, at least {MINIMUM_DAYS}.")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["days"] < MINIMUM_DAYS:
            raise CommandError(f"--days must be at least {MINIMUM_DAYS}.")
        with connection.cursor() as cursor:
            cursor.execute("SELECT apikeys_prune_audit(%s)", [options["days"]])
            (deleted,) = cursor.fetchone()
        self.stdout.write(f"Deleted {deleted:,} audit entries.")
