import apikeys.object_ids
import apikeys.teams
import django.contrib.postgres.fields
import django.db.models.deletion
import django.db.models.functions.datetime
import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Alert",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False)),
                ("kind", models.CharField(max_length=10)),
                ("dedup_key", models.CharField(max_length=120, unique=True)),
                ("details", models.JSONField()),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("delivered_at", models.DateTimeField(null=True)),
            ],
            options={
                "ordering": ["-pk"],
            },
        ),
        migrations.CreateModel(
            name="ApiKey",
            fields=[
                (
                    "id",
                    apikeys.teams.ObjectIdField(
                        default=apikeys.object_ids.new_object_id,
                        editable=False,
                        max_length=24,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("name", models.CharField(max_length=100)),
                ("note", models.TextField(blank=True, max_length=2000)),
                ("expires_at", models.DateTimeField(blank=True, null=True)),
                ("can_name_app", models.BooleanField(default=False)),
                (
                    "allowed_networks",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(max_length=43), blank=True, default=list, size=None
                    ),
                ),
                (
                    "allowed_endpoints",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(max_length=100), blank=True, default=list, size=None
                    ),
                ),
                (
                    "allowed_models",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(max_length=200), blank=True, default=list, size=None
                    ),
                ),
                ("disabled_at", models.DateTimeField(blank=True, editable=False, null=True)),
                ("revoked_at", models.DateTimeField(blank=True, editable=False, null=True)),
                ("revoked_by", models.CharField(blank=True, editable=False, max_length=150)),
                ("revoked_reason", models.CharField(blank=True, editable=False, max_length=500)),
                ("revocation_acknowledged_at", models.DateTimeField(editable=False, null=True)),
                (
                    "unacknowledged_servers",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(max_length=24), blank=True, db_default=[], editable=False, size=None
                    ),
                ),
                (
                    "created_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False),
                ),
            ],
            options={
                "ordering": ["-created_at"],
            },
        ),
        migrations.CreateModel(
            name="AuditEntry",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False)),
                ("object_pk", models.CharField(db_index=True, max_length=255)),
                ("object_id", models.BigIntegerField(blank=True, db_index=True, null=True)),
                ("object_repr", models.TextField()),
                ("serialized_data", models.JSONField(null=True)),
                ("action", models.PositiveSmallIntegerField(db_index=True)),
                ("changes_text", models.TextField(blank=True)),
                ("changes", models.JSONField(null=True)),
                ("cid", models.CharField(blank=True, db_index=True, max_length=255, null=True)),
                ("remote_addr", models.GenericIPAddressField(blank=True, null=True)),
                ("remote_port", models.PositiveIntegerField(blank=True, null=True)),
                ("timestamp", models.DateTimeField(db_index=True, default=django.utils.timezone.now)),
                ("additional_data", models.JSONField(blank=True, null=True)),
                ("actor_email", models.CharField(blank=True, max_length=254, null=True)),
                ("actor_name", models.CharField(max_length=150)),
                ("via", models.CharField(max_length=10)),
            ],
            options={
                "ordering": ["-id"],
            },
        ),
        migrations.CreateModel(
            name="Limit",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False)),
                ("measure", models.CharField(max_length=12)),
                ("period", models.CharField(max_length=6)),
                ("amount", models.PositiveBigIntegerField()),
                ("soft_amount", models.PositiveBigIntegerField(blank=True, null=True)),
                ("time_zone", models.CharField(default="UTC", max_length=64)),
                (
                    "created_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False),
                ),
            ],
            options={
                "ordering": ["pk"],
            },
        ),
        migrations.CreateModel(
            name="DailyUsage",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False)),
                ("day", models.DateField()),
                ("endpoint", models.CharField(max_length=100)),
                ("model", models.CharField(blank=True, max_length=200)),
                ("outcome", models.CharField(max_length=10)),
                ("token_source", models.CharField(blank=True, max_length=10)),
                ("requests", models.PositiveBigIntegerField()),
                ("prompt_tokens", models.PositiveBigIntegerField()),
                ("completion_tokens", models.PositiveBigIntegerField()),
                ("cost_micropoints", models.PositiveBigIntegerField()),
                ("duration_ms", models.PositiveBigIntegerField()),
            ],
        ),
        migrations.CreateModel(
            name="Delivery",
            fields=[
                (
                    "id",
                    apikeys.teams.ObjectIdField(
                        default=apikeys.object_ids.new_object_id,
                        editable=False,
                        max_length=24,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("channel", models.CharField(max_length=10)),
                ("attempts", models.PositiveSmallIntegerField(default=0)),
                ("delivered_at", models.DateTimeField(null=True)),
                ("given_up_at", models.DateTimeField(null=True)),
                ("last_error", models.CharField(blank=True, max_length=200)),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={
                "ordering": ["pk"],
            },
        ),
        migrations.CreateModel(
            name="EndpointRule",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False)),
                ("endpoint", models.CharField(max_length=100, unique=True)),
                (
                    "denied_kinds",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(max_length=20), blank=True, default=list, size=None
                    ),
                ),
                ("changed_at", models.DateTimeField(auto_now=True)),
            ],
            options={
                "ordering": ["endpoint"],
            },
        ),
        migrations.CreateModel(
            name="HourlyRefusals",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False)),
                ("hour", models.DateTimeField(db_index=True)),
                ("code", models.CharField(max_length=50)),
                ("refusals", models.PositiveBigIntegerField()),
            ],
        ),
        migrations.CreateModel(
            name="HourlyTotal",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False)),
                ("hour", models.DateTimeField(db_index=True)),
                ("outcome", models.CharField(max_length=10)),
                ("requests", models.PositiveBigIntegerField()),
                ("prompt_tokens", models.PositiveBigIntegerField(default=0)),
                ("completion_tokens", models.PositiveBigIntegerField(default=0)),
                ("cost_micropoints", models.PositiveBigIntegerField(default=0)),
            ],
        ),
        migrations.CreateModel(
            name="HourlyUsage",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False)),
                ("hour", models.DateTimeField(db_index=True)),
                ("endpoint", models.CharField(max_length=100)),
                ("model", models.CharField(blank=True, max_length=200)),
                ("outcome", models.CharField(max_length=10)),
                ("requests", models.PositiveBigIntegerField()),
                ("prompt_tokens", models.PositiveBigIntegerField()),
                ("completion_tokens", models.PositiveBigIntegerField()),
                ("cost_micropoints", models.PositiveBigIntegerField()),
            ],
        ),
        migrations.CreateModel(
            name="KeySecret",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False)),
                ("digest", models.BinaryField(max_length=32, unique=True)),
                ("pepper_id", models.CharField(max_length=20)),
                ("last_four", models.CharField(max_length=4)),
                ("is_imported", models.BooleanField(default=False)),
                ("expires_at", models.DateTimeField(null=True)),
                (
                    "created_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False),
                ),
            ],
        ),
        migrations.CreateModel(
            name="LateHour",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False)),
                ("hour", models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name="Leader",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False)),
                ("is_app", models.BooleanField()),
                ("subject_id", models.CharField(max_length=24)),
                ("requests", models.PositiveBigIntegerField()),
                ("tokens", models.PositiveBigIntegerField()),
                ("cost_micropoints", models.PositiveBigIntegerField()),
                ("is_of_all", models.BooleanField()),
            ],
        ),
        migrations.CreateModel(
            name="Leaderboard",
            fields=[
                ("span", models.CharField(max_length=4, primary_key=True, serialize=False)),
                ("since", models.DateTimeField()),
                ("until", models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name="Membership",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False)),
                (
                    "created_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Reconciliation",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False)),
                ("at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("limits", models.PositiveIntegerField()),
                ("drifted", models.PositiveIntegerField()),
                ("seconds", models.FloatField()),
            ],
            options={
                "ordering": ["-pk"],
            },
        ),
        migrations.CreateModel(
            name="Refusal",
            fields=[
                ("id", models.CharField(max_length=24, primary_key=True, serialize=False)),
                ("endpoint", models.CharField(blank=True, max_length=100)),
                ("status", models.PositiveSmallIntegerField()),
                ("code", models.CharField(max_length=50)),
                ("message", models.CharField(max_length=1000)),
                ("requested", models.JSONField(null=True)),
                ("limits", models.JSONField(null=True)),
                ("refused_by", models.BigIntegerField(null=True)),
                ("sample_weight", models.PositiveIntegerField(default=1)),
                ("client_address", models.GenericIPAddressField(null=True)),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
        ),
        migrations.CreateModel(
            name="Reservation",
            fields=[
                ("id", models.CharField(max_length=24, primary_key=True, serialize=False)),
                ("server_id", models.CharField(max_length=24)),
                ("endpoint", models.CharField(max_length=100)),
                ("model", models.CharField(blank=True, max_length=200)),
                ("prompt_tokens", models.PositiveIntegerField()),
                ("prompt_micropoints", models.PositiveBigIntegerField()),
                ("prompt_price", models.PositiveBigIntegerField(db_default=0)),
                ("completion_price", models.PositiveBigIntegerField(db_default=0)),
                ("limits_seen", models.JSONField(null=True)),
                (
                    "limit_ids",
                    django.contrib.postgres.fields.ArrayField(base_field=models.BigIntegerField(), size=None),
                ),
                ("amounts", django.contrib.postgres.fields.ArrayField(base_field=models.BigIntegerField(), size=None)),
                (
                    "period_starts",
                    django.contrib.postgres.fields.ArrayField(base_field=models.DateTimeField(), size=None),
                ),
                ("admitted_at", models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name="RollupWatermark",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False)),
                ("until", models.DateTimeField(null=True)),
            ],
        ),
        migrations.CreateModel(
            name="ServerProcess",
            fields=[
                ("id", models.CharField(max_length=24, primary_key=True, serialize=False)),
                ("host", models.CharField(blank=True, db_default="", max_length=200)),
                ("pid", models.PositiveIntegerField(db_default=0)),
                ("started_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("acknowledged_call", models.BigIntegerField(db_default=0)),
                ("heartbeat_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
        ),
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
            name="Team",
            fields=[
                (
                    "id",
                    apikeys.teams.ObjectIdField(
                        default=apikeys.object_ids.new_object_id,
                        editable=False,
                        max_length=24,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("name", models.CharField(max_length=100, unique=True)),
                ("disabled_at", models.DateTimeField(blank=True, null=True)),
                (
                    "created_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False),
                ),
            ],
            options={
                "ordering": ["name"],
            },
        ),
        migrations.CreateModel(
            name="UsageRecord",
            fields=[
                ("id", models.CharField(max_length=24, primary_key=True, serialize=False)),
                ("endpoint", models.CharField(max_length=100)),
                ("model", models.CharField(blank=True, max_length=200)),
                ("prompt_tokens", models.PositiveIntegerField(default=0)),
                ("completion_tokens", models.PositiveIntegerField(default=0)),
                ("token_source", models.CharField(blank=True, max_length=10)),
                ("cost_micropoints", models.PositiveBigIntegerField(default=0)),
                ("prompt_price", models.PositiveBigIntegerField(db_default=0)),
                ("completion_price", models.PositiveBigIntegerField(db_default=0)),
                ("limits", models.JSONField(null=True)),
                ("charges", models.JSONField(null=True)),
                ("status", models.PositiveSmallIntegerField()),
                ("outcome", models.CharField(max_length=10)),
                ("time_to_first_byte_ms", models.PositiveIntegerField(null=True)),
                ("duration_ms", models.PositiveIntegerField()),
                ("client_address", models.GenericIPAddressField(null=True)),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
        ),
        migrations.CreateModel(
            name="Webhook",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False)),
                ("url", models.CharField(max_length=500)),
                ("encrypted_secret", models.BinaryField()),
                ("secret_made_at", models.DateTimeField(editable=False)),
                ("disabled_at", models.DateTimeField(blank=True, null=True)),
                ("last_success_at", models.DateTimeField(editable=False, null=True)),
                ("last_failure_at", models.DateTimeField(editable=False, null=True)),
                ("last_failure", models.CharField(blank=True, editable=False, max_length=200)),
                (
                    "created_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False),
                ),
            ],
            options={
                "ordering": ["pk"],
            },
        ),
        migrations.CreateModel(
            name="KeyActivity",
            fields=[
                (
                    "key",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="activity",
                        serialize=False,
                        to="apikeys.apikey",
                    ),
                ),
                ("last_used_at", models.DateTimeField()),
                ("last_used_from", models.GenericIPAddressField(null=True)),
            ],
        ),
    ]
