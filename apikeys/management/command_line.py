"""The base of management commands about keys: one line for each error, and values read from arguments."""

import json
import os
import re
import sys
from argparse import ArgumentParser, ArgumentTypeError
from datetime import UTC, datetime, timedelta
from io import TextIOWrapper
from typing import Any

import psycopg
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import InterfaceError, OperationalError, ProgrammingError
from django.utils import timezone

from apikeys.keys.models import KeyStateError

UNITS = {"m": "minutes", "h": "hours", "d": "days"}
DURATION = re.compile(r"(\d{1,6})([mhd])")
# A match is longer than an id or the name of an option or endpoint, and as long as the keys that systems give out.
KEY_LIKE = re.compile(r"[0-9A-Za-z_\-]{32,}")


class DataCommand(BaseCommand):
    """A command whose every error is one line on standard error and exit code 1, usage errors included."""

    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        # This makes Django's parser raise CommandError; otherwise argparse prints its usage and exits with 2.
        parser.called_from_command_line = False  # type: ignore[attr-defined]

    def run_from_argv(self, argv: list[str]) -> None:
        if isinstance(sys.stdout, TextIOWrapper):
            # A name that the terminal's encoding lacks must not end the command.
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            super().run_from_argv(argv)
        except CommandError as error:
            if "--traceback" in argv:
                raise
            # Django parses outside of its own handling, so only usage errors arrive here.
            mistake = one_line(str(error).removeprefix("Error: "))
            program = f"{os.path.basename(argv[0])} {argv[1]}"
            self.stderr.write(f"CommandError: {mistake}. For help: {program} --help")
            sys.exit(error.returncode)

    def execute(self, *args: Any, **options: Any) -> str | None:
        if self.stdout._out is None:
            raise CommandError("Standard output is closed.")
        try:
            output = super().execute(*args, **options)
            self.stdout.flush()
        except BrokenPipeError:
            # Whoever reads has read enough, as `head` does.
            self.silence()
            return None
        except CommandError as error:
            error.args = (one_line(str(error)),)
            raise
        except (KeyStateError, ValidationError) as error:
            raise CommandError(one_line(error_text(error))) from error
        except (OperationalError, InterfaceError, ImproperlyConfigured) as error:
            raise CommandError(f"The database cannot be used: {one_line(str(error))}") from error
        except ProgrammingError as error:
            if isinstance(error.__cause__, psycopg.errors.UndefinedTable | psycopg.errors.UndefinedColumn):
                raise CommandError("The database lacks tables of this version. Run: manage.py migrate") from error
            raise
        except OSError as error:
            self.silence()
            raise CommandError(one_line(str(error))) from error
        return output

    def silence(self) -> None:
        """Let what is still buffered go nowhere, so that the interpreter does not fail on it when it ends."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                os.dup2(nowhere, stream.fileno())
        os.close(nowhere)

    def print_json(self, data: Any) -> None:
        self.stdout.write(json.dumps(data))


def one_line(text: str) -> str:
    """Return the text without line breaks and without anything that looks like a key given by mistake."""
    return KEY_LIKE.sub("******", " ".join(text.split()))


def error_text(error: KeyStateError | ValidationError, names: dict[str, str] | None = None) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    if not hasattr(error, "error_dict"):
        return " ".join(error.messages)
    return " ".join(
        f"{(names or {}).get(field, field)}: {' '.join(messages)}" for field, messages in error.message_dict.items()
    )


def text(value: str) -> str:
    value = value.strip()
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ArgumentTypeError("it is not valid UTF-8") from None
    if not value:
        raise ArgumentTypeError("it is empty")
    return value


def duration(value: str) -> timedelta:
    """Parse `30m`, `24h`, `7d` or `0`."""
    match = DURATION.fullmatch(value)
    if match is None and value != "0":
        raise ArgumentTypeError(f"{value!r} is not a duration such as 30m, 24h, 7d or 0")
    return timedelta(**{UNITS[match[2]]: int(match[1])}) if match else timedelta(0)


def future_moment(value: str) -> datetime:
    """Parse an ISO date or time, in the project's time zone unless it names another, or a duration from now."""
    now = timezone.now()
    if DURATION.fullmatch(value):
        moment = now + duration(value)
    else:
        try:
            moment = datetime.fromisoformat(value)
            moment = (moment if moment.tzinfo else timezone.make_aware(moment)).astimezone(UTC)
        except (ValueError, OverflowError):
            raise ArgumentTypeError(
                f"{value!r} is not a date or time such as 2030-12-31 or 2030-12-31T18:00, nor a duration such as 90d"
            ) from None
    if moment <= now:
        raise ArgumentTypeError(f"{value!r} is not in the future")
    return moment
