"""The dashboard shows figures of the ledger, for the viewer's teams alone."""

import json
import re
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apikeys.accounting.ledger import KeyActivity
from apikeys.accounting.limits import Counter, Limit
from apikeys.accounting.reconciliation import Reconciliation
from apikeys.accounting.recording import Usage
from apikeys.admin.scope import MAXIMUM_CHOICES
from apikeys.alerts import expiry
from apikeys.alerts.deliveries import Delivery
from apikeys.hot_path.connections import connect
from apikeys.hot_path.servers import ServerProcess
from apikeys.jobs import roll_up as roll_up_and_recompute
from apikeys.object_ids import new_object_id
from apikeys.statistics import sums
from apikeys.statistics.leaders import Leaderboard
from apikeys.statistics.rollup import BEHIND, HOUR, roll_up
from apikeys.teams import Membership, Team
from fastgpt_site.admin import tasks
from tests.commands.test_jobs import make_alert
from tests.support import factories
from tests.support.flushes import write
from tests.support.pages import browser, staff, text
from tests.support.tenant_rows import make_tenant_rows
from tests.unit.apikeys.statistics.test_rollup import record, refuse, start_over, use

PAGE = "/admin/"
RIGHTS = tuple(f"apikeys.view_{name}" for name in ("usagerecord", "refusal", "apikey", "limit", "alert"))


@pytest.fixture(autouse=True)
def ledger():
    """Start with nothing rolled up, since records that a test backdates would be late."""
    start_over()
    Leaderboard.objects.all().delete()


@pytest.fixture
def team():
    return factories.make_team()


@pytest.fixture
def api_key(team):
    return factories.make_key(team)[0]


def figures_of_today(page: str) -> dict[str, str]:
    found = re.findall(r'data-figure="([^"]*)">.*?<p class="figure font-semibold[^>]*>([^<]*)<', page, re.DOTALL)
    return {title: number.strip() for title, number in found}


def figures_of_a_week_ago(page: str) -> dict[str, str]:
    found = re.findall(r'data-figure="([^"]*)">.*?a week ago:\s*([\d.,]+|none)', page, re.DOTALL)
    return dict(found)


def plot(page: str, step: str) -> dict[str, list[int]]:
    data = re.search(rf'id="by-{step}".*?data-value="(.*?)" data-options', page, re.DOTALL)
    return {one["label"]: one["data"] for one in json.loads(data[1])["datasets"]}


def first_ten(page: str, group: str) -> list[str]:
    """Return the rows of the three tables of keys or apps, each as name and figure."""
    section = page.partition(f'<section aria-label="{group}">')[2].partition("</section>")[0]
    items = re.findall(r"<li[^>]*>(.*?)</li>", section, re.DOTALL)
    return [" ".join(re.sub(r"<[^>]*>", " ", item).split()) for item in items]


def just_now(api_key, count: int = 1, **fields) -> None:
    for _ in range(count):
        record(api_key, sums.today_begins(timezone.now()), **fields)


def test_it_works(team, api_key):
    app = factories.make_app(team)
    just_now(api_key, 3, prompt_tokens=1000, completion_tokens=500, cost_micropoints=1_500_000, app=app)
    just_now(api_key, outcome="failed")
    refuse(api_key, sums.today_begins(timezone.now()), 10)
    _, client = staff(team, *RIGHTS, "chat.view_app")
    # The first round reads the ledger, the second the roll-ups.
    for _ in range(2):
        page = text(client.get(PAGE))
        assert figures_of_today(page) == {
            "Requests": "4",
            "Tokens": "4,500",
            "Points": "4.50",
            "Refusals": "10",
            "Error rate": "25.0%",
        }
        assert plot(page, "day")["complete"] == [0, 0, 0, 0, 0, 0, 3]
        assert plot(page, "day")["refused"] == [0, 0, 0, 0, 0, 0, 10]
        assert sum(map(sum, plot(page, "hour").values())) == 14
        assert first_ten(page, "Keys") == [f"{api_key} {team} {figure}" for figure in ("4", "4,500", "4.50")]
        assert first_ten(page, "Apps") == [f"{app} {team} {figure}" for figure in ("3", "4,500", "4.50")]
        roll_up()


def test_today_is_compared_with_the_same_time_a_week_ago(team, api_key):
    now = timezone.now()
    a_week_ago = sums.a_week_before(now)
    midnight = sums.today_begins(a_week_ago)
    for moment in (midnight, a_week_ago - timedelta(milliseconds=1)):
        record(api_key, moment, cost_micropoints=2_000_000)
    # These are of the day before, and of later that day.
    for moment in (midnight - timedelta(seconds=1), a_week_ago + timedelta(minutes=10)):
        record(api_key, moment)
    just_now(api_key, 4)
    _, client = staff(team, *RIGHTS)
    for _ in range(2):
        page = text(client.get(PAGE))
        assert figures_of_today(page)["Requests"] == "4"
        assert figures_of_a_week_ago(page)["Requests"] == "2"
        assert figures_of_a_week_ago(page)["Points"] == "4"
        assert "(+100.0%)" in " ".join(page.split())
        roll_up()


@pytest.mark.parametrize(("range_", "hours", "days"), [("24h", 24, 7), ("7d", 0, 7), ("30d", 24, 30), ("12m", 24, 365)])
def test_ranges(team, api_key, range_, hours, days):
    span = sums.Span(range_)
    start = span.start(timezone.now())
    for moment in (start, start - timedelta(seconds=1)):
        record(api_key, moment, completion_tokens=7)
    _, client = staff(team, *RIGHTS)
    for _ in range(2):
        Leaderboard.objects.all().delete()
        page = text(client.get(PAGE, {"range": range_}))
        by_day = plot(page, "day")["complete"]
        assert len(by_day) in (days, days + (range_ == "12m"))
        assert len(plot(page, "hour")["complete"]) == hours or 144 < len(plot(page, "hour")["complete"]) <= 168
        assert first_ten(page, "Keys")[0] == f"{api_key} {team} 1"
        if range_ != "24h":
            assert by_day[0] == sum(by_day) == 1
        else:
            assert sum(plot(page, "hour")["complete"]) == plot(page, "hour")["complete"][0] == 1
        roll_up()


def test_an_unknown_range_is_a_day(team):
    _, client = staff(team, *RIGHTS)
    assert '<a href="?range=24h" aria-current="true"' in text(client.get(PAGE, {"range": "x'y"}))


def test_each_team_alone_and_all_of_the_viewer(team, api_key):
    second, foreign = factories.make_team(), factories.make_team()
    other, _ = factories.make_key(second)
    strange, _ = factories.make_key(foreign)
    for key, count in ((api_key, 1), (other, 2), (strange, 4)):
        just_now(key, count)
    user, client = staff(team, *RIGHTS)
    Membership.objects.create(team=second, user=user)
    for _ in range(2):
        for query, count in (
            ({}, "3"),
            ({"team": team.pk}, "1"),
            ({"team": second.pk}, "2"),
            # A foreign team looks like one that does not exist.
            ({"team": foreign.pk}, "3"),
            ({"team": "0" * 24}, "3"),
            ({"team": "x'y"}, "3"),
        ):
            page = text(client.get(PAGE, query))
            assert figures_of_today(page)["Requests"] == count
            assert foreign.name not in page
            assert strange.name not in page
        roll_up()
    superuser = browser(factories.make_user(is_superuser=True))
    assert figures_of_today(text(superuser.get(PAGE, {"team": foreign.pk})))["Requests"] == "4"
    assert int(figures_of_today(text(superuser.get(PAGE)))["Requests"].replace(",", "")) >= 7


def test_leaders_are_recomputed_by_the_job(team, api_key):
    # This lies before the watermark of the roll-ups, also just after midnight.
    lately = timezone.now() - 2 * BEHIND
    second, foreign = factories.make_team(), factories.make_team()
    keys = {number: factories.make_key((team, second)[number % 2])[0] for number in range(1, 15)}
    for number, key in keys.items():
        for _ in range(number):
            record(key, lately)
    strange, _ = factories.make_key(foreign)
    superuser = browser(factories.make_user(is_superuser=True))
    # More than the keys of other tests, which a superuser sees too.
    board = "\n".join(first_ten(text(superuser.get(PAGE)), "Keys"))
    most = 1 + max(int(number) for number in re.findall(r" (\d+)(?: |$)", board, re.MULTILINE))
    for _ in range(most):
        record(strange, lately)
    user, client = staff(team, *RIGHTS)
    Membership.objects.create(team=second, user=user)
    live = [first_ten(text(client.get(PAGE, {"range": range_})), "Keys") for range_ in sums.Span.values]
    roll_up_and_recompute(timestamp=0)
    assert set(Leaderboard.objects.values_list("pk", flat=True)) == set(sums.Span.values)
    pages = [text(client.get(PAGE, {"range": range_})) for range_ in sums.Span.values]
    assert [first_ten(page, "Keys") for page in pages] == live
    assert [page for page in pages if "as of" not in page] == []
    assert live[0][:2] == [f"{keys[number]} {keys[number].team} {number}" for number in (14, 13)]
    assert f"{strange} {foreign} {most}" in first_ten(text(superuser.get(PAGE)), "Keys")
    # A leaderboard that was not recomputed lately is no longer trusted.
    Leaderboard.objects.update(until=timezone.now() - timedelta(days=2))
    assert "as of" not in text(client.get(PAGE))


def test_foreign_rows_are_nowhere(team):
    foreign = factories.make_team()
    words = [str(row) for model, row in make_tenant_rows(foreign).items() if model._meta.model_name != "keyactivity"]
    make_tenant_rows(team)
    key, _ = factories.make_key(foreign, expires_at=timezone.now() + timedelta(days=3))
    _, client = staff(team, *RIGHTS, "chat.view_app")
    for range_ in sums.Span.values:
        page = text(client.get(PAGE, {"range": range_}))
        assert [word for word in [*words, key.name, foreign.name, foreign.pk] if word in page] == []


@pytest.mark.parametrize(
    ("right", "seen"),
    [
        ("apikeys.view_usagerecord", {"Requests", "Tokens", "Points", "Error rate"}),
        ("apikeys.view_refusal", {"Refusals"}),
        ("apikeys.view_apikey", set()),
        ("apikeys.view_limit", set()),
    ],
)
def test_what_may_not_be_viewed_is_left_out(team, right, seen):
    api_key, _ = factories.make_key(team, expires_at=timezone.now() + timedelta(days=3))
    just_now(api_key)
    refuse(api_key, sums.today_begins(timezone.now()))
    Limit.objects.create(team=team, key=api_key, measure="requests", period="day", amount=1)
    _, client = staff(team, right)
    page = text(client.get(PAGE))
    assert set(figures_of_today(page)) == seen
    assert ("Keys that expire" in page) == (right == "apikeys.view_apikey")
    assert ("Budgets used" in page) == (right == "apikeys.view_limit")
    assert bool(first_ten(page, "Keys")) == (right == "apikeys.view_usagerecord")
    # Without the permission, a key's name is shown with its usage, but not as a link.
    assert ("/admin/apikeys/apikey/" in page) == (right == "apikeys.view_apikey")
    assert 'id="site"' not in page


def test_keys_that_need_a_hand(team):
    outcome, _ = factories.make_key(team, expires_at=timezone.now() + timedelta(days=29))
    factories.make_key(team, expires_at=timezone.now() + timedelta(days=31))
    idle, never_used, used = (factories.make_key(team)[0] for _ in range(3))
    long_ago = timezone.now() - timedelta(days=91)
    for key in (idle, never_used, used):
        type(key).objects.filter(pk=key.pk).update(created_at=long_ago)
    KeyActivity.objects.create(key=idle, last_used_at=long_ago)
    KeyActivity.objects.create(key=used, last_used_at=timezone.now())
    _, client = staff(team, *RIGHTS)
    page = text(client.get(PAGE))
    tasks = page.partition('id="tasks"')[2].partition("<section")[0]
    for name, keys in (("expires_soon", [outcome]), ("unused", [idle, never_used])):
        assert f'href="/admin/apikeys/apikey/?{name}=yes"' in tasks
        shown = text(client.get(f"/admin/apikeys/apikey/?{name}=yes"))
        listed = shown.partition('id="result_list"')[2]
        assert [key for key in keys if key.name not in listed or key.name not in tasks] == []
        assert used.name not in listed
    assert used.name not in tasks


def test_only_keys_that_work_need_a_hand(team):
    """Those of a disabled team are refused whatever their end: neither counted here nor alerted on."""
    disabled = factories.make_team()
    soon, long_ago = timezone.now() + timedelta(days=3), timezone.now() - timedelta(days=91)
    keys = {one: factories.make_key(one, expires_at=soon)[0] for one in (team, disabled)}
    for one in (team, disabled):
        keys[one].created_at = long_ago
        keys[one].save(update_fields=["created_at"])
    disabled.disabled_at = timezone.now()
    disabled.save()
    user, client = staff(team, *RIGHTS)
    Membership.objects.create(team=disabled, user=user)
    expiry.raise_alerts()
    shown = text(client.get(PAGE)).partition('id="tasks"')[2].partition("<section")[0]
    assert (keys[team].name in shown, keys[disabled].name in shown) == (True, False)
    for name in ("expires_soon", "unused"):
        rows = text(client.get(f"/admin/apikeys/apikey/?{name}=yes")).partition('id="result_list"')[2]
        assert (keys[team].name in rows, keys[disabled].name in rows) == (True, False)
    assert {one: keys[one].alerts.filter(kind="expiry").count() for one in keys} == {team: 1, disabled: 0}


def test_budgets_that_need_a_hand(team, api_key):
    def limit(amount, period="day", **fields):
        return Limit.objects.create(team=team, key=api_key, measure="requests", period=period, amount=amount, **fields)

    just_now(api_key, 8)
    full, roomy = limit(10), limit(11)
    old, _ = limit(9), limit(8, "minute")
    # No request has counted against it since: its counter is of a day that is over.
    Counter.objects.filter(limit=old).update(period_start=timezone.now() - timedelta(days=3))
    _, client = staff(team, *RIGHTS)
    page = text(client.get(PAGE))
    assert f"{api_key}: {full}" in page
    assert "80%</span>" in page
    assert [one for one in (roomy, old) if f"{api_key}: {one}" in page] == []
    listed = text(client.get("/admin/apikeys/limit/?nearly_used_up=yes"))
    assert f"/admin/apikeys/limit/{full.pk}/change/" in listed
    assert f"/admin/apikeys/limit/{roomy.pk}/change/" not in listed


def test_who_sees_very_many_waits_for_no_count(team, monkeypatch):
    monkeypatch.setattr(tasks, "LOOKED_THROUGH", 1)
    keys = [factories.make_key(team)[0] for _ in range(2)]
    limits = [Limit.objects.create(team=team, key=key, measure="requests", period="total", amount=10) for key in keys]
    with connect() as raw:
        ids = {"team_id": team.pk, "key_id": keys[0].pk}
        write(raw, [Usage(id=new_object_id(), **ids, endpoint="x", status=200, duration_ms=1) for _ in range(8)])
    _, client = staff(team, *RIGHTS)
    page = text(client.get(PAGE))
    assert f"{keys[0]}: {limits[0]}" in page
    assert f"{keys[1]}: {limits[1]}" not in page
    assert "There are too many keys to count here" in page
    assert 'href="/admin/apikeys/apikey/?unused=yes"' in page


def test_alerts_that_were_given_up(team, api_key):
    alert = make_alert(team, api_key, delivered_at=timezone.now())
    Delivery.objects.create(alert=alert, channel="webhook", given_up_at=timezone.now())
    told = make_alert(team, api_key, delivered_at=timezone.now())
    Delivery.objects.create(alert=told, channel="webhook", delivered_at=timezone.now())
    _, client = staff(team, *RIGHTS)
    page = text(client.get(PAGE))
    assert f"/admin/apikeys/alert/{alert.pk}/change/" in page
    assert f"/admin/apikeys/alert/{told.pk}/change/" not in page
    listed = text(client.get("/admin/apikeys/alert/?given_up=yes"))
    assert f"/admin/apikeys/alert/{alert.pk}/change/" in listed
    assert f"/admin/apikeys/alert/{told.pk}/change/" not in listed


def test_the_site_is_for_superusers(team):
    process = ServerProcess.objects.create(id=factories.unique("server")[-24:], host="node-7.test", pid=4711)
    dead = ServerProcess.objects.create(
        id=factories.unique("dead")[-24:],
        host="node-8.test",
        pid=1,
        heartbeat_at=timezone.now() - timedelta(seconds=16),
    )
    reconciliation = Reconciliation.objects.create(limits=9, drifted=2, seconds=0.1)
    try:
        page = text(browser(factories.make_user(is_superuser=True)).get(PAGE))
        assert "node-7.test, process 4711" in page
        assert dead.host not in page
        assert "2 of 9 counters had drifted" in page
        assert "No worker is running" in page
        _, client = staff(team, *RIGHTS)
        assert "node-7.test" not in text(client.get(PAGE))
    finally:
        for row in (process, dead, reconciliation):
            row.delete()


@pytest.mark.parametrize("is_superuser", [False, True])
def test_queries_do_not_grow_with_rows(is_superuser):
    team = factories.make_team()
    client = browser(factories.make_user(is_superuser=True)) if is_superuser else staff(team, *RIGHTS)[1]
    counts = []
    for keys in (1, 12):
        for _ in range(keys):
            api_key, _ = factories.make_key(team, expires_at=timezone.now() + timedelta(days=3))
            use(api_key, 5, span=HOUR)
            just_now(api_key, app=factories.make_app(team))
            Limit.objects.create(team=team, key=api_key, measure="requests", period="day", amount=1)
        with CaptureQueriesContext(connection) as queries:
            assert client.get(PAGE).status_code == 200
        counts.append(len(queries))
    assert counts[0] == counts[1]


def test_many_teams_are_searched():
    Team.objects.bulk_create(Team(name=factories.unique("team")) for _ in range(MAXIMUM_CHOICES + 1))
    team = factories.make_team()
    page = text(browser(factories.make_user(is_superuser=True)).get(PAGE, {"team": team.pk}))
    assert re.search(r'<select name="team"[^>]*admin-autocomplete', page)
    assert team.name in page
    assert page.count("<option") < 5
