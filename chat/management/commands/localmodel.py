"""Serve the demo's language model on loopback, with an OpenAI-compatible API."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from chat import local_model


class Command(BaseCommand):
    help = "Serve the local model (SmolLM2-135M) through an OpenAI-compatible API on loopback, until Ctrl-C."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        local_model.add_options(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            local_model.serve(options["host"], options["port"])
        except local_model.LocalModelError as error:
            raise CommandError(str(error)) from error
