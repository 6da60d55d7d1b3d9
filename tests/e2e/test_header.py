"""The header of the admin's pages, and the search for keys from any of them."""

import pytest
from playwright.sync_api import Page, expect

from apikeys.keys.models import ApiKey
from tests.support import factories
from tests.support.pages import KEY_RIGHTS, page_of, url
from tests.support.showcase import Showcase, sign_in


@pytest.mark.parametrize("path", ["/admin/", url(ApiKey, "changelist"), url(ApiKey, "add"), "/admin/password_change/"])
def test_base_url_is_copied(server, page: Page, showcase: Showcase, path):
    sign_in(page.context, showcase.user, server.url)
    page.goto(path)
    expect(page.get_by_text("FastGPT API keys").first).to_be_visible()
    assert page.get_by_label("BaseURL").input_value() == server.base_url
    copy = page.locator("[data-copies=site-base-url]")
    copy.click()
    expect(copy).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == server.base_url


def test_narrow(server, page: Page, showcase: Showcase):
    page.set_viewport_size({"width": 390, "height": 844})
    sign_in(page.context, showcase.user, server.url)
    page.goto("/admin/")
    expect(page.get_by_label("BaseURL")).to_be_in_viewport()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_sign_in_page_has_none(server, page: Page):
    page.goto("/admin/login/")
    expect(page.get_by_label("BaseURL")).to_have_count(0)


def test_search(server, page: Page, showcase: Showcase):
    sign_in(page.context, showcase.user, server.url)
    page.goto("/admin/")
    page.keyboard.press("Control+k")
    page.get_by_placeholder("Type to search").press_sequentially(showcase.shop.pk)
    # The dashboard behind it shows the key's name too, but without its last four.
    expect(page.get_by_role("link", name="Shop ******")).to_be_visible()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{server.url}{page_of(showcase.shop)}")


def test_search_finds_no_key_of_another_team(server, page: Page, showcase: Showcase):
    stranger = factories.make_user(factories.make_team(), permissions=KEY_RIGHTS)
    sign_in(page.context, stranger, server.url)
    page.goto("/admin/")
    page.keyboard.press("Control+k")
    word = showcase.shop.pk
    with page.expect_response(lambda response: f"s={word}" in response.url) as answer:
        page.get_by_placeholder("Type to search").press_sequentially(word)
    assert "No results matching your query" in answer.value.text()
    expect(page.get_by_role("link", name="Shop ******")).to_have_count(0)
