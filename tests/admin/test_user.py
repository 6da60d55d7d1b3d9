"""Users and groups: only superusers may change them, since that grants any permission to anybody."""

import pytest
from django.contrib.auth.models import Group, User

from tests.support import factories
from tests.support.pages import browser, staff, text, url

RIGHTS = tuple(f"auth.{right}_{model}" for right in ("view", "add", "change", "delete") for model in ("user", "group"))


@pytest.mark.parametrize("model", [User, Group])
def test_it_works(model):
    client = browser(factories.make_user(is_superuser=True))
    for page in ("changelist", "add"):
        assert client.get(url(model, page)).status_code == 200


@pytest.mark.parametrize("model", [User, Group])
def test_staff_with_every_permission(model):
    user, client = staff(factories.make_team(), *RIGHTS)
    row = user if model is User else Group.objects.create(name=factories.unique("group"))
    for page in ("changelist", "add"):
        assert client.get(url(model, page)).status_code == 403
        assert client.post(url(model, page), {"name": "x"}).status_code == 403
    for page in ("change", "delete", "history"):
        assert client.get(url(model, page, row.pk)).status_code == 403
        assert client.post(url(model, page, row.pk), {"is_superuser": "on", "post": "yes"}).status_code == 403
    user.refresh_from_db()
    assert not user.is_superuser
    assert "Authentication and Authorization" not in text(client.get("/admin/"))


def test_password_page_of_another_user():
    _, client = staff(factories.make_team(), *RIGHTS)
    other = factories.make_user(is_superuser=True)
    page = f"/admin/auth/user/{other.pk}/password/"
    assert client.get(page).status_code == 403
    assert client.post(page, {"password1": "x", "password2": "x"}).status_code == 403
    assert User.objects.get(pk=other.pk).check_password(factories.PASSWORD)


def test_owner_of_a_key_is_protected():
    api_key, _ = factories.make_key()
    client = browser(factories.make_user(is_superuser=True))
    assert "protected" in text(client.get(url(User, "delete", api_key.owner_id)))
