"""Say why a request was charged what it was, or refused."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from apikeys.accounting.explanations import explain
from apikeys.management.command_line import DataCommand, text


class Command(DataCommand):
    help = "Explain one request: the rule, the counters before and after, and the arithmetic of its price."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("request_id", type=text, help="The X-Request-Id of its response.")
        parser.add_argument("--json", action="store_true", help="Print one line of JSON on standard output.")

    def handle(self, *args: Any, **options: Any) -> None:
        explanation = explain(options["request_id"])
        if explanation is None:
            raise CommandError(
                "No request with this id is known. Give the X-Request-Id of a response; records that were "
                "pruned, and refusals beyond the sampled ones, are only counted."
            )
        if options["json"]:
            self.print_json(explanation.facts)
        else:
            self.stdout.write(explanation.text())
