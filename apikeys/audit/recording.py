"""Who did what when: an entry for every change of what decides over keys, whether by admin, API or command.

django-auditlog notices what is saved and deleted. What it cannot see, many rows in one statement, goes through
`update`, `create_all` and `update_all` here. Nothing that the hot path writes is registered.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Collection, Iterable, Sequence
from contextvars import ContextVar
from typing import Any, ClassVar

from auditlog.diff import model_instance_diff
from auditlog.models import AbstractLogEntry, LogEntryManager
from auditlog.registry import auditlog
from django.conf import settings
from django.contrib.contenttypes.models import ContentType
from django.db import models, transaction
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext_lazy as _

from apikeys.client_address import address_of

MASK = "******"
# Rows in one statement.
BATCH = 500

TeamOf = Callable[[Any], "str | None"]
_team_of: dict[type[Model], TeamOf] = {}
# The request that is being answered in this thread; none in a command.
_request: ContextVar[HttpRequest | None] = ContextVar("audited_request", default=None)


class Via(models.TextChoices):
    ADMIN = "admin", _("admin")
    API = "api", _("API")
    COMMAND = "command", _("command")


class AuditEntryManager(LogEntryManager):  # type: ignore[misc]
    def log_create(self, instance: Any, force_log: bool = False, **kwargs: Any) -> Any:
        return super().log_create(instance, force_log, **{**circumstances(instance), **kwargs})

    def log_m2m_changes(
        self, changed_queryset: Any, instance: Any, operation: str, field_name: str, **kwargs: Any
    ) -> Any:
        return super().log_m2m_changes(
            changed_queryset, instance, operation, field_name, **{**circumstances(instance), **kwargs}
        )


class AuditEntry(AbstractLogEntry):  # type: ignore[misc]
    """One change of one row, field by field. The database refuses to change an entry, and to delete a young one.

    Its foreign keys have no constraint: an entry outlives the team and the person that it names.
    """

    team = models.ForeignKey(
        "apikeys.Team",
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        null=True,
        related_name="+",
        verbose_name=_("team"),
        help_text=_("Empty: it concerns the whole site."),
    )
    actor = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        null=True,
        related_name="+",
        verbose_name=_("actor"),
    )
    actor_name = models.CharField(
        _("done by"),
        max_length=150,
        help_text=_("The username, or for a command the login of the operating system."),
    )
    via = models.CharField(_("by way of"), max_length=10, choices=Via.choices)

    objects: ClassVar[Any] = AuditEntryManager()

    class Meta:
        verbose_name = _("audit entry")
        verbose_name_plural = _("audit entries")
        ordering = ["-id"]
        indexes = [models.Index(fields=["team", "-id"], name="audit_newest_of_team")]


class AuditMiddleware:
    """Remembers for whom a request is answered. auditlog's own would believe any X-Forwarded-For."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        token = _request.set(request)
        try:
            return self.get_response(request)
        finally:
            _request.reset(token)


def circumstances(instance: Any) -> dict[str, Any]:
    """What an entry tells besides the change itself: whose it is, by whom, from where, in which request."""
    team_of = _team_of.get(type(instance))
    facts: dict[str, Any] = {"team_id": team_of(instance) if team_of else None}
    request = _request.get()
    if request is None:
        return facts | {"actor_name": login(), "via": Via.COMMAND}
    address, trace = address_of(request), getattr(request, "trace", None)
    return facts | {
        **caller(request, None if trace is None else trace.policy),
        "via": Via.API if request.path.startswith(tuple(f"/{root}" for root in settings.API_ROOTS)) else Via.ADMIN,
        "remote_addr": None if address is None else str(address),
        "cid": None if trace is None else trace.request_id,
    }


def caller(request: HttpRequest, policy: Any) -> dict[str, Any]:
    """Who a request comes from: a signed-in person, or a key by its name. A key's deeds are not its owner's."""
    user: Any = getattr(request, "user", None)
    if policy is not None:
        return {"actor_name": f"API key {policy.name} ******{policy.last_four}"}
    if user is None or not user.is_authenticated:
        return {"actor_name": ""}
    return {"actor_id": user.pk, "actor_email": user.email, "actor_name": user.get_username()}


def login() -> str:
    """The operating system's name of who runs this, which no variable can change."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return "command line"


def register(
    model: type[Model],
    team_of: TeamOf,
    *,
    exclude: Collection[str] = (),
    masked: Iterable[str] = (),
    m2m: Collection[str] = (),
) -> None:
    """Keep entries of a model. Of `masked` fields they tell that one changed, of `exclude` not even that."""
    fields = [
        field.name for field in model._meta.concrete_fields if not field.primary_key and field.name not in exclude
    ]
    auditlog.register(
        model,
        include_fields=fields,
        mask_fields=list(masked),
        mask_callable=f"{__name__}.mask",
        m2m_fields=set(m2m),
    )
    _team_of[model] = team_of


def models_kept() -> list[type[Model]]:
    return list(_team_of)


def mask(value: str) -> str:
    return "" if value in ("", "None") else MASK


def update(rows: QuerySet[Any], **columns: Any) -> int:
    """`rows.update(**columns)` with an entry for each row that it changes, in one transaction.

    The rows are locked first, so that the entries tell what really was before; return how many there were.
    """
    found = rows.model._base_manager
    with transaction.atomic():
        before = list(rows.select_for_update(no_key=True, of=("self",)).order_by("pk"))
        changed = found.filter(pk__in=[row.pk for row in before])
        changed.update(**columns)
        after = changed.in_bulk()
        for row in before:
            difference = model_instance_diff(
                row, after[row.pk], fields_to_check=list(columns), use_json_for_changes=True
            )
            if difference:
                record(after[row.pk], difference)
    return len(before)


def create_all(rows: Sequence[Model]) -> None:
    """Insert new rows of one model with an entry for each, in one transaction and few statements."""
    if not rows:
        return
    with transaction.atomic():
        type(rows[0])._base_manager.bulk_create(rows, batch_size=BATCH)
        changes = [(row, model_instance_diff(None, row, use_json_for_changes=True)) for row in rows]
        record_all(AuditEntry.Action.CREATE, changes)


def update_all(rows: Sequence[Model], columns: Sequence[str]) -> None:
    """Write these columns of rows of one model, with an entry for each that changed, like `create_all`."""
    if not rows:
        return
    model = type(rows[0])
    related = [name for name in columns if model._meta.get_field(name).many_to_one]
    with transaction.atomic():
        kept = model._base_manager.select_for_update(no_key=True, of=("self",)).select_related(*related)
        before = kept.order_by("pk").in_bulk([row.pk for row in rows])
        changes = [
            (row, model_instance_diff(before[row.pk], row, fields_to_check=columns, use_json_for_changes=True))
            for row in rows
        ]
        model._base_manager.bulk_update(rows, columns, batch_size=BATCH)
        record_all(AuditEntry.Action.UPDATE, changes)


def record_all(action: int, changes: Iterable[tuple[Model, dict[str, Any]]]) -> None:
    AuditEntry.objects.bulk_create(
        (
            AuditEntry(
                content_type=ContentType.objects.get_for_model(row),
                object_pk=str(row.pk),
                object_id=row.pk if isinstance(row.pk, int) else None,
                object_repr=str(row),
                action=action,
                changes=difference,
                **circumstances(row),
            )
            for row, difference in changes
            if difference
        ),
        batch_size=BATCH,
    )


def record(row: Model, changes: dict[str, Any]) -> None:
    """Write an entry for a change that only its maker knows: {field: (old, new)}."""
    AuditEntry.objects.log_create(row, action=AuditEntry.Action.UPDATE, changes=changes)
