"""The datasets of an app: what the database itself refuses, and who is told."""

import psycopg
import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection
from django.db.models import ProtectedError

from apikeys.audit.models import AuditEntry
from apikeys.hot_path.connections import connect
from chat.models import AppDataset
from datasets.models import Dataset
from tests.support import factories


def test_it_works() -> None:
    app = factories.make_app(factories.make_team())
    dataset = factories.make_dataset(app.team)
    app.datasets.set([dataset])
    assert list(dataset.apps.all()) == [app]
    assert AppDataset.objects.get(app=app).team == app.team


def test_dataset_of_another_team() -> None:
    app, foreign = factories.make_app(factories.make_team()), factories.make_dataset()
    with pytest.raises(IntegrityError, match="app_dataset_dataset_in_team"):
        app.datasets.add(foreign)
    own = factories.make_dataset(app.team)
    app.datasets.add(own)
    with pytest.raises(IntegrityError, match="app_dataset_dataset_in_team"):
        AppDataset.objects.filter(app=app).update(dataset=foreign)
    # Not even by the row's own team.
    with pytest.raises(IntegrityError, match="app_dataset_dataset_in_team"):
        AppDataset.objects.create(app=app, dataset=foreign, team=foreign.team)
    assert list(app.datasets.all()) == [own]


def test_a_used_dataset_stays() -> None:
    app = factories.make_app(factories.make_team())
    dataset = factories.make_dataset(app.team)
    app.datasets.add(dataset)
    with pytest.raises(ProtectedError):
        dataset.delete()
    with pytest.raises(IntegrityError), connection.cursor() as cursor:
        cursor.execute("DELETE FROM datasets_dataset WHERE id = %s", [dataset.pk])
    app.datasets.clear()
    dataset.delete()
    assert not Dataset.objects.filter(pk=dataset.pk).exists()


def test_every_process_is_told() -> None:
    app = factories.make_app(factories.make_team())
    dataset = factories.make_dataset(app.team)
    with connect() as acknowledgements:
        acknowledgements.execute("LISTEN policy_changed")
        for change in (app.datasets.add, app.datasets.remove):
            change(dataset)
            assert heard(acknowledgements)


def heard(acknowledgements: psycopg.Connection) -> bool:
    return any(True for _ in acknowledgements.notifies(timeout=5, stop_after=1))


def test_the_audit_tells() -> None:
    app = factories.make_app(factories.make_team())
    dataset = factories.make_dataset(app.team)
    app.datasets.add(dataset)
    entry = AuditEntry.objects.filter(object_pk=app.pk).latest("pk")
    assert entry.team_id == app.team_id
    assert entry.changes == {"datasets": {"type": "m2m", "operation": "add", "objects": [dataset.name]}}


@pytest.mark.parametrize("prompt", ["{{quote}}", "{{question}}", "{{quote}} {{ quote }} {{question}}", "no names"])
def test_a_quote_prompt_that_hides_something(prompt: str) -> None:
    app = factories.make_app(factories.make_team(), quote_prompt=prompt)
    with pytest.raises(ValidationError, match="once"):
        app.clean()
