"""The columns that make up a key's policy: whoever lists them elsewhere lists them all."""

import re
from dataclasses import fields

import pytest
from django.db import connection

from apikeys.access.lookup import LOOKUP_SQL
from apikeys.access.policy import KeyPolicy
from apikeys.admin.keys.forms import VERSIONED
from apikeys.keys.models import LISTS, POLICY_COLUMNS, RIGHTS, ApiKey
from apikeys.lifecycle.export import export_rows
from apikeys.lifecycle.import_file import CHANGEABLE
from apikeys.lifecycle.import_file import COLUMNS as FILE_COLUMNS
from apikeys.lifecycle.reports import details
from tests.support import factories

# They stay as they are for the life of a key.
IDENTITY = {"id", "team_id", "app_id"}
# Under which names the policy of the hot path has them.
READ_AS = {"disabled_at": "is_disabled", "revoked_at": "is_revoked"}


def columns_in_trigger(side: str) -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_get_triggerdef(oid) FROM pg_trigger "
            "WHERE tgname = 'policy_updated' AND tgrelid = 'apikeys_apikey'::regclass"
        )
        ((definition,),) = cursor.fetchall()
    return re.findall(rf"\b{side}\.(\w+)", definition)


def test_they_are_columns_of_a_key():
    assert {field.attname for field in ApiKey._meta.concrete_fields} >= {*POLICY_COLUMNS, *IDENTITY}
    assert set(LISTS) < set(RIGHTS) < set(POLICY_COLUMNS)
    assert set(RIGHTS) == {name for name in POLICY_COLUMNS if name.startswith(("allowed_", "can_"))}


@pytest.mark.parametrize("side", ["old", "new"])
def test_the_trigger_watches_them(side):
    assert sorted(columns_in_trigger(side)) == sorted(POLICY_COLUMNS)


def test_the_look_up_reads_them():
    assert set(re.findall(r"\bkey\.(\w+)", LOOKUP_SQL)) == {*POLICY_COLUMNS, *IDENTITY}
    policy = {field.name for field in fields(KeyPolicy)}
    assert policy >= {READ_AS.get(name, name) for name in POLICY_COLUMNS}


def test_the_etag_covers_what_a_page_edits():
    """A key that is disabled meanwhile can still be edited."""
    assert {*VERSIONED, "disabled_at"} == {*POLICY_COLUMNS, "note"}


def test_files_hold_them():
    """A file names an owner; by a file no key is disabled or revoked."""
    assert {f"{name}_id" if name == "owner" else name for name in CHANGEABLE} == {
        *set(POLICY_COLUMNS) - {"disabled_at", "revoked_at"},
        "note",
    }
    assert {"owner" if name == "owner_id" else name for name in POLICY_COLUMNS} <= set(FILE_COLUMNS)


def test_exports_and_reports_tell_them():
    api_key, _ = factories.make_key()
    read = ApiKey.objects.with_state().get(pk=api_key.pk)
    names = {"owner" if name == "owner_id" else name for name in POLICY_COLUMNS}
    (row,) = export_rows([read])
    assert names <= row.keys()
    assert names <= details(read).keys()
