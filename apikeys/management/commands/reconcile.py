"""`manage.py reconcile`: prove that counters and ledger agree."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from apikeys.accounting.periods import Measure
from apikeys.accounting.reconciliation import Balance, compare, fix
from apikeys.management.command_line import DataCommand
from apikeys.terminal_text import printable


def as_data(balance: Balance) -> dict[str, Any]:
    return {
        "limit": balance.limit.pk,
        "team": balance.limit.team.name,
        "key": balance.limit.key_id,
        "rule": str(balance.limit),
        "used": balance.used,
        "used_in_ledger": balance.used_in_ledger,
        "used_in_records": balance.used_in_records,
        "used_in_days": balance.used_in_days,
        "reserved": balance.reserved,
        "reserved_by_requests": balance.reserved_by_requests,
    }


def whose(balance: Balance) -> str:
    return printable(f"{balance.limit.team}, {balance.limit.key or 'the whole team'}, {balance.limit}")


class Command(DataCommand):
    help = (
        "Compare every limit's counter with the ledger (usage records and the daily rows that `prune` makes of them) "
        "and the open reservations, all as of one moment; no request waits. Exits 1 when one has drifted."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--fix", action="store_true", help="Correct the counters that have drifted.")
        parser.add_argument(
            "--all", action="store_true", help="Show the sums of every limit, not only of those that drifted."
        )
        parser.add_argument("--json", action="store_true", help="Print data for programs.")

    def handle(self, *args: Any, **options: Any) -> None:
        balances = compare()
        drifts = [balance for balance in balances if balance.has_drifted]
        if options["fix"]:
            fix(drifts)
        if options["json"]:
            data = {"limits": len(balances), "drift": [as_data(balance) for balance in drifts]}
            if options["all"]:
                data["proven"] = [as_data(balance) for balance in balances if not balance.has_drifted]
            self.stdout.write(json.dumps(data))
        else:
            self.stdout.write(f"{len(balances)} limits compared, drift {len(drifts)}.")
            for balance in balances:
                if balance.has_drifted:
                    self.stdout.write(
                        f"  {whose(balance)}: used {balance.used}, by the ledger {balance.used_in_ledger}; "
                        f"reserved {balance.reserved}, by open requests {balance.reserved_by_requests}"
                    )
                elif options["all"]:
                    self.stdout.write(
                        f"  {whose(balance)}: usage records {balance.used_in_records} + daily rows "
                        f"{balance.used_in_days} = used {balance.used}; reserved {balance.reserved}"
                    )
            self.stdout.write(f"Usage records + daily rows = counters: {in_sum(balances)}.")
        if drifts and not options["fix"]:
            raise CommandError(f"{len(drifts)} of {len(balances)} counters have drifted. --fix corrects them.")


def in_sum(balances: list[Balance]) -> str:
    sums = []
    for measure in (Measure.REQUESTS, Measure.TOKENS, Measure.MICROPOINTS):
        counted = [balance for balance in balances if balance.limit.measure == measure]
        records = sum(balance.used_in_records for balance in counted)
        days = sum(balance.used_in_days for balance in counted)
        used = sum(balance.used for balance in counted)
        sign = "=" if records + days == used else "\u2260"
        sums.append(f"{records} + {days} {sign} {used} {measure.label}")
    return ", ".join(sums)
