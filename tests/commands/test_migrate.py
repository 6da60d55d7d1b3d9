"""Migrations run forward, back and forward again; SQL files run again, also with requests under way."""

from pathlib import Path

import psycopg
import pytest
from django.apps import apps
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.state import ProjectState

from apikeys.sql.operations import DOWN, RunSqlFile, digest, sql_path
from fastgpt_site.management.commands.makemigrations import SchemaAutodetector
from fastgpt_site.postgres import cluster
from tests.environment import PROJECT
from tests.support.processes import manage

# A key with a budget, and a request that has reserved part of it.
OPEN_REQUEST = """
INSERT INTO auth_user (id, password, is_superuser, username, first_name, last_name, email, is_staff, is_active,
    date_joined)
VALUES (1, '', false, 'owner', '', '', '', false, true, now());
INSERT INTO apikeys_team (id, name) VALUES ('t', 'Team');
INSERT INTO apikeys_apikey (id, team_id, owner_id, name, note, can_name_app, allowed_networks, allowed_endpoints,
    allowed_models, revoked_by, revoked_reason)
VALUES ('k', 't', 1, 'Key', '', false, '{}', '{}', '{}', '', '');
INSERT INTO apikeys_limit (team_id, key_id, measure, period, amount, time_zone)
VALUES ('t', 'k', 'tokens', 'total', 100, 'UTC');
SELECT * FROM apikeys_reserve('[{"ordinal": 0, "id": "r", "server_id": "s", "team_id": "t", "key_id": "k",
    "endpoint": "x", "model": "", "prompt_tokens": 20, "tokens": 60, "prompt_micropoints": 0, "micropoints": 0}]');
"""
SETTLE = """
SELECT apikeys_settle('[{"id": "r", "team_id": "t", "key_id": "k", "endpoint": "x", "status": 200, "duration_ms": 1,
    "model": "", "prompt_tokens": 3, "completion_tokens": 4, "token_source": "provider", "cost_micropoints": 0,
    "outcome": "complete"}]')
"""
COUNTER = "SELECT used, reserved FROM apikeys_counter"
# All functions, triggers, constraints and indexes of ours, as the database spells them.
OBJECTS = """
SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prokind = 'f'
    AND probin IS NULL
UNION ALL SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
UNION ALL SELECT conname || pg_get_constraintdef(oid) FROM pg_constraint
UNION ALL SELECT pg_get_indexdef(indexrelid) FROM pg_index
ORDER BY 1
"""


def sql_files() -> list[Path]:
    return sorted(PROJECT.glob("*/sql/*.sql"))


def migrate(data_dir: Path, *arguments: str) -> None:
    result = manage("migrate", "--no-input", *arguments, data_dir=data_dir, seconds=120)
    assert result.returncode == 0, result.stderr


def connected(data_dir: Path) -> psycopg.Connection[tuple[int, int]]:
    password = next(
        line.partition("=")[2]
        for line in (data_dir / "secrets.env").read_text().splitlines()
        if line.startswith("DATABASE_PASSWORD=")
    )
    cluster.ensure(data_dir, password, None)
    parameters = {"host": str(cluster.folder(data_dir)), "user": "postgres", "dbname": "fastgpt", "password": password}
    return psycopg.connect(**parameters, autocommit=True)


def test_there_and_back(data_dir: Path) -> None:
    migrate(data_dir)
    for app in ("datasets", "chat", "apikeys"):
        migrate(data_dir, app, "zero")
    migrate(data_dir)
    assert manage("makemigrations", "--check", "--dry-run", data_dir=data_dir).returncode == 0


@pytest.mark.parametrize("is_settled", [False, True], ids=["open", "settled"])
def test_sql_files_run_again(installed_data_dir: Path, is_settled: bool) -> None:
    """They change nothing, and a request that was under way is charged once."""
    with connected(installed_data_dir) as connection:
        connection.execute(OPEN_REQUEST)
        assert connection.execute(COUNTER).fetchall() == [(0, 60)]
        if is_settled:
            connection.execute(SETTLE)
        before = connection.execute(OBJECTS).fetchall()
        for path in sql_files():
            connection.execute(path.read_text().partition(DOWN)[0])
        assert connection.execute(OBJECTS).fetchall() == before
        connection.execute(SETTLE)
        assert connection.execute(COUNTER).fetchall() == [(7, 0)]
        connection.execute(SETTLE)
        assert connection.execute(COUNTER).fetchall() == [(7, 0)]


def test_a_change_of_texts_is_no_migration() -> None:
    """Labels, help and choices may be reworded and translated as long as the schema stays."""
    state = ProjectState.from_apps(apps)
    changed = state.clone()
    options = changed.models["apikeys", "apikey"].options
    options["verbose_name"] = "another label"
    field = changed.models["apikeys", "apikey"].fields["name"].clone()
    field.help_text, field._verbose_name = "Another help text.", "another label"
    changed.models["apikeys", "apikey"].fields["name"] = field
    measure = changed.models["apikeys", "limit"].fields["measure"].clone()
    measure.choices = [("requests", "another label")]
    changed.models["apikeys", "limit"].fields["measure"] = measure
    graph = MigrationLoader(None, ignore_no_migrations=True).graph
    assert SchemaAutodetector(state, changed).changes(graph=graph) == {}
    field.max_length = 99
    assert list(SchemaAutodetector(state, changed).changes(graph=graph)) == ["apikeys"]


def test_sql_files_are_those_that_migrations_ran() -> None:
    """A changed file needs a migration that runs it again; until the first release, its digest in the first one."""
    newest: dict[Path, str] = {}
    loader = MigrationLoader(None, ignore_no_migrations=True)
    leaves = [node for app_label in ("apikeys", "chat", "datasets") for node in loader.graph.leaf_nodes(app_label)]
    # Each migration once, after those that it depends on.
    for key in dict.fromkeys(key for node in leaves for key in loader.graph.forwards_plan(node)):
        for operation in loader.disk_migrations[key].operations:
            if isinstance(operation, RunSqlFile):
                newest[sql_path(operation.app_label, operation.name)] = operation.digest
    assert {path: digest(path) for path in sql_files()} == newest
