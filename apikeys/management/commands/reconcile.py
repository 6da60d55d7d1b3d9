"""`manage.py reconcile`: prove that counters and ledger agree."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from apikeys.command_line import DataCommand
from apikeys.reconciliation import Drift, reconcile


def as_data(drift: Drift) -> dict[str, Any]:
    return {
        "limit": drift.limit.pk,
        "team": drift.limit.team.name,
        "key": drift.limit.key_id,
        "rule": str(drift.limit),
        "used": drift.used,
        "used_in_ledger": drift.used_in_ledger,
        "reserved": drift.reserved,
        "reserved_by_requests": drift.reserved_by_requests,
    }


class Command(DataCommand):
    help = (
        "Compare every limit's counter with the ledger and the open reservations. Exits 1 when one has drifted. "
        "Admission and recording wait while it looks."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--fix", action="store_true", help="Set counters right that have drifted.")
        parser.add_argument("--json", action="store_true", help="Print data for programs.")

    def handle(self, *args: Any, **options: Any) -> None:
        count, drifts = reconcile(fix=options["fix"])
        if options["json"]:
            self.stdout.write(json.dumps({"limits": count, "drift": [as_data(drift) for drift in drifts]}))
        else:
            self.stdout.write(f"{count} limits compared, drift {len(drifts)}.")
            for drift in drifts:
                self.stdout.write(
                    f"  {drift.limit.team}, {drift.limit.key or 'the whole team'}, {drift.limit}: "
                    f"used {drift.used}, by the ledger {drift.used_in_ledger}; "
                    f"reserved {drift.reserved}, by open requests {drift.reserved_by_requests}"
                )
        if drifts and not options["fix"]:
            raise CommandError(f"{len(drifts)} of {count} counters have drifted. --fix sets them right.")
