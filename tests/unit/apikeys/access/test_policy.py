"""Which endpoints a key may call: the permission, `GET v1/key`, the key's page and the page of endpoints say one."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from django.conf import settings
from django.http import HttpRequest

from apikeys.access.declarations import PUBLIC, ApiCredential
from apikeys.access.endpoints import endpoint_names, routes
from apikeys.access.permissions import EndpointAccess
from apikeys.access.policy import KeyPolicy, SiteRules, may_call
from apikeys.access.rules import EndpointRule
from apikeys.admin.endpoints import inventory
from apikeys.admin.keys.overview import callable_endpoints
from apikeys.api.key_self import KeySelfView
from apikeys.errors import AccessError
from apikeys.hot_path.connections import connect
from apikeys.keys import crypto
from apikeys.keys.kinds import AccessKind
from apikeys.keys.models import ApiKey
from tests.support import factories
from tests.support.flushes import load_policies

VIEWS = {route.view.endpoint: route.view for route in routes()}
DENIED: dict[str, list[AccessKind]] = {"none": [], **{f"no {kind}": [kind] for kind in AccessKind}}


@pytest.fixture
def rules() -> Iterator[None]:
    """Rules hold for every test's keys, so they go as soon as the test is over."""
    yield
    EndpointRule.objects.all().delete()


def make_key(kind: AccessKind, endpoints: list[str]) -> tuple[ApiKey, KeyPolicy]:
    app = factories.make_app(factories.make_team()) if kind is AccessKind.APP else None
    is_naming = kind is AccessKind.GLOBAL_NAMING_APP
    api_key, plaintext = factories.make_key(app=app, can_name_app=is_naming, allowed_endpoints=endpoints)
    with connect() as connection:
        (policy,) = load_policies(connection, [crypto.digests(plaintext, settings.API_KEY_PEPPERS)])
    assert policy is not None
    assert api_key.kind == policy.kind == kind
    return api_key, policy


def is_admitted(credential: ApiCredential, view: Any) -> bool:
    try:
        EndpointAccess.check_key(HttpRequest(), credential, view)
    except AccessError:
        return False
    return True


def endpoints_reported(credential: ApiCredential) -> set[str]:
    request: Any = SimpleNamespace(auth=credential)
    response: Any = KeySelfView().get(request)
    return set(response.data["data"]["endpoints"])


@pytest.mark.parametrize("denied", DENIED.values(), ids=DENIED)
@pytest.mark.parametrize("kind", AccessKind)
def test_all_agree_on_every_route(rules, kind, denied):
    for name in endpoint_names() if denied else []:
        EndpointRule.objects.create(endpoint=name, denied_kinds=denied)
    denied_kinds = {name: frozenset(kinds) for name, kinds in EndpointRule.objects.denied_kinds().items()}
    rows = {row.name: row for row in inventory({}, {})}
    assert rows.keys() == VIEWS.keys()
    for own in ([], ["key.self", "chat.completions"], ["no.longer"]):
        api_key, policy = make_key(kind, own)
        credential = ApiCredential(policy, None, SiteRules(denied_kinds, has_imported=False), generation=0)
        expected = {name for name, view in VIEWS.items() if may_call(policy, view, denied_kinds)}
        assert {name for name, view in VIEWS.items() if is_admitted(credential, view)} == expected
        assert endpoints_reported(credential) == expected
        assert callable_endpoints(api_key) == expected
        if not own:
            switches = {name: switch for name, row in rows.items() for switch in row.switches if switch.kind == kind}
            assert {name for name, switch in switches.items() if switch.is_open} == expected
            assert {name for name, switch in switches.items() if switch.is_taken} >= expected
        assert not expected or not own or expected <= set(own)


def test_what_kinds_may_call():
    def names(kind: AccessKind) -> set[str]:
        _, policy = make_key(kind, [])
        return {name for name, view in VIEWS.items() if may_call(policy, view, {})}

    conversing = {"chat.completions", "completions.create", "responses.create"}
    assert names(AccessKind.APP) == conversing | {"key.self", "models.list", "billing.subscription", "billing.usage"}
    assert not conversing & names(AccessKind.GLOBAL)
    assert names(AccessKind.GLOBAL_NAMING_APP) == names(AccessKind.GLOBAL) | conversing


def test_a_rule_lowers_and_never_opens():
    view = VIEWS["key.self"]
    _, policy = make_key(AccessKind.GLOBAL_NAMING_APP, [])
    assert may_call(policy, view, {"key.self": ["app"]})
    # A key that may name an app is a global key all the same.
    assert not may_call(policy, view, {"key.self": ["global"]})
    assert not may_call(policy, view, {"key.self": ["global_naming_app"]})
    assert not may_call(policy, VIEWS["openapi.create"], {"openapi.create": []})


def test_public_endpoints_need_no_key_and_take_none():
    public = [view for view in VIEWS.values() if view.staff_permission is PUBLIC]
    assert public
    assert not any(view.api_key_access for view in public)
