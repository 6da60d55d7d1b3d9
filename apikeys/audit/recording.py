"""Writes the audit: an entry for every change of rows that govern keys, whether by admin, API or command.

django-auditlog notices each save and deletion. Changes of many rows in one statement, which it cannot see, go through
`update`, `create_all` and `update_all` here. No model that the hot path writes is registered.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from auditlog.diff import model_instance_diff
from auditlog.registry import auditlog
from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.db.models import Model, QuerySet

from apikeys.audit.circumstances import TeamOf, circumstances, team_of_model
from apikeys.audit.models import AuditEntry

MASK = "******"
# One statement writes so many rows.
BATCH = 500


def register(
    model: type[Model],
    team_of: TeamOf,
    *,
    exclude: Collection[str] = (),
    masked: Iterable[str] = (),
    m2m: Collection[str] = (),
) -> None:
    """Keep entries of a model. They hide the values of `masked` fields, and leave out those in `exclude`."""
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
    team_of_model[model] = team_of


def audited_models() -> list[type[Model]]:
    return list(team_of_model)


def mask(value: str) -> str:
    return "" if value in ("", "None") else MASK


def update(rows: QuerySet[Any], **columns: Any) -> int:
    """Run `rows.update(**columns)` with an entry for each row that changes; return how many rows matched."""
    found = rows.model._base_manager
    # Locked first, the rows cannot change between what the entries call the old values and the update.
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
    if not rows:
        return
    with transaction.atomic():
        type(rows[0])._base_manager.bulk_create(rows, batch_size=BATCH)
        changes = [(row, model_instance_diff(None, row, use_json_for_changes=True)) for row in rows]
        record_all(AuditEntry.Action.CREATE, changes)


def update_all(rows: Sequence[Model], columns: Sequence[str]) -> None:
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
    """Write an entry for {field: (old, new)}, for a change that auditlog cannot notice."""
    AuditEntry.objects.log_create(row, action=AuditEntry.Action.UPDATE, changes=changes)
