"""Usage by the hour, rolled up from the ledger, and a trigger that notes what the ledger gets late."""

import django.db.models.deletion
from django.db import migrations, models

DO = """
INSERT INTO apikeys_rolledup (id) VALUES (1);

-- A note for each time, not one for each hour: writers of the ledger must never wait for one another, or for whoever
-- reads and deletes the notes.
CREATE FUNCTION note_late_hours() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO apikeys_latehour (hour)
    SELECT DISTINCT date_trunc('hour', written.created_at, 'UTC') FROM written
    WHERE written.created_at < clock_timestamp() - interval '5 minutes';
    RETURN NULL;
END $$;
CREATE TRIGGER note_late_hours AFTER INSERT ON apikeys_usagerecord
    REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION note_late_hours();
"""

UNDO = """
DROP TRIGGER note_late_hours ON apikeys_usagerecord;
DROP FUNCTION note_late_hours();
DELETE FROM apikeys_rolledup;
"""


class Migration(migrations.Migration):
    dependencies = [
        ("apikeys", "0012_rights"),
        ("chat", "0004_message_cut"),
    ]

    operations = [
        migrations.CreateModel(
            name="LateHour",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("hour", models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name="Leaderboard",
            fields=[
                (
                    "span",
                    models.CharField(
                        choices=[("24h", "24 hours"), ("7d", "7 days"), ("30d", "30 days"), ("12m", "12 months")],
                        max_length=4,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("since", models.DateTimeField()),
                ("until", models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name="RolledUp",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("until", models.DateTimeField(null=True)),
            ],
            options={
                "verbose_name_plural": "rolled up",
                "constraints": [models.CheckConstraint(condition=models.Q(("id", 1)), name="rolled_up_once")],
            },
        ),
        migrations.CreateModel(
            name="HourlyRefusals",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("hour", models.DateTimeField(db_index=True, help_text="Its begin.")),
                ("code", models.CharField(max_length=50)),
                ("refusals", models.PositiveBigIntegerField()),
                (
                    "key",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="apikeys.apikey",
                    ),
                ),
                (
                    "team",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="apikeys.team",
                    ),
                ),
            ],
            options={
                "indexes": [models.Index(fields=["key", "hour"], name="hourly_refusals_by_key")],
            },
        ),
        migrations.CreateModel(
            name="HourlyTotal",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("hour", models.DateTimeField(db_index=True, help_text="Its begin.")),
                (
                    "ending",
                    models.CharField(
                        choices=[
                            ("complete", "complete"),
                            ("cancelled", "cancelled by the caller"),
                            ("cut", "cut by an administrator"),
                            ("failed", "failed"),
                            ("lost", "lost with its server"),
                            ("refused", "refused"),
                        ],
                        max_length=10,
                    ),
                ),
                ("requests", models.PositiveBigIntegerField()),
                ("prompt_tokens", models.PositiveBigIntegerField(default=0)),
                ("completion_tokens", models.PositiveBigIntegerField(default=0)),
                ("cost_micropoints", models.PositiveBigIntegerField(default=0)),
                (
                    "team",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="apikeys.team",
                    ),
                ),
            ],
            options={
                "indexes": [models.Index(fields=["team", "hour"], name="hourly_total_by_team")],
            },
        ),
        migrations.CreateModel(
            name="HourlyUsage",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("hour", models.DateTimeField(db_index=True, help_text="Its begin.")),
                ("endpoint", models.CharField(max_length=100)),
                ("model", models.CharField(blank=True, max_length=200)),
                (
                    "ending",
                    models.CharField(
                        choices=[
                            ("complete", "complete"),
                            ("cancelled", "cancelled by the caller"),
                            ("cut", "cut by an administrator"),
                            ("failed", "failed"),
                            ("lost", "lost with its server"),
                        ],
                        max_length=10,
                    ),
                ),
                ("requests", models.PositiveBigIntegerField()),
                ("prompt_tokens", models.PositiveBigIntegerField()),
                ("completion_tokens", models.PositiveBigIntegerField()),
                ("cost_micropoints", models.PositiveBigIntegerField()),
                (
                    "app",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="chat.app",
                    ),
                ),
                (
                    "key",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="apikeys.apikey",
                    ),
                ),
                (
                    "team",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="apikeys.team",
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(fields=["team", "hour"], name="hourly_usage_by_team"),
                    models.Index(fields=["key", "hour"], name="hourly_usage_by_key"),
                ],
            },
        ),
        migrations.CreateModel(
            name="Leader",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("is_app", models.BooleanField()),
                ("subject_id", models.CharField(help_text="Of the key or the app.", max_length=24)),
                ("requests", models.PositiveBigIntegerField()),
                ("tokens", models.PositiveBigIntegerField()),
                ("cost_micropoints", models.PositiveBigIntegerField()),
                ("is_of_all", models.BooleanField(help_text="Whether it is among the first ten of all teams.")),
                (
                    "team",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="apikeys.team",
                    ),
                ),
                (
                    "board",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="leaders",
                        to="apikeys.leaderboard",
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(fields=["board", "team"], name="leader_by_team"),
                    models.Index(condition=models.Q(("is_of_all", True)), fields=["board"], name="leader_of_all"),
                ],
            },
        ),
        migrations.AddIndex(
            model_name="delivery",
            index=models.Index(
                condition=models.Q(("given_up_at__isnull", False)), fields=["alert"], name="delivery_given_up"
            ),
        ),
        migrations.AddIndex(
            model_name="counter",
            index=models.Index(condition=models.Q(("alerted__gte", 2)), fields=["limit"], name="counter_alerted"),
        ),
        migrations.RunSQL(DO, UNDO),
    ]
