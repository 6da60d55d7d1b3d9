"""Fills the database with teams, keys, limits and a ledger, by a few statements that make a million rows each."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

# Every tenth key has limits. Even ones are app keys, so those are.
LIMITED = 10
FILLED = (
    "auth_user",
    "apikeys_team",
    "apikeys_membership",
    "chat_provider",
    "chat_catalogmodel",
    "chat_route",
    "chat_app",
    "apikeys_apikey",
    "apikeys_keysecret",
    "apikeys_limit",
    "apikeys_counter",
    "apikeys_keyactivity",
    "apikeys_usagerecord",
)
# These hold in this session alone. Rows that a crash would lose are made again, and none breaks a rule of the database.
SESSION = """
SET synchronous_commit = off;
SET maintenance_work_mem = '512MB';
SET max_parallel_maintenance_workers = 2;
SET work_mem = '512MB';
SET session_replication_role = replica;
"""


@dataclass(frozen=True)
class Size:
    """How much there is in all. Keys are spread over teams, and records over keys, evenly and without locality."""

    teams: int
    keys: int
    records: int


def digest_of(number: int) -> bytes:
    """Return the digest that finds a key made here. Nobody knows its plaintext; a database does not need it."""
    return hashlib.sha256(str(number).encode()).digest()


def member_of(team: int) -> str:
    return f"member-{team}"


def fill(before: Size, after: Size, known: Mapping[int, bytes], upstream_port: int) -> None:
    """Add what is missing from `before` to `after`. The keys of `known` numbers get those digests."""
    from django.conf import settings
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(SESSION)
        try:
            cursor.execute("CREATE TEMPORARY TABLE known (number bigint PRIMARY KEY, digest bytea)")
            cursor.executemany("INSERT INTO known VALUES (%s, %s)", known.items())
            numbers = {
                "first_team": before.teams + 1,
                "last_team": after.teams,
                "teams": after.teams - before.teams,
                "first_key": before.keys + 1,
                "last_key": after.keys,
                "first_record": before.records + 1,
                "last_record": after.records,
                "pepper_id": next(iter(settings.API_KEY_PEPPERS)),
                "limited": LIMITED,
                "base_url": f"http://127.0.0.1:{upstream_port}/v1",
            }
            with _without_indexes():
                for what, statement in STATEMENTS.items():
                    with _told(what):
                        cursor.execute(statement, numbers)
            with _told("vacuum and analyze"):
                cursor.execute(f"VACUUM (ANALYZE) {', '.join(FILLED)}")
                cursor.execute("CHECKPOINT")
        finally:
            cursor.execute("RESET ALL")


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Say what took long."""
    started = perf_counter()
    yield
    seconds = perf_counter() - started
    if seconds >= 1:
        print(f"  {what}: {seconds:.0f} s", file=sys.stderr, flush=True)


@contextmanager
def _without_indexes() -> Iterator[None]:
    """Drop indexes and make them again at the end: sorting is cheaper than inserting.

    Those that serve a constraint stay, but for the ledger's primary key, which nothing refers to.
    """
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT index.indexrelid::regclass::text, pg_get_indexdef(index.indexrelid) FROM pg_index AS index "
            "WHERE index.indrelid = ANY (%s::regclass[]) "
            "AND NOT EXISTS (SELECT 1 FROM pg_constraint WHERE conindid = index.indexrelid)",
            [list(FILLED)],
        )
        definitions = dict(cursor.fetchall())
        for name in definitions:
            cursor.execute(f"DROP INDEX {name}")
        cursor.execute("ALTER TABLE apikeys_usagerecord DROP CONSTRAINT apikeys_usagerecord_pkey")
        yield
        with _told("indexes"):
            cursor.execute("ALTER TABLE apikeys_usagerecord ADD CONSTRAINT apikeys_usagerecord_pkey PRIMARY KEY (id)")
            for definition in definitions.values():
                cursor.execute(definition)


# Ids are like those the project makes: seconds, then what has no order. A team's and an app's tell its number.
STATEMENTS = {
    "users": """
        INSERT INTO auth_user (password, is_superuser, username, first_name, last_name, email, is_staff, is_active,
            date_joined)
        SELECT '!', false, 'member-' || number, '', '', '', true, true, now()
        FROM generate_series(%(first_team)s, %(last_team)s) AS number
    """,
    "teams": """
        INSERT INTO apikeys_team (id, name)
        SELECT '60000000' || lpad(to_hex(number), 16, '0'), 'Team ' || number
        FROM generate_series(%(first_team)s, %(last_team)s) AS number
    """,
    "memberships": """
        INSERT INTO apikeys_membership (team_id, user_id)
        SELECT '60000000' || lpad(to_hex(substr(username, 8)::bigint), 16, '0'), id FROM auth_user
        WHERE username LIKE 'member-%%' AND substr(username, 8)::bigint >= %(first_team)s
    """,
    "providers": """
        INSERT INTO chat_provider (id, team_id, name, base_url, query, auth_header, connect_seconds,
            first_byte_seconds, between_chunks_seconds, total_seconds)
        SELECT '61000000' || lpad(to_hex(number), 16, '0'), '60000000' || lpad(to_hex(number), 16, '0'), 'Loopback',
            %(base_url)s, '', 'Authorization', 5, 60, 60, 600
        FROM generate_series(%(first_team)s, %(last_team)s) AS number
    """,
    "models": """
        INSERT INTO chat_catalogmodel (id, team_id, name, kind, takes_tools, takes_images, takes_json_schema,
            prompt_price, completion_price, image_price)
        SELECT '63000000' || lpad(to_hex(number), 16, '0'), '60000000' || lpad(to_hex(number), 16, '0'),
            'bench-model', 'chat', true, true, true, 0, 0, 0
        FROM generate_series(%(first_team)s, %(last_team)s) AS number
    """,
    "routes": """
        INSERT INTO chat_route (team_id, model_id, provider_id, upstream_name, priority, weight, tokens_field)
        SELECT '60000000' || lpad(to_hex(number), 16, '0'), '63000000' || lpad(to_hex(number), 16, '0'),
            '61000000' || lpad(to_hex(number), 16, '0'), 'bench-model', 1, 1, ''
        FROM generate_series(%(first_team)s, %(last_team)s) AS number
    """,
    "apps": """
        INSERT INTO chat_app (id, team_id, model_id, name, intro, system_prompt, max_tokens, history_length,
            can_override, dialect, search_mode, similarity, quote_limit, uses_rerank, quote_template, quote_prompt,
            empty_answer, updated_at)
        SELECT '62' || lpad(to_hex(app), 6, '0') || lpad(to_hex(number), 16, '0'),
            '60000000' || lpad(to_hex(number), 16, '0'), '63000000' || lpad(to_hex(number), 16, '0'),
            'App ' || app || ' of team ' || number, '', '', 1000, 6, false, '4.14', 'embedding', 0,
            1500, false, '', '', '', now()
        FROM generate_series(%(first_team)s, %(last_team)s) AS number, generate_series(0, 9) AS app
    """,
    "keys": """
        INSERT INTO apikeys_apikey (id, team_id, app_id, owner_id, name, note, can_name_app, allowed_networks,
            allowed_endpoints, allowed_models, revoked_by, revoked_reason, created_at)
        SELECT lpad(to_hex(extract(epoch FROM key.created_at)::bigint), 8, '0') || substr(md5('key ' || number), 1, 16),
            '60000000' || lpad(to_hex(team), 16, '0'),
            CASE WHEN number %% 2 = 0 THEN
                '62' || lpad(to_hex(number / 2 %% 10), 6, '0') || lpad(to_hex(team), 16, '0') END,
            owner.id, 'Key ' || number, '', false, '{}', '{}', '{}', '', '', key.created_at
        FROM (
            SELECT number, %(first_team)s + number %% %(teams)s AS team,
                now() - (%(last_key)s - number) * interval '1 minute' AS created_at
            FROM generate_series(%(first_key)s, %(last_key)s) AS number
        ) AS key
        JOIN auth_user AS owner ON owner.username = 'member-' || key.team
        ORDER BY number
    """,
    "keys by number": """
        CREATE TEMPORARY TABLE numbered AS
        SELECT substr(name, 5)::bigint AS number, id AS key_id, team_id, app_id FROM apikeys_apikey
        WHERE name LIKE 'Key %%'
    """,
    "secrets": """
        INSERT INTO apikeys_keysecret (key_id, digest, pepper_id, last_four, is_imported)
        SELECT key_id, coalesce(known.digest, sha256(number::text::bytea)), %(pepper_id)s,
            substr(md5('four ' || number), 1, 4), false
        FROM numbered LEFT JOIN known USING (number)
        WHERE number >= %(first_key)s
    """,
    "activity": """
        INSERT INTO apikeys_keyactivity (key_id, last_used_at, last_used_from)
        SELECT key_id, now() - number * interval '1 second', '192.0.2.1' FROM numbered
        WHERE number >= %(first_key)s
    """,
    "ledger": """
        INSERT INTO apikeys_usagerecord (id, team_id, key_id, app_id, endpoint, model, prompt_tokens,
            completion_tokens, token_source, cost_micropoints, status, outcome, time_to_first_byte_ms, duration_ms,
            client_address, created_at)
        SELECT lpad(to_hex(extract(epoch FROM record.created_at)::bigint), 8, '0')
                || substr(md5('record ' || record.number), 1, 16),
            team_id, key_id, app_id, 'chat.completions', 'bench-model', 100 + record.number %% 100,
            50 + record.number %% 50, 'provider', 0, 200,
            CASE WHEN record.number %% 100 = 0 THEN 'cancelled' ELSE 'complete' END, 100, 900, '192.0.2.1',
            record.created_at
        FROM (
            SELECT number, 1 + number * 7919 %% %(last_key)s AS key_number,
                now() - (%(last_record)s - number) * (interval '30 days' / %(last_record)s) AS created_at
            FROM generate_series(%(first_record)s::bigint, %(last_record)s::bigint) AS number
        ) AS record
        JOIN numbered ON numbered.number = record.key_number
    """,
    "limits": """
        INSERT INTO apikeys_limit (team_id, key_id, measure, period, amount, time_zone)
        SELECT team_id, key_id, measure, period, 9007199254740992, 'UTC'
        FROM numbered, (VALUES ('requests', 'minute'), ('tokens', 'month')) AS counted(measure, period)
        WHERE number %% %(limited)s = 0 AND number >= %(first_key)s
        ORDER BY number
    """,
    "limits of teams": """
        INSERT INTO apikeys_limit (team_id, measure, period, amount, time_zone)
        SELECT '60000000' || lpad(to_hex(number), 16, '0'), 'tokens', 'minute', 9007199254740992, 'UTC'
        FROM generate_series(%(first_team)s, %(last_team)s) AS number
    """,
    # For one key after another, `apikeys_start_counter` would lock the ledger and sum it up 200,000 times.
    "counters": """
        INSERT INTO apikeys_counter (limit_id, period_start, used, reserved)
        SELECT begun.id, begun.start, coalesce(sum(
            CASE begun.measure WHEN 'requests' THEN 1 ELSE usage.prompt_tokens + usage.completion_tokens END)
            FILTER (WHERE usage.id IS NOT NULL), 0), 0
        FROM (
            SELECT id, key_id, measure, apikeys_period_start(period, time_zone, now()) AS start FROM apikeys_limit
        ) AS begun
        LEFT JOIN apikeys_usagerecord AS usage ON usage.key_id = begun.key_id AND usage.created_at >= begun.start
        GROUP BY begun.id, begun.start
        ON CONFLICT (limit_id) DO UPDATE SET period_start = excluded.period_start, used = excluded.used
    """,
    "nothing is left": "DROP TABLE numbered, known",
}
