"""The page on which staff talk to an app."""

import pytest
from playwright.sync_api import Page, expect

from apikeys.accounting.ledger import UsageRecord
from chat.models import App, Conversation
from tests.support import factories
from tests.support.pages import url
from tests.support.processes import wait_for
from tests.support.showcase import sign_in

PAGE = url(App, "try")


@pytest.fixture
def team():
    return factories.make_team()


@pytest.fixture
def user(server, page: Page, team):
    user = factories.make_user(team, permissions=("chat.view_app", "chat.try_app"))
    sign_in(page.context, user, server.url)
    return user


def make_app(team, provider, model: str) -> App:
    return factories.make_app(team, factories.make_provider(team, provider.url), model=model)


def ask(page: Page, app: App, question: str) -> None:
    page.goto(f"{PAGE}?app={app.pk}")
    page.get_by_label("Question").fill(question)
    page.get_by_role("button", name="Send").click()


def test_it_works(page: Page, user, team, provider):
    app = make_app(team, provider, "echo")
    question = factories.unique("what")
    page.goto("/admin/")
    page.get_by_role("link", name="Try it").click()
    page.get_by_label("App").select_option(app.pk)
    page.get_by_label("Question").fill(question)
    page.keyboard.press("Enter")
    answers = page.locator(".try-message.assistant .try-text")
    expect(answers).to_have_text(f"1 messages, the last: {question}")
    expect(page.get_by_role("status")).to_have_text("Done.")
    expect(page.get_by_role("cell", name="AI Chat")).to_be_visible()
    events = page.locator("#try-events").inner_text()
    assert "event: flowNodeStatus" in events
    assert "event: flowResponses" in events
    assert "[DONE]" in events
    # The history of the conversation is sent with a question, until a new one is begun.
    page.get_by_label("Question").fill("and?")
    page.get_by_role("button", name="Send").click()
    expect(answers.last).to_have_text("3 messages, the last: and?")
    page.get_by_role("button", name="New conversation").click()
    expect(answers).to_have_count(0)
    # A trial is charged to nobody, and is not stored.
    assert not UsageRecord.objects.filter(app=app).exists()
    assert not Conversation.objects.filter(app=app).exists()


def test_stop(page: Page, user, team, provider):
    app = make_app(team, provider, "slow")
    question = factories.unique("long")
    ask(page, app, question)
    expect(page.locator(".try-text").get_by_text("word3")).to_be_visible()
    assert question not in provider.left_at
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("status")).to_have_text("Stopped.")
    wait_for(lambda: question in provider.left_at, "the provider's call is ended", seconds=5)
    expect(page.get_by_role("button", name="Send")).to_be_enabled()


def test_markdown_is_safe(page: Page, user, team, provider):
    app = make_app(team, provider, "markdown")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    ask(page, app, "a plan")
    expect(page.get_by_role("status")).to_have_text("Done.")
    answer = page.locator(".try-text").last
    expect(answer.get_by_role("heading", name="A plan")).to_be_visible()
    expect(answer.locator("li strong")).to_have_text("bold")
    expect(answer.locator("li code")).to_have_text("code <b>")
    expect(answer.get_by_role("link", name="a page")).to_have_attribute("href", "https://example.org/?a=1")
    expect(answer.get_by_role("link", name="a trap")).to_have_count(0)
    expect(answer.locator("blockquote")).to_contain_text('said <img src=x onerror="window.ran=1">')
    expect(answer.locator("pre")).to_have_text("<script>window.ran = 1</script>")
    expect(answer.locator("img, script")).to_have_count(0)
    assert page.evaluate("window.ran") is None
    assert [url for url in asked if "example.org" in url] == []


@pytest.mark.parametrize(("opened", "count"), [("[", 60_000), ("**a ", 30_000), ("_a ", 60_000), ("[a](", 500)])
def test_markdown_that_is_never_closed_is_quick(page: Page, user, opened, count):
    page.goto(PAGE)
    script = page.locator("script[src*='chat/try']").get_attribute("src").replace("try.js", "markdown.js")
    took, shown = page.evaluate(
        """async ([script, text]) => {
            const { render } = await import(script);
            const begun = performance.now();
            const shown = render(text).textContent.length;
            return [performance.now() - begun, shown];
        }""",
        [script, opened * count],
    )
    assert shown == len(opened) * count
    # It would take much longer if the text were searched to its end for each of them.
    assert took < 2_000


@pytest.mark.parametrize(
    ("model", "complaint"), [("status_500", "The model"), ("error_event", "The model"), ("half", "The model")]
)
def test_provider_fails(page: Page, user, team, provider, model, complaint):
    ask(page, make_app(team, provider, model), "hello")
    expect(page.get_by_role("alert")).to_contain_text(complaint)
    assert provider.url not in page.content()


def test_session_is_over(page: Page, user, team, provider):
    app = make_app(team, provider, "echo")
    page.goto(f"{PAGE}?app={app.pk}")
    page.context.clear_cookies(name="sessionid")
    page.get_by_label("Question").fill("hello")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("alert")).to_have_text("You are no longer signed in. Reload this page.")
