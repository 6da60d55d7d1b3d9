"""A refusal is kept, whoever was refused; a rotated secret that is used again is counted and raises an alert."""

from datetime import timedelta

from django.utils import timezone

from apikeys.access.rules import EndpointRule
from apikeys.accounting.ledger import Refusal, SecretReuse
from apikeys.accounting.refusals import KEPT_WHOLE
from apikeys.alerts.models import Alert
from apikeys.keys import crypto
from tests.conftest import Server
from tests.support import factories
from tests.support.conversations import make_app
from tests.support.fake_provider import FakeProvider
from tests.support.processes import wait_for
from tests.support.refusals import check_refusal


def kept(request_id: str) -> Refusal:
    return wait_for(lambda: Refusal.objects.filter(pk=request_id).first(), "it is kept")


def test_it_works(server: Server) -> None:
    api_key, key = factories.make_key()
    response = server.ask(key)
    message = check_refusal(response, "wrong_key_kind")
    refusal = kept(response.headers["x-request-id"])
    assert (refusal.team, refusal.key) == (api_key.team, api_key)
    assert (refusal.endpoint, refusal.status, refusal.code) == ("chat.completions", 403, "wrong_key_kind")
    assert (refusal.message, refusal.sample_weight) == (message, 1)
    assert refusal.client_address == "127.0.0.1"
    assert (refusal.limits, refusal.refused_by, refusal.requested) == (None, None, None)


def test_each_refused_key_is_named(server: Server, provider: FakeProvider) -> None:
    app = make_app(provider)
    revoked, revoked_key = factories.make_key(app=app)
    revoked.revoke(by="test", reason="test")
    expired, expired_key = factories.make_key(app=app, expires_at=timezone.now() - timedelta(days=1))
    elsewhere, elsewhere_key = factories.make_key(app=app, allowed_networks=["203.0.113.0/24"])
    cases = (
        (revoked, revoked_key, "revoked_api_key"),
        (expired, expired_key, "expired_api_key"),
        (elsewhere, elsewhere_key, "ip_not_allowed"),
    )
    for api_key, key, code in cases:
        response = server.ask(key)
        check_refusal(response, code)
        refusal = kept(response.headers["x-request-id"])
        assert (refusal.key, refusal.code) == (api_key, code)
        assert api_key.pk in next(line for line in server.log().splitlines() if refusal.pk in line)


def test_of_unknown_keys_nothing_but_that(new_server: Server) -> None:
    response = new_server.get("/api/v1/key", crypto.generate())
    check_refusal(response, "invalid_api_key")
    refusal = kept(response.headers["x-request-id"])
    assert (refusal.team, refusal.key, refusal.endpoint) == (None, None, "key.self")


def test_a_key_in_the_wrong_place_is_not_kept(server: Server, provider: FakeProvider) -> None:
    _, key = factories.make_key(app=make_app(provider))
    response = server.ask(key, "x", n=key, tools=key)
    assert response.status_code == 400
    assert key not in kept(response.headers["x-request-id"]).message


def test_paths_that_lead_nowhere_are_not_kept(new_server: Server) -> None:
    nowhere = new_server.get("/api/v1/nowhere").headers["x-request-id"]
    assert kept(new_server.get("/api/v1/key").headers["x-request-id"]).code == "missing_api_key"
    assert not Refusal.objects.filter(pk=nowhere).exists()


def test_above_a_rate_one_stands_for_many(server: Server) -> None:
    api_key, key = factories.make_key()
    sent = 10 * KEPT_WHOLE

    def total() -> int:
        return sum(Refusal.objects.filter(key=api_key).values_list("sample_weight", flat=True))

    for _ in range(sent):
        assert server.ask(key).status_code == 403
    # Within one minute exactly; should one end meanwhile, at most nine of its last ten are lost.
    wait_for(lambda: total() >= sent - 9, "all are accounted for")
    assert total() <= sent
    rows = Refusal.objects.filter(key=api_key)
    assert rows.count() < sent / 2
    assert set(rows.values_list("sample_weight", flat=True)) == {1, 10}


def test_a_rotated_secret_that_is_used_again(server: Server, provider: FakeProvider) -> None:
    api_key, key = factories.make_key(app=make_app(provider))
    old = api_key.secrets.get()
    new = api_key.rotate()
    assert server.ask(new).status_code == 200
    assert not SecretReuse.objects.filter(secret=old).exists()
    for _ in range(3):
        check_refusal(server.ask(key), "rotated_api_key")
    check_refusal(server.get("/api/v1/key", key), "rotated_api_key")
    wait_for(lambda: SecretReuse.objects.filter(secret=old, count=4).first(), "all four are counted")
    (alert,) = Alert.objects.filter(key=api_key)
    assert (alert.kind, alert.team, alert.dedup_key) == ("reuse", api_key.team, f"reuse:{old.pk}")
    assert (alert.details["last_four"], alert.details["client_address"]) == (key[-4:], "127.0.0.1")


def test_every_reuse_counts_also_those_that_are_not_kept(server: Server) -> None:
    api_key, key = factories.make_key()
    old = api_key.secrets.get()
    api_key.rotate()
    for _ in range(KEPT_WHOLE + 15):
        assert server.get("/api/v1/key", key).status_code == 401
    wait_for(lambda: SecretReuse.objects.filter(secret=old, count=KEPT_WHOLE + 15).exists(), "each is counted")
    assert Refusal.objects.filter(key=api_key).count() < KEPT_WHOLE + 15


def test_within_its_overlap_a_secret_is_good(server: Server) -> None:
    api_key, key = factories.make_key()
    old = api_key.secrets.get()
    api_key.rotate(timedelta(hours=1))
    assert server.get("/api/v1/key", key).status_code == 200
    assert not SecretReuse.objects.filter(secret=old).exists()


def test_a_closed_endpoint(server: Server) -> None:
    _, key = factories.make_key()
    rule = EndpointRule.objects.create(endpoint="app.list", denied_kinds=["global"])
    try:
        response = wait_for(
            lambda: (answer := server.get("/api/core/app/list", key)).status_code == 403 and answer,
            "the rule is heard of",
            seconds=2,
        )
        assert kept(response.headers["x-request-id"]).code == "endpoint_not_allowed"
    finally:
        rule.delete()
