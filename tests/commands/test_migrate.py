"""Migrations run forward, back and forward again, also with requests under way."""

from pathlib import Path

import psycopg
import pytest

from fastgpt_site.postgres import cluster
from tests.processes import manage

LATEST_OLD = "0005"
# A key with a budget, and a request that has reserved of it, as the version before 0006 wrote them.
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
SELECT * FROM reserve('[{"ordinal": 0, "id": "r", "server_id": "s", "team_id": "t", "key_id": "k", "endpoint": "x",
    "model": "", "prompt_tokens": 20, "tokens": 60, "prompt_micropoints": 0, "micropoints": 0}]');
"""
SETTLE = """
SELECT settle('[{"id": "r", "team_id": "t", "key_id": "k", "endpoint": "x", "status": 200, "duration_ms": 1,
    "model": "", "prompt_tokens": 3, "completion_tokens": 4, "token_source": "provider", "cost_micropoints": 0,
    "ending": "complete"}]')
"""
COUNTER = "SELECT used, reserved FROM apikeys_counter"


def migrate(data_dir: Path, *arguments: str) -> None:
    result = manage("migrate", "--no-input", *arguments, data_dir=data_dir, seconds=120)
    assert result.returncode == 0, result.stderr


def connected(data_dir: Path) -> psycopg.Connection[tuple[int, int]]:
    password = next(
        line.partition("=")[2]
        for line in (data_dir / "secrets.env").read_text().splitlines()
        if line.startswith("DATABASE_PASSWORD=")
    )
    parameters = {"host": str(cluster.folder(data_dir)), "user": "postgres", "dbname": "fastgpt", "password": password}
    return psycopg.connect(**parameters, autocommit=True)


def test_there_and_back(data_dir: Path) -> None:
    migrate(data_dir)
    for app in ("chat", "apikeys"):
        migrate(data_dir, app, "zero")
    migrate(data_dir)
    assert manage("makemigrations", "--check", "--dry-run", data_dir=data_dir).returncode == 0


@pytest.mark.parametrize("direction", ["forward", "back"])
def test_a_request_under_way(data_dir: Path, direction: str) -> None:
    """What it reserved is given back by the other version, which charges it once."""
    migrate(data_dir, "chat", "0003")
    migrate(data_dir, "apikeys", LATEST_OLD)
    with connected(data_dir) as connection:
        connection.execute(OPEN_REQUEST)
        assert connection.execute(COUNTER).fetchall() == [(0, 60)]
    migrate(data_dir, "apikeys")
    if direction == "back":
        with connected(data_dir) as connection:
            connection.execute(SETTLE.replace('"r"', '"another"'))
        migrate(data_dir, "apikeys", LATEST_OLD)
    with connected(data_dir) as connection:
        connection.execute(SETTLE)
        charged = 7 if direction == "forward" else 14
        assert connection.execute(COUNTER).fetchall() == [(charged, 0)]
        connection.execute(SETTLE)
        assert connection.execute(COUNTER).fetchall() == [(charged, 0)]
