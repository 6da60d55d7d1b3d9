"""The audit: an entry that nobody can change for each change of rows that govern keys: who, when and from where."""

import csv
import io
import json
from datetime import timedelta

import pytest
from django.contrib.auth.models import Group, User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import DatabaseError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apikeys.accounting.limits import Limit
from apikeys.admin import downloads
from apikeys.alerts.webhooks import Webhook
from apikeys.audit import recording
from apikeys.audit.circumstances import login
from apikeys.audit.models import AuditEntry
from apikeys.audit.recording import MASK
from apikeys.keys.models import ApiKey
from apikeys.teams import Membership, Team
from chat.models import App, Provider
from tests.support import factories
from tests.support.commands import call
from tests.support.pages import ADD, KEY, browser, hidden, key_form, new_key_form, page_of, staff, text, url

LIST = url(AuditEntry, "changelist")
READ = ("apikeys.view_auditentry",)


def entries(row, **wanted):
    """Return the audit entries of a row, the newest first."""
    return list(AuditEntry.objects.get_for_object(row).filter(**wanted).order_by("-pk"))


def newest(row):
    return entries(row)[0]


def superuser():
    user = factories.make_user(is_superuser=True)
    return user, browser(user)


def test_it_works():
    team = factories.make_team()
    user, client = staff(team)
    plaintext = KEY.search(text(client.post(ADD, new_key_form(client, team=team.pk, owner=user.pk, note="for n"))))[0]
    api_key = ApiKey.objects.get(team=team)
    (entry,) = entries(api_key)
    assert (entry.actor, entry.actor_name, entry.via, entry.team) == (user, user.username, "admin", team)
    assert entry.action == AuditEntry.Action.CREATE
    assert entry.remote_addr == "127.0.0.1"
    assert entry.changes["note"] == [None, "for n"]
    assert entry.changes["owner"] == [None, user.username]
    (secret,) = entries(api_key.secrets.get())
    assert secret.team == team
    assert secret.changes["last_four"] == [None, plaintext[-4:]]
    assert "digest" not in secret.changes
    _, reader = staff(team, *READ)
    page = text(reader.get(LIST))
    assert url(AuditEntry, "change", entry.pk) in page
    assert user.username in page
    assert "for n" in text(reader.get(url(AuditEntry, "change", entry.pk)))


@pytest.mark.parametrize(
    ("page", "answers", "changed"),
    [
        ("disable", {"reason": "r"}, {"disabled_at"}),
        ("revoke", {"reason": "leaked", "typed_name": "Key"}, {"revoked_at", "revoked_by", "revoked_reason"}),
    ],
)
def test_change_in_one_statement(page, answers, changed):
    api_key, _ = factories.make_key(name="Key")
    user, client = staff(api_key.team)
    client.post(page_of(api_key, page), answers)
    entry = newest(api_key)
    assert set(entry.changes) == changed
    assert entry.actor == user
    assert entry.action == AuditEntry.Action.UPDATE
    again = len(entries(api_key))
    client.post(page_of(api_key, page), answers)
    assert len(entries(api_key)) == again


def test_import_of_keys():
    team = factories.make_team()
    api_key, _ = factories.make_key(team, name="before", note="stays", allowed_models=["one"])
    user, client = staff(team)
    rows = [
        {"id": api_key.pk, "name": "after", "owner": user.username, "allowed_models": ["one", "two"]},
        {"name": "made", "owner": user.username, "expires_at": "2099-01-02T03:04:05+02:00"},
    ]

    def send(**fields):
        return client.post(
            url(ApiKey, "import"), {"file": SimpleUploadedFile("keys", json.dumps(rows).encode()), **fields}
        )

    digest = text(send()).partition('name="digest" value="')[2].partition('"')[0]
    owner, before = api_key.owner.username, AuditEntry.objects.count()
    assert send(digest=digest).status_code == 302
    assert AuditEntry.objects.count() == before + 2
    changed = newest(api_key)
    assert changed.action == AuditEntry.Action.UPDATE
    assert changed.changes == {
        "name": ["before", "after"],
        "owner": [owner, user.username],
        "allowed_models": [["one"], ["one", "two"]],
    }
    (made,) = entries(ApiKey.objects.get(team=team, name="made"))
    assert made.action == AuditEntry.Action.CREATE
    assert made.object_repr == "made"
    assert made.changes["team"] == [None, team.name]
    assert made.changes["owner"] == [None, user.username]
    assert made.changes["expires_at"] == [None, "2099-01-02 01:04:05"]
    assert made.changes["can_name_app"] == [None, False]
    for entry in (changed, made):
        assert (entry.actor, entry.via, entry.team, entry.remote_addr) == (user, "admin", team, "127.0.0.1")


def test_import_of_many_keys_costs_the_same():
    team = factories.make_team()
    user, _ = staff(team)
    counts = []
    for number in (2, 20):
        changed = [factories.make_key(team, owner=user)[0] for _ in range(number)]
        # An import has its keys' related rows loaded, too.
        changed = list(ApiKey.objects.filter(pk__in=[api_key.pk for api_key in changed]).with_state())
        for api_key in changed:
            api_key.note = "new"
        with CaptureQueriesContext(connection) as queries:
            recording.create_all([ApiKey(team=team, owner=user, name=str(n)) for n in range(number)])
            recording.update_all(changed, ["note", "owner"])
        counts.append(len(queries))
    assert counts[0] == counts[1]


def test_enable():
    api_key, _ = factories.make_key()
    _, client = staff(api_key.team)
    api_key.disable()
    client.post(page_of(api_key, "enable"), {})
    before, after = newest(api_key).changes["disabled_at"]
    assert before
    assert after is None


def test_time_that_the_readers_zone_cannot_show():
    api_key, _ = factories.make_key()
    recording.record(api_key, {"expires_at": (None, "9999-12-31 23:59:59")})
    _, reader = staff(api_key.team, *READ)
    reader.cookies["timezone"] = "Asia/Shanghai"
    assert "9999-12-31 23:59:59" in text(reader.get(url(AuditEntry, "change", newest(api_key).pk)))


def test_rotate():
    api_key, _ = factories.make_key()
    _, client = staff(api_key.team)
    form = {"overlap": "0", "replacing": hidden(text(client.get(page_of(api_key, "rotate"))), "replacing")}
    client.post(page_of(api_key, "rotate"), form)
    new, old = api_key.secrets.order_by("-pk")
    assert newest(new).action == AuditEntry.Action.CREATE
    assert set(newest(old).changes) == {"expires_at"}


def test_edit_names_each_field():
    api_key, _ = factories.make_key(name="before", note="stays")
    _, client = staff(api_key.team)
    client.post(page_of(api_key), key_form(api_key, name="after", allowed_networks="203.0.113.0/24"))
    assert newest(api_key).changes == {
        "name": ["before", "after"],
        "allowed_networks": [[], ["203.0.113.0/24"]],
    }


def test_app_is_archived_and_unarchived():
    app = factories.make_app(factories.make_team())
    _, client = staff(app.team, "chat.view_app", "chat.change_app")
    for action in ("archive", "unarchive"):
        client.post(url(App, "changelist"), {"action": action, "_selected_action": [app.pk]})
        assert set(newest(app).changes) == {"archived_at"}
    assert len(entries(app)) == 3


def test_secret_of_a_provider_is_told_and_not_shown():
    provider = factories.make_provider(factories.make_team())
    _, client = staff(provider.team, "chat.view_provider", "chat.change_provider")
    limits = dict.fromkeys(("connect_seconds", "first_byte_seconds", "between_chunks_seconds", "total_seconds"), 5)
    form = {"name": provider.name, "base_url": provider.base_url, "secret": "sk-provider-1", **limits}
    form |= {"auth_header": provider.auth_header, "headers": "X-Project: sk-provider-2"}
    assert client.post(url(Provider, "change", provider.pk), form).status_code == 302
    assert newest(provider).changes == {"headers": ["", MASK]}
    form |= {"base_url": "https://elsewhere.example/v1", "secret": "", "headers": ""}
    assert client.post(url(Provider, "change", provider.pk), form).status_code == 302
    assert newest(provider).changes == {"headers": [MASK, ""]}
    assert not AuditEntry.objects.filter(changes__icontains="sk-provider-").exists()


def test_secret_and_url_of_a_webhook_are_masked():
    webhook = Webhook(team=factories.make_team(), url="https://hooks.example/T0/secret-path")
    webhook.make_secret()
    webhook.save()
    _, client = staff(webhook.team, "apikeys.view_webhook", "apikeys.change_webhook")
    page = text(client.get(url(Webhook, "new_secret", webhook.pk)))
    client.post(url(Webhook, "new_secret", webhook.pk), {"replacing": hidden(page, "replacing")})
    made, replaced = reversed(entries(webhook))
    assert made.changes["url"] == ["", MASK]
    assert set(replaced.changes) == {"secret_made_at"}


def test_people_and_groups_are_for_superusers():
    _, client = superuser()
    person, group = factories.make_user(), Group.objects.create(name=factories.unique("group"))
    password = {"password1": "a new password 7", "password2": "a new password 7", "usable_password": "true"}
    assert client.post(f"/admin/auth/user/{person.pk}/password/", password).status_code == 302
    assert newest(person).changes == {"password": [MASK, MASK]}
    person.groups.add(group)
    assert newest(person).changes["groups"] == {"type": "m2m", "operation": "add", "objects": [group.name]}
    for row in (person, group):
        assert newest(row).team is None
    team = factories.make_team()
    Membership.objects.create(team=team, user=person)
    _, reader = staff(team, *READ)
    assert reader.get(url(AuditEntry, "change", newest(person).pk)).status_code == 302
    page = client.get(url(AuditEntry, "change", newest(person).pk))
    assert group.name in text(page)


def test_command_names_the_login():
    api_key, _ = factories.make_key()
    call("apikey", "disable", api_key.pk)
    call("limit", "add", "--key", api_key.pk, "requests/day", "5")
    limit = Limit.objects.get(key=api_key)
    call("limit", "remove", str(limit.pk))
    removed = AuditEntry.objects.filter(team=api_key.team).latest("pk")
    assert removed.action == AuditEntry.Action.DELETE
    assert removed.changes["amount"] == [5, None]
    for entry in (newest(api_key), removed):
        assert (entry.actor, entry.actor_name, entry.via, entry.remote_addr) == (None, login(), "command", None)


def test_address_is_the_one_that_access_goes_by():
    api_key, _ = factories.make_key()
    _, client = staff(api_key.team)
    client.post(page_of(api_key, "disable"), {"reason": "r"}, headers={"X-Forwarded-For": "198.51.100.7"})
    assert newest(api_key).remote_addr == "127.0.0.1"


def test_entries_outlive_what_they_tell_of():
    team = factories.make_team()
    person = factories.make_user(team)
    user, client = superuser()
    client.post(url(User, "delete", person.pk), {"post": "yes"})
    client.post(url(Team, "delete", team.pk), {"post": "yes"})
    user_id = user.pk
    user.delete()
    kept = AuditEntry.objects.filter(team_id=team.pk, action=AuditEntry.Action.DELETE)
    assert [entry.content_type.model for entry in kept.order_by("pk")] == ["membership", "team"]
    _, reader = superuser()
    for entry in kept:
        assert entry.actor_id == user_id
        page = reader.get(url(AuditEntry, "change", entry.pk))
        assert user.username in text(page)
    assert reader.get(LIST).status_code == 200


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE apikeys_auditentry SET actor_name = 'x' WHERE id = %s",
        "DELETE FROM apikeys_auditentry WHERE id = %s",
        "TRUNCATE apikeys_auditentry -- %s",
        "SELECT apikeys_prune_audit(89) -- %s",
    ],
)
def test_database_refuses_to_change_it(statement):
    entry = newest(factories.make_key()[0])
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT set_config('fastgpt.pruning_audit', 'on', true)")
        with pytest.raises(DatabaseError, match="the audit"), transaction.atomic():
            cursor.execute(statement, [entry.pk])
    entry.refresh_from_db()
    assert entry.actor_name == login()


def test_prune():
    api_key, _ = factories.make_key()
    old = AuditEntry.objects.log_create(
        api_key, force_log=True, action=1, timestamp=timezone.now() - timedelta(days=91)
    )
    young = newest(factories.make_key()[0])
    with connection.cursor() as cursor:
        cursor.execute("SELECT apikeys_prune_audit(90)")
        assert cursor.fetchone()[0] >= 1
    assert not AuditEntry.objects.filter(pk=old.pk).exists()
    young.refresh_from_db()
    with pytest.raises(DatabaseError, match="the audit"):
        young.delete()


def test_superusers_cannot_change_it_in_the_admin():
    entry = newest(factories.make_key()[0])
    _, client = superuser()
    assert client.get(url(AuditEntry, "add")).status_code == 403
    assert client.post(url(AuditEntry, "change", entry.pk), {"actor_name": "x"}).status_code == 403
    assert client.post(url(AuditEntry, "delete", entry.pk), {"post": "yes"}).status_code == 403
    form = {"action": "delete_selected", "_selected_action": [entry.pk], "post": "yes"}
    client.post(LIST, form)
    entry.refresh_from_db()
    assert entry.actor_name == login()


def test_without_the_permission():
    team = factories.make_team()
    _, client = staff(team)
    assert client.get(LIST).status_code == 403


def test_filters_and_search():
    team = factories.make_team()
    user, client = staff(team, "apikeys.view_auditentry", "apikeys.view_apikey", "apikeys.change_apikey")
    api_key, _ = factories.make_key(team, owner=user)
    client.post(page_of(api_key, "disable"), {"reason": "r"})
    entry = newest(api_key)

    def shown(**query):
        page = text(client.get(LIST, query))
        return {one.pk for one in AuditEntry.objects.filter(team=team) if url(AuditEntry, "change", one.pk) in page}

    everything = shown()
    assert entry.pk in everything
    for query in (
        {"actor__id__exact": user.pk},
        {"via": "admin"},
        {"kind": "apikeys.apikey", "action": 1},
        {"q": user.username, "kind": "apikeys.apikey", "via": "admin"},
    ):
        assert shown(**query) == {entry.pk}, query
    assert shown(kind="apikeys.team") == {newest(team).pk}
    assert shown(q=api_key.pk) == {one.pk for one in entries(api_key)}
    assert shown(timestamp__gte=(timezone.now() + timedelta(days=1)).isoformat()) == set()


def export(client, form, rows):
    return client.post(LIST, {"action": f"export_{form}", "_selected_action": [row.pk for row in rows]})


def test_export():
    team = factories.make_team()
    foreign = newest(factories.make_key()[0])
    api_key, _ = factories.make_key(team, name="=HYPERLINK(1)")
    _, client = staff(team, *READ)
    entry = newest(api_key)
    response = export(client, "json", [entry, foreign])
    (row,) = json.loads(response.content)
    assert (row["id"], row["kind"], row["object_id"]) == (entry.pk, "apikeys.apikey", api_key.pk)
    assert row["changes"]["name"] == [None, "=HYPERLINK(1)"]
    response = export(client, "csv", [entry, foreign])
    assert 'filename="audit.csv"' in response["Content-Disposition"]
    (row,) = csv.DictReader(io.StringIO(response.content.decode()))
    assert row["object"] == "'=HYPERLINK(1)"
    assert json.loads(row["changes"])["name"] == [None, "=HYPERLINK(1)"]
    quoted, _ = factories.make_key(team, name="'=x")
    (row,) = csv.DictReader(io.StringIO(export(client, "csv", [newest(quoted)]).content.decode()))
    assert row["object"] == "''=x"


def test_export_of_too_many(monkeypatch):
    monkeypatch.setattr(downloads, "MAXIMUM_ROWS", 1)
    api_key, _ = factories.make_key()
    _, client = staff(api_key.team, *READ)
    rows = [newest(api_key), newest(api_key.team)]
    assert export(client, "csv", rows[:1]).status_code == 200
    assert export(client, "csv", rows).status_code == 302
    assert "A file holds at most 1 rows." in text(client.get(LIST))


def test_list_costs_no_query_per_row():
    team = factories.make_team()
    _, client = staff(team, *READ)

    def queries():
        with CaptureQueriesContext(connection) as context:
            assert client.get(LIST).status_code == 200
        return len(context)

    factories.make_key(team)
    few = queries()
    for _ in range(5):
        factories.make_key(team)
    assert queries() == few
