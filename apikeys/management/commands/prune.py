"""`manage.py prune`: keep totals, not detail."""

import dataclasses
from argparse import ArgumentParser, ArgumentTypeError
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError

from apikeys.management.command_line import DataCommand
from apikeys.retention import MINIMUM_DAYS, preview, prune, validate_days


def age(value: str) -> int:
    try:
        days = int(value)
        validate_days(days)
    except ValueError as error:
        mistake = f"{value!r} is not a whole number" if "invalid literal" in str(error) else str(error)
        raise ArgumentTypeError(mistake) from None
    return days


class Command(DataCommand):
    help = (
        "Roll usage records that are older than a number of days up into one row for each UTC day, team, key, app, "
        "endpoint, model, outcome and source of token counts, and delete them. Every total stays the same. The site "
        "may run meanwhile; a prune that was interrupted is completed by the next one."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--days",
            type=age,
            help=f"How many UTC days before today keep their detail, at least {MINIMUM_DAYS}, so that every period of "
            "a limit, whatever its time zone, lies wholly in the detail. Default: RETENTION_DAYS.",
        )
        parser.add_argument("--dry-run", action="store_true", help="Print the counts and change nothing.")
        parser.add_argument("--json", action="store_true", help="Print one line of JSON.")

    def handle(self, *args: Any, **options: Any) -> None:
        days = options["days"] or settings.RETENTION_DAYS
        if not days:
            raise CommandError(
                "Give the number of days to keep with --days; RETENTION_DAYS is 0, which keeps everything."
            )
        is_dry_run = options["dry_run"]
        try:
            pruned = preview(days) if is_dry_run else prune(days)
        except ValueError as error:
            raise CommandError(f"RETENTION_DAYS: {error}.") from error
        if options["json"]:
            facts = dataclasses.asdict(pruned) | {"before": pruned.before.isoformat()}
            self.print_json({"days": days, **facts, "dry_run": is_dry_run})
        else:
            roll, bring, delete = (
                ("Would roll", "bring", "Would delete") if is_dry_run else ("Rolled", "brought", "Deleted")
            )
            self.stdout.write(
                f"{roll} {pruned.records:,} usage records before {pruned.before} up into {pruned.daily_rows:,} new "
                f"daily rows, and {bring} {pruned.counters:,} idle counters to their present period. "
                f"{delete} {pruned.refusals:,} refusals and {pruned.alerts:,} delivered alerts."
            )
