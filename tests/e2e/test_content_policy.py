"""The Content-Security-Policy: all pages work under it, and injected scripts do not run."""

import pytest
from playwright.sync_api import Page, expect

from tests.support.pages import ADD
from tests.support.processes import wait_for
from tests.support.showcase import Showcase, sign_in


@pytest.fixture
def violations(page: Page) -> list[str]:
    """Return a list to which the browser's reports of each page are added."""
    found: list[str] = []
    page.expose_function("violated", lambda what: found.append(f"{page.url}: {what}"))
    page.add_init_script(
        "document.addEventListener('securitypolicyviolation',"
        " (event) => violated(`${event.effectiveDirective} ${event.blockedURI} ${event.sourceFile} ${event.sample}`))"
    )
    return found


def test_no_page_violates_it(server, page: Page, showcase: Showcase, violations):
    page.goto("/admin/")
    expect(page.get_by_role("button", name="Log in")).to_be_visible()
    sign_in(page.context, showcase.user, server.url)
    foreign = []
    page.on("request", lambda request: None if request.url.startswith(server.url) else foreign.append(request.url))
    for path in showcase.pages().values():
        page.goto(path)
    # Scripts that act after their page has loaded are waited for once, on the last page.
    page.wait_for_load_state("networkidle")
    assert violations == []
    assert [url for url in foreign if not url.startswith("data:")] == []


def test_what_moves_still_moves(server, page: Page, showcase: Showcase, violations):
    sign_in(page.context, showcase.user, server.url)
    page.goto("/admin/")
    page.keyboard.press("Control+k")
    page.get_by_placeholder("Type to search").press_sequentially("Shop")
    expect(page.get_by_role("link", name="Shop ******").first).to_be_visible()
    page.goto(ADD)
    page.get_by_label("Expires").select_option("date")
    # Django's own calendar and Unfold's user menu have to work.
    page.locator("#calendarlink0").click()
    expect(page.locator("#calendarbox0")).to_be_visible()
    page.keyboard.press("Escape")
    page.locator("#nav-sidebar").get_by_text(showcase.user.username, exact=True).click()
    expect(page.get_by_role("button", name="Log out")).to_be_visible()
    assert violations == []


@pytest.mark.parametrize(
    "injection",
    [
        "const script = document.createElement('script'); script.textContent = 'window.ran = true';"
        " document.body.append(script)",
        "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.ran = true\">')",
        "document.body.insertAdjacentHTML('beforeend',"
        " '<a id=injected href=\"javascript:window.ran = true\">x</a>'); document.getElementById('injected').click()",
    ],
)
def test_injected_script_does_not_run(server, page: Page, showcase: Showcase, violations, injection):
    sign_in(page.context, showcase.user, server.url)
    page.goto("/admin/", wait_until="networkidle")
    page.evaluate(f"() => {{ {injection} }}")
    wait_for(lambda: page.evaluate("() => true") and violations, "the report")
    assert page.evaluate("window.ran") is None


def test_foreign_script_is_not_loaded(server, page: Page, showcase: Showcase, violations):
    sign_in(page.context, showcase.user, server.url)
    page.goto("/admin/", wait_until="networkidle")
    page.evaluate(
        "() => { const s = document.createElement('script'); s.src = 'http://127.0.0.1:9/x.js';"
        " document.head.append(s) }"
    )
    wait_for(lambda: page.evaluate("() => true") and violations, "the report")
    assert "script-src-elem http://127.0.0.1:9/x.js" in violations[0]


def test_headers_outside_the_admin(server):
    for path in ("/healthz", "/api/v1/key", "/no/such/page"):
        policy = server.get(path).headers["content-security-policy"]
        assert policy == "default-src 'none'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'", path
    headers = server.get("/admin/login/").headers
    assert headers["referrer-policy"] == headers["cross-origin-opener-policy"] == "same-origin"
    assert "camera=()" in headers["permissions-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "'unsafe-inline'" not in headers["content-security-policy"].replace("style-src-attr 'unsafe-inline'", "")
