"""Count the secrets under each pepper: the check between putting a new pepper first and dropping the old one."""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError

from apikeys.keys.models import KeySecret, live_secret_counts
from apikeys.management.command_line import DataCommand

HELP = """Count the live secrets under each pepper of API_KEY_PEPPERS, and say which pepper may be dropped.

To rotate peppers:
  1. Put a new one first, in every process: API_KEY_PEPPERS=new:<64 hex digits>,old:<64 hex digits>. It signs
     from now on. Each key that is used moves to it by itself.
  2. Wait until this command counts 0 under the old one. Keys that nobody uses stay there: --keys lists them.
     Rotate or revoke those.
  3. Drop the old pepper from API_KEY_PEPPERS.
A key whose pepper is dropped too early cannot be used until the pepper is back."""


class Command(DataCommand):
    help = HELP

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:
        return super().create_parser(prog_name, subcommand, formatter_class=RawDescriptionHelpFormatter, **kwargs)

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--check", action="store_true", help="Exit with 1 when keys are under a pepper that is not configured."
        )
        parser.add_argument("--keys", action="store_true", help="List the keys that are not under the first pepper.")
        parser.add_argument("--json", action="store_true", help="Print one line of JSON on standard output.")

    def handle(self, *args: Any, **options: Any) -> None:
        rows = report(with_keys=options["keys"])
        if options["json"]:
            self.print_json(rows)
        else:
            for row in rows:
                self.stdout.write(f"{row['pepper_id']:<20}  {row['live_secrets']:>8}  {decision(row)}")
                for key_id in row.get("keys", []):
                    self.stdout.write(f"  {key_id}")
        missing = [row for row in rows if not row["is_configured"]]
        if options["check"] and missing:
            self.stdout.flush()
            ids = ", ".join(row["pepper_id"] for row in missing)
            count = sum(row["live_secrets"] for row in missing)
            raise CommandError(
                f"{count} live secret(s) are under pepper(s) that API_KEY_PEPPERS lacks: {ids}. "
                "Their keys cannot be used. Put the pepper back, or rotate or revoke the keys (--keys lists them)."
            )


def report(*, with_keys: bool) -> list[dict[str, Any]]:
    configured = list(settings.API_KEY_PEPPERS)
    rows = []
    for pepper_id, count in live_secret_counts(configured).items():
        is_first = pepper_id == configured[0]
        row = {
            "pepper_id": pepper_id,
            "live_secrets": count,
            "signs": is_first,
            "is_configured": pepper_id in configured,
            "may_be_dropped": pepper_id in configured and count == 0 and not is_first,
        }
        if with_keys:
            row["keys"] = [] if is_first else keys_under(pepper_id)
        rows.append(row)
    return rows


def keys_under(pepper_id: str) -> list[str]:
    secrets = KeySecret.objects.live().filter(key__revoked_at=None, pepper_id=pepper_id)
    return list(secrets.order_by("key_id").values_list("key_id", flat=True).distinct())


def decision(row: dict[str, Any]) -> str:
    if not row["is_configured"]:
        return "NOT CONFIGURED: these keys cannot be used"
    if row["signs"]:
        return "signs new keys; every key that is used moves to it"
    return "may be dropped" if row["may_be_dropped"] else "must stay: dropping it would break these keys"
