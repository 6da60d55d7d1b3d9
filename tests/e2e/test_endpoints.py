"""A switch on the page of endpoints acts on real calls, in every server process and within a second."""

import pytest
from playwright.sync_api import Browser, Page, expect

from apikeys.access.rules import EndpointRule
from tests.conftest import running_server
from tests.support import factories
from tests.support.pages import url
from tests.support.processes import wait_for
from tests.support.showcase import Showcase, sign_in

PAGE = url(EndpointRule, "inventory")


@pytest.fixture
def rules():
    """Delete the rules afterwards, since they apply to the keys of every test."""
    yield
    EndpointRule.objects.all().delete()


def test_it_works(server, page: Page, showcase: Showcase, rules, tmp_path):
    _, key = factories.make_key(showcase.team, owner=showcase.user)
    sign_in(page.context, showcase.user, server.url)
    with running_server(tmp_path / "log") as other:

        def statuses() -> list[int]:
            return [each.get("/api/core/app/list", key).status_code for each in (server, other)]

        assert statuses() == [200, 200]
        page.goto(PAGE)
        switch = page.get_by_role("switch", name="app.list for: global key", exact=True)
        expect(switch).to_be_checked()
        switch.click()
        expect(page.get_by_text("Closed app.list to: global key.")).to_be_visible()
        wait_for(lambda: statuses() == [403, 403], "both processes refuse", seconds=1)
        expect(switch).not_to_be_checked()
        switch.press("Space")
        expect(page.get_by_text("Opened app.list to: global key.")).to_be_visible()
        wait_for(lambda: statuses() == [200, 200], "both processes accept", seconds=1)


def test_without_scripts(server, chromium: Browser, showcase: Showcase, rules):
    with chromium.new_context(base_url=server.url, java_script_enabled=False) as context:
        sign_in(context, showcase.user, server.url)
        page = context.new_page()
        page.goto(PAGE)
        page.get_by_role("switch", name="models.list for: global key", exact=True).click()
        assert EndpointRule.objects.get(endpoint="models.list").denied_kinds == ["global"]
