"""The admin in Simplified Chinese, as a browser shows it, and the switch between the languages."""

import re

import pytest
from playwright.sync_api import Page, expect

from apikeys.models import ApiKey
from apikeys.usage import Refusal, UsageRecord
from chat.models import App, Conversation, Provider
from tests import factories
from tests.admin.belongings import make_belongings
from tests.admin.pages import ADD, LIST, url

# So many English words in a row are a sentence, not a name.
SENTENCE = re.compile(r"(?:\b[A-Za-z][A-Za-z'\u2019]*[ ,.:;]+){3,}[A-Za-z'\u2019]+")
# All that a page says, also in menus that are closed and to screen readers. Code is the same in every language.
TEXTS = """() => {
    const texts = [document.title];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        if (!walker.currentNode.parentElement.closest("code, pre, script, style, textarea")) {
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


def speak_chinese(page: Page, server) -> None:
    page.context.add_cookies([{"name": "django_language", "value": "zh-hans", "url": server.url}])


@pytest.fixture
def superuser():
    return factories.make_user(is_superuser=True)


@pytest.fixture
def chinese(page: Page, server, superuser) -> Page:
    """Signed in, in Chinese."""
    speak_chinese(page, server)
    page.goto("/admin/")
    page.get_by_label("用户名").fill(superuser.username)
    page.get_by_label("密码").fill(factories.PASSWORD)
    page.get_by_role("button", name="登录").click()
    expect(page.locator("#dashboard")).to_be_visible()
    return page


def test_sign_in_page(page: Page, server):
    speak_chinese(page, server)
    page.goto("/admin/")
    expect(page.get_by_role("button", name="登录")).to_be_visible()
    assert page.locator("html").get_attribute("lang") == "zh-hans"
    assert sentences(page) == []


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/admin/", "用量"),
        (LIST, "末四位"),
        (ADD, "允许的接口"),
        (url(UsageRecord, "changelist"), "用量记录"),
        (url(Refusal, "changelist"), "拒绝记录"),
        (url(Conversation, "changelist"), "对话"),
        *[(f"/admin/{path}/", shown) for path, shown in [("apikeys/limit", "限额"), ("chat/app", "供应商")]],
        *[(f"/admin/{path}/add/", shown) for path, shown in [("apikeys/limit", "时区"), ("chat/provider", "密钥")]],
    ],
)
def test_pages_show_no_english_sentence(chinese: Page, path, shown):
    make_belongings(factories.make_team())
    chinese.goto(path)
    expect(chinese.locator("body")).to_contain_text(shown)
    # What other tests named in English is no text of ours.
    names = [name for model in (App, Provider) for name in model.objects.values_list("name", flat=True)]
    assert [found for found in sentences(chinese) if not any(found in name for name in names)] == []


def test_page_of_a_usage_record(chinese: Page):
    record = make_belongings(factories.make_team())[UsageRecord]
    chinese.goto(url(UsageRecord, "change", record.pk))
    expect(chinese.locator("pre.explanation")).to_contain_text("请求")
    assert sentences(chinese) == []
    assert SENTENCE.findall(chinese.locator("pre.explanation").inner_text()) == []


def test_page_of_a_key(chinese: Page):
    api_key = make_belongings(factories.make_team())[ApiKey]
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
