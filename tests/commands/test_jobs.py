"""The worker of the background jobs, as a process of its own, and what it tells to real receivers."""

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import connection
from django.utils import timezone
from procrastinate.contrib.django.models import ProcrastinateJob
from procrastinate.jobs import Job

from apikeys.accounting.limits import Limit
from apikeys.accounting.reconciliation import Reconciliation, reconcile_and_remember
from apikeys.accounting.rollup import LOCK
from apikeys.alerts.deliveries import Channel, Delivery
from apikeys.alerts.models import Alert
from apikeys.alerts.webhooks import Webhook
from apikeys.hot_path import connections
from apikeys.jobs import queue_deliveries, reconcile, rescue, roll_up
from apikeys.outbound.addresses import allowed_networks
from apikeys.worker import BackOff
from fastgpt_site.management.commands.jobs import CONCURRENCY, END_SECONDS
from fastgpt_site.process.serving import JOBS_STOP_SECONDS
from tests.environment import PROJECT
from tests.support import commands, factories
from tests.support.processes import Running, wait_for

LOOPBACK = "127.0.0.0/8"


class Receiver:
    """Takes posts on loopback. `answers` decides what each gets: a status, or a function that is called first."""

    def __init__(self) -> None:
        self.posts: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[int | Callable[[], int]] = []
        self.location = ""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.posts.append(({name.lower(): value for name, value in self.headers.items()}, body))
                answer = receiver.answers.pop(0) if receiver.answers else 204
                try:
                    self.send_response(answer if isinstance(answer, int) else answer())
                    if receiver.location:
                        self.send_header("Location", receiver.location)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                except OSError:
                    return

            def log_message(self, format: str, *args: Any) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/alerts"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@contextmanager
def worker(**changes: str) -> Iterator[Running]:
    """The worker on the test database, when it has registered itself."""
    before = workers()
    variables = commands.variables() | {"OUTBOUND_ALLOWED_NETWORKS": LOOPBACK} | changes
    data_dir = Path(variables.pop("DATA_DIR"))
    running = Running("jobs", data_dir=data_dir, **variables)
    try:
        wait_for(lambda: workers() - before, "a worker: " + running.all_output)
        yield running
    finally:
        running.close()


def workers() -> set[int]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT id FROM procrastinate_workers")
        return {row[0] for row in cursor.fetchall()}


def forget(worker_ids: set[int]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE procrastinate_workers SET last_heartbeat = now() - interval '1 hour' WHERE id = ANY(%s)",
            [list(worker_ids)],
        )


def look() -> None:
    """Have the worker look for alerts now; by itself it does so every ten seconds."""
    queue_deliveries.defer(timestamp=0)


def make_webhook(team: Any, url: str) -> tuple[Webhook, str]:
    webhook = Webhook(team=team, url=url)
    secret = webhook.make_secret()
    webhook.save()
    return webhook, secret


def make_alert(team: Any, key: Any = None, **fields: Any) -> Alert:
    facts = {
        "limit_id": 7,
        "measure": "micropoints",
        "period": "month",
        "time_zone": "Europe/Berlin",
        "period_start": "2026-10-31T23:00:00+00:00",
        "amount": 1_000_000_000,
        "used": 812_500_000,
        "percent": 80,
    }
    fields = {"kind": "budget", "details": facts, **fields}
    return Alert.objects.create(team=team, key=key, dedup_key=factories.unique("dedup_key"), **fields)


def delivery_of(alert: Alert, channel: str = Channel.WEBHOOK) -> Delivery | None:
    return Delivery.objects.filter(alert=alert, channel=channel).first()


def is_delivered(alert: Alert) -> bool:
    alert.refresh_from_db()
    return alert.delivered_at is not None


def is_genuine(*arguments: Any) -> bool:
    """As docs/security.md tells receivers to find out."""
    code = (PROJECT / "docs" / "security.md").read_text().partition("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 - the project's own words
    return bool(names["is_genuine"](*arguments))


def test_it_works(receiver):
    api_key, plaintext = factories.make_key()
    webhook, secret = make_webhook(api_key.team, receiver.url)
    alert = make_alert(api_key.team, api_key)
    with worker() as running:
        wait_for(lambda: is_delivered(alert), "the alert is told, without being asked to")
        assert running.end() == 0
    ((headers, body),) = receiver.posts
    assert headers["content-type"] == "application/json"
    assert headers["webhook-id"] == delivery_of(alert).pk
    assert is_genuine(secret, headers, body)
    assert not is_genuine(secret, headers, body + b" ")
    assert not is_genuine(secret, headers | {"webhook-id": "x"}, body)
    assert not is_genuine(secret, headers | {"webhook-timestamp": "1"}, body)
    said = json.loads(body)
    assert said["type"] == "budget.threshold_reached"
    assert said["data"] == {
        "team": {"id": api_key.team.pk, "name": api_key.team.name},
        "key": {"id": api_key.pk, "name": api_key.name, "last_four": plaintext[-4:]},
        **alert.details,
    }
    webhook.refresh_from_db()
    assert webhook.last_success_at
    assert not webhook.last_failure_at
    assert secret not in running.all_output
    assert receiver.url not in running.all_output


def test_jobs_that_ended_are_gone(receiver):
    alert = make_alert(factories.make_team())
    with worker() as running:
        look()
        wait_for(lambda: is_delivered(alert), "the alert is told, to nobody")
        assert running.end() == 0
    assert not Delivery.objects.filter(alert=alert).exists()
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM procrastinate_jobs WHERE status NOT IN ('todo', 'doing')")
        assert cursor.fetchone() == (0,)
    assert workers() == set()


def test_failure_is_tried_again(receiver):
    team = factories.make_team()
    webhook, _ = make_webhook(team, receiver.url)
    alert = make_alert(team)
    receiver.answers = [500, 503]
    with worker():
        look()
        for count in (1, 2):
            wait_for(lambda count=count: len(receiver.posts) == count, f"post {count}")
            wait_for(lambda: delivery_of(alert).last_error, "the failure is noted")
            wait_for(hurried(alert), "the job waits")
        wait_for(lambda: is_delivered(alert), "the alert is told")
    assert len(receiver.posts) == 3
    assert len({headers["webhook-id"] for headers, _ in receiver.posts}) == 1
    assert len({body for _, body in receiver.posts}) == 1
    assert delivery_of(alert).attempts == 3
    webhook.refresh_from_db()
    assert webhook.last_failure == "It answered HTTP 503."


def hurried(alert: Alert) -> Callable[[], bool]:
    """Whether the delivery's job waited for its time, which has then come."""

    def hurry() -> bool:
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE procrastinate_jobs SET scheduled_at = now() "
                "WHERE lock = %s AND status = 'todo' AND scheduled_at > now() + interval '5 seconds'",
                [delivery_of(alert).pk],
            )
            return cursor.rowcount == 1

    return hurry


def test_it_is_given_up_after_eight_attempts(receiver):
    team = factories.make_team()
    make_webhook(team, receiver.url)
    alert = make_alert(team)
    Delivery.objects.create(alert=alert, channel=Channel.WEBHOOK, attempts=7)
    receiver.answers = [500]
    with worker() as running:
        look()
        wait_for(lambda: is_delivered(alert), "it is given up")
    assert len(receiver.posts) == 1
    delivery = delivery_of(alert)
    assert delivery.given_up_at
    assert not delivery.delivered_at
    assert delivery.last_error == "It answered HTTP 500."
    assert "is given up after attempt 8" in running.all_output


def test_worker_killed_in_the_middle(receiver):
    """A delivery under way is sent again under the same id; one that was taken is never sent again."""
    team = factories.make_team()
    make_webhook(team, receiver.url)
    taken, cut_off = make_alert(team), None
    with worker() as running:
        look()
        wait_for(lambda: is_delivered(taken), "the first is told")
        go_on = threading.Event()
        receiver.answers = [lambda: 204 if go_on.wait(30) else 500]
        cut_off = make_alert(team)
        look()
        wait_for(lambda: len(receiver.posts) == 2, "the second is under way")
        os.kill(running.process.pid, signal.SIGKILL)
        running.wait()
        go_on.set()
    dead = workers()
    # One for each queue.
    assert len(dead) == len(CONCURRENCY)
    assert not is_delivered(cut_off)
    forget(dead)
    with worker():
        look()
        wait_for(lambda: is_delivered(cut_off), "the second is told")
    ids = [headers["webhook-id"] for headers, _ in receiver.posts]
    assert ids == [delivery_of(taken).pk, delivery_of(cut_off).pk, delivery_of(cut_off).pk]
    assert delivery_of(cut_off).attempts == 2


def test_worker_ended_in_the_middle(receiver):
    """SIGTERM lets a post that is under way come to its end."""
    team = factories.make_team()
    make_webhook(team, receiver.url)
    alert = make_alert(team)
    go_on = threading.Event()
    receiver.answers = [lambda: 204 if go_on.wait(30) else 500]
    with worker() as running:
        look()
        wait_for(lambda: receiver.posts, "it is under way")
        running.process.send_signal(signal.SIGTERM)
        go_on.set()
        assert running.wait() == 0
    assert is_delivered(alert)
    assert delivery_of(alert).attempts == 1


def process(condition: str) -> Running:
    """The worker in a condition of `tests.support.jobs_process`, which may have ended before it is seen."""
    variables = commands.variables()
    data_dir = Path(variables.pop("DATA_DIR"))
    return Running(condition, data_dir=data_dir, program=("-m", "tests.support.jobs_process"), **variables)


def test_told_to_end_while_it_starts():
    """At the moment at which a cancellation would be lost, with which the worker would never end."""
    running = process("deaf")
    try:
        assert running.wait(60) == 0, running.all_output
    finally:
        running.close()
    assert workers() == set()


def test_a_job_that_cannot_be_cut_off():
    """The process ends in spite of a thread that waits for the database, and its job is run by the next."""
    assert END_SECONDS < JOBS_STOP_SECONDS
    with psycopg.connect(**connections.parameters(direct=True)) as holder:
        holder.execute(LOCK)
        roll_up.defer(timestamp=0)
        running = process("hurried")
        try:
            wait_for(is_waiting, "the job waits", seconds=60)
            dying = workers()
            running.process.send_signal(signal.SIGTERM)
            assert running.wait(60) == 1
        finally:
            running.close()
    # It says what it waited for.
    assert "in roll_up" in "".join(running.err)
    assert ProcrastinateJob.objects.filter(task_name="statistics", status="doing").exists()
    forget(dying)
    with worker():
        rescue.defer(timestamp=0)
        wait_for(lambda: not ProcrastinateJob.objects.filter(task_name="statistics").exists(), "it is run again")


def is_waiting() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)")
        return bool(cursor.fetchone()[0])


def test_redirect_is_not_followed(receiver):
    team = factories.make_team()
    make_webhook(team, receiver.url)
    receiver.location = receiver.url.replace("alerts", "elsewhere")
    receiver.answers = [302]
    alert = make_alert(team)
    with worker():
        look()
        wait_for(lambda: (found := delivery_of(alert)) and found.last_error, "the failure is noted")
    assert delivery_of(alert).last_error == "It answered HTTP 302."
    assert len(receiver.posts) == 1


def test_private_address_is_refused_at_use(receiver, settings):
    settings.OUTBOUND_ALLOWED_NETWORKS = [LOOPBACK]
    allowed_networks.cache_clear()
    team = factories.make_team()
    webhook = Webhook(team=team, url=receiver.url)
    webhook.make_secret()
    webhook.full_clean()
    webhook.save()
    allowed_networks.cache_clear()
    alert = make_alert(team)
    with worker(OUTBOUND_ALLOWED_NETWORKS=""):
        look()
        wait_for(lambda: (found := delivery_of(alert)) and found.last_error, "the failure is noted")
    assert delivery_of(alert).last_error == "Its address is private and may not be called."
    assert receiver.posts == []


def test_webhook_that_was_disabled_meanwhile(receiver):
    team = factories.make_team()
    make_webhook(team, receiver.url)
    alert = make_alert(team)
    Delivery.objects.create(alert=alert, channel=Channel.WEBHOOK)
    Webhook.objects.filter(team=team).update(disabled_at=timezone.now())
    with worker():
        look()
        wait_for(lambda: is_delivered(alert), "it is given up")
    assert delivery_of(alert).last_error == "The webhook was disabled or removed."
    assert receiver.posts == []


def mails(folder: Path) -> list[EmailMessage]:
    return [
        message_from_bytes(part.strip(), policy=policy.default)
        for path in folder.glob("*.log")
        for part in path.read_bytes().split(b"-" * 79)
        if part.strip()
    ]


def test_mail(tmp_path):
    api_key, plaintext = factories.make_key(name="build\nserver")
    for user, name in ((api_key.owner, "owner"), (factories.make_user(api_key.team), "staff")):
        user.email = f"{name}@example.org"
        user.save()
    outsider = factories.make_user()
    outsider.email = "outsider@example.org"
    outsider.save()
    clerk = factories.make_user(api_key.team, is_staff=False)
    clerk.email = "clerk@example.org"
    clerk.save()
    of_key, of_team = make_alert(api_key.team, api_key), make_alert(api_key.team)
    with worker(EMAIL_URL=f"filemail:///{tmp_path}", DEFAULT_FROM_EMAIL="keys@example.org"):
        look()
        wait_for(lambda: is_delivered(of_key) and is_delivered(of_team), "both are told")
    found = {str(mail["To"]): mail for mail in mails(tmp_path)}
    assert sorted(found) == ["owner@example.org", "owner@example.org, staff@example.org"]
    mail = found["owner@example.org"]
    assert mail["From"] == "keys@example.org"
    assert mail["Message-ID"] == f"<{delivery_of(of_key, Channel.MAIL).pk}@example.org>"
    assert mail["Subject"] == 'Key "build server" has used 80% of its 1,000 points a month'
    text = mail.get_content()
    assert "Used:      812.5 points" in text
    assert "Since:     2026-11-01 00:00 CET" in text
    assert f"******{plaintext[-4:]}" in text
    assert plaintext not in text


def test_mail_to_nobody(tmp_path):
    alert = make_alert(factories.make_team())
    with worker(EMAIL_URL=f"filemail:///{tmp_path}"):
        look()
        wait_for(lambda: is_delivered(alert), "it is given up")
    assert delivery_of(alert, Channel.MAIL).last_error == "No recipient has an email address."
    assert mails(tmp_path) == []


def test_mail_server_that_is_not_there():
    api_key, _ = factories.make_key()
    api_key.owner.email = "owner@example.org"
    api_key.owner.save()
    alert = make_alert(api_key.team, api_key)
    with worker(EMAIL_URL="smtp://someone:hunter2-pass@127.0.0.1:9") as running:
        look()
        wait_for(lambda: (found := delivery_of(alert, Channel.MAIL)) and found.last_error, "the failure is noted")
    assert "ConnectionRefusedError" in delivery_of(alert, Channel.MAIL).last_error
    assert "hunter2" not in running.all_output
    assert "owner@example.org" not in running.all_output


def test_readiness_names_a_missing_worker(server):
    def jobs() -> tuple[int, str]:
        response = server.get("/readyz")
        return response.status_code, response.json()["parts"]["jobs"]

    wait_for(lambda: jobs() == (503, "no worker"), "no worker")
    with worker():
        wait_for(lambda: jobs() == (200, "ok"), "a worker")
    wait_for(lambda: jobs() == (503, "no worker"), "no worker again")


def test_silent_worker_is_a_missing_one(server):
    with worker() as running:
        wait_for(lambda: server.get("/readyz").status_code == 200, "a worker")
        os.kill(running.process.pid, signal.SIGSTOP)
        forget(workers())
        wait_for(lambda: server.get("/readyz").status_code == 503, "it is missed")
        os.kill(running.process.pid, signal.SIGCONT)
        wait_for(lambda: server.get("/readyz").status_code == 200, "it is back")


def test_reconciliation_is_remembered():
    last = Reconciliation.objects.first()
    reconcile.defer(timestamp=0)
    with worker():
        made = wait_for(lambda: Reconciliation.objects.filter(pk__gt=last.pk if last else 0).first(), "its result")
    assert made.limits == Limit.objects.count()
    assert made.seconds > 0


def test_newest_hundred_reconciliations_are_kept():
    Reconciliation.objects.bulk_create([Reconciliation(limits=1, drifted=0, seconds=0.1) for _ in range(101)])
    made = reconcile_and_remember()
    assert Reconciliation.objects.count() <= 100
    assert Reconciliation.objects.first() == made


def test_attempts_are_made_within_a_day():
    """The pauses between attempts add up to most of a day."""
    pauses = []
    for attempts in range(7):
        job = Job(id=1, queue="", task_name="deliver", lock=None, queueing_lock=None, attempts=attempts)
        decision = BackOff().get_retry_decision(exception=ValueError(), job=job)
        pauses.append(decision.retry_at - timezone.now())
    assert pauses[0] < timedelta(seconds=20)
    assert timedelta(hours=18) < sum(pauses, timedelta()) < timedelta(hours=26)
