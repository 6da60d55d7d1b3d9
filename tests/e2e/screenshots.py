"""`make screenshots` writes every page of the admin to `screenshots/`, by language, wide and narrow, light and dark.

Chinese needs a font: on Debian, apt-get install fonts-wqy-zenhei
"""

import pytest
from playwright.sync_api import Browser

from tests.environment import PROJECT
from tests.support.showcase import Showcase, sign_in, speak

FOLDER = PROJECT / "screenshots"
WIDTHS = (1440, 390)


@pytest.mark.parametrize("language", ["en", "zh-hans"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_screenshots(chromium: Browser, server, showcase: Showcase, width, scheme, language):
    folder = FOLDER / language
    folder.mkdir(parents=True, exist_ok=True)
    context = chromium.new_context(
        base_url=server.url, viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
    )
    speak(context, language, server.url)
    page = context.new_page()
    page.goto("/admin/login/")
    page.screenshot(path=folder / f"sign_in-{width}-{scheme}.png", full_page=True)
    sign_in(context, showcase.user, server.url)
    too_wide = []
    for name, path in showcase.pages().items():
        response = page.goto(path)
        assert response is not None
        assert response.status == 200, path
        page.screenshot(path=folder / f"{name.replace(' ', '_')}-{width}-{scheme}.png", full_page=True)
        if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            too_wide.append(name)
    context.close()
    assert too_wide == []
