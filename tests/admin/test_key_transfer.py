"""Export and import of keys."""

import csv
import io
import json

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from apikeys.audit.models import AuditEntry
from apikeys.keys.models import ApiKey
from apikeys.lifecycle import import_file
from tests.admin.test_fresh_password import enter, grow_stale
from tests.support import factories
from tests.support.pages import KEY_RIGHTS, LIST, browser, hidden, page_of, staff, text

EXPORT, IMPORT = reverse("admin:apikeys_apikey_export"), reverse("admin:apikeys_apikey_import")


@pytest.fixture
def team():
    return factories.make_team()


@pytest.fixture
def client(team):
    return staff(team)[1]


def upload(client, content, **fields):
    file = SimpleUploadedFile("keys", content if isinstance(content, bytes) else content.encode())
    return client.post(IMPORT, {"file": file, **fields})


def digest_of(page):
    return page.partition('name="digest" value="')[2].partition('"')[0]


def import_all(client, content):
    """Send the file, then confirm its plan."""
    page = text(upload(client, content))
    assert digest_of(page), page
    return upload(client, content, digest=digest_of(page))


def rows_of(response):
    return list(csv.DictReader(io.StringIO(response.content.decode(), newline="")))


def test_export_and_import_changes_nothing(team, client):
    api_key, key = factories.make_key(
        app=factories.make_app(team),
        name="=SUM(A1)",
        note="two\nlines, and a comma",
        allowed_networks=["192.0.2.0/24", "2001:db8::/32"],
        allowed_models=["one", "two"],
        expires_at="2099-01-02T03:04Z",
    )
    factories.make_key(team, name="'=text", can_name_app=True)
    for file_format in ("csv", "json"):
        response = client.get(EXPORT, {"format": file_format})
        content = response.content.decode()
        assert 'filename="keys.' in response["Content-Disposition"]
        assert api_key.pk in content
        assert key not in content
        assert bytes(api_key.secrets.get().digest).hex() not in content
        page = text(upload(client, content))
        assert "0 new, 0 changed, 0 errors" in page
        assert "Nothing would change." in page
    names = {row["name"] for row in rows_of(client.get(EXPORT, {"format": "csv"}))}
    assert names == {"'=SUM(A1)", "''=text"}


def test_export_of_what_is_filtered_and_of_what_is_chosen(team, client):
    one, other = factories.make_key(team)[0], factories.make_key(team)[0]
    assert [row["id"] for row in rows_of(client.get(EXPORT, {"format": "csv", "q": one.name}))] == [one.pk]
    chosen = client.post(LIST, {"action": "export_json", "_selected_action": [other.pk]})
    assert [row["id"] for row in json.loads(chosen.content)] == [other.pk]
    assert f"{EXPORT}?q={one.name}&format=csv" in text(client.get(LIST, {"q": one.name}))


@pytest.mark.parametrize(
    "query", [{"nonsense": "1"}, {"created_at__gte": "foo"}, {"owner__id__exact": "abc"}, {"name__regex": "("}]
)
def test_export_of_what_cannot_be_filtered(team, client, query):
    # With a single owner there would be no filter by owners.
    for _ in range(2):
        factories.make_key(team)
    response = client.get(EXPORT, {"format": "csv", **query})
    assert (response.status_code, response["Location"].partition("?")[0]) == (302, LIST)


def test_export_leaves_nothing_on_the_admin(team, client):
    """All requests share the model admin, so a request that is kept there would lend its user to the next."""
    keys_admin = admin.site.get_model_admin(ApiKey)
    before = dict(vars(keys_admin))
    client.get(EXPORT, {"format": "csv"})
    assert vars(keys_admin) == before


def test_export_costs_the_same_for_many(team, client):
    counts = []
    for _ in range(2):
        for _ in range(3):
            factories.make_key(app=factories.make_app(team))
        with CaptureQueriesContext(connection) as queries:
            client.get(EXPORT, {"format": "csv"})
        counts.append(len(queries))
    assert counts[0] == counts[1]


def test_nothing_foreign_is_exported(client):
    foreign, _ = factories.make_key()
    for query in ({}, {"q": foreign.name}, {"team__id__exact": foreign.team_id}):
        assert foreign.pk not in client.get(EXPORT, {"format": "csv", **query}).content.decode()
    chosen = {"action": "export_csv", "_selected_action": [foreign.pk], "select_across": "1"}
    assert foreign.pk not in client.post(LIST, chosen, follow=True).content.decode()


def test_import_makes_a_key_that_must_be_rotated(team, client):
    app = factories.make_app(team)
    owner = factories.make_user(team)
    content = (
        f"name,owner,app,allowed_endpoints,expires_at\nshop,{owner.username},{app.name},chat.completions,2099-01-02\n"
    )
    page = text(upload(client, content))
    assert "1 new, 0 changed, 0 errors" in page
    assert "chat.completions" in page
    for told in (f"team: <ins>{team.name}</ins>", f"app: <ins>{app.name}</ins>", "kind: <ins>app key</ins>"):
        assert told in page
    assert not ApiKey.objects.filter(team=team).exists()
    response = upload(client, content, digest=digest_of(page))
    assert response["Location"] == LIST
    api_key = ApiKey.objects.get(team=team)
    assert (api_key.name, api_key.app, api_key.owner) == ("shop", app, owner)
    assert api_key.why_unusable == "It has no secret; rotate it to get one."
    assert "It has no secret; rotate it to get one." in text(client.get(page_of(api_key)))
    assert LogEntry.objects.get(object_id=api_key.pk).change_message == "Imported."
    entry = AuditEntry.objects.get(object_pk=api_key.pk)
    assert (entry.action, entry.via, entry.team) == (AuditEntry.Action.CREATE, "admin", team)
    assert (entry.changes["name"], entry.changes["app"]) == ([None, "shop"], [None, app.name])
    rotate = page_of(api_key, "rotate")
    form = {"overlap": "0", "replacing": hidden(client.get(rotate).content.decode(), "replacing")}
    assert "This is the only time" in text(client.post(rotate, form))
    api_key.refresh_from_db()
    assert api_key.why_unusable is None


def test_import_changes_a_key(team, client):
    api_key, _ = factories.make_key(team, allowed_models=["one"], note="kept")
    old_name = api_key.name
    rows = [{"id": api_key.pk, "name": "renamed", "allowed_models": ["one", "two"], "can_name_app": True}]
    page = text(upload(client, json.dumps(rows)))
    assert "0 new, 1 changed, 0 errors" in page
    assert f"<del>{api_key.name}</del>" in page
    upload(client, json.dumps(rows), digest=digest_of(page))
    api_key.refresh_from_db()
    assert (api_key.name, api_key.allowed_models, api_key.can_name_app) == ("renamed", ["one", "two"], True)
    assert api_key.note == "kept"
    message = LogEntry.objects.get(object_id=api_key.pk).change_message
    assert message == "Changed by an import: name, can_name_app, allowed_models."
    changes = AuditEntry.objects.filter(object_pk=api_key.pk).latest("pk").changes
    assert set(changes) == {"name", "can_name_app", "allowed_models"}
    assert changes["name"] == [old_name, "renamed"]


def test_what_was_shown_is_what_is_done(team, client):
    api_key, _ = factories.make_key(team)
    content = json.dumps([{"id": api_key.pk, "note": "new"}])
    digest = digest_of(text(upload(client, content)))
    ApiKey.objects.filter(pk=api_key.pk).update(note="other")
    assert "Something has changed since the preview" in text(upload(client, content, digest=digest))
    api_key.refresh_from_db()
    assert api_key.note == "other"
    assert "Something has changed since the preview" in text(upload(client, content, digest="made up"))


@pytest.mark.parametrize("what", ["team", "app"])
def test_new_key_is_made_where_it_was_shown(team, what):
    """A name may belong to another row by the time the file is sent again."""
    user = factories.make_user(team, is_superuser=True)
    client = browser(user)
    app = factories.make_app(team)
    row = {"team": team.name, "owner": user.username, "name": "x", "app": app.name}
    if what == "team":
        del row["app"]
    digest = digest_of(text(upload(client, json.dumps([row]))))
    for taken in (team,) if what == "team" else (app,):
        name, taken.name = taken.name, factories.unique("other")
        taken.save()
    other = factories.make_team(name=name) if what == "team" else factories.make_app(team, name=name).team
    other.members.add(user)
    assert "Something has changed since the preview" in text(upload(client, json.dumps([row]), digest=digest))
    assert not ApiKey.objects.filter(team__in=[team, other]).exists()


def test_one_wrong_line_imports_nothing(team, client):
    api_key, _ = factories.make_key(team)
    content = f"id,name\n{api_key.pk},renamed\n{'0' * 24},x\n"
    page = text(upload(client, content))
    assert digest_of(page) == ""
    assert '<td>3</td><td>id</td><td class="bad">There is no such key.</td>' in page
    upload(client, content, digest="x")
    api_key.refresh_from_db()
    assert api_key.name != "renamed"


def test_foreign_key_answers_like_an_absent_one(client):
    foreign, _ = factories.make_key()
    pages = [text(upload(client, json.dumps([{"id": key_id, "name": "x"}]))) for key_id in (foreign.pk, "0" * 24)]
    assert all("There is no such key." in page for page in pages)
    assert foreign.name not in pages[0]


@pytest.mark.parametrize("what", ["team", "app", "owner"])
def test_foreign_rows_answer_like_absent_ones(team, client, what):
    foreign, _ = factories.make_key(app=factories.make_app(factories.make_team()))
    value = {"team": foreign.team.name, "app": foreign.app_id, "owner": foreign.owner.username}[what]
    said = []
    for wanted in (value, "nowhere"):
        row = {"name": "x", "owner": factories.make_user(team).username, what: wanted}
        said.append(text(upload(client, json.dumps([row]))).partition('class="bad">')[2].partition("<")[0])
    assert said[0] == said[1] != ""


@pytest.mark.parametrize(
    ("row", "column", "complaint"),
    [
        ({"name": ""}, "name", "This field cannot be blank."),
        ({"name": "x" * 101}, "name", "at most 100 characters"),
        ({"name": 7}, "name", "It must be text."),
        ({"expires_at": "soon"}, "expires_at", "It must be a time"),
        ({"expires_at": "9999-12-31T23:59:59-05:00"}, "expires_at", "must be in the years 2000 to 9998"),
        ({"expires_at": "9999-12-31T23:59:59Z"}, "expires_at", "must be in the years 2000 to 9998"),
        ({"expires_at": "0001-01-01T00:00:00+14:00"}, "expires_at", "must be in the years 2000 to 9998"),
        ({"can_name_app": "perhaps"}, "can_name_app", "It must be true or false."),
        ({"allowed_networks": ["home"]}, "allowed_networks", "is not a network in CIDR notation"),
        ({"allowed_networks": 7}, "allowed_networks", "It must be a list of strings."),
        ({"allowed_endpoints": ["no.such"]}, "allowed_endpoints", "There is no endpoint no.such."),
        ({"team": "elsewhere"}, "team", "A key cannot change its team."),
        ({"app": "other"}, "app", "A key cannot change its app."),
        ({"owner": "nobody"}, "owner", "The owner must be a member of the team."),
    ],
)
def test_wrong_cell_is_named(team, client, row, column, complaint):
    api_key, _ = factories.make_key(team)
    page = text(upload(client, json.dumps([{"id": api_key.pk, **row}])))
    assert f"<td>1</td><td>{column}</td>" in page
    assert complaint in page


def test_revoked_key_and_a_key_twice(team, client):
    api_key, _ = factories.make_key(team)
    assert "It appears in the file twice." in text(upload(client, json.dumps([{"id": api_key.pk}] * 2)))
    api_key.revoke(by="ann", reason="leaked")
    assert "A revoked key cannot be changed." in text(upload(client, json.dumps([{"id": api_key.pk}])))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"\xff\xfe", "The file is not UTF-8 text."),
        ("name\n", "The file has no rows."),
        ("name,secret\nx,y\n", "Line 1: unknown columns: secret."),
        ("name,name\nx,y\n", "Line 1: a column appears twice."),
        ("name,note\nx,y\nz\n", "Line 3 has 1 cells, but the first line has 2."),
        ('name\n"x\n', "is not valid CSV"),
        ("[{]", "The file is not valid JSON"),
        ("{}", "JSON must be a list of objects."),
        ("name\nx\0\n", "The file contains NUL characters"),
        ('[{"name": "x\\u0000"}]', "The file contains NUL characters"),
        ('[{"id": "\\ud800"}]', "or incomplete characters."),
        ('[{"\\udfff": "x"}]', "or incomplete characters."),
        ("[" * 5_000 + "]" * 5_000, "The file is not valid JSON"),
        ("name\n" + "x\n" * 5001, "The file has more than 5000 rows."),
        ("name\n" + "x" * import_file.MAXIMUM_BYTES, "The file is larger than 5 MB."),
    ],
)
def test_unreadable_file(client, content, complaint):
    assert complaint in text(upload(client, content))


def test_no_file(client):
    assert "Choose the file." in text(client.post(IMPORT))


def test_queries_do_not_grow_with_rows(team, client):
    counts = []
    for number in (2, 20):
        rows = [{"id": factories.make_key(team)[0].pk, "note": "new"} for _ in range(number)]
        with CaptureQueriesContext(connection) as queries:
            assert f"{number} changed" in text(upload(client, json.dumps(rows)))
        counts.append(len(queries))
    assert counts[0] == counts[1]


@pytest.mark.parametrize("right", ["add", "change"])
def test_each_row_needs_its_permission(team, right):
    user, client = staff(team, "apikeys.view_apikey", f"apikeys.{right}_apikey")
    api_key, _ = factories.make_key(team)
    row = {"id": api_key.pk, "name": "x"} if right == "add" else {"name": "x", "owner": user.username}
    page = text(upload(client, json.dumps([row])))
    assert ("There is no such key." if right == "add" else "You may not create keys.") in page


def test_without_the_permission(team):
    _, client = staff(team, "apikeys.view_apikey")
    assert IMPORT not in text(client.get(LIST))
    assert client.get(IMPORT).status_code == 403
    assert upload(client, "name\nx\n").status_code == 403
    _, client = staff(team, *[right for right in KEY_RIGHTS if right != "apikeys.view_apikey"][:1])
    assert client.get(EXPORT, {"format": "csv"}).status_code == 403


def test_stale_password_imports_nothing_that_widens(team, client):
    api_key, _ = factories.make_key(team, allowed_networks=["192.0.2.0/24"])
    grow_stale(client)
    import_all(client, json.dumps([{"id": api_key.pk, "allowed_networks": ["192.0.2.7/32"]}]))
    api_key.refresh_from_db()
    assert api_key.allowed_networks == ["192.0.2.7/32"]
    wider = json.dumps([{"id": api_key.pk, "allowed_networks": []}])
    page = text(import_all(client, wider))
    assert 'href="/admin/confirm_password/"' in page
    assert "Something has changed since the preview" not in page
    api_key.refresh_from_db()
    assert api_key.allowed_networks == ["192.0.2.7/32"]
    enter(client)
    import_all(client, wider)
    api_key.refresh_from_db()
    assert api_key.allowed_networks == []
