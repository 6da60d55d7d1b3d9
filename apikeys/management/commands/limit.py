"""Say how much keys and teams may use, and see what is left."""

from argparse import ArgumentParser, ArgumentTypeError
from decimal import Decimal, InvalidOperation
from typing import Any

from django.core.management.base import CommandError
from django.db import transaction

from apikeys.accounting.limits import Limit
from apikeys.accounting.periods import Measure, Period
from apikeys.management import lookups
from apikeys.management.command_line import DataCommand, text
from apikeys.terminal_text import printable

UNITS = {"requests": Measure.REQUESTS, "tokens": Measure.TOKENS, "points": Measure.MICROPOINTS, "open": Measure.OPEN}
KINDS = [f"{unit}/{period}" for unit in UNITS for period in Period.values if (unit == "open") == (period == Period.NOW)]


def amount(value: str) -> Decimal:
    try:
        return Decimal(value)
    except InvalidOperation:
        raise ArgumentTypeError(f"{value!r} is not a number") from None


class Command(DataCommand):
    help = "Add, change, list and remove limits of keys and teams. A key's own limits and its team's both apply."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        subcommands = parser.add_subparsers(dest="subcommand", required=True, metavar="subcommand")

        def add(name: str, act: Any, about: str) -> ArgumentParser:
            subparser = subcommands.add_parser(name, help=about, description=about, allow_abbrev=False)
            subparser.set_defaults(act=act)
            subparser.add_argument("--json", action="store_true", help="Print one line of JSON on standard output.")
            return subparser

        adding = add("add", self._add, "Limit a key, or all keys of a team combined.")
        adding.add_argument("--key", type=text, help="The key's id, or its name if no other key has it.")
        adding.add_argument("--team", type=text, help="The team's id or name: all its keys combined.")
        adding.add_argument("kind", choices=KINDS, metavar="kind", help=f"One of {', '.join(KINDS)}.")
        adding.add_argument("amount", type=amount, help="How much. Points may have up to six decimals.")
        adding.add_argument("--soft", type=amount, help="Raise an alert at this amount, but refuse nothing.")
        adding.add_argument("--time-zone", type=text, default="UTC", help="Where days begin at midnight. Default: UTC.")
        changing = add("change", self._change, "Change how much a limit allows. What was used stays counted.")
        removing = add("remove", self._remove, "Remove a limit.")
        for subparser in (changing, removing):
            subparser.add_argument("limit", type=int, help="The limit's id, as `limit list` shows it.")
        changing.add_argument("amount", type=amount, help="How much. Points may have up to six decimals.")
        softening = changing.add_mutually_exclusive_group()
        softening.add_argument("--soft", type=amount, help="Raise an alert at this amount. Default: unchanged.")
        softening.add_argument("--no-soft", action="store_true", help="Remove the soft amount.")
        listing = add("list", self._list, "List limits and what is left of them.")
        listing.add_argument("--team", type=text, help="Only limits of this team: its id or name.")

    def handle(self, *args: Any, **options: Any) -> None:
        options["act"](options)

    def _add(self, options: dict[str, Any]) -> None:
        if (options["key"] is None) == (options["team"] is None):
            raise CommandError("Name a key with --key, or a team with --team.")
        key = lookups.find_key(options["key"]) if options["key"] else None
        team = key.team if key else lookups.find_team(options["team"])
        unit, _, period = options["kind"].partition("/")
        limit = Limit(team=team, key=key, measure=UNITS[unit], period=period, time_zone=options["time_zone"])
        limit.amount = count_amount(limit, options["amount"])
        limit.soft_amount = None if options["soft"] is None else count_amount(limit, options["soft"])
        limit.full_clean()
        with transaction.atomic():
            limit.save(force_insert=True)
        self._tell(limit, options, "Added")

    def _change(self, options: dict[str, Any]) -> None:
        limit = find(options["limit"])
        limit.amount = count_amount(limit, options["amount"])
        if options["soft"] is not None:
            limit.soft_amount = count_amount(limit, options["soft"])
        elif options["no_soft"]:
            limit.soft_amount = None
        limit.full_clean()
        with transaction.atomic():
            limit.save(update_fields=["amount", "soft_amount"])
        self._tell(limit, options, "Changed")

    def _remove(self, options: dict[str, Any]) -> None:
        limit = find(options["limit"])
        self._tell(limit, options, "Removed")
        limit.delete()

    def _list(self, options: dict[str, Any]) -> None:
        limits = Limit.objects.select_related("team", "key", "counter").order_by("team__name", "key__name", "pk")
        if options["team"]:
            limits = limits.filter(team=lookups.find_team(options["team"]))
        rows = [describe_limit(limit) for limit in limits]
        if options["json"]:
            self.print_json(rows)
        else:
            for limit, row in zip(limits, rows, strict=True):
                whose = printable(f"{row['team']}, {row['key'] or 'the whole team'}")
                used = f"{limit.amount_text(row['used'])} used, {limit.amount_text(row['reserved'])} reserved"
                self.stdout.write(f"{limit.pk}  {whose}: {limit}; {used}, {limit.amount_text(row['left'])} left")
            if not rows:
                self.stdout.write("There are no limits.")

    def _tell(self, limit: Limit, options: dict[str, Any], done: str) -> None:
        facts = describe_limit(Limit.objects.select_related("team", "key", "counter").get(pk=limit.pk))
        if options["json"]:
            self.print_json(facts)
        else:
            self.stdout.write(f"{done}: {limit} for {facts['key'] or facts['team']} (limit {limit.pk}).")


def find(limit_id: int) -> Limit:
    limit: Limit | None = Limit.objects.filter(pk=limit_id).first()
    if limit is None:
        raise CommandError(f"There is no limit {limit_id}.")
    return limit


def count_amount(limit: Limit, number: Decimal) -> int:
    try:
        return Measure(limit.measure).from_unit(number)
    except ValueError:
        raise CommandError(
            f"{number} cannot be counted: points have at most six decimals, everything else has none."
        ) from None


def describe_limit(limit: Limit) -> dict[str, Any]:
    return {"id": limit.pk, "team": limit.team.name, "key": limit.key.name if limit.key else None, **limit.state()}
