"""Django's command, told where this project's catalogs are, and to gather what some packages leave untranslated."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from django.apps import apps
from django.core.management.commands import makemessages
from django.utils.translation import gettext_noop

# These packages mark their texts, but bring no catalog for our languages.
UNTRANSLATED = {"unfold", "auditlog"}
# Some apps are folders of apps in these packages: each is gathered by itself if it is installed.
NOT_GATHERED = shutil.ignore_patterns("contrib", "locale", "static", "migrations", "management", "__pycache__")
# xgettext does not look for texts inside f-strings, so these stand here: this module is gathered too.
MISSED = [gettext_noop("Welcome")]
# The pattern finds entries that hold none, though xgettext reads the end of "80 % or more" as one.
NO_PLACEHOLDER = re.compile(r'^#, python-format\n(?=(?:msg(?!str)(?:[^%\n]|%[ ,."])*\n)+msgstr)', re.MULTILINE)

DATES = re.compile(r'^"(?:POT-Creation|PO-Revision)-Date: .*\n', re.MULTILINE)


class Command(makemessages.Command):
    # A guess from a similar text would be a wrong translation that looks right.
    msgmerge_options = [*makemessages.Command.msgmerge_options, "--no-fuzzy-matching"]

    def handle(self, *args: Any, **options: Any) -> None:
        with tempfile.TemporaryDirectory() as folder:
            self.gathered = Path(folder)
            for app in apps.get_app_configs():
                if app.name.partition(".")[0] in UNTRANSLATED:
                    shutil.copytree(app.path, self.gathered / app.name, ignore=NOT_GATHERED)
            super().handle(*args, **options)

    def find_files(self, root: str) -> list[Any]:
        # These are copies, since Django writes beside each template what it makes of it.
        found: list[Any] = super().find_files(root) + super().find_files(str(self.gathered))
        return found

    def write_po_file(self, potfile: str, locale: str) -> None:
        template = Path(potfile)
        template.write_text(NO_PLACEHOLDER.sub("", template.read_text()))
        super().write_po_file(potfile, locale)
        catalog = template.parent / locale / "LC_MESSAGES" / f"{self.domain}.po"
        # Every run would be a change with its dates.
        catalog.write_text(DATES.sub("", catalog.read_text()))
