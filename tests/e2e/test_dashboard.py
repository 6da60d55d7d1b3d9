"""The dashboard in a browser, by range and team, without an error or a call to another host."""

import json
import os
import re
from datetime import timedelta
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.utils import timezone
from playwright.sync_api import Page, expect

from apikeys.accounting.limits import Limit
from apikeys.statistics.rollup import roll_up
from apikeys.teams import Membership
from tests.support import factories
from tests.unit.apikeys.statistics.test_rollup import record, refuse, use

RIGHTS = tuple(f"apikeys.view_{name}" for name in ("usagerecord", "refusal", "apikey", "limit", "alert"))
# Pictures of the page are written to this folder, if it is set.
SHOTS = os.environ.get("SCREENSHOTS")


@pytest.fixture
def teams():
    first, second = (factories.make_team() for _ in range(2))
    for team, count in ((first, 400), (second, 150)):
        for number in range(3):
            key, _ = factories.make_key(app=factories.make_app(team), expires_at=timezone.now() + timedelta(days=9))
            use(key, count // (number + 1), span=timedelta(days=9))
            record(key, timezone.now() - timedelta(seconds=1), app=key.app, completion_tokens=1234567)
        refuse(key, timezone.now() - timedelta(hours=1), 10)
        Limit.objects.create(team=team, key=key, measure="requests", period="total", amount=100)
    roll_up()
    return first, second


@pytest.fixture
def user(teams, page: Page):
    user = factories.make_user(teams[0], permissions=RIGHTS)
    Membership.objects.create(team=teams[1], user=user)
    sign_in(page, user)
    return user


def sign_in(page: Page, user):
    page.goto("/admin/")
    page.get_by_label("Username").fill(user.username)
    page.get_by_label("Password").fill(factories.PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("#dashboard")).to_be_visible()


def drawn(page: Page, plot: str) -> int:
    """How many bars the plot has, as Chart.js knows it."""
    chart = f"Chart.getChart(document.querySelector('#{plot} canvas'))"
    page.wait_for_function(chart)
    return page.evaluate(f"{chart}.data.labels.length")


def shoot(page: Page, name: str) -> None:
    if SHOTS:
        page.screenshot(path=str(Path(SHOTS) / f"{name}.png"), full_page=True)


def test_it_works(page: Page, user):
    expect(page.locator("[data-figure=Requests]")).to_be_visible()
    assert (drawn(page, "by-hour"), drawn(page, "by-day")) == (24, 7)
    for theme in ("light", "dark"):
        page.evaluate(f"document.documentElement.classList.toggle('dark', {json.dumps(theme == 'dark')})")
        for width in (1440, 390):
            page.set_viewport_size({"width": width, "height": 900})
            shoot(page, f"staff-{theme}-{width}")
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (theme, width)


def test_range_and_team_are_kept_in_the_address(page: Page, user, teams):
    page.get_by_role("link", name="30 days", exact=True).click()
    expect(page).to_have_url(re.compile(r"range=30d"))
    assert (drawn(page, "by-hour"), drawn(page, "by-day")) == (24, 30)
    page.get_by_label("Team").select_option(label=teams[1].name)
    page.get_by_role("button", name="Show", exact=True).click()
    expect(page).to_have_url(re.compile(rf"range=30d&team={teams[1].pk}"))
    page.get_by_role("link", name="7 days").click()
    expect(page).to_have_url(re.compile(rf"range=7d&team={teams[1].pk}"))
    assert (drawn(page, "by-hour") - 6 * 24, drawn(page, "by-day")) == (timezone.now().hour + 1, 7)
    expect(page.get_by_label("Team")).to_have_value(teams[1].pk)
    page.get_by_role("link", name="12 months").click()
    assert drawn(page, "by-day") in (365, 366)


def test_a_plot_as_a_table(page: Page, user):
    table = page.locator("#by-day table")
    expect(table).to_be_hidden()
    page.locator("#by-day summary").focus()
    page.keyboard.press("Enter")
    expect(table).to_be_visible()
    cells = table.locator("tbody td").all_inner_texts()
    assert sum(int(cell.replace(",", "")) for cell in cells) > 100


def test_task_leads_to_its_list(page: Page, user):
    page.get_by_role("link", name="Budgets used to 80% or more").click()
    expect(page).to_have_url(re.compile("nearly_used_up=yes"))
    expect(page.get_by_text("100 requests in total").first).to_be_visible()


def test_nothing_comes_from_elsewhere_and_nothing_complains(page: Page, user, server):
    hosts, complaints = set(), []
    page.on("request", lambda request: hosts.add(request.url.split("/")[2]))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.goto("/admin/?range=7d")
    expect(page.locator("#by-hour canvas")).to_be_visible()
    assert hosts == {server.url.removeprefix("http://")}
    assert complaints == []


def test_site_for_superusers(page: Page, teams):
    sign_in(page, factories.make_user(is_superuser=True))
    expect(page.locator("#site")).to_contain_text("server process")
    shoot(page, "superuser")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_everybody_can_read_it(page: Page, user, theme: str):
    page.emulate_media(color_scheme=theme)
    page.reload()
    page.locator("#by-day summary").click()
    results = Axe().run(page, "#dashboard")
    assert results.violations_count == 0, results.generate_report()
