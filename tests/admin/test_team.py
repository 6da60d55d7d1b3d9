"""Teams and their members."""

from apikeys.teams import Membership, Team
from tests.support import factories
from tests.support.pages import browser, staff, text, url

RIGHTS = tuple(
    f"apikeys.{right}_{model}" for right in ("view", "add", "change", "delete") for model in ("team", "membership")
)


def team_form(team, *members, initial=0):
    form = {"name": team.name, "membership_set-TOTAL_FORMS": len(members), "membership_set-INITIAL_FORMS": initial}
    for number, member in enumerate(members):
        form |= {f"membership_set-{number}-{name}": value for name, value in member.items()}
    return form


def test_it_works():
    client = browser(factories.make_user(is_superuser=True))
    # The form of a new team has no fields that only an existing row has.
    assert "Created at" not in text(client.get(url(Team, "add")))
    user = factories.make_user()
    name = factories.unique("team")
    assert client.post(url(Team, "add"), team_form(Team(name=name), {"user": user.pk})).status_code == 302
    assert list(Team.objects.get(name=name).members.all()) == [user]


def test_member_is_removed():
    team = factories.make_team()
    _, client = staff(team, *RIGHTS)
    other = Membership.objects.create(team=team, user=factories.make_user())
    form = team_form(team, {"id": other.pk, "team": team.pk, "user": other.user_id, "DELETE": "on"}, initial=1)
    assert client.post(url(Team, "change", team.pk), form).status_code == 302
    assert not Membership.objects.filter(pk=other.pk).exists()


def test_staff_move_people_between_their_own_teams_only():
    first, second = factories.make_team(), factories.make_team()
    user, client = staff(first, *RIGHTS)
    Membership.objects.create(team=second, user=user)
    colleague, outsider = factories.make_user(first), factories.make_user(factories.make_team())
    page = text(client.get(url(Team, "change", second.pk)))
    assert colleague.username in page
    assert outsider.username not in page
    response = client.post(url(Team, "change", second.pk), team_form(second, {"user": outsider.pk}))
    assert "not one of the available choices" in text(response)
    assert client.post(url(Team, "change", second.pk), team_form(second, {"user": colleague.pk})).status_code == 302
    assert set(second.members.all()) == {user, colleague}


def test_foreign_membership_in_my_team_form():
    team, foreign = factories.make_team(), factories.make_team()
    user, client = staff(team, *RIGHTS)
    target = Membership.objects.create(team=foreign, user=factories.make_user())
    for fields in ({"DELETE": "on"}, {}):
        member = {"id": target.pk, "team": team.pk, "user": user.pk, **fields}
        client.post(url(Team, "change", team.pk), team_form(team, member, initial=1))
        kept = Membership.objects.get(pk=target.pk)
        assert (kept.team, kept.user) == (foreign, target.user)


def test_new_teams_are_for_superusers():
    _, client = staff(factories.make_team(), *RIGHTS)
    name = factories.unique("team")
    assert client.get(url(Team, "add")).status_code == 403
    assert client.post(url(Team, "add"), team_form(Team(name=name))).status_code == 403
    assert not Team.objects.filter(name=name).exists()


def test_team_with_keys_is_protected():
    api_key, _ = factories.make_key()
    client = browser(factories.make_user(is_superuser=True))
    page = text(client.get(url(Team, "delete", api_key.team_id)))
    assert "protected" in page
    assert api_key.name in page
    client.post(url(Team, "delete", api_key.team_id), {"post": "yes"})
    assert Team.objects.filter(pk=api_key.team_id).exists()


def test_without_the_permission():
    team = factories.make_team()
    _, client = staff(team, "apikeys.view_team")
    assert team.name in text(client.get(url(Team, "change", team.pk)))
    assert client.post(url(Team, "change", team.pk), team_form(Team(name="renamed"))).status_code == 403
