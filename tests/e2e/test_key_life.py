"""The life of a key, seen by an administrator in a browser and by its holder over HTTP."""

import re

import pytest
from django.urls import reverse
from playwright.sync_api import Error, Page, Route, expect

from apikeys.admin.keys.bulk import PORTION
from apikeys.keys import crypto
from apikeys.keys.models import ApiKey
from tests.support import factories
from tests.support.pages import ADD, KEY_RIGHTS, LIST, page_of
from tests.support.processes import wait_for


@pytest.fixture
def team():
    return factories.make_team()


@pytest.fixture
def user(team, page: Page):
    """Return staff of the team, signed in through the form."""
    user = factories.make_user(team, permissions=KEY_RIGHTS)
    page.goto("/admin/")
    page.get_by_label("Username").fill(user.username)
    page.get_by_label("Password").fill(factories.PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("#dashboard")).to_be_visible()
    return user


def make_key(page: Page, team, user, name: str) -> str:
    """Make a key through the form; return the plaintext that is shown."""
    page.goto(ADD)
    page.get_by_label("Global key").check()
    page.get_by_label("Name", exact=False).first.fill(name)
    page.get_by_role("button", name="Save").click()
    return shown_key(page)


def shown_key(page: Page) -> str:
    expect(page.get_by_text("This is the only time that the key is shown.")).to_be_visible()
    key = page.locator("#new-key").input_value()
    assert crypto.is_ours(key)
    return key


def status(server, key: str) -> int:
    return server.get("/api/v1/key", key).status_code


def wait_for_refusal(server, key: str) -> str:
    """Return the error code once the key is refused. Servers learn it in milliseconds, so two seconds are plenty."""
    wait_for(lambda: status(server, key) == 401, "the key is refused", seconds=2)
    return server.get("/api/v1/key", key).json()["error"]["code"]


def test_it_works(server, page: Page, team, user):
    key = make_key(page, team, user, "for the shop")
    answer = server.get("/api/v1/key", key)
    assert answer.status_code == 200
    assert answer.json()["data"]["name"] == "for the shop"
    assert page.locator("#base-url").input_value() == f"{server.url}/api"
    assert key in page.locator("#curl").input_value()


def test_copy_button(page: Page, team, user):
    key = make_key(page, team, user, "k")
    page.locator("#copy-key").click()
    expect(page.locator("#copy-key")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == key
    # The curl command is copied with its line breaks.
    page.locator("[data-copies=curl]").click()
    expect(page.locator("[data-copies=curl]")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == page.locator("#curl").input_value()


def test_copy_button_without_a_clipboard(page: Page, team, user):
    """A page over plain HTTP from another machine has no clipboard API; the button falls back to the old one."""
    key = make_key(page, team, user, "k")
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('no')) }")
    page.locator("#copy-key").click()
    expect(page.locator("#copy-key")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == key


def test_form_shows_what_is_needed(page: Page, team, user):
    page.goto(ADD)
    app, date, names = (page.locator(f".field-{name}") for name in ("app", "expires_at", "can_name_app"))
    expect(app).to_be_visible()
    expect(date).to_be_hidden()
    page.get_by_label("Global key").check()
    expect(app).to_be_hidden()
    page.get_by_text("Limits", exact=True).last.click()
    expect(names).to_be_visible()
    page.get_by_label("App key").check()
    expect(names).to_be_hidden()
    page.get_by_label("Expires").select_option("date")
    expect(date).to_be_visible()


def test_snippets_in_tabs(page: Page, team, user):
    key = make_key(page, team, user, "k")
    expect(page.get_by_role("tabpanel")).to_have_count(1)
    page.get_by_role("tab", name="curl").focus()
    for name in ("python", "javascript", "fastgpt"):
        page.keyboard.press("ArrowRight")
        expect(page.locator(f"#{name}")).to_be_visible()
        assert key in page.locator(f"#{name}").input_value()
    expect(page.locator("#curl")).to_be_hidden()
    page.keyboard.press("Home")
    expect(page.locator("#curl")).to_be_visible()


def leave_and_confirm(page: Page) -> list[str]:
    """Leave the page, accept its dialog, and return the kinds of dialogs that opened."""
    asked: list[str] = []

    def accept(dialog):
        asked.append(dialog.type)
        dialog.accept()

    page.once("dialog", accept)
    page.goto("/admin/")
    return asked


def test_leaving_without_the_key_asks(page: Page, team, user):
    make_key(page, team, user, "k")
    page.locator("[data-copies=base-url]").click()
    assert leave_and_confirm(page) == ["beforeunload"]


@pytest.mark.parametrize("field", ["new-key", "curl"])
def test_leaving_with_the_key_does_not_ask(page: Page, team, user, field):
    make_key(page, team, user, "k")
    page.locator(f"[data-copies={field}]").click()
    expect(page.locator(f"[data-copies={field}]")).to_have_text("Copied")
    assert leave_and_confirm(page) == []


def test_a_key_that_was_copied_before_the_page_was_ready_does_not_ask(page: Page, team, user):
    held: list[Route] = []
    page.route("**/shown_once*.js", lambda route: held.append(route))
    make_key(page, team, user, "k")
    page.locator("#copy-key").click()
    expect(page.locator("#copy-key")).to_have_text("Copied")
    held[0].continue_()
    page.wait_for_load_state()
    assert leave_and_confirm(page) == []


def test_key_is_in_no_storage_of_the_browser(page: Page, team, user):
    key = make_key(page, team, user, "k")
    page.locator("#copy-key").click()
    expect(page.locator("#copy-key")).to_have_text("Copied")
    stored = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, history.state])")
    assert key not in stored
    assert key not in page.url


def test_reload_makes_no_second_key(page: Page, team, user):
    key = make_key(page, team, user, "k")
    # The browser sends the form again, as if a person had confirmed its question.
    page.reload()
    api_key = ApiKey.objects.get(team=team)
    expect(page).to_have_url(re.compile(re.escape(page_of(api_key)) + "$"))
    expect(page.get_by_text("which was shown once")).to_be_visible()
    assert key not in page.content()
    assert api_key.secrets.count() == 1


def test_going_back_shows_no_key(page: Page, team, user):
    make_key(page, team, user, "k")
    page.get_by_role("link", name="I have stored it").click()
    expect(page.get_by_role("link", name="Rotate")).to_be_visible()
    # No cache has the page, so Chromium asks whether to send the form again instead of showing it.
    with pytest.raises(Error, match="ERR_CACHE_MISS"):
        page.go_back()
    expect(page.locator("#new-key")).to_have_count(0)
    assert ApiKey.objects.filter(team=team).count() == 1


def test_rotate(server, page: Page, team, user):
    old = make_key(page, team, user, "k")
    page.get_by_role("link", name="I have stored it").click()
    page.get_by_role("link", name="Rotate").click()
    page.get_by_label("The old secret expires").select_option(label="after 1 hour")
    page.get_by_role("button", name="Rotate").click()
    new = shown_key(page)
    assert new != old
    assert (status(server, old), status(server, new)) == (200, 200)
    page.get_by_role("link", name="I have stored it").click()
    page.get_by_role("link", name="Rotate").click()
    page.get_by_role("button", name="Rotate").click()
    newest = shown_key(page)
    assert wait_for_refusal(server, new) == wait_for_refusal(server, old) == "rotated_api_key"
    assert status(server, newest) == 200


def test_disable_and_enable(server, page: Page, team, user):
    key = make_key(page, team, user, "k")
    page.get_by_role("link", name="I have stored it").click()
    page.get_by_role("link", name="Disable").click()
    page.get_by_label("Reason").fill("under suspicion")
    page.get_by_role("button", name="Disable").click()
    expect(page.get_by_text("It is disabled.").first).to_be_visible()
    assert wait_for_refusal(server, key) == "disabled_api_key"
    page.get_by_role("link", name="Enable").click()
    page.get_by_role("button", name="Enable").click()
    wait_for(lambda: status(server, key) == 200, "the key is accepted again", seconds=2)
    page.get_by_role("link", name="History").click()
    expect(page.get_by_text("Disabled. Reason: under suspicion")).to_be_visible()


def test_revoke(server, page: Page, team, user):
    key = make_key(page, team, user, "k")
    assert status(server, key) == 200
    page.get_by_role("link", name="I have stored it").click()
    page.get_by_role("link", name="Revoke").click()
    page.get_by_role("button", name="Revoke").click()
    expect(page.get_by_text("This field is required.").first).to_be_visible()
    assert status(server, key) == 200
    page.get_by_label("Reason").fill("leaked")
    page.get_by_label("Type the name of the key to confirm").fill("something else")
    page.get_by_role("button", name="Revoke").click()
    expect(page.get_by_text("This is not the name of the key.")).to_be_visible()
    assert status(server, key) == 200
    page.get_by_label("Type the name of the key to confirm").fill("k")
    page.get_by_role("button", name="Revoke").click()
    expect(page.get_by_text("It was revoked.").first).to_be_visible()
    assert wait_for_refusal(server, key) == "revoked_api_key"
    expect(page.get_by_role("link", name="Rotate")).to_have_count(0)


def test_import_is_shown_before_it_is_done(page: Page, team, user, tmp_path):
    file = tmp_path / "keys.csv"
    file.write_text(f"name,owner\nshop,{user.username}\n")
    page.goto(reverse("admin:apikeys_apikey_import"))
    page.locator("input[type=file]").set_input_files(file)
    page.get_by_role("button", name="Preview the changes").click()
    expect(page.get_by_text("1 new, 0 changed, 0 errors")).to_be_visible()
    assert not ApiKey.objects.filter(team=team).exists()
    page.get_by_role("button", name="Import it").click()
    expect(page.get_by_text("Imported: 1 new keys")).to_be_visible()
    assert ApiKey.objects.get(team=team).name == "shop"


def test_bulk_change_in_portions(page: Page, team, user):
    for _ in range(60):
        factories.make_key(team, owner=user)
    page.goto(LIST)
    page.locator("#action-toggle").check()
    page.locator("select[name=action]").select_option(label="Disable")
    page.get_by_role("button", name="Run").click()
    page.get_by_label("Reason").fill("spring cleaning")
    page.get_by_role("button", name="Disable").click()
    expect(page.locator("#bulk-lines tr")).to_have_count(60, timeout=30_000)
    assert page.locator("#bulk-progress").evaluate("bar => bar.value === bar.max")
    assert not ApiKey.objects.filter(team=team, disabled_at=None).exists()


def test_narrowing_to_what_it_uses(server, page: Page, team, user):
    """The endpoints that its holder called still work; the others are refused within two seconds."""
    key = make_key(page, team, user, "shop")
    assert server.get("/api/core/app/list", key).status_code == 200
    api_key = ApiKey.objects.get(team=team)
    wait_for(lambda: api_key.usage.exists(), "the record", seconds=10)
    page.goto(page_of(api_key))
    page.get_by_role("link", name="Narrow").click()
    expect(page.get_by_label("app.list", exact=True)).to_be_checked()
    expect(page.get_by_label("key.self (its use is not recorded)")).to_be_checked()
    expect(page.get_by_label("embeddings.create (not used)")).not_to_be_checked()
    page.get_by_label("models.list (its use is not recorded)").uncheck()
    expect(page.get_by_label("Networks")).to_have_value("127.0.0.1/32")
    page.get_by_role("button", name="Narrow").click()
    narrowed = "Narrowed to app.list, billing.subscription, billing.usage, key.self, from 127.0.0.1/32."
    expect(page.get_by_text(narrowed).first).to_be_visible()
    wait_for(lambda: server.get("/api/v1/models", key).status_code == 403, "the refusal", seconds=2)
    assert status(server, key) == 200
    expect(page.get_by_label("Allowed networks")).to_have_value("127.0.0.1/32")


def test_duplicating_a_key(server, page: Page, team, user):
    """The new key equals the old one except for its name and its secret."""
    app = factories.make_app(team)
    old, old_key = factories.make_key(
        team, app, user, name="old", note="Of the shop.", allowed_endpoints=["chat.completions", "key.self"]
    )
    page.goto(page_of(old))
    page.get_by_role("link", name="Duplicate").click()
    expect(page.locator("#id_note")).to_have_value("Of the shop.")
    page.locator("#id_name").fill("new")
    page.get_by_role("button", name="Save").click()
    key = shown_key(page)
    new = ApiKey.objects.get(team=team, name="new")
    assert key != old_key
    assert (new.app_id, new.note, new.allowed_endpoints) == (app.pk, old.note, old.allowed_endpoints)
    assert (status(server, key), status(server, old_key)) == (200, 200)


def test_bulk_run_that_stops_goes_on(page: Page, team, user):
    """A portion that does not arrive stops the run. Sent again, the run does the rest, and nothing twice."""
    for number in range(PORTION + 5):
        factories.make_key(team, None, user, name=f"k{number}")
    page.goto(LIST)
    page.locator("#action-toggle").check()
    page.locator("select[name=action]").select_option(label="Disable")
    page.get_by_role("button", name="Run").click()
    page.get_by_label("Reason").fill("The contract ended.")
    sent = []

    def lose_the_second(route: Route) -> None:
        sent.append(route.request)
        route.abort() if len(sent) == 2 else route.continue_()

    page.route("**/bulk/disable/", lose_the_second)
    page.get_by_role("button", name="Disable").click()
    expect(page.get_by_text("It stopped here.")).to_be_visible()
    assert ApiKey.objects.filter(team=team).exclude(disabled_at=None).count() == PORTION
    expect(page.locator("#bulk-lines tr")).to_have_count(PORTION)
    page.get_by_role("button", name="Disable").click()
    expect(page.locator("#bulk-lines tr")).to_have_count(PORTION + 5)
    assert not ApiKey.objects.filter(team=team, disabled_at=None).exists()
    assert len(sent) == 3
    expect(page.get_by_role("button", name="Disable")).to_be_disabled()
