"""The reach of a known key: networks, endpoints, rules, models (403)."""

import httpx2
import pytest

from apikeys.access.rules import EndpointRule
from apikeys.keys.models import ApiKey
from tests.conftest import Server
from tests.support import factories
from tests.support.fake_provider import FakeProvider
from tests.support.processes import wait_for
from tests.support.refusals import check_refusal

KEY_SELF = "/api/v1/key"


def get_from(server: Server, address: str, key: str, **headers: str) -> httpx2.Response:
    """Call from one of the loopback network's addresses."""
    with httpx2.Client(transport=httpx2.HTTPTransport(local_address=address), trust_env=False) as client:
        return client.get(server.url + KEY_SELF, headers={"Authorization": f"Bearer {key}", **headers})


def test_network(server: Server) -> None:
    _, key = factories.make_key(allowed_networks=["127.0.0.5/32", "2001:db8::/32"])
    assert get_from(server, "127.0.0.5", key).status_code == 200
    check_refusal(get_from(server, "127.0.0.6", key), "ip_not_allowed")


def test_forwarded_address_counts_only_from_a_trusted_proxy(server: Server) -> None:
    _, key = factories.make_key(allowed_networks=["203.0.113.0/24", "2001:db8::/32"])
    proxy, stranger = "127.0.0.9", "127.0.0.8"
    assert get_from(server, proxy, key, **{"X-Forwarded-For": "203.0.113.7"}).status_code == 200
    assert get_from(server, proxy, key, **{"X-Forwarded-For": "2001:db8::7"}).status_code == 200
    assert get_from(server, proxy, key, **{"X-Forwarded-For": "::ffff:203.0.113.7"}).status_code == 200
    check_refusal(get_from(server, stranger, key, **{"X-Forwarded-For": "203.0.113.7"}), "ip_not_allowed")
    # The caller can write what it likes at the left; the proxy's own entry is the rightmost.
    spoofed = get_from(server, proxy, key, **{"X-Forwarded-For": "203.0.113.7, 198.51.100.1"})
    check_refusal(spoofed, "ip_not_allowed")
    check_refusal(get_from(server, proxy, key, **{"X-Forwarded-For": "nonsense"}), "ip_not_allowed")


def test_own_list_of_endpoints(server: Server) -> None:
    _, key = factories.make_key(allowed_endpoints=["key.self"])
    assert server.get(KEY_SELF, key).status_code == 200
    message = check_refusal(server.get("/api/core/app/list", key), "endpoint_not_allowed")
    assert "app.list" in message


def test_rule_closes_an_endpoint_to_one_kind(server: Server) -> None:
    """Within two seconds, and opens it again when the rule goes."""
    team = factories.make_team()
    _, key = factories.make_key(team)
    _, app_key = factories.make_key(app=factories.make_app(team))
    assert server.get(KEY_SELF, key).status_code == 200
    rule = EndpointRule.objects.create(endpoint="key.self", denied_kinds=["app"])
    try:
        wait_for(lambda: server.get(KEY_SELF, app_key).status_code == 403, "the rule acts", seconds=2)
        check_refusal(server.get(KEY_SELF, app_key), "endpoint_not_allowed")
        assert server.get(KEY_SELF, key).status_code == 200
    finally:
        rule.delete()
    wait_for(lambda: server.get(KEY_SELF, app_key).status_code == 200, "the rule is gone", seconds=2)


def test_rule_closes_an_endpoint_to_keys_that_may_name_an_app(server: Server) -> None:
    """Such a key is a global key too; closed to it means closed to it."""
    team = factories.make_team()
    _, naming = factories.make_key(team, can_name_app=True)
    _, plain = factories.make_key(team)
    closed = {"denied_kinds": ["global_naming_app"]}
    rule, _ = EndpointRule.objects.update_or_create(endpoint="models.list", defaults=closed)
    try:
        wait_for(lambda: server.get("/api/v1/models", naming).status_code == 403, "the rule acts", seconds=2)
        assert "models.list" not in server.get(KEY_SELF, naming).json()["data"]["endpoints"]
        assert server.get("/api/v1/models", plain).status_code == 200
    finally:
        rule.delete()


def test_models(server: Server, provider: FakeProvider) -> None:
    team = factories.make_team()
    app = factories.make_app(team, factories.make_provider(team, provider.url), model="echo")
    _, allowed = factories.make_key(app=app, allowed_models=["other", "echo"])
    _, refused = factories.make_key(app=app, allowed_models=["other"])
    assert server.ask(allowed).status_code == 200
    check_refusal(server.ask(refused), "model_not_allowed")


def test_a_bare_update_is_heard(server: Server) -> None:
    """Policy changed behind the models' back acts as well: the database itself tells."""
    api_key, key = factories.make_key()
    assert server.get(KEY_SELF, key).status_code == 200
    ApiKey.objects.filter(pk=api_key.pk).update(allowed_networks=["192.0.2.0/24"])
    wait_for(lambda: server.get(KEY_SELF, key).status_code == 403, "the update acts", seconds=2)


def test_suffix_outside_chat(server: Server) -> None:
    app = factories.make_app(factories.make_team())
    _, key = factories.make_key(app.team)
    for path in ("/api/core/app/list", KEY_SELF):
        check_refusal(server.get(path, f"{key}-{app.pk}"), "invalid_parameter", param="Authorization")


@pytest.mark.parametrize("kind", ["app", "global"])
def test_global_key_on_completions(server: Server, kind: str) -> None:
    app = factories.make_app(factories.make_team())
    _, key = factories.make_key(app.team)
    credential = f"{key}-{app.pk}" if kind == "app" else key
    message = check_refusal(server.ask(credential, appId=app.pk), "wrong_key_kind")
    assert message.startswith("Key is error. You need to use the app key rather than the account key.")
    assert "let this key name the app" in message
