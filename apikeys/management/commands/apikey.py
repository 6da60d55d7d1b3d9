"""Create, show, rotate and end API keys, and import those of another system."""

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError

from apikeys.access.endpoints import endpoint_names
from apikeys.audit.circumstances import login
from apikeys.keys.kinds import AccessKind
from apikeys.keys.models import ApiKey
from apikeys.lifecycle import revocation as revocations
from apikeys.lifecycle.reports import details, sheet, state, summary, table
from apikeys.management import lookups
from apikeys.management.command_line import DataCommand, duration, error_text, future_moment, text
from apikeys.management.foreign_secrets import ImportRefused, import_rows, read_rows

OPTIONS = {
    "owner": "--owner",
    "name": "--name",
    "app": "--app",
    "note": "--note",
    "expires_at": "--expires",
    "can_name_app": "--can-name-app",
    "allowed_networks": "--network",
    "allowed_endpoints": "--endpoint",
    "allowed_models": "--model",
}
IMPORT_HELP = """Read keys of another system from standard input and store their digests. All of them, or none.

The input is CSV in UTF-8. Its first line names the columns: name and plaintext, and optionally owner (a username)
and app (an id or name; it makes an app key). No plaintext is printed, not even in an error."""


class Command(DataCommand):
    help = "Create, list, show, rotate, disable, enable and revoke API keys, and import those of another system."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        subcommands = parser.add_subparsers(dest="subcommand", required=True, metavar="subcommand")

        def add(name: str, act: Any, about: str) -> ArgumentParser:
            subparser = subcommands.add_parser(
                name, help=about.partition("\n")[0], description=about, allow_abbrev=False
            )
            subparser.set_defaults(act=act)
            subparser.add_argument("--json", action="store_true", help="Print one line of JSON on standard output.")
            return subparser

        self._add_create(add("create", self._create, "Create a key and print it, this one time, on standard output."))
        listing = add("list", self._list, "List keys, the newest first.")
        listing.add_argument("--team", type=text, help="Only keys of this team: its id or name.")
        listing.add_argument("--state", choices=["usable", "unusable", "all"], default="all", help="Default: all.")
        showing = add("show", self._show, "Show everything about a key except the key itself.")
        rotation = add("rotate", self._rotate, "Give a key a new secret and print it, this one time.")
        rotation.add_argument(
            "--overlap",
            type=duration,
            default="0",
            help="How long the old secret still works: 30m, 24h or 7d. Default: 0, it expires at once.",
        )
        disabling = add("disable", self._disable, "Refuse a key until it is enabled again.")
        enabling = add("enable", self._enable, "Accept a disabled key again.")
        revocation = add("revoke", self._revoke, "Refuse a key permanently. This cannot be undone.")
        revocation.add_argument("--reason", type=text, required=True, help="The reason, which is stored with the key.")
        for ending in (revocation, disabling):
            ending.add_argument(
                "--terminate-streams",
                action="store_true",
                help="Also terminate the answers that the key is receiving right now.",
            )
        revocation.add_argument("--by", type=text, help="Who revokes it. Default: the operating system login.")
        for subparser in (showing, rotation, disabling, enabling, revocation):
            subparser.add_argument("key", type=text, help="The key's id, or its name if no other key has it.")
        importing = add("import-secrets", self._import_secrets, IMPORT_HELP)
        importing.add_argument("--team", type=text, required=True, help="The team that gets the keys: its id or name.")
        importing.add_argument("--owner", type=text, help="The username for lines that name no owner.")

    @staticmethod
    def _add_create(parser: ArgumentParser) -> None:
        add = parser.add_argument
        add("--team", type=text, required=True, help="The team: its id or name.")
        add("--owner", type=text, required=True, help="The username of the team member who is responsible for the key.")
        add("--name", type=text, required=True, help="What the key is for, so that a person can recognize it.")
        add("--app", type=text, help="Make it an app key for this app of the team: its id or name.")
        add(
            "--expires",
            type=future_moment,
            help="A duration from now (90d), or a date or time (2030-12-31T18:00) in the project's time zone. "
            "A date alone means its first moment. Default: never.",
        )
        add("--can-name-app", action="store_true", help="Let a global key talk to any app of its team by naming it.")
        add(
            "--network",
            type=text,
            action="append",
            default=[],
            help="Accept it only from this network, in CIDR notation. Repeatable.",
        )
        add("--endpoint", type=text, action="append", default=[], help="Allow it only this endpoint. Repeatable.")
        add(
            "--model",
            type=text,
            action="append",
            default=[],
            help="Allow it only apps that use this model. Repeatable.",
        )
        add("--note", type=text, help="Anything worth knowing about the key.")

    def handle(self, *args: Any, **options: Any) -> None:
        options["act"](options)

    def _create(self, options: dict[str, Any]) -> None:
        team = lookups.find_team(options["team"])
        refuse_unknown(options["endpoint"])
        try:
            api_key, plaintext = ApiKey.objects.create_key(
                team=team,
                owner=lookups.find_owner(options["owner"]),
                name=options["name"],
                app=lookups.find_app(team, options["app"]) if options["app"] else None,
                expires_at=options["expires"],
                can_name_app=options["can_name_app"],
                allowed_networks=list(dict.fromkeys(options["network"])),
                allowed_endpoints=list(dict.fromkeys(options["endpoint"])),
                allowed_models=list(dict.fromkeys(options["model"])),
                note=options["note"] or "",
            )
        except ValidationError as error:
            raise CommandError(error_text(error, OPTIONS)) from None
        self._hand_over(api_key.pk, plaintext, options, "Created")

    def _list(self, options: dict[str, Any]) -> None:
        api_keys = ApiKey.objects.with_state()
        if options["team"]:
            api_keys = api_keys.for_team(lookups.find_team(options["team"]).pk)
        if options["state"] == "usable":
            api_keys = api_keys.usable()
        elif options["state"] == "unusable":
            api_keys = api_keys.exclude(unusable_reason=None)
        rows = [summary(api_key) for api_key in api_keys]
        if options["json"]:
            self.print_json(rows)
        elif rows:
            self.stdout.write(table(rows))
        else:
            self.stderr.write("No such keys.")

    def _show(self, options: dict[str, Any]) -> None:
        facts = details(lookups.find_key(options["key"]))
        if options["json"]:
            self.print_json(facts)
        else:
            self.stdout.write(sheet(facts))

    def _rotate(self, options: dict[str, Any]) -> None:
        api_key = lookups.find_key(options["key"])
        plaintext = api_key.rotate(options["overlap"])
        self._hand_over(api_key.pk, plaintext, options, "Rotated")

    def _disable(self, options: dict[str, Any]) -> None:
        api_key = lookups.find_key(options["key"])
        api_key.disable()
        self._tell_servers(api_key, options, "Disabled")

    def _enable(self, options: dict[str, Any]) -> None:
        api_key = lookups.find_key(options["key"])
        api_key.enable()
        self._confirm(api_key.pk, options, "Enabled")

    def _revoke(self, options: dict[str, Any]) -> None:
        api_key = lookups.find_key(options["key"])
        if api_key.revoked_at:
            raise CommandError(
                f"The key was already revoked, by {api_key.revoked_by!r}, because: {api_key.revoked_reason!r}"
            )
        api_key.revoke(by=options["by"] or login(), reason=options["reason"])
        self._tell_servers(api_key, options, "Revoked")

    def _tell_servers(self, api_key: ApiKey, options: dict[str, Any], what: str) -> None:
        acknowledgements = revocations.broadcast_revocation(api_key, terminate_streams=options["terminate_streams"])
        if options["json"]:
            facts = summary(ApiKey.objects.with_state().get(pk=api_key.pk))
            self.print_json(
                facts
                | {"acknowledged_by": acknowledgements.acknowledged, "not_acknowledged_by": acknowledgements.missing}
            )
            return
        self._confirm(api_key.pk, options, what)
        (self.stderr if acknowledgements.missing else self.stdout).write(acknowledgements.summary())

    def _import_secrets(self, options: dict[str, Any]) -> None:
        team = lookups.find_team(options["team"])
        default_owner = lookups.find_owner(options["owner"]) if options["owner"] else None
        if sys.stdin is None or sys.stdin.isatty():
            raise CommandError("Give the keys on standard input, as in: import-secrets --team Demo < keys.csv")
        try:
            made = import_rows(read_rows(sys.stdin.buffer), team, default_owner)
        except ImportRefused as refusal:
            raise CommandError(f"{refusal} Nothing was imported.") from None
        if options["json"]:
            self.print_json({"imported": len(made), "ids": [api_key.pk for api_key in made]})
        else:
            self.stdout.write(f"Imported {len(made)} key(s) into the team {team.name!r}.")

    def _hand_over(self, key_id: str, plaintext: str, options: dict[str, Any], what: str) -> None:
        """Print the plaintext, which is kept nowhere; all messages about it go to standard error."""
        facts = summary(ApiKey.objects.with_state().get(pk=key_id))
        try:
            if options["json"]:
                self.print_json(facts | {"key": plaintext})
            else:
                self.stdout.write(plaintext)
            self.stdout.flush()
        except OSError as error:
            self.silence()
            raise CommandError(
                f"{what} the key {key_id}, but its plaintext could not be written ({error.strerror}) and is lost. "
                f"For another: apikey rotate {key_id}"
            ) from None
        self.stderr.write(f"{what} the {AccessKind(facts['kind']).label} {facts['name']!r} ({key_id}).")
        self.stderr.write("This is the only time that the key is shown. Store it now.")
        self._warn(facts)

    def _confirm(self, key_id: str, options: dict[str, Any], what: str) -> None:
        facts = summary(ApiKey.objects.with_state().get(pk=key_id))
        if options["json"]:
            self.print_json(facts)
            return
        self.stdout.write(f"{what} the key {facts['name']!r} ({key_id}).")
        if what == "Enabled":
            self._warn(facts)

    def _warn(self, facts: dict[str, Any]) -> None:
        if not facts["is_usable"]:
            self.stderr.write(f"It still cannot be used: {state(facts)}")


def refuse_unknown(endpoints: list[str]) -> None:
    known = endpoint_names()
    for endpoint in endpoints:
        if endpoint not in known:
            raise CommandError(f"There is no endpoint {endpoint!r} for keys. Choose from: {', '.join(known)}.")
