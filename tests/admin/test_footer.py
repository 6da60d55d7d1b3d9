"""Below every page of the admin stands which version made it."""

import pytest
from django.conf import settings

from apikeys.keys.models import ApiKey
from tests.support import factories
from tests.support.pages import browser, text, url


@pytest.mark.parametrize("path", ["/admin/", url(ApiKey, "changelist"), url(ApiKey, "add"), "/admin/password_change/"])
def test_it_works(path):
    page = text(browser(factories.make_user(is_superuser=True)).get(path))
    assert f'<footer class="site-footer">FastGPT API keys {settings.VERSION}</footer>' in page


def test_a_page_in_a_window_of_its_own_has_it_too():
    page = text(browser(factories.make_user(is_superuser=True)).get(url(ApiKey, "changelist") + "?_popup=1"))
    assert f"FastGPT API keys {settings.VERSION}" in page
