"""`manage.py prune_audit`: old entries go, young ones stay."""

from datetime import timedelta

from django.utils import timezone

from apikeys.audit.models import AuditEntry
from tests.support import factories
from tests.support.commands import call, manage, refusal


def aged(days):
    api_key, _ = factories.make_key()
    moment = timezone.now() - timedelta(days=days)
    return AuditEntry.objects.log_create(api_key, force_log=True, action=AuditEntry.Action.UPDATE, timestamp=moment)


def test_it_works():
    old, young = aged(101), aged(99)
    out, _ = call("prune_audit", "--days", "100")
    assert out.startswith("Deleted ")
    assert list(AuditEntry.objects.filter(pk__in=[old.pk, young.pk])) == [young]


def test_too_few_days():
    assert refusal(manage("prune_audit", "--days", "89")) == "--days must be at least 90."
