"""The demo: everything from an empty data folder to an app that works, in one command."""

from __future__ import annotations

import contextlib
import fcntl
import json
import shlex
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError, connections

from fastgpt_site.demo import seed
from fastgpt_site.process import serving
from fastgpt_site.process.supervisor import StartError, Supervisor, bind, free_port, responds

LOOPBACK = "127.0.0.0/8"

REPORT = """
The demo is running. Press Ctrl-C to stop it.

  BaseURL     {base_url}
  Admin       {admin_url}
  Login       {login}
  App key     {app_key}
  Film key    {film_key}
  Global key  {global_key}
{notes}
Ask the app:

{curl}

Ask the film guide, which answers from a knowledge base. Its quotes are in the answer's responseData:

{film_curl}
"""

CURL = """curl --location --request POST '{base_url}/v1/chat/completions' \\
  --header 'Authorization: Bearer {key}' \\
  --header 'Content-Type: application/json' \\
  --data-raw '{body}'"""

BODY = '{"chatId":"111","stream":false,"detail":false,"messages":[{"content":"Who are you?","role":"user"}]}'
FILM_BODY = '{"stream":false,"detail":true,"messages":[{"content":"导演是谁","role":"user"}]}'


class Command(BaseCommand):
    help = "Start the demo: database, local model, server, and a team with an app and keys, made on the first run."

    def add_arguments(self, parser: ArgumentParser) -> None:
        serving.add_options(parser)
        parser.add_argument("--json", action="store_true", help="Print what was made as one line of JSON.")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            with (
                only_demo(settings.DATA_DIR),
                bind(options["host"], options["port"]) as listener,
                Supervisor(self.stderr.write, serving.embedded_data_dir()) as supervisor,
                # The socket closes before the server drains: new clients are refused and do not wait in vain.
                contextlib.closing(listener),
            ):
                serving.announce(supervisor)
                serving.migrate(supervisor)
                supervisor.say("Starting the local model.")
                model_url = start_model(supervisor)
                supervisor.say("Starting the server.")
                variables = environment(options["host"], model_url)
                serving.start_workers(supervisor, listener, 1, variables)
                serving.start_jobs(supervisor, variables)
                made = seed.seed(model_url)
                supervisor.wait_until(made.knows_the_film, "The background jobs")
                self._report(serving.origin(listener), made, as_json=options["json"])
                connections.close_all()
                supervisor.watch()
        except (StartError, ImproperlyConfigured, OperationalError) as error:
            raise CommandError(str(error)) from error

    def _report(self, site: str, made: seed.Demo, *, as_json: bool) -> None:
        facts = {
            "base_url": f"{site}/api",
            "admin_url": f"{site}/admin/",
            "admin_username": seed.ADMIN,
            "admin_password": made.admin_password,
            "team": made.team.name,
            "app_id": made.app.pk,
            "app_key": made.app_key,
            "film_app_id": made.film_app.pk,
            "film_key": made.film_key,
            "global_key": made.global_key,
        }
        self.stdout.write(json.dumps(facts) if as_json else text(facts, made))
        self.stdout.flush()


def text(facts: dict[str, Any], made: seed.Demo) -> str:
    """Return the facts for people: those that cannot be shown again are replaced by how to make them again."""
    manage = manage_command()
    notes = []
    keys = [
        ("app key", made.app_key_id, made.app_key),
        ("film key", made.film_key_id, made.film_key),
        ("global key", made.global_key_id, made.global_key),
    ]
    if not all(key for _, _, key in keys):
        notes += ["Keys are shown only once, when they are created. To replace one:"]
        notes += [f"  {manage} apikey rotate {key_id}     # {name}" for name, key_id, key in keys if key is None]
    if made.admin_password is None:
        notes += [f"A new password: {manage} changepassword {seed.ADMIN}"]
    hidden = "(shown only once; see below)"
    return REPORT.format(
        base_url=facts["base_url"],
        admin_url=facts["admin_url"],
        login=f"{seed.ADMIN} / {made.admin_password or hidden}",
        app_key=made.app_key or hidden,
        film_key=made.film_key or hidden,
        global_key=made.global_key or hidden,
        notes="".join(f"\n{line}" for line in notes) + "\n" * bool(notes),
        curl=CURL.format(base_url=facts["base_url"], key=made.app_key or "<app key>", body=BODY),
        film_curl=CURL.format(base_url=facts["base_url"], key=made.film_key or "<film key>", body=FILM_BODY),
    )


def manage_command() -> str:
    python = Path(sys.executable)
    if python.is_relative_to(settings.BASE_DIR):
        python = python.relative_to(settings.BASE_DIR)
    prefix = (
        "" if settings.DATA_DIR == settings.BASE_DIR / "data" else f"DATA_DIR={shlex.quote(str(settings.DATA_DIR))} "
    )
    return f"{prefix}{python} manage.py"


def start_model(supervisor: Supervisor) -> str:
    """Return the model's base URL once it responds. The port stays the same when it has to be started again."""
    port = free_port()
    supervisor.start(
        "the local model",
        [sys.executable, "-m", "chat.local_model", "--port", str(port)],
        environment={"PYTHONPATH": str(settings.BASE_DIR)},
        inherits=False,
    )
    supervisor.wait_until(lambda: responds("127.0.0.1", port, "/health"), "The local model")
    return f"http://127.0.0.1:{port}/v1"


def environment(host: str, model_url: str) -> dict[str, str]:
    variables = {"ALLOWED_HOSTS": ",".join([*settings.ALLOWED_HOSTS, host])}
    if not settings.OUTBOUND_ALLOWED_NETWORKS:
        variables["OUTBOUND_ALLOWED_NETWORKS"] = LOOPBACK
    if not settings.DEFAULT_PROVIDER_URL:
        variables["DEFAULT_PROVIDER_URL"] = model_url
    return variables


@contextlib.contextmanager
def only_demo(data_dir: Path) -> Iterator[None]:
    """Refuse a second demo on one data folder: the local model's address is in its database once."""
    data_dir.mkdir(parents=True, exist_ok=True)
    with (data_dir / "quickstart.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StartError(
                f"A demo is already running on {data_dir}. Stop it first, or choose another folder with DATA_DIR."
            ) from error
        yield
