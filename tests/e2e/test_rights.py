"""The audit, the sign-in and reauthentication, in a browser."""

import time

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.contrib.sessions.backends.db import SessionStore
from playwright.sync_api import Page, expect

from apikeys.audit.models import AuditEntry
from apikeys.sign_in.reauthentication import ENTERED_AT, RECENT_SECONDS
from tests.support import factories
from tests.support.pages import ADD, KEY_RIGHTS, url

LIST = url(AuditEntry, "changelist")


@pytest.fixture
def team():
    return factories.make_team()


@pytest.fixture
def user(team, page: Page):
    user = factories.make_user(team, permissions=(*KEY_RIGHTS, "apikeys.view_auditentry"))
    sign_in(page, user.username, factories.PASSWORD)
    expect(page.get_by_role("link", name="Audit").first).to_be_visible()
    return user


def sign_in(page: Page, name: str, password: str) -> None:
    page.goto("/admin/")
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()


def grow_stale(page: Page) -> None:
    (cookie,) = [cookie for cookie in page.context.cookies() if cookie["name"] == "sessionid"]
    session = SessionStore(cookie["value"])
    session[ENTERED_AT] = int(time.time()) - RECENT_SECONDS - 1
    session.save()


def check_accessible(page: Page) -> None:
    # The frame around the content is equal on every page, and is checked elsewhere.
    found = Axe().run(page, context="#content", options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]})
    assert found.response["violations"] == [], found.generate_report()


def test_audit(page: Page, team, user):
    api_key, _ = factories.make_key(team, owner=user, note="for the shop")
    page.goto(LIST)
    expect(page.get_by_text(api_key.name).first).to_be_visible()
    check_accessible(page)
    page.get_by_label("Search").or_(page.locator("#searchbar")).first.fill(api_key.pk)
    page.keyboard.press("Enter")
    page.locator("#result_list tbody a").first.click()
    expect(page.get_by_text("for the shop")).to_be_visible()
    check_accessible(page)


def test_password_is_asked_for_and_then_it_goes_on(page: Page, team, user):
    page.goto(ADD)
    grow_stale(page)
    page.get_by_label("Name:", exact=True).or_(page.locator("#id_name")).first.fill("kept while asked")
    page.get_by_label("Global key").check()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("more than 15 minutes ago")).to_be_visible()
    with page.expect_popup() as opened:
        page.get_by_role("link", name="Enter your password in another tab").click()
    other = opened.value
    other.get_by_label("Password").fill(factories.PASSWORD)
    check_accessible(other)
    other.get_by_role("button", name="Continue").click()
    expect(other.get_by_text("Go back to the form")).to_be_visible()
    other.close()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("This is the only time that the key is shown.")).to_be_visible()
    grow_stale(page)
    page.goto(ADD)
    page.get_by_label("Password").fill(factories.PASSWORD)
    page.get_by_role("button", name="Continue").click()
    expect(page.locator("#id_name")).to_be_visible()


def test_sign_in_is_slowed(page: Page, team):
    user = factories.make_user(team)
    slowed, refused = page.get_by_text("Too many attempts to sign in."), page.get_by_text("Please enter the correct")
    # The delay grows until it is longer than the browser takes for an attempt.
    for _ in range(12):
        sign_in(page, user.username, "wrong")
        expect(slowed.or_(refused)).to_be_visible()
        if slowed.is_visible():
            break
    else:
        pytest.fail("nobody was slowed")
