"""Migration operations that run SQL kept in files, where it can be read, searched and changed in place."""

import hashlib
from pathlib import Path
from typing import Any

from django.apps import apps
from django.db.migrations.operations import RunSQL

DOWN = "-- migrate:down\n"


def sql_path(app_label: str, name: str) -> Path:
    return Path(apps.get_app_config(app_label).path) / "sql" / f"{name}.sql"


def digest(path: Path) -> str:
    """Return the first 16 hexadecimal digits of the file's SHA-256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


class RunSqlFile(RunSQL):
    """Runs `<app>/sql/<name>.sql`, up to its line `-- migrate:down`; what follows that line undoes it.

    A file is written so that it can run again. Once the migration that names it was released, changing the file
    takes a new migration that names it with its new digest; a test compares the newest one with the file. Such a
    migration is a rerun: undoing it leaves what the file makes, which has to work with the tables as they were.
    """

    def __init__(self, app_label: str, name: str, digest: str, *, is_rerun: bool = False) -> None:
        self.app_label, self.name, self.digest, self.is_rerun = app_label, name, digest, is_rerun
        up, _, down = sql_path(app_label, name).read_text().partition(DOWN)
        super().__init__(up, self.noop if is_rerun or not down else down)

    def deconstruct(self) -> tuple[str, list[Any], dict[str, Any]]:
        options = {"is_rerun": True} if self.is_rerun else {}
        return type(self).__qualname__, [self.app_label, self.name, self.digest], options

    def describe(self) -> str:
        return f"Run {self.app_label}/sql/{self.name}.sql"
