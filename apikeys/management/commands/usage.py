"""What was used, by key, app, model or day."""

import csv
from argparse import ArgumentParser, ArgumentTypeError
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.db.models import Count, F, Q, QuerySet, Sum
from django.db.models.functions import Coalesce, TruncDate
from django.utils import timezone

from apikeys import named_rows
from apikeys.command_line import DataCommand, printable, text
from apikeys.key_reports import columns
from apikeys.limits import MICROPOINTS
from apikeys.usage import Ending, UsageRecord

# What can be grouped by, and the columns that name a group.
GROUPS: dict[str, dict[str, Any]] = {
    "team": {"team": F("team__name")},
    "key": {"key": F("key__name"), "key_id": F("key_id")},
    "app": {"app": F("app__name"), "app_id": F("app_id")},
    "model": {"model": F("model")},
    "endpoint": {"endpoint": F("endpoint")},
    "day": {"day": TruncDate("created_at")},
}
TOTALS = {
    "requests": Count("pk"),
    "failed": Count("pk", filter=Q(ending__in=[Ending.FAILED, Ending.LOST])),
    "prompt_tokens": Coalesce(Sum("prompt_tokens"), 0),
    "completion_tokens": Coalesce(Sum("completion_tokens"), 0),
    "micropoints": Coalesce(Sum("cost_micropoints"), 0),
}


def moment(value: str) -> datetime:
    """An ISO date, its first moment, or an ISO time; in the project's time zone unless it names another."""
    try:
        parsed = datetime.fromisoformat(value)
    except ValueError:
        raise ArgumentTypeError(f"{value!r} is not a date such as 2030-12-31") from None
    return parsed if parsed.tzinfo else timezone.make_aware(parsed)


class Command(DataCommand):
    help = "Report requests, tokens and points by team, key, app, model, endpoint or day, from the ledger."

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
        groups = options["by"] or ["key", "model"]
        rows = grouped(chosen(options), list(dict.fromkeys(groups)))
        if options["json"]:
            self.print_json([{**row, "day": row["day"].isoformat()} if "day" in row else row for row in rows])
        elif options["csv"]:
            writer = csv.DictWriter(self.stdout, rows[0] if rows else [], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        elif rows:
            lines = [in_words(row) for row in rows]
            self.stdout.write(columns([[name.upper() for name in lines[0]], *(list(line.values()) for line in lines)]))
        else:
            self.stdout.write("Nothing was used.")


def chosen(options: dict[str, Any]) -> QuerySet[UsageRecord]:
    records = UsageRecord.objects.all()
    if options["team"]:
        records = records.filter(team=named_rows.find_team(options["team"]))
    if options["key"]:
        records = records.filter(key=named_rows.find_key(options["key"]))
    if options["since"]:
        records = records.filter(created_at__gte=options["since"])
    if options["until"]:
        records = records.filter(created_at__lt=options["until"])
    return records


def grouped(records: QuerySet[UsageRecord], groups: list[str]) -> list[dict[str, Any]]:
    """One row for each group: what names it, and its totals."""
    names = {name: column for group in groups for name, column in GROUPS[group].items()}
    # Django takes no alias that is the name of a column.
    aliases = {f"by_{name}": column for name, column in names.items()}
    found: Any = records.values(**aliases).annotate(**{f"sum_{name}": total for name, total in TOTALS.items()})
    return [
        {name: row[f"by_{name}"] for name in names} | {name: row[f"sum_{name}"] for name in TOTALS}
        for row in found.order_by(*aliases)
    ]


def in_words(row: dict[str, Any]) -> dict[str, str]:
    """For people: names rather than ids, points rather than millionths."""
    shown = {name: value for name, value in row.items() if not name.endswith("_id")}
    shown["points"] = Decimal(shown.pop("micropoints")) / MICROPOINTS
    return {
        name.replace("_", " "): printable("-" if value in (None, "") else f"{value:,}" if name in NUMBERS else value)
        for name, value in shown.items()
    }


NUMBERS = {*TOTALS, "points"}
