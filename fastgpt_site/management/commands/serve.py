"""Run the site: database migrations, then as many server processes as asked for."""

import contextlib
import socket
from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError

from fastgpt_site.process import serving
from fastgpt_site.process.supervisor import StartError, Supervisor, bind


class Command(BaseCommand):
    help = "Migrate the database and serve the site until Ctrl-C or SIGTERM."

    def add_arguments(self, parser: ArgumentParser) -> None:
        serving.add_options(parser)
        parser.add_argument("--workers", type=int, default=1, help="Server processes. Default: 1.")
        parser.add_argument("--no-jobs", action="store_true", help="Leave the background jobs to another node.")
        parser.add_argument("--no-migrate", action="store_true", help="Leave the database as it is.")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["workers"] < 1:
            raise CommandError("--workers must be at least 1.")
        try:
            with (
                bind(options["host"], options["port"]) as listener,
                Supervisor(self.stderr.write, serving.embedded_data_dir()) as supervisor,
                # The socket closes before the server drains: new clients are refused and do not wait in vain.
                contextlib.closing(listener),
            ):
                self._serve(supervisor, listener, **options)
        except (StartError, ImproperlyConfigured, OperationalError) as error:
            raise CommandError(str(error)) from error

    def _serve(self, supervisor: Supervisor, listener: socket.socket, **options: Any) -> None:
        serving.announce(supervisor)
        if not options["no_migrate"]:
            serving.migrate(supervisor)
        supervisor.say(f"Starting {options['workers']} server process(es).")
        serving.start_workers(supervisor, listener, options["workers"])
        if not options["no_jobs"]:
            serving.start_jobs(supervisor)
        self.stdout.write(f"Serving {serving.origin(listener)}/api")
        self.stdout.flush()
        supervisor.watch()
