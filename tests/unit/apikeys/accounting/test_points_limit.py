"""A change of how many points a key may use in all: what it needs, and what it leaves."""

import pytest
from django.db import transaction

from apikeys.accounting.limits import Limit
from apikeys.accounting.points_limit import add_points_limit, plan_change, points_allowed
from apikeys.keys.models import ApiKey
from tests.support import factories

ADD, CHANGE, DELETE = (f"apikeys.{do}_limit" for do in ("add", "change", "delete"))


def key_with(held: list[int]) -> ApiKey:
    api_key, _ = factories.make_key()
    for amount in held:
        add_points_limit(api_key, amount)
    return api_key


def amounts(api_key: ApiKey) -> list[int]:
    return list(Limit.objects.filter(key=api_key).order_by("amount").values_list("amount", flat=True))


@pytest.mark.parametrize(
    ("held", "amount", "permissions", "needs_password"),
    [
        ([], 3, [ADD], False),
        ([], None, [], False),
        ([5], 5, [], False),
        ([5], 4, [CHANGE], False),
        ([5], 6, [CHANGE], True),
        ([5], 0, [CHANGE], False),
        ([5], None, [DELETE], True),
        ([0], None, [DELETE], True),
        ([5, 6], 4, [CHANGE, DELETE], False),
        ([5, 6], 6, [CHANGE, DELETE], True),
        ([5, 6], None, [DELETE], True),
    ],
)
def test_what_a_change_needs_and_leaves(held, amount, permissions, needs_password):
    api_key = key_with(held)
    with transaction.atomic():
        change = plan_change(api_key, amount)
        assert (change.permissions, change.needs_password) == (permissions, needs_password)
        assert amounts(api_key) == held
        change.apply()
    assert amounts(api_key) == ([] if amount is None else [amount])


def test_what_changes_nothing_leaves_all_that_is_held():
    api_key = key_with([5, 6])
    with transaction.atomic():
        change = plan_change(api_key, 5)
        change.apply()
    assert (change.permissions, change.needs_password, amounts(api_key)) == ([], False, [5, 6])


def test_others_stay_and_a_soft_amount_that_is_never_reached_goes():
    api_key = key_with([])
    of_points = {"team": api_key.team, "key": api_key, "measure": "micropoints"}
    total = Limit.objects.create(**of_points, period="total", amount=9, soft_amount=4)
    Limit.objects.create(**of_points, period="day", amount=7)
    for amount, soft_amount in ((5, 4), (3, None)):
        with transaction.atomic():
            plan_change(api_key, amount).apply()
        total.refresh_from_db()
        assert (total.amount, total.soft_amount) == (amount, soft_amount)
    assert amounts(api_key) == [3, 7]


def test_the_lowest_of_several_counts():
    several, none = key_with([6, 5, 7]), key_with([])
    assert points_allowed([several.pk, none.pk]) == {several.pk: 5}
