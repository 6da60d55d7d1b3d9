"""An index for what each list and each request asks for, and none that is only written to."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("apikeys", "0010_deliveries"),
        ("chat", "0003_price"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.RunSQL(
            "DROP INDEX apikeys_usagerecord_id_e5ab9f34_like",
            "CREATE INDEX apikeys_usagerecord_id_e5ab9f34_like ON apikeys_usagerecord (id varchar_pattern_ops)",
        ),
        migrations.RunSQL(
            "DROP INDEX apikeys_reservation_id_4d1bbd45_like",
            "CREATE INDEX apikeys_reservation_id_4d1bbd45_like ON apikeys_reservation (id varchar_pattern_ops)",
        ),
        migrations.AlterField(
            model_name="apikey",
            name="team",
            field=models.ForeignKey(
                db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name="api_keys", to="apikeys.team"
            ),
        ),
        migrations.AlterField(
            model_name="reservation",
            name="app",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.DO_NOTHING,
                related_name="+",
                to="chat.app",
            ),
        ),
        migrations.AlterField(
            model_name="reservation",
            name="key",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                on_delete=django.db.models.deletion.DO_NOTHING,
                related_name="+",
                to="apikeys.apikey",
            ),
        ),
        migrations.AlterField(
            model_name="reservation",
            name="team",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                on_delete=django.db.models.deletion.DO_NOTHING,
                related_name="+",
                to="apikeys.team",
            ),
        ),
        migrations.AlterField(
            model_name="usagerecord",
            name="app",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.DO_NOTHING,
                related_name="+",
                to="chat.app",
            ),
        ),
        migrations.AlterField(
            model_name="usagerecord",
            name="key",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                on_delete=django.db.models.deletion.DO_NOTHING,
                related_name="usage",
                to="apikeys.apikey",
            ),
        ),
        migrations.AlterField(
            model_name="usagerecord",
            name="team",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                on_delete=django.db.models.deletion.DO_NOTHING,
                related_name="+",
                to="apikeys.team",
            ),
        ),
        migrations.AddIndex(
            model_name="apikey",
            index=models.Index(fields=["-created_at", "-id"], name="apikey_newest"),
        ),
        migrations.AddIndex(
            model_name="apikey",
            index=models.Index(fields=["team", "-created_at", "-id"], name="apikey_newest_of_team"),
        ),
        migrations.AddIndex(
            model_name="keysecret",
            index=models.Index(fields=["last_four"], name="keysecret_last_four"),
        ),
        migrations.AddIndex(
            model_name="usagerecord",
            index=models.Index(fields=["app", "-created_at"], name="usage_by_app"),
        ),
        migrations.AddIndex(
            model_name="usagerecord",
            index=models.Index(
                condition=models.Q(("ending", "complete"), _negated=True),
                fields=["ending", "-id"],
                name="usage_not_complete",
            ),
        ),
    ]
