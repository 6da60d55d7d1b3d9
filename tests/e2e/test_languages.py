"""The admin in Simplified Chinese in a browser, and the switch between the languages."""

import gettext
import json
import re
from pathlib import Path
from typing import Any

import pytest
from django.contrib import admin, auth
from django.contrib.auth.models import Group, User
from django.utils.text import capfirst
from playwright.sync_api import Page, expect

from apikeys.access.endpoints import endpoint_names
from apikeys.accounting.ledger import UsageRecord
from apikeys.audit.models import AuditEntry
from apikeys.keys.models import ApiKey
from apikeys.teams import Team
from chat.catalog import CatalogModel, Provider, Route
from chat.models import App, Message
from datasets.models import Collection, Dataset, Datum, VectorSet
from tests.support import factories
from tests.support.pages import LIST, url
from tests.support.showcase import Showcase, sign_in, speak
from tests.support.tenant_rows import make_tenant_rows
from tests.unit.site.test_translations import entries

# Four or more English words in a row are a sentence, not a name.
SENTENCE = re.compile(r"(?:\b[A-Za-z][A-Za-z'\u2019]*[ ,.:;]+){3,}[A-Za-z'\u2019]+")
# These are all texts of a page, also those in closed menus and for screen readers. Code is equal in every language, and
# icons are drawn from their English names.
TEXTS = """() => {
    const texts = [document.title];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const around = walker.currentNode.parentElement;
        if (!around.closest("code, pre, script, style, textarea, .material-symbols-outlined")) {
            texts.push(walker.currentNode.data);
        }
    }
    for (const name of ["title", "aria-label", "placeholder", "alt"]) {
        document.querySelectorAll(`[${name}]`).forEach((element) => texts.push(element.getAttribute(name)));
    }
    return texts;
}"""


def sentences(page: Page) -> list[str]:
    return [found[0] for text in page.evaluate(TEXTS) for found in SENTENCE.finditer(text)]


@pytest.fixture
def superuser():
    return factories.make_user(is_superuser=True)


@pytest.fixture
def chinese(page: Page, server, superuser) -> Page:
    """Return the page of a superuser who has signed in in Chinese."""
    speak(page.context, "zh-hans", server.url)
    page.goto("/admin/")
    page.get_by_label("用户名").fill(superuser.username)
    page.get_by_label("密码").fill(factories.PASSWORD)
    page.get_by_role("button", name="登录").click()
    expect(page.locator("#dashboard")).to_be_visible()
    return page


def test_sign_in_page(page: Page, server):
    speak(page.context, "zh-hans", server.url)
    page.goto("/admin/")
    expect(page.get_by_role("button", name="登录")).to_be_visible()
    assert page.locator("html").get_attribute("lang") == "zh-hans"
    assert sentences(page) == []


def english() -> set[str]:
    """Return the texts that Django or this project's catalog translate."""
    catalogs = [Path(next(iter(module.__path__))) / "locale" / "zh_Hans" / "LC_MESSAGES" for module in (admin, auth)]
    known = {entry.message for entry in entries() if entry.translation.lower() != entry.message.lower()}
    for folder in catalogs:
        with (folder / "django.mo").open("rb") as file:
            messages: Any = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]
        known |= {message for message in messages if isinstance(message, str)}
    return {shown for text in known if re.search("[a-z]{3}", text) for shown in (text, capfirst(text))}


def names() -> list[str]:
    """Return the data that is English in every language, the longest first."""
    found: set[Any] = set(AuditEntry.objects.values_list("object_repr", flat=True)) | set(endpoint_names())
    for model, fields in {
        ApiKey: ("name", "note", "revoked_reason"),
        App: ("name", "intro"),
        CatalogModel: ("name",),
        Route: ("upstream_name",),
        Provider: ("name",),
        Team: ("name",),
        User: ("username",),
        Group: ("name",),
        Message: ("content",),
        # The reasons why an import or a model failed are stored in English.
        Dataset: ("name", "intro"),
        VectorSet: ("model", "failure"),
        Collection: ("name", "url", "failure"),
    }.items():
        for field in fields:
            for value in model._default_manager.values_list(field, flat=True):
                # The content of a message may be a list of parts.
                found |= {value if isinstance(value, str) else json.dumps(value)}
    return sorted((name for name in found if isinstance(name, str) and name), key=len, reverse=True)


def test_pages_show_no_english(page: Page, server, showcase: Showcase):
    """No page shows an English sentence, or a text that is translated elsewhere."""
    speak(page.context, "zh-hans", server.url)
    sign_in(page.context, showcase.user, server.url)
    # Each language is named in itself.
    known, written = english() - {"English"}, names()
    # A dataset may have thousands of rows: those that are no sentence are compared as a whole only.
    whole = {text for pair in Datum.objects.values_list("q", "a") for text in pair}
    data = [text for text in whole if SENTENCE.search(text)]
    whole.update(written)
    written = sorted([*written, *data], key=len, reverse=True)
    found: dict[str, list[str]] = {}
    for name, path in showcase.pages().items():
        page.goto(path)
        expect(page.locator("html")).to_have_attribute("lang", "zh-hans")
        for text in page.evaluate(TEXTS):
            left = text.strip()
            cut = left.removesuffix("...").removesuffix("\u2026").rstrip()
            if left in whole or (cut != left and any(one.startswith(cut) for one in written)):
                continue
            for one in written:
                # A shorter text may be a part of any word.
                left = left.replace(one, "") if len(one) > 3 else left
            if left.strip(" :*") in known or SENTENCE.search(left):
                found.setdefault(left, []).append(name)
    assert found == {}


def test_page_of_a_usage_record(chinese: Page):
    record = make_tenant_rows(factories.make_team())[UsageRecord]
    chinese.goto(url(UsageRecord, "change", record.pk))
    expect(chinese.locator("pre.explanation")).to_contain_text("请求")
    assert sentences(chinese) == []
    assert SENTENCE.findall(chinese.locator("pre.explanation").inner_text()) == []


def test_page_of_a_key(chinese: Page):
    api_key = make_tenant_rows(factories.make_team())[ApiKey]
    chinese.goto(url(ApiKey, "change", api_key.pk))
    expect(chinese.locator("body")).to_contain_text("过期时间")


def switch(page: Page, user, language: str) -> None:
    page.locator("#nav-sidebar-inner").get_by_text(user.username, exact=True).click()
    page.get_by_role("button", name=language).click()


def test_switch(page: Page, superuser):
    page.goto("/admin/")
    page.get_by_label("Username").fill(superuser.username)
    page.get_by_label("Password").fill(factories.PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("link", name="Refusals").first).to_be_visible()
    switch(page, superuser, "简体中文")
    expect(page.get_by_role("link", name="拒绝记录").first).to_be_visible()
    page.goto(LIST)
    expect(page.locator("html")).to_have_attribute("lang", "zh-hans")
    switch(page, superuser, "English")
    expect(page.get_by_role("link", name="Refusals").first).to_be_visible()
    expect(page.locator("html")).to_have_attribute("lang", "en")
