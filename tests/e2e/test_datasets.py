"""Filling a dataset with files in a browser, and searching it."""

import io
import zipfile

import pytest
from playwright.sync_api import Page, expect

from datasets.data import NewDatum, insert
from datasets.models import Collection, Dataset, Datum, Kind
from datasets.vectors import sets
from tests.api.test_collection_create_local_file import MIB, begin_upload, nameless_files
from tests.support import factories
from tests.support.pages import url
from tests.support.processes import wait_for
from tests.support.showcase import sign_in
from tests.support.worker_jobs import work

RIGHTS = tuple(f"datasets.{right}_{model}" for model in ("dataset", "collection", "datum") for right in ("view", "add"))
RIGHTS += ("datasets.change_datum",)
# Files as a browser sends them.
FILM = {"name": "film.md", "mimeType": "text/markdown", "buffer": "# 电影\n\n导演是李安。".encode()}
CAST = {"name": "cast.csv", "mimeType": "text/csv", "buffer": b"q,a\nWho sings?,CoCo Lee\n"}
EMPTY = {"name": "empty.txt", "mimeType": "text/plain", "buffer": b""}
FALSE_PDF = {"name": "false.pdf", "mimeType": "application/pdf", "buffer": b"no pdf at all"}


@pytest.fixture
def dataset():
    return factories.make_dataset()


@pytest.fixture
def user(server, page: Page, dataset):
    user = factories.make_user(dataset.team, permissions=RIGHTS)
    sign_in(page.context, user, server.url)
    return user


def row(page: Page, name: str):
    return page.locator("#import-list li").filter(has_text=name)


def test_it_works(page: Page, user, dataset):
    page.goto(url(Dataset, "change", dataset.pk))
    page.get_by_role("link", name="Import").click()
    expect(page.get_by_text("Nothing has been imported yet.")).to_be_visible()
    page.get_by_label("Choose files, or drop them here").set_input_files([FILM, CAST])
    for name in ("film.md", "cast.csv"):
        expect(row(page, name)).to_contain_text("waiting to be read")
    expect(page.get_by_role("status")).to_have_text("Imported: 0 of 2. Failed: 0.")
    expect(page.get_by_text("Nothing has been imported yet.")).to_be_hidden()
    work(dataset)
    expect(row(page, "film.md")).to_contain_text("1 piece")
    expect(page.get_by_role("status")).to_have_text("Imported: 2 of 2. Failed: 0.")
    expect(row(page, "film.md").get_by_role("progressbar")).to_be_hidden()
    row(page, "cast.csv").get_by_role("link").click()
    page.get_by_role("link", name="Show its data").click()
    expect(page.get_by_role("link", name="Who sings?")).to_be_visible()


def test_a_file_that_the_server_has_no_room_for_is_sent_again(server, page: Page, user, dataset):
    """Two other uploads of the team take up all room."""
    _, key = factories.make_key(dataset.team)
    before = nameless_files(server)
    page.goto(url(Dataset, "import", dataset.pk))
    with begin_upload(server, key, MIB), begin_upload(server, key, MIB):
        wait_for(lambda: nameless_files(server) == before + 2, "both are under way")
        with page.expect_response(lambda response: response.status == 503):
            page.get_by_label("Choose files, or drop them here").set_input_files([FILM])
    expect(row(page, "film.md")).to_contain_text("waiting to be read", timeout=20_000)


def test_what_cannot_be_imported(page: Page, user, dataset):
    page.goto(url(Dataset, "import", dataset.pk))
    page.get_by_label("Choose files, or drop them here").set_input_files([EMPTY, FALSE_PDF, FILM])
    expect(row(page, "empty.txt")).to_contain_text("The file is empty.")
    expect(row(page, "false.pdf")).to_contain_text("The file is no pdf, whatever its name says.")
    expect(row(page, "film.md")).to_contain_text("waiting to be read")
    work(dataset)
    expect(page.get_by_role("status")).to_have_text("Imported: 1 of 3. Failed: 2.")
    assert [one.name for one in dataset.collections.all()] == ["film.md"]


def test_reading_that_fails_is_told(page: Page, user, dataset):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as members:
        members.writestr("other.xml", "<x/>")
    page.goto(url(Dataset, "import", dataset.pk))
    broken = {"name": "broken.docx", "mimeType": "application/zip", "buffer": archive.getvalue()}
    page.get_by_label("Choose files, or drop them here").set_input_files([broken])
    expect(row(page, "broken.docx")).to_contain_text("waiting to be read")
    work(dataset)
    expect(row(page, "broken.docx")).to_contain_text("failed: The file is no docx, whatever its name says.")
    expect(page.get_by_role("status")).to_have_text("Imported: 0 of 1. Failed: 1.")


def test_file_that_is_too_large_is_not_even_sent(page: Page, user, dataset):
    page.goto(url(Dataset, "import", dataset.pk))
    page.evaluate("document.getElementById('import-form').dataset.maximum = 5")
    page.get_by_label("Choose files, or drop them here").set_input_files([FILM])
    expect(row(page, "film.md")).to_contain_text("failed: It is larger than 100.0 MB.".replace(" MB", "\u00a0MB"))
    assert not dataset.collections.exists()


def test_drop(page: Page, user, dataset):
    page.goto(url(Dataset, "import", dataset.pk))
    dropped = page.evaluate_handle(
        """() => {
            const dropped = new DataTransfer();
            for (const name of ["one.txt", "two.txt"]) {
                dropped.items.add(new File([`text of ${name}`], name, { type: "text/plain" }));
            }
            return dropped;
        }"""
    )
    zone = page.locator("#import-zone")
    zone.dispatch_event("dragover", {"dataTransfer": dropped})
    expect(zone).to_have_class("drop-zone over")
    zone.dispatch_event("drop", {"dataTransfer": dropped})
    expect(zone).to_have_class("drop-zone")
    for name in ("one.txt", "two.txt"):
        expect(row(page, name)).to_contain_text("waiting to be read")
    # A file that is dropped beside the zone does nothing; above all it does not replace the page.
    page.locator("body").dispatch_event("drop", {"dataTransfer": dropped})
    expect(page.locator("#import-list li")).to_have_count(2)


def test_folder_and_size_are_for_files_as_well(page: Page, user, dataset):
    folder = factories.make_collection(dataset, kind=Kind.FOLDER)
    page.goto(url(Dataset, "import", dataset.pk))
    page.get_by_label("Folder").select_option(folder.pk)
    page.get_by_label("Chunk size").fill("64")
    page.get_by_label("Choose files, or drop them here").set_input_files([FILM])
    expect(row(page, "film.md")).to_contain_text("waiting to be read")
    made = Collection.objects.get(dataset=dataset, kind=Kind.FILE)
    assert (made.parent, made.chunk_size) == (folder, 64)
    page.get_by_label("Chunk size").fill("5")
    page.get_by_label("Choose files, or drop them here").set_input_files([CAST])
    expect(row(page, "cast.csv")).to_contain_text("failed: chunkSize")


def test_many_at_once(page: Page, user, dataset):
    files = [{**FILM, "name": f"film-{number}.md"} for number in range(12)]
    page.goto(url(Dataset, "import", dataset.pk))
    page.get_by_label("Choose files, or drop them here").set_input_files(files)
    for file in files:
        expect(row(page, f"{file['name']} ")).to_contain_text("waiting to be read")
    work(dataset)
    expect(page.get_by_role("status")).to_have_text("Imported: 12 of 12. Failed: 0.")


def test_text_and_what_is_under_way_when_the_page_is_opened(page: Page, user, dataset):
    page.goto(url(Dataset, "import", dataset.pk))
    page.get_by_label("Name of the text").fill("Notes")
    page.get_by_label("Text", exact=True).fill("Shot in Anhui.")
    page.get_by_role("button", name="Import the text").click()
    expect(row(page, "Notes")).to_contain_text("waiting to be read")
    work(dataset)
    expect(row(page, "Notes")).to_contain_text("1 piece")


def test_removed_meanwhile(page: Page, user, dataset):
    collection = factories.make_collection(dataset, kind=Kind.TEXT, state="waiting")
    page.goto(url(Dataset, "import", dataset.pk))
    expect(row(page, collection.name)).to_be_visible()
    collection.delete()
    expect(row(page, collection.name)).to_have_count(0)


def test_session_is_over(page: Page, user, dataset):
    factories.make_collection(dataset, kind=Kind.TEXT, state="waiting")
    page.goto(url(Dataset, "import", dataset.pk))
    page.context.clear_cookies(name="sessionid")
    expect(page.get_by_role("status")).to_contain_text("Are you still signed in?")
    page.get_by_label("Choose files, or drop them here").set_input_files([FILM])
    expect(row(page, "film.md")).to_contain_text("failed:")
    assert dataset.collections.count() == 1


def test_search(page: Page, user, dataset):
    insert(
        factories.make_collection(dataset, name="The film"), [NewDatum("导演是谁", "李安"), NewDatum("Where?", "Anhui")]
    )
    work(dataset)
    page.goto(url(Dataset, "change", dataset.pk))
    page.get_by_role("link", name="Search test").click()
    page.get_by_label("Question").fill("导演是谁")
    # A server process loads its model at the first search.
    page.set_default_timeout(60_000)
    page.locator("#search-form").get_by_role("button", name="Search").click()
    for title in ("By meaning", "By words", "By both"):
        expect(page.get_by_role("region", name=title).get_by_role("listitem").first).to_contain_text("李安")
    page.set_viewport_size({"width": 390, "height": 844})
    assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")
    page.get_by_role("region", name="By words").get_by_role("link", name="The film, 0").click()
    page.get_by_label("Answer").fill("Ang Lee")
    page.get_by_role("button", name="Save", exact=True).click()
    wait_for(lambda: Datum.objects.filter(dataset=dataset, a="Ang Lee").exists(), "the change")


def test_vectors_that_are_made_anew(page: Page, user, dataset, provider):
    insert(factories.make_collection(dataset), [NewDatum("one"), NewDatum("two")])
    work(dataset)
    sets.change_model(dataset, factories.make_provider(dataset.team, provider.url), "embed")
    page.goto(url(Dataset, "change", dataset.pk))
    expect(page.get_by_text("Vectors of embed are being made")).to_be_visible()
    expect(page.get_by_text("0 of 2")).to_be_visible()
    expect(page.get_by_role("progressbar")).to_have_attribute("value", "0")
    dataset.vector_sets.filter(is_current=True).delete()
    dataset.vector_sets.update(is_current=True)
    for vector_set in dataset.vector_sets.all():
        vector_set.pending.all().delete()
    expect(page.get_by_text("Search uses the vectors of embed.")).to_be_visible()
    expect(page.get_by_role("progressbar")).to_have_count(0)
