"""`core/dataset/collection/create/link`: a collection from a page, which the job fetches."""

from collections.abc import Iterator
from typing import Any

import pytest

from apikeys.outbound.addresses import allowed_networks
from datasets.models import Collection, ImportState, Kind, SourcePiece
from tests.conftest import Server
from tests.support import factories
from tests.support.fake_site import FakeSite
from tests.support.loopback import loopback_allowed
from tests.support.refusals import check_refusal
from tests.support.sources import ROOT, made_by, read, texts_of

PATH = f"{ROOT}/link"


@pytest.fixture(autouse=True)
def loopback() -> Iterator[None]:
    with loopback_allowed("LINK_ALLOWED_NETWORKS"):
        yield


@pytest.fixture(scope="module")
def site() -> Iterator[FakeSite]:
    with FakeSite() as site:
        yield site


def test_it_works(server: Server, site: FakeSite) -> None:
    site.shows("/film", "<title>The film</title><h1>Crew</h1><p>Directed by Ang Lee.</p><script>x</script>")
    dataset = factories.make_dataset()
    _, key = factories.make_key(dataset.team)
    url = f"{site.url}/film"
    collection = made_by(server.post(PATH, key, json={"datasetId": dataset.pk, "link": f" {url} "}))
    assert (collection.name, collection.url, collection.kind) == (url, url, Kind.LINK)
    assert (collection.state, collection.source_format) == (ImportState.WAITING, "")
    assert site.asked == []
    read(collection)
    assert (collection.state, collection.name) == (ImportState.READY, "The film")
    assert texts_of(collection) == [("# Crew\n\nDirected by Ang Lee.", "")]
    assert not SourcePiece.objects.filter(collection=collection).exists()


def test_a_name_of_its_own_stays(server: Server, site: FakeSite) -> None:
    site.shows("/named", "<title>The film</title>x")
    dataset = factories.make_dataset()
    _, key = factories.make_key(dataset.team)
    body = {"datasetId": dataset.pk, "link": f"{site.url}/named", "name": "Mine"}
    assert read(made_by(server.post(PATH, key, json=body))).name == "Mine"


def test_a_page_that_cannot_be_had(server: Server, site: FakeSite) -> None:
    dataset = factories.make_dataset()
    _, key = factories.make_key(dataset.team)
    collection = made_by(server.post(PATH, key, json={"datasetId": dataset.pk, "link": f"{site.url}/absent"}))
    read(collection)
    assert (collection.state, collection.failure) == (
        ImportState.FAILED,
        "The page's server answered with HTTP 404.",
    )


def test_a_page_that_is_not_what_its_type_says(server: Server, site: FakeSite) -> None:
    site.shows("/pdf", "no pdf at all", "application/pdf")
    dataset = factories.make_dataset()
    _, key = factories.make_key(dataset.team)
    collection = read(made_by(server.post(PATH, key, json={"datasetId": dataset.pk, "link": f"{site.url}/pdf"})))
    assert collection.state == ImportState.FAILED
    assert collection.failure


def test_a_page_on_this_machine(server: Server, site: FakeSite, settings: Any) -> None:
    """Networks that operators open for providers are not open for links, which anybody may choose."""
    settings.OUTBOUND_ALLOWED_NETWORKS, settings.LINK_ALLOWED_NETWORKS = ["127.0.0.0/8"], []
    allowed_networks.cache_clear()
    site.shows("/inside", "secret")
    dataset = factories.make_dataset()
    _, key = factories.make_key(dataset.team)
    collection = read(made_by(server.post(PATH, key, json={"datasetId": dataset.pk, "link": f"{site.url}/inside"})))
    assert (collection.state, collection.failure) == (
        ImportState.FAILED,
        "The page is in a private network, from which nothing is fetched.",
    )
    assert "/inside" not in [path for path, _ in site.asked]


@pytest.mark.parametrize(
    "link", ["", "x", "ftp://example.org", "file:///etc/passwd", "http://u:p@example.org", "http://a\0b"]
)
def test_what_is_no_link(server: Server, link: str) -> None:
    dataset = factories.make_dataset()
    _, key = factories.make_key(dataset.team)
    response = server.post(PATH, key, json={"datasetId": dataset.pk, "link": link})
    check_refusal(response, "invalid_parameter", param="link")
    assert not Collection.objects.filter(dataset=dataset).exists()


def test_foreign_datasets(server: Server) -> None:
    _, key = factories.make_key()
    body = {"datasetId": factories.make_dataset().pk, "link": "https://example.org"}
    check_refusal(server.post(PATH, key, json=body), "unAuthDataset")
