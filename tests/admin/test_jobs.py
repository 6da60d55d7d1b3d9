"""The read-only page of background jobs, for superusers."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from procrastinate.contrib.django.models import ProcrastinateJob

from tests.support import factories
from tests.support.pages import browser, staff, text, url

LIST = url(ProcrastinateJob, "changelist")


def make_job() -> int:
    """Queue a job of an unknown task, in a queue that no worker serves."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO procrastinate_jobs (queue_name, task_name, args) VALUES ('nobody', %s, %s) RETURNING id",
            [factories.unique("task"), '{"alert_id": 7}'],
        )
        return cursor.fetchone()[0]


@pytest.fixture
def client():
    return browser(factories.make_user(is_superuser=True))


def test_it_works(client):
    job = ProcrastinateJob.objects.get(pk=make_job())
    assert job.task_name in text(client.get(LIST))
    page = text(client.get(url(ProcrastinateJob, "change", job.pk)))
    assert job.task_name in page
    assert '"alert_id": 7' in page
    assert 'href="/admin/procrastinate/procrastinatejob/"' in text(client.get("/admin/"))


def test_nobody_changes_one(client):
    job = make_job()
    assert client.get(url(ProcrastinateJob, "add")).status_code == 403
    for page in ("change", "delete"):
        assert client.post(url(ProcrastinateJob, page, job), {"post": "yes"}).status_code == 403
    client.post(LIST, {"action": "delete_selected", "_selected_action": [job], "post": "yes"})
    assert ProcrastinateJob.objects.filter(pk=job, status="todo").exists()


def test_staff_with_the_permission():
    _, client = staff(factories.make_team(), "procrastinate.view_procrastinatejob")
    assert client.get(LIST).status_code == 403
    assert client.get(url(ProcrastinateJob, "change", make_job())).status_code == 403
    assert "procrastinatejob" not in text(client.get("/admin/"))


def test_list_costs_no_query_per_row(client):
    counts = []
    for _ in range(2):
        for _ in range(3):
            make_job()
        with CaptureQueriesContext(connection) as queries:
            assert client.get(LIST).status_code == 200
        counts.append(len(queries))
    assert counts[0] == counts[1]
