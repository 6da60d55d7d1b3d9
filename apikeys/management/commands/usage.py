"""Report usage by team, key, app, model, endpoint or day."""

import csv
from argparse import ArgumentParser, ArgumentTypeError
from datetime import UTC, datetime, time
from typing import Any

from django.db import connection, transaction
from django.db.models import Count, F, Model, Q, QuerySet, Sum
from django.db.models.functions import Coalesce, TruncDate
from django.utils import timezone

from apikeys.accounting.ledger import DailyUsage, Outcome, UsageRecord
from apikeys.accounting.units import points
from apikeys.lifecycle.reports import columns
from apikeys.management import lookups
from apikeys.management.command_line import DataCommand, text
from apikeys.terminal_text import printable

# Each group is named by these columns.
GROUPS: dict[str, dict[str, Any]] = {
    "team": {"team": F("team__name")},
    "key": {"key": F("key__name"), "key_id": F("key_id")},
    "app": {"app": F("app__name"), "app_id": F("app_id")},
    "model": {"model": F("model")},
    "endpoint": {"endpoint": F("endpoint")},
    "day": {"day": F("day")},
}
IS_FAILED = Q(outcome__in=[Outcome.FAILED, Outcome.LOST])
SUMS = {
    "prompt_tokens": Coalesce(Sum("prompt_tokens"), 0),
    "completion_tokens": Coalesce(Sum("completion_tokens"), 0),
    "micropoints": Coalesce(Sum("cost_micropoints"), 0),
}
TOTALS: dict[type[Model], dict[str, Any]] = {
    UsageRecord: {"requests": Count("pk"), "failed": Count("pk", filter=IS_FAILED), **SUMS},
    DailyUsage: {
        "requests": Coalesce(Sum("requests"), 0),
        "failed": Coalesce(Sum("requests", filter=IS_FAILED), 0),
        **SUMS,
    },
}
NAMES = list(TOTALS[UsageRecord])


def moment(value: str) -> datetime:
    """Parse an ISO date, meaning its first moment, or an ISO time; in the project's time zone unless one is named."""
    try:
        parsed = datetime.fromisoformat(value)
        return (parsed if parsed.tzinfo else timezone.make_aware(parsed)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ArgumentTypeError(f"{value!r} is not a date such as 2030-12-31") from None


class Command(DataCommand):
    help = (
        "Report requests, tokens and points by team, key, app, model, endpoint or day, from the ledger and the daily "
        "rows that `prune` makes of it."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--by",
            choices=GROUPS,
            action="append",
            help="What to group by; may be given several times. Default: key and model.",
        )
        parser.add_argument("--team", type=text, help="Only this team: its id or name.")
        parser.add_argument("--key", type=text, help="Only this key: its id or name.")
        parser.add_argument("--since", type=moment, help="Only requests admitted from this date or time on.")
        parser.add_argument("--until", type=moment, help="Only requests admitted before this date or time.")
        form = parser.add_mutually_exclusive_group()
        form.add_argument("--json", action="store_true", help="Print one line of JSON.")
        form.add_argument("--csv", action="store_true", help="Print CSV with a header.")

    def handle(self, *args: Any, **options: Any) -> None:
        groups = list(dict.fromkeys(options["by"] or ["key", "model"]))
        with transaction.atomic(durable=True), connection.cursor() as cursor:
            # One snapshot shows both tables, so what a prune moves meanwhile is counted once.
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            records, days = filter_owner(UsageRecord, options), filter_owner(DailyUsage, options)
            for line in inexact_bounds(days, groups, options):
                self.stderr.write(line)
            rows = sum_groups(filter_records(records, options), filter_days(days, options), groups)
        if options["json"]:
            self.print_json([{**row, "day": row["day"].isoformat()} if "day" in row else row for row in rows])
        elif options["csv"]:
            writer = csv.DictWriter(self.stdout, [*group_columns(groups), *NAMES], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        elif rows:
            lines = [row_texts(row) for row in rows]
            self.stdout.write(columns([[name.upper() for name in lines[0]], *(list(line.values()) for line in lines)]))
        else:
            self.stdout.write("Nothing was used.")


def filter_owner(model: type[Model], options: dict[str, Any]) -> QuerySet[Any]:
    rows: QuerySet[Any] = model._default_manager.all()
    if options["team"]:
        rows = rows.filter(team=lookups.find_team(options["team"]))
    if options["key"]:
        rows = rows.filter(key=lookups.find_key(options["key"]))
    return rows


def filter_records(records: QuerySet[Any], options: dict[str, Any]) -> QuerySet[Any]:
    if options["since"]:
        records = records.filter(created_at__gte=options["since"])
    if options["until"]:
        records = records.filter(created_at__lt=options["until"])
    by_day: QuerySet[Any] = records.annotate(day=TruncDate("created_at"))
    return by_day


def filter_days(days: QuerySet[Any], options: dict[str, Any]) -> QuerySet[Any]:
    """Keep days that begin in the range: either all of a day is counted or nothing."""
    if since := options["since"]:
        days = days.filter(**{"day__gte" if starts_day(since) else "day__gt": since.date()})
    if until := options["until"]:
        days = days.filter(**{"day__lt" if starts_day(until) else "day__lte": until.date()})
    return days


def starts_day(moment: datetime) -> bool:
    return moment.time() == time()


def inexact_bounds(days: QuerySet[Any], groups: list[str], options: dict[str, Any]) -> list[str]:
    remarks = []
    for name, decision in (("since", "left out"), ("until", "counted")):
        bound = options[name]
        if bound and not starts_day(bound) and days.filter(day=bound.date()).exists():
            remarks.append(
                f"Days older than the detail that was kept are whole UTC days: --{name} is inside "
                f"{bound.date()}, which is {decision} as a whole."
            )
    if "day" in groups and timezone.get_current_timezone_name() != "UTC" and filter_days(days, options).exists():
        zone = timezone.get_current_timezone_name()
        remarks.append(f"Days older than the detail that was kept are UTC days, later ones are days of {zone}.")
    return remarks


def group_columns(groups: list[str]) -> dict[str, str]:
    return {name: column for group in groups for name, column in GROUPS[group].items()}


def sum_groups(records: QuerySet[Any], days: QuerySet[Any], groups: list[str]) -> list[dict[str, Any]]:
    names = group_columns(groups)
    # Django takes no alias that is the name of a column.
    aliases = {f"by_{name}": column for name, column in names.items()}
    totals: dict[tuple[Any, ...], list[int]] = {}
    for rows in (records, days):
        sums = {f"sum_{name}": total for name, total in TOTALS[rows.model].items()}
        for row in rows.order_by().values(**aliases).annotate(**sums):
            group = tuple(row[alias] for alias in aliases)
            found = [row[name] for name in sums]
            totals[group] = [sum(pair) for pair in zip(totals.get(group, [0] * len(found)), found, strict=True)]
    return [
        dict(zip([*names, *NAMES], [*group, *totals[group]], strict=True))
        for group in sorted(totals, key=lambda group: [(value is None, value) for value in group])
    ]


def row_texts(row: dict[str, Any]) -> dict[str, str]:
    shown = {name: value for name, value in row.items() if not name.endswith("_id")}
    shown["points"] = points(shown.pop("micropoints"))
    return {
        name.replace("_", " "): printable("-" if value in (None, "") else f"{value:,}" if name in NUMBERS else value)
        for name, value in shown.items()
    }


NUMBERS = {*NAMES, "points"}
