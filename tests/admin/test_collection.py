"""Collections in the admin: lists with their progress, collections entered by hand, folders, deletion."""

import re
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
from asgiref.sync import async_to_sync
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from apikeys.audit.models import AuditEntry
from apikeys.hot_path.connections import connect
from datasets.data import NewDatum, insert
from datasets.folders import MAXIMUM_DEPTH
from datasets.models import Collection, Dataset, Datum, ImportState, Kind
from datasets.vectors import sets
from tests.support import factories
from tests.support.locks import is_waited_for
from tests.support.pages import FilledForm, browser, staff, text, url
from tests.support.processes import wait_for

RIGHTS = tuple(
    f"datasets.{right}_{model}" for model in ("collection", "datum") for right in ("view", "add", "change", "delete")
)
RIGHTS += ("datasets.view_dataset",)
LIST, ADD = url(Collection, "changelist"), url(Collection, "add")


@pytest.fixture
def dataset():
    return factories.make_dataset()


@pytest.fixture
def client(dataset):
    return staff(dataset.team, *RIGHTS)[1]


def make_folder(dataset, parent=None):
    return factories.make_collection(dataset, kind=Kind.FOLDER, parent=parent)


def fill(collection, count):
    insert(collection, [NewDatum(f"q{number}") for number in range(count)])


def cells_of(page, collection):
    """Return a collection's cells in the list, by column."""
    (row,) = [row for row in re.findall(r"<tr.*?</tr>", page, re.DOTALL) if f"/{collection.pk}/change/" in row]
    cells = re.findall(r'<t[dh] class="field-(\w+)[^>]*>(.*?)</t[dh]>', row, re.DOTALL)
    return {name: re.sub(r"<[^>]*>", "", cell).strip() for name, cell in cells}


def test_it_works(dataset, client):
    folder = make_folder(dataset)
    assert folder.name in text(client.get(f"{ADD}?dataset={dataset.pk}"))
    form = {"its_dataset": dataset.pk, "kind": "virtual", "name": "By hand", "parent": folder.pk}
    assert client.post(ADD, form).status_code == 302
    collection = Collection.objects.get(dataset=dataset, kind=Kind.VIRTUAL)
    assert (collection.name, collection.parent, collection.state) == ("By hand", folder, ImportState.READY)
    page = text(client.get(url(Collection, "change", collection.pk)))
    assert f"?collection__id__exact={collection.pk}" in page
    assert f"{url(Datum, 'add')}?collection={collection.pk}" in page
    assert AuditEntry.objects.filter(object_pk=collection.pk, team=dataset.team).count() == 1


def test_dataset_in_the_address_is_chosen(dataset, client):
    page = client.get(f"{ADD}?dataset={dataset.pk}").content.decode()
    assert FilledForm(page, "collection_form").fields["its_dataset"] == [dataset.pk]
    for other in (factories.make_dataset().pk, "x", "0" * 24):
        page = client.get(f"{ADD}?dataset={other}").content.decode()
        assert FilledForm(page, "collection_form").fields["its_dataset"] == [""]


def test_list_tells_how_far_each_is(dataset, client):
    filled, failed = (
        factories.make_collection(dataset),
        factories.make_collection(dataset, kind=Kind.FILE, state=ImportState.FAILED, failure="The file is encrypted."),
    )
    waiting = factories.make_collection(dataset, kind=Kind.FILE, state=ImportState.WAITING)
    fill(filled, 3)
    page = text(client.get(LIST))
    assert [cells_of(page, filled)[name] for name in ("state_", "data", "waiting")] == ["ready", "3", "3"]
    assert cells_of(page, failed)["state_"] == "failed: The file is encrypted."
    assert [cells_of(page, waiting)[name] for name in ("state_", "data", "waiting")] == ["waiting", "0", "1"]
    async_to_sync(sets.embed_pending)(dataset.pk)
    assert cells_of(text(client.get(LIST)), filled)["waiting"] == "0"
    page = text(client.get(url(Collection, "change", failed.pk)))
    assert "The file is encrypted." in page


def test_list_by_dataset(dataset, client):
    own = factories.make_collection(dataset)
    other = factories.make_collection(factories.make_dataset(dataset.team))
    page = text(client.get(LIST, {"dataset__id__exact": dataset.pk}))
    assert own.name in page
    assert other.name not in page


def test_queries_do_not_grow_with_rows(dataset, client):
    numbers = []
    for count in (2, 6):
        for _ in range(count):
            fill(factories.make_collection(dataset, parent=make_folder(dataset)), count)
        with CaptureQueriesContext(connection) as queries:
            assert client.get(LIST).status_code == 200
        numbers.append(len(queries))
    assert numbers[0] == numbers[1]


def test_change(dataset, client):
    collection, folder = factories.make_collection(dataset), make_folder(dataset)
    form = {
        "name": "renamed",
        "parent": folder.pk,
        "its_dataset": factories.make_dataset(dataset.team).pk,
        "kind": "file",
    }
    assert client.post(url(Collection, "change", collection.pk), form).status_code == 302
    after = Collection.objects.get(pk=collection.pk)
    assert (after.name, after.parent, after.dataset, after.kind) == ("renamed", folder, dataset, Kind.VIRTUAL)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"name": ""}, "This field is required."),
        ({"name": "x" * 201}, "at most 200 characters"),
        ({"name": "a\u202eb"}, "Give a name without control characters."),
        ({"kind": "file"}, "file is not one of the available choices"),
        ({"its_dataset": "foreign"}, "not one of the available choices"),
        ({"its_dataset": "x"}, "not one of the available choices"),
        ({"parent": "foreign folder"}, "not one of the available choices"),
        ({"parent": "no folder"}, "not one of the available choices"),
        ({"parent": "folder of another dataset"}, "The folder belongs to another dataset."),
    ],
)
def test_wrong_field(dataset, client, fields, complaint):
    rows = {
        "foreign": factories.make_dataset,
        "foreign folder": lambda: make_folder(factories.make_dataset()),
        "no folder": lambda: factories.make_collection(dataset),
        "folder of another dataset": lambda: make_folder(factories.make_dataset(dataset.team)),
    }
    fields = {name: rows[value]().pk if value in rows else value for name, value in fields.items()}
    form = {"its_dataset": dataset.pk, "kind": "folder", "name": "new", **fields}
    assert complaint in text(client.post(ADD, form))
    assert not Collection.objects.filter(dataset=dataset, name="new").exists()


def test_folder_in_itself(dataset, client):
    outer = make_folder(dataset)
    middle = make_folder(dataset, outer)
    inner = make_folder(dataset, middle)
    for parent, complaint in (
        (outer, "not one of the available choices"),
        (inner, "A folder cannot be inside itself, or inside more"),
    ):
        form = {"name": outer.name, "parent": parent.pk}
        assert complaint in text(client.post(url(Collection, "change", outer.pk), form))
    assert Collection.objects.get(pk=outer.pk).parent is None


def test_folders_that_would_be_too_deep(dataset, client):
    folder = None
    for _ in range(MAXIMUM_DEPTH):
        folder = make_folder(dataset, folder)
    form = {"its_dataset": dataset.pk, "name": "new", "parent": folder.pk}
    assert "or inside more than 20 others" in text(client.post(ADD, form | {"kind": "folder"}))
    assert client.post(ADD, form | {"kind": "virtual"}).status_code == 302


def test_folders_that_somehow_lie_in_each_other(dataset, client):
    one = make_folder(dataset)
    other = make_folder(dataset, one)
    Collection.objects.filter(pk=one.pk).update(parent=other)
    third = make_folder(dataset)
    form = {"name": third.name, "parent": one.pk}
    assert client.post(url(Collection, "change", third.pk), form).status_code == 302
    assert "Collections: 3" in re.sub(r"\s+", " ", text(client.get(url(Collection, "delete", one.pk))))


def test_delete_a_folder_with_all_in_it(dataset, client):
    outer = make_folder(dataset)
    inner = factories.make_collection(dataset, parent=make_folder(dataset, outer))
    fill(inner, 4)
    page = re.sub(r"\s+", " ", text(client.get(url(Collection, "delete", outer.pk))))
    assert "Collections: 3" in page
    assert "Data: 4" in page
    assert client.post(url(Collection, "delete", outer.pk), {"post": "yes"}).status_code == 302
    assert not Collection.objects.filter(dataset=dataset).exists()
    assert not Datum.objects.filter(dataset=dataset).exists()


@pytest.mark.parametrize("path", ["changelist", "delete"])
def test_delete_beside_another_removal(dataset, client, path):
    """It waits for the dataset before it takes anything that the other may come to need."""
    folder = make_folder(dataset)
    inside = factories.make_collection(dataset, parent=folder)
    form = {"post": "yes", "action": "delete_selected", "_selected_action": [folder.pk, inside.pk]}
    address = LIST if path == "changelist" else url(Collection, "delete", folder.pk)

    def remove():
        try:
            return client.post(address, form)
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            Dataset.objects.select_for_update(no_key=True).get(pk=dataset.pk)
            removal = pool.submit(remove)
            wait_for(lambda: is_waited_for(connection), "the removal waits")
            assert len(Collection.objects.filter(dataset=dataset).select_for_update(nowait=True)) == 2
            inside.delete()
        assert removal.result().status_code == 302
    assert not Collection.objects.filter(dataset=dataset).exists()


def test_parent_that_goes_while_the_form_is_sent(dataset, client):
    """The form is looked at once more, and says what is wrong with it."""
    collection, folder = factories.make_collection(dataset), make_folder(dataset)
    is_removed = Event()

    def remove() -> None:
        with connect() as other, other.transaction():
            other.execute("DELETE FROM datasets_collection WHERE id = %s", [folder.pk])
            is_removed.set()
            wait_for(lambda: is_waited_for(other), "the form waits for it")

    with ThreadPoolExecutor(1) as pool:
        removed = pool.submit(remove)
        assert is_removed.wait(30)
        response = client.post(url(Collection, "change", collection.pk), {"name": "x", "parent": folder.pk})
        removed.result()
    assert "not one of the available choices" in text(response)


def test_who_may_only_view(dataset):
    collection = factories.make_collection(dataset)
    _, client = staff(dataset.team, "datasets.view_collection")
    page = text(client.get(url(Collection, "change", collection.pk)))
    assert collection.name in page
    assert "Show its data" not in page
    for path in (ADD, url(Collection, "change", collection.pk), url(Collection, "delete", collection.pk)):
        assert client.post(path, {"name": "x", "post": "yes"}).status_code == 403


def test_superuser_sees_all(dataset):
    collection = factories.make_collection(dataset)
    client = browser(factories.make_user(is_superuser=True))
    assert collection.name in text(client.get(LIST, {"q": collection.name}))
