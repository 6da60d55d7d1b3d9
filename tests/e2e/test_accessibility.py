"""The admin's pages have no serious or critical fault for axe-core, and their main flows need no mouse."""

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from apikeys.access.rules import EndpointRule
from chat.models import App
from tests.support import factories
from tests.support.pages import ADD, KEY_RIGHTS, url
from tests.support.showcase import Showcase, sign_in

# Maps (rule, part of the element) of faults in Unfold's own templates to the reason why they stay.
UNFOLDS_OWN: dict[tuple[str, str], str] = {}
AXE = Axe().axe_script
SEVERE = {"serious", "critical"}


def faults(page: Page, **options: Any) -> list[str]:
    if page.evaluate("typeof axe") == "undefined":
        page.evaluate(AXE)
    found = page.evaluate("options => axe.run(options)", {"resultTypes": ["violations"], **options})["violations"]
    return [
        f"{fault['id']}: {node['html'][:300]} ({'; '.join(check['message'] for check in node['any'][:1])})"
        for fault in found
        if fault["impact"] in SEVERE
        for node in fault["nodes"]
        if not any(fault["id"] == rule and part in node["html"] for rule, part in UNFOLDS_OWN)
    ]


@pytest.fixture(params=["light", "dark"])
def scheme(request, page: Page) -> str:
    page.emulate_media(color_scheme=request.param, reduced_motion="reduce")
    return request.param


def test_sign_in_page(page: Page, server, scheme):
    page.goto("/admin/login/", wait_until="networkidle")
    assert faults(page) == []


def test_pages(page: Page, server, showcase: Showcase):
    sign_in(page.context, showcase.user, server.url)
    page.emulate_media(reduced_motion="reduce")
    found = {}
    for name, path in showcase.pages().items():
        page.goto(path)
        expect(page.locator("#main")).to_be_visible()
        its_faults = faults(page)
        # Each page is loaded once and then switched to dark, as Unfold's own switch does it. Only colors change.
        page.evaluate("document.documentElement.classList.add('dark')")
        its_faults += faults(page, runOnly=["color-contrast"])
        if its_faults:
            found[name] = its_faults
    assert found == {}


def test_fields_that_are_searched(page: Page, server, showcase: Showcase):
    """With so many teams, fields offer a search instead of a list."""
    for _ in range(55):
        factories.make_team()
    sign_in(page.context, showcase.user, server.url)
    for path in ("/admin/", ADD):
        page.goto(path)
        expect(page.locator(".select2").first).to_be_visible()
        assert faults(page) == []


def test_page_of_a_new_key(page: Page, server, showcase: Showcase, scheme):
    team = factories.make_team()
    sign_in(page.context, factories.make_user(team, permissions=KEY_RIGHTS), server.url)
    page.goto(ADD)
    page.get_by_label("Global key").check()
    page.locator("#id_name").fill("k")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("This is the only time that the key is shown.")).to_be_visible()
    assert faults(page) == []


def test_answer_of_an_app(page: Page, server, provider, showcase: Showcase, scheme):
    app = factories.make_app(showcase.team, factories.make_provider(showcase.team, provider.url), model="markdown")
    sign_in(page.context, showcase.user, server.url)
    page.goto(f"{url(App, 'try')}?app={app.pk}")
    page.get_by_label("Question").fill("a plan")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_have_text("Done.")
    assert faults(page) == []


def reach(page: Page, role: str, name: str) -> None:
    """Press Tab until the element has the focus."""
    wanted = page.get_by_role(role, name=name, exact=True).first
    for _ in range(120):
        if wanted.evaluate("element => element === document.activeElement"):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"the tabulator key does not reach {role} {name!r}")


def test_sign_in_by_keyboard(page: Page, server):
    user = factories.make_user(factories.make_team(), permissions=KEY_RIGHTS)
    page.goto("/admin/")
    page.get_by_label("Username").focus()
    page.keyboard.type(user.username)
    page.keyboard.press("Tab")
    page.keyboard.type(factories.PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_label("BaseURL")).to_be_visible()


def test_key_by_keyboard(page: Page, server):
    team = factories.make_team()
    sign_in(page.context, factories.make_user(team, permissions=KEY_RIGHTS), server.url)
    page.goto(ADD)
    page.get_by_label("Global key").focus()
    page.keyboard.press("Space")
    page.locator("#id_name").focus()
    page.keyboard.type("by keyboard")
    reach(page, "button", "Save")
    page.keyboard.press("Enter")
    expect(page.get_by_text("This is the only time that the key is shown.")).to_be_visible()
    page.locator("#copy-key").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#copy-key")).to_have_text("Copied")


def test_switch_by_keyboard(page: Page, server, showcase: Showcase):
    sign_in(page.context, showcase.user, server.url)
    page.goto(url(EndpointRule, "inventory"))
    try:
        reach(page, "switch", "models.list for: global key")
        page.keyboard.press("Enter")
        expect(page.get_by_text("Closed models.list to: global key.")).to_be_visible()
    finally:
        EndpointRule.objects.all().delete()


def test_try_by_keyboard(page: Page, server, showcase: Showcase):
    sign_in(page.context, showcase.user, server.url)
    page.goto(f"{url(App, 'try')}?app={showcase.app.pk}")
    reach(page, "textbox", "Question")
    page.keyboard.type("hello")
    reach(page, "button", "Send")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_have_text("Done.")


def test_search_and_menus_by_keyboard(page: Page, server, showcase: Showcase):
    sign_in(page.context, showcase.user, server.url)
    page.goto("/admin/")
    page.get_by_role("button", name="Search", exact=True).first.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_placeholder("Type to search")).to_be_focused()
    page.keyboard.press("Escape")
    reach(page, "button", f"Account of {showcase.user.username}")
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="Change password")).to_be_visible()
    log_out = page.get_by_role("button", name="Log out")
    for _ in range(12):
        if not log_out.evaluate("element => element === document.activeElement"):
            page.keyboard.press("Tab")
    expect(log_out).to_be_focused()


def test_menu_and_colors_by_keyboard(page: Page, server, showcase: Showcase):
    sign_in(page.context, showcase.user, server.url)
    page.goto("/admin/")
    link = page.locator("#nav-sidebar").get_by_role("link", name="Keys").first
    reach(page, "button", "Show or hide the menu")
    page.keyboard.press("Enter")
    expect(link).not_to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(link).to_be_in_viewport()
    reach(page, "button", f"Account of {showcase.user.username}")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Dark").focus()
    page.keyboard.press("Enter")
    expect(page.locator("html")).to_have_class("dark")
