"""An audit whose entries nobody changes, and how often passwords were tried."""

import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models


GUARD = """
CREATE FUNCTION guard_audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('fastgpt.pruning_audit', true) = 'on'
        AND OLD.timestamp < now() - interval '90 days' THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'entries of the audit are never changed, and deleted by prune_audit() alone'
        USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER guard BEFORE UPDATE OR DELETE ON apikeys_auditentry FOR EACH ROW EXECUTE FUNCTION guard_audit();
CREATE TRIGGER guard_whole BEFORE TRUNCATE ON apikeys_auditentry FOR EACH STATEMENT EXECUTE FUNCTION guard_audit();

-- Deletes entries that are older than so many days, at least 90; returns how many.
CREATE FUNCTION prune_audit(days integer) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE deleted bigint;
BEGIN
    IF days < 90 THEN
        RAISE EXCEPTION 'the audit keeps at least 90 days' USING ERRCODE = 'restrict_violation';
    END IF;
    PERFORM set_config('fastgpt.pruning_audit', 'on', true);
    DELETE FROM apikeys_auditentry WHERE timestamp < now() - make_interval(days => days);
    GET DIAGNOSTICS deleted = ROW_COUNT;
    PERFORM set_config('fastgpt.pruning_audit', 'off', true);
    RETURN deleted;
END $$;
"""

UNDO = """
DROP FUNCTION prune_audit(integer);
DROP TRIGGER guard_whole ON apikeys_auditentry;
DROP TRIGGER guard ON apikeys_auditentry;
DROP FUNCTION guard_audit();
"""


class Migration(migrations.Migration):
    dependencies = [
        ("apikeys", "0011_long_lists"),
        ("contenttypes", "0002_remove_content_type_name"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="SignInCount",
            fields=[
                ("slot", models.IntegerField(primary_key=True, serialize=False)),
                ("attempts", models.PositiveIntegerField()),
                ("last_at", models.DateTimeField()),
                ("blocked_until", models.DateTimeField()),
                ("signed_in_at", models.DateTimeField(null=True)),
            ],
        ),
        migrations.CreateModel(
            name="AuditEntry",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("object_pk", models.CharField(db_index=True, max_length=255, verbose_name="object pk")),
                ("object_id", models.BigIntegerField(blank=True, db_index=True, null=True, verbose_name="object id")),
                ("object_repr", models.TextField(verbose_name="object representation")),
                ("serialized_data", models.JSONField(null=True)),
                (
                    "action",
                    models.PositiveSmallIntegerField(
                        choices=[(0, "create"), (1, "update"), (2, "delete"), (3, "access")],
                        db_index=True,
                        verbose_name="action",
                    ),
                ),
                ("changes_text", models.TextField(blank=True, verbose_name="change message")),
                ("changes", models.JSONField(null=True, verbose_name="change message")),
                (
                    "cid",
                    models.CharField(
                        blank=True, db_index=True, max_length=255, null=True, verbose_name="Correlation ID"
                    ),
                ),
                ("remote_addr", models.GenericIPAddressField(blank=True, null=True, verbose_name="remote address")),
                ("remote_port", models.PositiveIntegerField(blank=True, null=True, verbose_name="remote port")),
                (
                    "timestamp",
                    models.DateTimeField(db_index=True, default=django.utils.timezone.now, verbose_name="timestamp"),
                ),
                ("additional_data", models.JSONField(blank=True, null=True, verbose_name="additional data")),
                ("actor_email", models.CharField(blank=True, max_length=254, null=True, verbose_name="actor email")),
                (
                    "actor_name",
                    models.CharField(
                        help_text="The username, or for a command the login of the operating system.",
                        max_length=150,
                        verbose_name="done by",
                    ),
                ),
                (
                    "via",
                    models.CharField(
                        choices=[("admin", "admin"), ("api", "API"), ("command", "command")],
                        max_length=10,
                        verbose_name="by way of",
                    ),
                ),
                (
                    "actor",
                    models.ForeignKey(
                        db_constraint=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                        verbose_name="actor",
                    ),
                ),
                (
                    "content_type",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="contenttypes.contenttype",
                        verbose_name="content type",
                    ),
                ),
                (
                    "team",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        help_text="Empty: it concerns the whole site.",
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="apikeys.team",
                        verbose_name="team",
                    ),
                ),
            ],
            options={
                "verbose_name": "audit entry",
                "verbose_name_plural": "audit entries",
                "ordering": ["-id"],
                "indexes": [models.Index(fields=["team", "-id"], name="audit_newest_of_team")],
            },
        ),
        migrations.RunSQL(GUARD, UNDO),
    ]
